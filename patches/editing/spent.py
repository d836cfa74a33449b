"""Statements that nothing needs once some expressions are replaced."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable

from ..reading.frames import Reading
from ..reading.nodes import walk
from ..reading.values import Value


def spent(
    reading: Reading, replaced: Collection[ast.AST], made: Collection[Value], kept: Iterable[str] = ()
) -> list[ast.stmt]:
    """The statements of a function that only fed expressions which are replaced, in source order.

    `made` is what the expressions computed; `kept` are the texts that stand in their place: what these use is needed.
    Only plain assignments to local names go, of values that have no effect and that the expressions were made of, and
    conditions under which nothing is left.
    """
    needed = {name for text in kept for name in names_in(text)}
    parts = {each.key for value in made for each in value.walk()}
    gone = {
        id(node): node for node in walk(reading.node) if isinstance(node, ast.Assign) and _may_go(reading, node, parts)
    }
    while True:
        around = {id(node) for node in (*replaced, *gone.values())}
        used = _used(reading, around) | needed
        alive = {key for key, node in gone.items() if not used.isdisjoint(_names_of(node))}
        if not alive:
            known, stuck = _with_conditions(reading, list(gone.values()))
            alive = {id(node) for block in stuck for node in _of_block(block, gone.values())}
            if not alive:
                outermost = [node for node in known if reading.file.parents[node] not in known]
                return sorted(outermost, key=lambda node: node.lineno)
        gone = {key: node for key, node in gone.items() if key not in alive}


def _may_go(reading: Reading, node: ast.Assign, parts: set[int]) -> bool:
    """Whether an assignment to local names has no effect, and its value is a part of what is replaced."""
    scope, value, names = reading.file.scopes[reading.node], reading.values.get(node.value), _names_of(node)
    is_local = bool(names) and names <= scope.bound.keys() - scope.elsewhere.keys()
    is_pure = not any(each in reading.doing or isinstance(each, ast.NamedExpr) for each in walk(node))
    is_plain = len(node.targets) == 1 and is_local and is_pure and _is_alone(reading, node)
    return is_plain and value is not None and value.key in parts


def _names_of(node: ast.Assign) -> set[str]:
    """The names that an assignment sets; none where it sets anything else."""
    target = node.targets[0]
    every = target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
    return (
        {each.id for each in every if isinstance(each, ast.Name)}
        if all(isinstance(e, ast.Name) for e in every)
        else set()
    )


def _used(reading: Reading, around: set[int]) -> set[str]:
    """The names that are read, changed or deleted outside of some nodes."""
    used = set()
    for node in walk(reading.node):
        name = node.target if isinstance(node, ast.AugAssign) else node
        is_use = isinstance(name, ast.Name) and (name is not node or not isinstance(name.ctx, ast.Store))
        if is_use and not any(id(each) in around for each in (node, *reading.file.ancestors(node))):
            used.add(name.id)  # type: ignore[attr-defined]
    return used


def _is_alone(reading: Reading, node: ast.stmt) -> bool:
    """Whether a statement has its line to itself."""
    siblings = [each for each in ast.iter_child_nodes(reading.file.parents[node]) if isinstance(each, ast.stmt)]
    return not any(each is not node and each.lineno <= node.lineno <= (each.end_lineno or 0) for each in siblings)


def _blocks(reading: Reading, gone: list[ast.stmt]) -> list[tuple[ast.AST, list[ast.stmt]]]:
    """The blocks of which nothing would be left, with what they belong to."""
    return [
        (parent, block)
        for parent in {reading.file.parents[node] for node in gone}
        for name in ("body", "orelse", "finalbody")
        if isinstance(block := getattr(parent, name, None), list) and block and all(node in gone for node in block)
    ]


def _goes_whole(parent: ast.AST, gone: list[ast.stmt]) -> bool:
    """Whether a compound statement is a condition that calls nothing, and nothing of it would be left."""
    is_whole = isinstance(parent, ast.If) and all(node in gone for node in (*parent.body, *parent.orelse))
    return is_whole and not any(isinstance(each, (ast.Call, ast.NamedExpr)) for each in walk(parent.test))  # type: ignore[attr-defined]


def _with_conditions(reading: Reading, gone: list[ast.stmt]) -> tuple[list[ast.stmt], list[list[ast.stmt]]]:
    """What goes, with the conditions of which nothing is left; and blocks left empty, though what holds them stays."""
    known = list(gone)
    while True:
        found = _blocks(reading, known)
        stuck = [block for parent, block in found if not _goes_whole(parent, known)]
        whole = {parent: None for parent, _ in found if _goes_whole(parent, known) and parent not in known}
        if stuck or not whole:
            return known, stuck
        known += whole  # type: ignore[arg-type]


def _of_block(block: list[ast.stmt], gone: Collection[ast.stmt]) -> list[ast.stmt]:
    """What goes of a block: its own statements, or else those further in."""
    inside = {id(each) for outer in block for each in walk(outer)}
    return [node for node in block if node in gone] or [node for node in gone if id(node) in inside]


def names_in(text: str) -> set[str]:
    """The names that the text of an expression uses."""
    return {node.id for node in walk(ast.parse(text)) if isinstance(node, ast.Name)}
