"""A loop that goes through what is made of its items, and is given names besides."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

import libcst as cst

from ..edits import expression, rewrite
from ..reading.turns import Turn
from ..source import Source
from ..task import Edit


def regrouped(source: Source, turn: Turn, form: str, more: Sequence[str]) -> list[Edit]:
    """Let a loop go through a call of its items, which gives some names more with each."""
    header, file = turn.header, turn.outer.reading.file
    assert header is not None
    target = file.text(header.item)
    target = f"({target})" if isinstance(header.item, ast.Tuple) and not target.startswith("(") else target
    target = ", ".join([target, *more])
    if isinstance(turn.loop, ast.While):
        gone = [Edit(source, source.at(each), lambda _: cst.RemoveFromParent()) for each in header.asks]
        made = as_for(source, target, form.format(file.text(header.items)))
        return [*gone, Edit(source, source.at(turn.loop), made)]
    target = f"({target})" if header.is_counted else target
    return [
        rewrite(source, source.at(header.items), form.format),  # type: ignore[arg-type]
        rewrite(source, source.at(header.item), lambda _: target),  # type: ignore[arg-type]
    ]


def as_for(source: Source, target: str, items: str) -> Callable[[cst.CSTNode], cst.CSTNode]:
    """What makes a `for` loop of a `while` loop."""

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.While)
        each, some = expression(source, target), expression(source, items)
        return cst.For(each, some, updated.body, updated.orelse, leading_lines=updated.leading_lines)  # type: ignore[arg-type]

    return change
