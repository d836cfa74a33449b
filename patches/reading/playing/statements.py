"""What statements do, and what targets come to stand for."""

from __future__ import annotations

import ast
from collections.abc import Generator, Iterator, Sequence
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..classes import is_declared, names_of
from ..values import Place
from .cases import match
from .expressions import evaluated, operated
from .kinds import Class, Function, Left, Library, Opaque, Raised, Returned, Scope, Stuck, Thing
from .names import imported

if TYPE_CHECKING:
    from .walk import Walk

Loop = ast.For | ast.AsyncFor | ast.While


def block(walk: Walk, scope: Scope, statements: Sequence[ast.stmt]) -> Iterator[Any]:
    """Run statements; gives what they yield."""
    for each in statements:
        walk.spend(scope, each)
        if each not in walk.before:
            walk.before[each] = scope, dict(scope.names)
        yield from _statement(walk, scope, each)
        if walk.is_over and scope.is_own:
            raise Returned(None)


def _statement(walk: Walk, scope: Scope, node: ast.stmt) -> Iterator[Any]:
    match node:
        case ast.Expr(value=ast.Yield(value=value)):
            yield walk.value(scope, value) if value is not None else None
        case ast.Expr(value=ast.YieldFrom(value=value)):
            yield from walk.world.items(walk.value(scope, value), Place(scope.file, value))
        case ast.Expr():
            walk.value(scope, node.value)
        case ast.Assign():
            value = walk.value(scope, node.value)
            for target in node.targets:
                walk.bind(scope, target, value)
        case ast.AnnAssign(value=ast.expr() as value):
            walk.bind(scope, node.target, walk.value(scope, value))
        case ast.AugAssign():
            _augmented(walk, scope, node)
        case ast.If():
            holds = walk.world.truth(walk.value(scope, node.test), node)
            taken = node.body if holds else node.orelse
            yield from walk.world.perhaps(scope, node) if holds is None else walk.block(scope, taken)
        case ast.For() | ast.AsyncFor():
            yield from _for(walk, scope, node)
        case ast.Match():
            yield from match(walk, scope, node)
        case ast.While():
            yield from _while(walk, scope, node)
        case ast.Return(value=value):
            raise Returned(walk.value(scope, value) if value is not None else None)
        case ast.Break() | ast.Continue():
            raise Left(goes_on=isinstance(node, ast.Continue))
        case ast.Raise():
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            raise Raised(getattr(error, "id", getattr(error, "attr", "Exception")))
        case ast.Assert():
            if not walk.world.is_lenient and walk.world.truth(walk.value(scope, node.test), node) is False:
                raise Raised("AssertionError")
        case ast.With() | ast.AsyncWith():
            for item in node.items:
                opened = _opened(walk, walk.value(scope, item.context_expr), Place(scope.file, item.context_expr))
                if item.optional_vars is not None:
                    walk.bind(scope, item.optional_vars, opened)
            yield from walk.block(scope, node.body)
        case ast.Try() | ast.TryStar():
            yield from _try(walk, scope, node)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            scope.names[node.name] = walk.world.defined(Function(scope.file.path, node, scope))
        case ast.ClassDef():
            scope.names[node.name] = Class(scope.file.path, node)
        case ast.Import() | ast.ImportFrom():
            for alias in node.names:
                made = imported(walk, scope.file, node, alias)
                if isinstance(made, Library) or not walk.world.is_lenient:  # else another run may begin there
                    scope.names[alias.asname or alias.name.split(".")[0]] = made
        case ast.Delete():
            for target in node.targets:
                _delete(walk, scope, target)
        case ast.Pass() | ast.AnnAssign() | ast.Global() | ast.Nonlocal():
            pass
        case _:
            walk.strange("a statement that is not understood", Place(scope.file, node))


def _for(walk: Walk, scope: Scope, node: ast.For | ast.AsyncFor) -> Iterator[Any]:
    source = walk.value(scope, node.iter)
    if walk.world.is_open(source):
        yield from walk.world.perhaps(scope, node, source)
    else:
        for each in walk.world.items(source, Place(scope.file, node.iter)):
            walk.bind(scope, node.target, each)
            if (yield from _breaks(walk, scope, node)):
                return
    yield from walk.block(scope, node.orelse)


def _while(walk: Walk, scope: Scope, node: ast.While) -> Iterator[Any]:
    while True:
        holds = walk.world.truth(walk.value(scope, node.test), node)
        if not holds:
            yield from walk.world.perhaps(scope, node) if holds is None else ()
            break
        if (yield from _breaks(walk, scope, node)):
            return
    yield from walk.block(scope, node.orelse)


