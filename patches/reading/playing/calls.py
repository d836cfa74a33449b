"""What calls of functions and classes of the tree give."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..names import defaults_of, parameters
from ..nodes import yields
from ..records import is_data_class
from ..values import Place
from .kinds import Class, Function, Opaque, Returned, Scope, Thing, kinds_of
from .names import default_of, field_settings, is_whole

if TYPE_CHECKING:
    from .walk import Walk


def call(walk: Walk, callee: Any, placed: list[Any], named: dict[str, Any], at: Place) -> Any:
    """What a call gives."""
    if isinstance(callee, Thing):
        found = walk.code.method(callee.cls.path, callee.cls.node, "__call__")
        callee = Function(found[0], found[2], None, callee) if found is not None else callee
    world = walk.world
    hook = world.follow if isinstance(callee, Function) else world.make if isinstance(callee, Class) else world.called
    walk.calls.append(at.node)
    try:
        return hook(callee, placed, named, at)
    finally:
        walk.calls.pop()


def entered(walk: Walk, function: Function, placed: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """What a function of the tree gives, gone through."""
    node, home = function.node, walk.module(function.path)
    scope = Scope(home.file, node, function.around)
    _arguments(walk, scope, function, placed, named)
    walk.depth += 1
    try:
        if isinstance(node, ast.Lambda):
            return walk.value(scope, node.body)
        if "contextmanager" in kinds_of(node):
            return Opaque(why=f"what {node.name} is a context of", at=Place(scope.file, node))
        run = walk.block(scope, node.body)
        if yields(node):
            return walk.world.display(iter, _until_returned(run))
        for _ in run:
            pass
    except Returned as returned:
        return returned.value
    finally:
        walk.depth -= 1
    return None


def _until_returned(run: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from run
    except Returned:
        return


def _arguments(walk: Walk, scope: Scope, function: Function, placed: Sequence[Any], named: Mapping[str, Any]) -> None:
    """Bind a call's arguments to a function's parameters."""
    own, rest, at = function.node.args, dict(named), Place(scope.file, function.node)
    given = [*([function.owner] if function.owner is not None else []), *placed]
    order, defaults = [*own.posonlyargs, *own.args], defaults_of(own)
    outer = function.around or walk.module(function.path)
    scope.names.update(zip((each.arg for each in order), given, strict=False))
    if own.vararg is not None:
        scope.names[own.vararg.arg] = walk.world.display(tuple, iter(given[len(order) :]))
    elif len(given) > len(order):
        walk.strange("a call with more arguments than there are parameters", at)
    for each in parameters(own):
        if each.arg in rest:
            scope.names[each.arg] = rest.pop(each.arg)
        elif each.arg not in scope.names:
            is_told = each in defaults
            missing = walk.strange(f"a call without {each.arg}", at) if not is_told else None
            scope.names[each.arg] = walk.value(outer, defaults[each]) if is_told else missing
    if own.kwarg is not None:
        scope.names[own.kwarg.arg] = rest
    elif rest:
        walk.strange("a call with arguments for which there are no parameters", at)


def filled(
    walk: Walk, thing: Thing, placed: Sequence[Any], named: Mapping[str, Any], at: Place, prefix: str = ""
) -> Thing:
    """An object, as its constructor leaves it; `prefix` is how the fields of a data class are come by."""
    cls = thing.cls
    setup = walk.code.method(cls.path, cls.node, "__init__")
    if setup is not None:
        walk.call(Function(setup[0], setup[2], None, thing), list(placed), dict(named), at)
        return thing
    thing.is_data = is_data_class(walk.code, cls.path, cls.node)
    fields = dict(_fields(walk, cls)) if thing.is_data else {}
    told = {name: field_settings(value) for name, (_, value) in fields.items()}
    taken = [name for name in fields if getattr(told[name].get("init"), "value", True) is not False]
    rest = dict(zip(taken, placed, strict=False)) | dict(named)
    for name, (path, value) in fields.items():
        if name in taken and name in rest:
            thing.own[name] = rest.pop(name)
        elif value is not None and (not told[name] or told[name].keys() & {"default", "default_factory"}):
            made = default_of(walk, walk.module(path), value, at)
            thing.own[name] = walk.world.told(f"{prefix or cls.node.name}.{name}", made, value)
        elif name in taken:
            thing.own[name] = walk.world.lacking(thing, name, at)
    if (rest or len(placed) > len(taken)) and is_whole(walk, cls):
        walk.strange("a call with arguments for which there are no fields", at)
    after = walk.code.method(cls.path, cls.node, "__post_init__")
    if after is not None:
        walk.call(Function(after[0], after[2], None, thing), [], {}, at)
    return thing


def _fields(walk: Walk, cls: Class) -> Iterator[tuple[str, tuple[str, ast.expr | None]]]:
    """The fields of a data class: the module of each, and what it is unless it is given."""
    for path, node in reversed(walk.code.bases(cls.path, cls.node)):
        for each in node.body:
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                yield each.target.id, (path, each.value)
