"""Rounds: the calls in loops that start a run anew, and by way of which functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from .code import Code
from .files import Function
from .frames import Reading
from .updates import MOST_CALLERS, SHALLOW, calls_of, is_repeated, mentions


@dataclass(frozen=True, slots=True)
class Round:
    """A call in a loop by which a run starts, directly or through functions that return what comes of it."""

    caller: Reading
    call: ast.Call
    through: tuple[tuple[Reading, ast.Call], ...]  # the calls on the way, the first nearest to the run
    is_returned: bool  # whether each function on the way returns what comes of its call

    @property
    def statement(self) -> ast.stmt:
        return self.caller.file.statement(self.call)


def rounds_of(code: Code, scope: ast.AST, owner: ast.ClassDef | None = None) -> list[Round]:
    """The rounds in which a run is started: by a call of a function, or by making an object of a class."""
    starts = _made(code, owner) if owner is not None else _called(code, scope)
    return list(_rounds(code, starts, ()))


def _called(code: Code, scope: ast.AST) -> list[tuple[Reading, ast.Call]]:
    return calls_of(code, scope) if isinstance(scope, Function) else []


def _made(code: Code, owner: ast.ClassDef) -> list[tuple[Reading, ast.Call]]:
    found = []
    for reading in mentions(code, owner.name, SHALLOW):
        for node in reading.values:
            callee = reading.values.get(node.func) if isinstance(node, ast.Call) else None
            meant = code.resolved(callee) if callee is not None else None
            if meant is not None and meant.op == "class" and meant.data[1] is owner and isinstance(node, ast.Call):
                found.append((reading, node))
    return found


def _rounds(
    code: Code, starts: list[tuple[Reading, ast.Call]], through: tuple[tuple[Reading, ast.Call], ...]
) -> Iterator[Round]:
    for reading, call in starts:
        if is_repeated(reading.file, reading.node, call):
            is_returned = all(isinstance(each.file.statement(node), ast.Return) for each, node in through)
            yield Round(reading, call, through, is_returned)
        elif len(through) < MOST_CALLERS and all(reading is not each for each, _ in through):
            yield from _rounds(code, _called(code, reading.node), (*through, (reading, call)))
