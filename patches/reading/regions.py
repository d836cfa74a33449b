"""Regions: the statements by which a model runs and its loss is made, and what keeps them from a context."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from .files import File
from .frames import Effect, Reading
from .nodes import walk
from .updates import Update, is_of, is_within, made_of, results


def forward_and_loss(update: Update) -> tuple[list[ast.stmt], bool]:
    """The neighbouring statements that run the model and make its loss, and whether the backward is the last of them.

    They stand in one block, that of the backward or one around it.
    """
    reading, file = update.reading, update.reading.file
    backward = file.statement(update.backward)
    block = block_of(file, backward)
    while not all(any(is_within(file, run, each) for each in block) for run in update.runs):
        backward = file.parents[backward]  # type: ignore[assignment]
        block = block_of(file, backward)
    end = block.index(backward)
    parts, ran = {each.key for each in update.loss.walk()}, {each.key for each in update.ran}
    ran = ran or {each.key for run in update.runs for each in results(reading.values[run])} & parts
    is_run = made_of(ran)
    made = [node for node, value in reading.values.items() if value.key in parts and is_run(value)]
    made += update.runs
    places = [place for place, each in enumerate(block[: end + 1]) if any(is_within(file, node, each) for node in made)]
    if not update.learns:
        return block[min([*places, end]) : end + 1], False
    before = [place for place in places if place < end]
    return (block[before[0] : before[-1] + 1], False) if before else ([block[end]], True)


def block_of(file: File, statement: ast.stmt) -> list[ast.stmt]:
    """The statements among which one stands."""
    parent = file.parents[statement]
    blocks = (getattr(parent, name, None) for name in ("body", "orelse", "finalbody"))
    return next(block for block in blocks if isinstance(block, list) and statement in block)


def unmovable(reading: Reading, update: Update, statements: Sequence[ast.stmt]) -> Iterator[tuple[ast.AST, str]]:
    """What stands among forward and loss and is not to run under autocast, or shares a line with them."""
    file = reading.file
    for statement in statements:
        for node in walk(statement):
            if isinstance(node, (ast.Yield, ast.YieldFrom, ast.Await)):
                yield node, "yield between forward and loss: who goes on from here would be under autocast too"
        siblings = block_of(file, statement)
        if any(
            each is not statement and each.lineno <= statement.lineno <= (each.end_lineno or 0) for each in siblings
        ):
            yield statement, "forward and loss share a line: give each statement its own"
    for effect in _effects_in(reading, statements):
        func = effect.value.get("func", effect.value)
        is_own = effect.at.node in update.forwards or effect.through in update.runs
        if func is not None and effect.through is not None and is_of(func, update.model) and not is_own:
            yield effect.through, "another forward between forward and loss: move it out of them"


def done_in(reading: Reading, statements: Sequence[ast.stmt]) -> set[str]:
    """What some statements of a scope do."""
    return {effect.kind for effect in _effects_in(reading, statements)}


def _effects_in(reading: Reading, statements: Sequence[ast.stmt]) -> Iterator[Effect]:
    inside = {node for each in statements for node in ast.walk(each)}
    return (effect for effect in reading.effects if effect.through in inside)
