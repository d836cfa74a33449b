"""Draw from another generator, and compare with another probability."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import libcst as cst

from ..edits import expression, insert_before, operand, rewrite
from ..reading.draws import Draw
from ..reading.files import File
from ..reading.origins import Spot, ahead, names_read
from ..source import Source
from ..task import Edit

_ONE = ("item", "squeeze", "cpu", "numpy")
_KINDS = ("float", "bool")


def drawn_from(source: Source, file: File, draw: Draw, text: str) -> list[Edit] | None:
    """Draw a number, or a list of them, by calls of `text`; None where what is drawn is kept as a tensor."""
    assert draw.made.at is not None
    call = draw.made.at.node
    node, methods = _whole(file, call)
    sizes = [each for name, each in draw.made.args.items() if name.isdigit()]
    count = sizes[0].number if len(sizes) == 1 else None
    is_tensor = bool(sizes) or str(draw.made["func"].data).startswith("torch.")
    if methods == ["tolist"] and isinstance(count, int):
        return [rewrite(source, source.at(node), lambda _: f"[{text}() for _ in range({count})]")]  # type: ignore[arg-type]
    if methods[-1:] == ["item"] or methods[-1:] == ["float"] or not is_tensor:
        return [rewrite(source, source.at(node), lambda _: f"{text}()")]  # type: ignore[arg-type]
    compare = file.parents[node]
    if compare is not draw.place.node or methods not in ([], ["[]"]):
        return None
    drawn = rewrite(source, source.at(node), lambda _: f"{text}()")  # type: ignore[arg-type]
    around = file.parents[compare]
    outer = file.parents[around]
    if isinstance(around, ast.Attribute) and around.attr == "item" and isinstance(outer, ast.Call):
        return [drawn, Edit(source, source.at(outer), lambda updated: updated.func.value)]  # type: ignore[attr-defined]
    is_test = getattr(around, "test", None) is compare or isinstance(around, ast.BoolOp)
    is_test = is_test or (isinstance(around, ast.UnaryOp) and isinstance(around.op, ast.Not))
    is_bool = isinstance(around, ast.Call) and getattr(around.func, "id", "") == "bool"
    return [drawn] if is_test or is_bool else None


def _whole(file: File, call: ast.AST) -> tuple[ast.AST, list[str]]:
    """A draw with what makes a number of it, and what that is called."""
    node, methods = call, list[str]()
    while True:
        around = file.parents[node]
        outer = file.parents[around]
        if isinstance(around, ast.Attribute) and isinstance(outer, ast.Call) and outer.func is around:
            if around.attr not in (*_ONE, "tolist"):
                return node, methods
            node, methods = outer, [*methods, around.attr]
        elif isinstance(around, ast.Subscript) and around.value is node and not methods:
            node, methods = around, ["[]"]
        elif isinstance(around, ast.Call) and getattr(around.func, "id", "") in _KINDS and around.args == [node]:
            node, methods = around, [*methods, "float"]
        else:
            return node, methods


def ramped(source: Source, spots: Sequence[Spot], draw: Draw, name: str, ramp: str) -> list[Edit]:
    """Compare with a probability on a ramp, that is computed before; `ramp` is how, with {} for its end.

    Nothing where there is no place before the first of the spots.
    """
    file = spots[0].reading.file
    node, text = _left(spots[0], draw)
    place = before(
        source, ahead(file, node, names_read(node)), f"{name} = {ramp.format(text.format(_text(file, node)))}"
    )
    new = name if text == "{}" else f"1 - {name}"
    nodes = [node, *(spot.node for spot in spots[1:])]
    return [] if place is None else [place, *(rewrite(source, source.at(each), lambda _: new) for each in nodes)]  # type: ignore[arg-type]


def before(source: Source, statement: ast.stmt | None, text: str) -> Edit | None:
    """Put a statement in front of one; None where that stands in no block."""
    line = source.statement(source.at(statement)) if statement is not None else None
    is_in_block = line is not None and isinstance(source.parents[line], (cst.IndentedBlock, cst.Module))
    return insert_before(source, line, text) if line is not None and is_in_block else None


def _left(spot: Spot, draw: Draw) -> tuple[ast.expr, str]:
    """What is the probability, or is what it leaves of 1; and how the probability is written of it."""
    node = spot.node
    if draw.compresses_below:
        return node, "{}"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and ast.unparse(node.left) in ("1", "1.0"):
        return node.right, "{}"
    return node, "1 - {}" if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript, ast.Call)) else "1 - ({})"


def shared(source: Source, spot: Spot, draw: Draw, name: str) -> list[Edit]:
    """Compare with a share of a probability, that a function is handed."""
    node, text = _left(spot, draw)
    part = f"{name} * {{}}" if text == "{}" else f"1 - {name} * ({text})"

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        return expression(source, part.format(operand(source, updated)))

    return [Edit(source, source.at(node), change)]


def _text(file: File, node: ast.expr) -> str:
    text = file.text(node)
    return text if "\n" not in text else ast.unparse(node)
