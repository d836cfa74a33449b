"""How a value is written at a place: by a name that stands for it there, or by the expression that computed it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..reading.frames import Env, Reading
from ..reading.values import Value


def spelled(value: Value, reading: Reading, at: ast.AST) -> str | None:
    """The text of a value in front of the statement that a node stands in; None where no text is known to mean it."""
    return next(spellings(value, reading, at), None)


def spellings(value: Value, reading: Reading, at: ast.AST) -> Iterator[str]:
    """Texts of a value there: those that stand in the node itself first, then names, then what was written before."""
    if value.op == "const" and isinstance(value.data, (bool, int, float, type(None))):
        yield _literal(value.data)
        return
    env = reading.before.get(reading.file.statement(at), {})
    names = [name for name, known in env.items() if known.key == value.key]
    inside = {node.id for node in ast.walk(at) if isinstance(node, ast.Name)}
    yield from sorted(names, key=lambda name: name not in inside)
    expressions = [(node, known) for node, known in reading.values.items() if known.key == value.key]
    for node, _ in sorted(expressions, key=lambda each: not _is_inside(reading, each[0], at)):
        if isinstance(node, ast.expr) and not isinstance(node, ast.Name) and _is_valid(reading, node, at, env):
            text = reading.file.text(node)
            yield text if "\n" not in text else ast.unparse(node)


def _literal(data: object) -> str:
    return repr(data) if data not in (float("inf"), float("-inf")) else f'float("{data}")'


def _is_inside(reading: Reading, node: ast.AST, outer: ast.AST) -> bool:
    return node is outer or any(each is outer for each in reading.file.ancestors(node))


def _is_valid(reading: Reading, node: ast.expr, at: ast.AST, env: Env) -> bool:
    """Whether an expression still means the same there: its names do, and it calls no function of the tree."""
    if getattr(node, "ctx", None) is not None and not isinstance(node.ctx, ast.Load):  # type: ignore[attr-defined]
        return False
    if _is_inside(reading, node, at):
        return True
    for each in ast.walk(node):
        if isinstance(each, (ast.NamedExpr, ast.Lambda, ast.Yield, ast.Await, ast.comprehension)):
            return False
        if isinstance(each, ast.Call) and each in reading.calls:
            return False
        if isinstance(each, ast.Name) and each.id in reading.file.scopes[reading.node].bound:
            then, now = reading.values.get(each), env.get(each.id)
            if then is None or now is None or then.key != now.key:
                return False
    return True
