"""The nodes of syntax trees, walked fast: contexts and operators, which stand for themselves, are left out."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import lru_cache

_LEAVES = {
    *("id", "attr", "arg", "name", "asname", "module", "level", "ctx", "op", "ops", "kind", "type_comment", "rest"),
    *("simple", "conversion", "is_async", "type_ignores", "kwd_attrs"),
}
_NONE = (ast.Constant, ast.Name, ast.alias, ast.Global, ast.Nonlocal, ast.expr_context, ast.operator, ast.cmpop)
_JUMPS = (ast.Return, ast.Raise, ast.Break, ast.Continue)
_fields: dict[type[ast.AST], tuple[str, ...]] = {}  # by kind of node, those that may hold others


def children(node: ast.AST) -> list[ast.AST]:
    """What a node directly holds, in source order."""
    found = list[ast.AST]()
    for name in _fields.get(type(node)) or _fields_of(type(node)):
        value = getattr(node, name, None)
        if value.__class__ is list:
            found += [each for each in value if each is not None]
        elif value is not None:
            found.append(value)
    return found


def _fields_of(kind: type[ast.AST]) -> tuple[str, ...]:
    if kind not in _fields:
        is_leaf = issubclass(kind, (*_NONE, ast.MatchSingleton))
        _fields[kind] = () if is_leaf else tuple(name for name in kind._fields if name not in _LEAVES)
    return _fields[kind]


@lru_cache(maxsize=2048)
def walk(node: ast.AST) -> Sequence[ast.AST]:
    """A node and all that it holds, the outer ones first."""
    found = [node]
    for each in found:
        found += children(each)
    return found


def expression(text: str) -> ast.expr:
    """What a text says that may go over several lines, as it does in brackets."""
    return ast.parse(f"({text}\n)", mode="eval").body


def at_once(node: ast.AST) -> Iterator[ast.AST]:
    """What runs as a statement does, or is named there: the bodies of functions are left out."""
    pending = [node]
    while pending:
        each = pending.pop()
        yield each
        is_function = isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        later = [each.body] if isinstance(each, ast.Lambda) else getattr(each, "body", []) if is_function else []
        pending += [inner for inner in children(each) if inner not in later]


def jumps(statements: Sequence[ast.stmt]) -> bool:
    """Whether something leaves its block, or its function, in some statements."""
    return any(isinstance(each, _JUMPS) for statement in statements for each in walk(statement))


@lru_cache(maxsize=1024)
def yields(node: ast.AST) -> bool:
    """Whether a function is a generator."""
    pending = list(getattr(node, "body", ())) if not isinstance(node, ast.Lambda) else []
    while pending:
        each = pending.pop()
        if isinstance(each, (ast.Yield, ast.YieldFrom)):
            return True
        if not isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.GeneratorExp)):
            pending += ast.iter_child_nodes(each)
    return False