def _breaks(walk: Walk, scope: Scope, node: Loop) -> Generator[Any, None, bool]:
    """Run the body of a loop once; says whether it breaks."""
    try:
        yield from walk.block(scope, node.body)
    except Left as left:
        return not left.goes_on
    return False


def _opened(walk: Walk, value: Any, at: Place) -> Any:
    """What `with` gives of something."""
    opens = isinstance(value, Thing) and walk.code.method(value.cls.path, value.cls.node, "__enter__")
    return walk.call(walk.attribute(value, "__enter__", at), [], {}, at) if opens else value


def _try(walk: Walk, scope: Scope, node: ast.Try | ast.TryStar) -> Iterator[Any]:
    try:
        yield from walk.block(scope, node.body)
    except Raised as raised:
        handler = next((each for each in node.handlers if _handles(each, raised.kind)), None)
        if handler is None:
            raise
        if handler.name:
            scope.names[handler.name] = Opaque(why="an error", at=Place(scope.file, handler))
        yield from walk.block(scope, handler.body)
    else:
        yield from walk.block(scope, node.orelse)
    finally:
        over, walk.is_over = walk.is_over, False
        for _ in walk.block(scope, node.finalbody):
            pass
        walk.is_over = over


def _handles(handler: ast.ExceptHandler, kind: str) -> bool:
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {getattr(each, "id", getattr(each, "attr", "")) for each in kinds}
    return bool(names & {kind, "Exception", "BaseException"})


def _delete(walk: Walk, scope: Scope, target: ast.expr) -> None:
    if isinstance(target, ast.Name):
        scope.names.pop(target.id, None)
    elif isinstance(target, ast.Subscript):
        owner, index = walk.value(scope, target.value), walk.value(scope, target.slice)
        walk.world.delete_item(owner, index, Place(scope.file, target))


def _augmented(walk: Walk, scope: Scope, node: ast.AugAssign) -> None:
    old, change = evaluated(walk, scope, _loaded(node.target)), walk.value(scope, node.value)
    made = operated(walk, node.op, old, change, Place(scope.file, node), in_place=True)
    walk.bind(scope, node.target, made)


@lru_cache(maxsize=1024)
def _loaded(target: ast.expr) -> ast.expr:
    made = copy(target)
    made.ctx = ast.Load()  # type: ignore[attr-defined]
    return made


def bind(walk: Walk, scope: Scope, target: ast.expr, value: Any) -> None:
    """Let a target stand for a value."""
    at = Place(scope.file, target)
    match target:
        case ast.Name(id=name):
            _home(walk, scope, name)[name] = value
        case ast.Tuple(elts=targets) | ast.List(elts=targets):
            _unpack(walk, scope, targets, value)
        case ast.Starred():
            walk.bind(scope, target.value, value)
        case ast.Attribute(attr=name):
            owner = walk.value(scope, target.value)
            if not isinstance(owner, Thing):
                walk.world.set_attribute(owner, name, value, at)
            elif is_declared(owner.cls.node, "frozen"):
                raise Raised("FrozenInstanceError")
            elif name in names_of(owner.cls.node).methods and not walk.world.is_lenient:
                raise Stuck("an attribute that a method stands for is set", at)
            else:
                owner.own[name] = value
        case ast.Subscript():
            owner, index = walk.value(scope, target.value), walk.value(scope, target.slice)
            walk.world.set_item(owner, index, value, at)


def _home(walk: Walk, scope: Scope, name: str) -> dict[str, Any]:
    """The names among which one is set."""
    names = scope.file.scopes.get(scope.node)
    declared = names.elsewhere.get(name) if names is not None and names.elsewhere else None
    if declared is None:
        return scope.names
    around = scope.outer if declared == "nonlocal" else None
    while around is not None and name not in around.names:
        around = around.outer
    if around is None and not walk.world.is_shared:
        raise Stuck(f"{name} of a module is set", Place(scope.file, scope.node))
    return (around or walk.module(scope.file.path)).names


def _unpack(walk: Walk, scope: Scope, targets: Sequence[ast.expr], value: Any) -> None:
    parts = list(walk.world.unpacked(value, targets, Place(scope.file, targets[0])))
    star = next((place for place, each in enumerate(targets) if isinstance(each, ast.Starred)), None)
    if star is not None and len(parts) >= len(targets) - 1:
        end = len(parts) - (len(targets) - star - 1)
        parts = [*parts[:star], walk.world.display(list, iter(parts[star:end])), *parts[end:]]
    if len(parts) != len(targets):
        raise Raised("ValueError")
    for target, part in zip(targets, parts, strict=True):
        walk.bind(scope, target, part)
