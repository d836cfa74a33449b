"""Statements that nothing needs once some expressions are replaced."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable

from ..reading.frames import Reading


def spent(reading: Reading, replaced: Collection[ast.expr], kept: Iterable[str] = ()) -> list[ast.stmt]:
    """The assignments of a function that only fed expressions which are replaced, in source order.

    `kept` are the texts that stand in their place: what these use is needed. Only a plain assignment to one name goes,
    of a value that has no effect, and only what needed it before.
    """
    file, body = reading.file, reading.node
    needed = {name for text in kept for name in _names(text)}
    gone: list[ast.stmt] = []
    roots = {id(node) for node in replaced}
    candidates = {
        node: node.targets[0].id
        for node in ast.walk(body)
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
    }
    loads = [node for node in ast.walk(body) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    while True:
        dead = {id(each) for each in gone}

        def is_gone(node: ast.AST, dead: set[int] = dead) -> bool:
            return any(id(each) in roots or id(each) in dead for each in (node, *file.ancestors(node)))

        used = {node.id for node in loads if not is_gone(node)} | needed
        fed = {node.id for node in loads if is_gone(node)}
        more = [
            node
            for node, name in candidates.items()
            if node not in gone and name in fed and name not in used and _is_pure(reading, node)
        ]
        if not more:
            return sorted(gone, key=lambda node: node.lineno)
        gone += more


def _is_pure(reading: Reading, node: ast.Assign) -> bool:
    block = [
        field for field in ("body", "orelse", "finalbody") if node in getattr(reading.file.parents[node], field, [])
    ]
    is_alone = bool(block) and len(getattr(reading.file.parents[node], block[0])) > 1
    effects = {id(effect.at.node) for effect in reading.effects}
    return is_alone and not any(id(each) in effects or isinstance(each, ast.NamedExpr) for each in ast.walk(node))


def _names(text: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
