"""What a change does to the rest of its tree: names, imports and calls that held before hold after it (law 11).

Each task sees to what it changes; here it is asked, of all of them alike, whether what they made still runs: every
name is bound, every import finds what it names without going round in a circle, every call fits its function.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Sequence
from functools import lru_cache

from .reading.files import File, Files, Function
from .reading.names import Scope, parameters
from .reading.nodes import at_once, walk
from .reading.updates import calls_of
from .task import Site
from .tree import SourceTree

_DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_OF_MODULES = {"__file__", "__name__", "__doc__", "__package__", "__spec__", "__path__", "__builtins__", "__class__"}


def broken(before: SourceTree, after: SourceTree) -> Iterator[Site]:
    """What held in a tree and does not hold in a changed one, where it breaks."""
    then, now = Files(before.paths, before.raw), after.code.files
    changed = [path for path in now.paths if then.raw(path) is not now.raw(path) and then.raw(path) != now.raw(path)]
    for path in changed:
        old, new = then.file(path), now.file(path)
        if old is None or new is None:
            continue
        source = after.source(path)
        known = {name for name, _ in _unbound(old)}
        for name, node in _unbound(new):
            if name not in known:
                yield source.site(node, f"use of {name}, which nothing binds here")
        known = {name for name, _ in _too_early(old)}
        for name, node in _too_early(new):
            if name not in known:
                yield source.site(node, f"use of {name} before it is defined")
        for dotted, name, statement in _imports(new):
            if (dotted, name) not in {each[:2] for each in _imports(old)} and not _is_found(now, new, dotted, name):
                yield source.site(statement, f"import of {name} from {dotted}, which is not there")
        if _goes_round(now, path) and not _goes_round(then, path):
            yield source.site(new.module.body[0], "imports that would go round in a circle")
        for function in _refitted(old, new):
            yield from _misfits(after, function)
    for file in filter(None, map(now.file, now.paths)):
        for dotted, name, statement in _imports(file):
            target = now.imported(dotted, file.path)
            if target in changed and not _is_found(now, file, dotted, name) and _is_found(then, file, dotted, name):
                yield after.source(file.path).site(
                    statement, f"import of {name} from {dotted}, which is not there any more"
                )


@lru_cache(maxsize=512)
def _unbound(file: File) -> Sequence[tuple[str, ast.Name]]:
    """The names that a module reads and nothing in it binds."""
    found = list[tuple[str, ast.Name]]()
    if file.scope.is_open:
        return found
    for node in walk(file.module):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and not hasattr(builtins, node.id):
            scope = _scope(file, node)
            is_open = scope.is_open or scope.owner(node.id) is not None
            if not is_open and node.id not in file.scope.bound and node.id not in _OF_MODULES:
                found.append((node.id, node))
    return found


@lru_cache(maxsize=512)
def _too_early(file: File) -> Sequence[tuple[str, ast.Name]]:
    """The names that a module asks for as it is imported, and binds only further down."""
    found = list[tuple[str, ast.Name]]()
    lines = {each: line for line, top in enumerate(file.module.body) for each in walk(top)}
    is_late = "annotations" in file.scope.bound  # imported from __future__
    hints = {
        h for each in walk(file.module) for h in (getattr(each, "annotation", 0), getattr(each, "returns", 0)) if h
    }
    unread = {each for hint in hints if is_late for each in walk(hint)}
    for line, top in enumerate(file.module.body):
        for node in at_once(top):
            bound = file.scope.bound.get(node.id, ()) if isinstance(node, ast.Name) and node not in unread else ()
            if isinstance(node, ast.Name) and bound and all(lines.get(each, -1) > line for each in bound):
                is_known = file.scope.is_open or hasattr(builtins, node.id)
                if not is_known and _scope(file, node).owner(node.id) is file.scope:
                    found.append((node.id, node))
    return found


def _scope(file: File, node: ast.AST) -> Scope:
    return next(file.scopes[each] for each in file.ancestors(node) if each in file.scopes)


@lru_cache(maxsize=512)
def _imports(file: File) -> Sequence[tuple[str, str, ast.stmt]]:
    """The names that a module imports at its top, and from where."""
    nodes = (node for node in _top(file) if isinstance(node, ast.ImportFrom))
    return [("." * node.level + (node.module or ""), each.name, node) for node in nodes for each in node.names]


def _top(file: File) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, those for type checkers left out."""
    pending: list[ast.AST] = [*file.module.body]
    while pending:
        node = pending.pop()
        is_hint = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        if isinstance(node, ast.stmt):
            yield node
        if not is_hint and not isinstance(node, (*_DEFINED, ast.expr)):
            pending += [each for each in ast.iter_child_nodes(node) if isinstance(each, (ast.stmt, ast.ExceptHandler))]


