"""A loop that goes through what is made of its items, and is given names besides."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

import libcst as cst

from ..reading.source import Source
from ..reading.turns import Turn
from ..task import Edit
from .edits import expression, rewrite


def regrouped(source: Source, turn: Turn, form: str, more: Sequence[str]) -> list[Edit]:
    """Let a loop go through a call of its items, which gives some names more with each."""
    header, file, sieve = turn.header, turn.outer.reading.file, turn.sieve
    assert header is not None
    target = file.text(header.item)
    target = f"({target})" if isinstance(header.item, ast.Tuple) and not target.startswith("(") else target
    sifted = []
    if sieve is not None:
        some = f"({target} for {target} in {{}} if {_refused(file.text(sieve.test), sieve.test)})"
        head, rest = form.replace("{}", some).split("(", 1)
        form = f"{head}(\n    {rest[:-1]}\n)"
        sifted = [Edit(source, source.at(sieve), lambda _: cst.RemoveFromParent())]
    target = ", ".join([target, *more])
    if isinstance(turn.loop, ast.While):
        gone = [Edit(source, source.at(each), lambda _: cst.RemoveFromParent()) for each in header.asks]
        made = as_for(source, target, form.format(ast.unparse(header.items)))
        return [*gone, Edit(source, source.at(turn.loop), made)]
    target = f"({target})" if header.is_counted else target
    return [
        *sifted,
        rewrite(source, source.at(header.items), form.format),  # type: ignore[arg-type]
        rewrite(source, source.at(header.item), lambda _: target),  # type: ignore[arg-type]
    ]


def _refused(text: str, test: ast.expr) -> str:
    """The contrary of a test, as one would write it."""
    match test:
        case ast.UnaryOp(op=ast.Not()):
            return text.removeprefix("not").strip()
        case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq() as op], comparators=[right]):
            return f"{ast.unparse(left)} {'!=' if isinstance(op, ast.Eq) else '=='} {ast.unparse(right)}"
        case ast.Call() | ast.Name() | ast.Attribute():
            return f"not {text}"
    return f"not ({text})"


def as_for(source: Source, target: str, items: str) -> Callable[[cst.CSTNode], cst.CSTNode]:
    """What makes a `for` loop of a `while` loop."""

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.While)
        each, some = expression(source, target), expression(source, items)
        return cst.For(each, some, updated.body, updated.orelse, leading_lines=updated.leading_lines)  # type: ignore[arg-type]

    return change
