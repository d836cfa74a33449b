"""Where what a name, a parameter or an attribute is set to is read: of a name that is set anew, only as far as that."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .code import Code
from .files import File, Function
from .names import Scope, parameters

_LATER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.GeneratorExp, ast.ClassDef)  # run when they are asked


def reads_of_name(code: Code, file: File, target: ast.AST, name: str = "") -> Iterator[tuple[File, ast.AST]]:
    """Where a name is read that is bound at a node, in its scope and in those within."""
    name = name or target.id  # type: ignore[attr-defined]
    scope = next(file.scopes[each] for each in (target, *file.ancestors(target)) if each in file.scopes)
    owner = scope.owner(name) or scope
    yield from _reads(file, owner, target, name)
    if owner.parent is None:
        yield from (at for other in code.files.holding(name) for at in _imported(code, file, other, name))


def reads_of_parameter(home: File, function: Function, name: str) -> Iterator[tuple[File, ast.AST]]:
    """Where a function reads a parameter."""
    target = next(each for each in parameters(function.args) if each.arg == name)
    yield from _reads(home, home.scopes[function], target, name)


def _reads(file: File, owner: Scope, target: ast.AST, name: str) -> Iterator[tuple[File, ast.AST]]:
    """Where a file reads a name of a scope as it is set at a node."""
    names = (each for each in file.uses.get(name, ()) if isinstance(each, ast.Name))
    for node in (each for each in names if isinstance(each.ctx, ast.Load)):
        if file.around(node).owner(name) is owner and not _is_set_between(file, target, node):
            yield file, node


def _is_set_between(file: File, target: ast.AST, node: ast.Name) -> bool:
    """Whether a name is sure to be set anew where it is read, each time after a target set it."""
    if any(node.id in each.elsewhere for each in file.scopes.values()):
        return False
    holders: set[ast.AST] = {target, *file.ancestors(target)}
    inner: ast.AST = node
    for outer in file.ancestors(node):
        for block in (each for each in vars(outer).values() if isinstance(each, list) and inner in each):
            place = block.index(inner)
            for at in range(place - 1, -1, -1):
                if _sets(block[at], node.id):
                    return not holders & {*block[at : place + 1]}
            if isinstance(outer, (ast.For, ast.AsyncFor)) and block is outer.body and _binds(outer.target, node.id):
                return outer.target not in holders and not holders & {*block[: place + 1]}
        if isinstance(outer, _LATER):
            return False
        inner = outer
    return False


def _sets(statement: ast.AST, name: str) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) and statement.value is not None else targets
    return any(_binds(each, name) for each in targets)


def _binds(target: ast.AST, name: str) -> bool:
    inner = target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
    return any(isinstance(each, ast.Name) and each.id == name for each in inner)


def _imported(code: Code, file: File, other: File, name: str) -> Iterator[tuple[File, ast.AST]]:
    for alias in other.nodes if other is not file else ():
        if (
            isinstance(alias, ast.ImportFrom)
            and code.files.imported("." * alias.level + (alias.module or ""), other.path) == file.path
        ):
            for each in alias.names:
                if each.name == name:
                    yield from reads_of_name(code, other, each, each.asname or each.name)


def reads_of_attribute(code: Code, file: File, owner: ast.ClassDef | None, name: str) -> Iterator[tuple[File, ast.AST]]:
    """Where an attribute is read: in its class, and in scopes of files that mention the class."""
    words = {owner.name, *(each.name for each in code.subclasses(owner))} if owner is not None else set[str]()
    for other in code.files.holding(name):
        for node in other.uses.get(name, ()):
            is_read = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
            inside = next((each for each in other.ancestors(node) if isinstance(each, ast.ClassDef)), None)
            is_self = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
            is_own = inside is not None and (inside is owner or inside.name in words)
            is_near = is_own if is_self else owner is None or bool(words & other.uses.keys())
            if is_read and is_near and (other is file or owner is not None):
                yield other, node