def _is_found(files: Files, file: File, dotted: str, name: str) -> bool:
    """Whether a name that is imported from the tree is there; others are taken to be."""
    path = files.imported(dotted, file.path)
    module = files.file(path) if path is not None else None
    if path is None or module is None:
        return path is not None or not dotted.startswith(".")
    is_module = path.endswith("__init__.py") and files.imported(f".{name}", path) is not None
    return (
        name in ("*", "__getattr__") or module.scope.is_taken(name) or is_module or "__getattr__" in module.scope.bound
    )


def _goes_round(files: Files, path: str) -> bool:
    """Whether a module imports itself, by way of others."""
    pending, seen = [path], set[str]()
    while pending:
        file = files.file(pending.pop())
        for dotted in {dotted for dotted, _, _ in _imports(file)} if file is not None else ():
            target = files.imported(dotted, file.path)  # type: ignore[union-attr]
            if target == path:
                return True
            if target is not None and target not in seen:
                seen.add(target)
                pending.append(target)
    return False


def _refitted(old: File, new: File) -> Iterator[Function]:
    """The functions of a module that take other arguments than before."""
    known = {_name(old, node): ast.dump(node.args) for node, _ in old.functions}
    for node, _ in new.functions:
        if known.get(_name(new, node), "") not in ("", ast.dump(node.args)):
            yield node


def _name(file: File, node: Function) -> str:
    around = [each.name for each in file.ancestors(node) if isinstance(each, _DEFINED)]
    return ".".join([node.name, *around])


def _misfits(tree: SourceTree, function: Function) -> Iterator[Site]:
    """The calls of a function whose arguments it does not take."""
    for reading, call in calls_of(tree.code, function):
        problem = _misfit(function, call, is_method=_is_bound(reading.file, function, call))
        if problem:
            yield tree.source(reading.file.path).site(call, f"call of {function.name}, {problem}")


def _is_bound(file: File, function: Function, call: ast.Call) -> bool:
    """Whether a call gives a function its first argument by what it is called on."""
    owner = file.owner(function) if function in file.parents else None
    kinds = {getattr(each, "id", "") for each in function.decorator_list}
    first = [each.arg for each in parameters(function.args)[:1]]
    is_method = owner is not None or first in (["self"], ["cls"])
    on_class = getattr(owner, "name", "") == getattr(getattr(call.func, "value", None), "id", None)
    return is_method and "staticmethod" not in kinds and not (on_class and "classmethod" not in kinds)


def _misfit(function: Function, call: ast.Call, *, is_method: bool) -> str:
    own = function.args
    if any(isinstance(each, ast.Starred) for each in call.args) or any(each.arg is None for each in call.keywords):
        return ""
    placed = [each.arg for each in (*own.posonlyargs, *own.args)][is_method:]
    needed = placed[: len(placed) - len(own.defaults)]
    needed += [each.arg for each, default in zip(own.kwonlyargs, own.kw_defaults, strict=True) if default is None]
    named = {each.arg for each in call.keywords if each.arg is not None}
    given = set(placed[: len(call.args)]) | named
    if len(call.args) > len(placed) and own.vararg is None:
        return f"with {len(call.args)} arguments for {len(placed)} parameters"
    unknown = named - {*placed, *(each.arg for each in own.kwonlyargs)}
    if unknown and own.kwarg is None:
        return f"which has no parameter {sorted(unknown)[0]}"
    left = [name for name in needed if name not in given]
    return f"which is not given {left[0]}" if left else ""
