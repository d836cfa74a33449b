"""Statements that nothing needs once some expressions are replaced."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable

from ..reading.frames import Reading
from ..reading.values import Value


def spent(
    reading: Reading, replaced: Collection[ast.expr], made: Value | None, kept: Iterable[str] = ()
) -> list[ast.stmt]:
    """The statements of a function that only fed expressions which are replaced, in source order.

    `made` is what the expressions computed, or nothing where each computed something of its own; `kept` are the texts
    that stand in their place: what these use is needed. Only plain assignments to one name go, of values that have no
    effect and that the expressions were made of, and conditions under which nothing is left.
    """
    file = reading.file
    needed = {name for text in kept for name in _names(text)}
    roots = {id(node) for node in replaced}
    parts = {each.key for value in _values(reading, replaced, made) for each in value.walk()}
    candidates = {
        id(node): (node, node.targets[0].id)
        for node in ast.walk(reading.node)
        if isinstance(node, ast.Assign)
        and len(node.targets) == 1
        and isinstance(node.targets[0], ast.Name)
        and _is_part(reading, node, parts)
        and _is_alone(reading, node)
    }
    loads = [node for node in ast.walk(reading.node) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    gone = set(candidates)
    while True:
        around = roots | gone
        used = {n.id for n in loads if not any(id(each) in around for each in (n, *file.ancestors(n)))} | needed
        alive = {key for key in gone if candidates[key][1] in used}
        if not alive:
            break
        gone -= alive
    return _with_conditions(reading, [candidates[key][0] for key in gone])


def _values(reading: Reading, replaced: Iterable[ast.expr], made: Value | None) -> list[Value]:
    return [made] if made is not None else [reading.values[node] for node in replaced]


def _is_part(reading: Reading, node: ast.Assign, parts: set[int]) -> bool:
    """Whether an assignment has no effect, and its value is a part of what is replaced."""
    value = reading.values.get(node.value)
    is_pure = not any(each in reading.doing or isinstance(each, ast.NamedExpr) for each in ast.walk(node))
    return is_pure and value is not None and value.key in parts


def _is_alone(reading: Reading, node: ast.stmt) -> bool:
    """Whether a statement has its line to itself."""
    siblings = [each for each in ast.iter_child_nodes(reading.file.parents[node]) if isinstance(each, ast.stmt)]
    return not any(each is not node and each.lineno <= node.lineno <= (each.end_lineno or 0) for each in siblings)


def _with_conditions(reading: Reading, gone: list[ast.stmt]) -> list[ast.stmt]:
    """The statements that go, with conditions under which they are all that stands; no block is left empty."""
    while True:
        blocks = [
            (parent, block)
            for parent in {reading.file.parents[node] for node in gone}
            for name in ("body", "orelse", "finalbody")
            if isinstance(block := getattr(parent, name, None), list) and block and all(node in gone for node in block)
        ]
        if not blocks:
            return sorted(gone, key=lambda node: node.lineno)
        for parent, block in blocks:
            is_whole = isinstance(parent, ast.If) and all(node in gone for node in (*parent.body, *parent.orelse))
            is_pure = is_whole and not any(isinstance(each, ast.Call) for each in ast.walk(parent.test))  # type: ignore[attr-defined]
            gone = [node for node in gone if node not in block and node not in getattr(parent, "orelse", ())]
            if is_pure:
                gone.append(parent)  # type: ignore[arg-type]


def _names(text: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
