"""Windows of attention as text: what clamps the columns that they are written to, and what hides their padding.

Each function gives edits that may do; which of them does is seen in what the edited code computes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from ..reading.code import Code
from ..reading.files import File
from ..reading.frames import Effect, Reading
from ..reading.maps import counted, indices_of, root_of
from ..reading.nodes import expression, walk
from ..reading.source import Source
from ..reading.values import Value, once_each
from ..reading.windows import Seen, runs_over
from ..task import Edit
from .edits import insert_before, rewrite
from .spelling import spelled

_RANGES = ("arange", "range")
_SAME = ("detach", "cast", "contiguous", "clone", "permute", "mT", "swap", "unsqueeze")
_SOURCES = {"index_copy": (2, "source"), "scatter": (2, "src"), "index_put": (1, "values"), "call": (0, "src")}


class Unwritten(Exception):
    """Why there is no text for an edit."""


class Columns(NamedTuple):
    """The columns that a window is written to: from a number, which may be clamped already, to another."""

    start: Value
    end: Value | None
    offset: Value  # the start before it was clamped


def columns(new: Value) -> Columns | None:
    """The columns of a write; None where they are not counted from a number to another."""
    last = indices_of(new)[-1:]
    for each in counted(last):
        bounds = each.items[:2] if each.op == "slice" else [each.get("start"), each.get("end")]
        bounds = each.items[:2] if each.op == "range" and len(each.args) > 1 else bounds
        if each.op in ("slice", *_RANGES) and len(bounds) == 2 and bounds[0] is not None:  # noqa: PLR2004
            sides = last[0].items if last[0].op == "add" and bounds[0].number == 0 else ()  # s + arange(width)
            shifts = [side for side in sides if side.key != each.key]
            if len(shifts) == 1:
                return Columns(shifts[0], None, _unclamped(shifts[0]))
            return Columns(bounds[0], bounds[1], _unclamped(bounds[0]))
    return None


def _unclamped(start: Value) -> Value:
    """What a number is before it is made zero where it would be less."""
    sides = start.items if start.op == "max" else start.items[1:] if start.op == "phi" else ()
    others = [each for each in sides if each.number != 0]
    return others[0] if len(sides) == 2 and len(others) == 1 else start  # noqa: PLR2004 - a number and zero


@once_each
def linear(value: Value) -> dict[int, tuple[Value, int]]:
    """A sum of values, each so many times."""
    match value.op:
        case "add" | "sub":
            total = dict(linear(value["input"]))
            for key, (each, times) in linear(value["other"]).items():
                sum_ = total.get(key, (each, 0))[1] + (times if value.op == "add" else -times)
                total[key] = (each, sum_)
            return {key: found for key, found in total.items() if found[1]}
        case "neg":
            return {key: (each, -times) for key, (each, times) in linear(value["input"]).items()}
    return {} if value.number == 0 else {value.key: (value, 1)}


def lack(offset: Value, reading: Reading, at: ast.AST) -> str:
    """How many columns lie left of the first, as text: `max(overlap - s, 0)`. Raises Unwritten."""
    terms = linear(offset).values()
    if any(abs(times) != 1 for _, times in terms) or not any(times < 0 for _, times in terms):
        raise Unwritten("where its columns begin cannot be read: make it a difference")
    texts = [(spelled(each, reading, at), times) for each, times in sorted(terms, key=lambda term: term[1])]
    if any(text is None for text, _ in texts):
        raise Unwritten("what its columns are counted from has no name here: name it first")
    signed = [f"{' - ' if times > 0 else ' + '}{_operand(text or '', times)}" for text, times in texts]
    return f"max({''.join(signed).removeprefix(' + ')}, 0)"


def _operand(text: str, times: int) -> str:
    tree = expression(text)
    is_sum = isinstance(tree, ast.BinOp) and isinstance(tree.op, (ast.Add, ast.Sub)) and times > 0
    return f"({text})" if is_sum or isinstance(tree, (ast.IfExp, ast.BoolOp, ast.Compare, ast.Lambda)) else text


def own_write(code: Code, write: Effect) -> tuple[Reading, Effect]:
    """The function that a write stands in, read by itself, and the write there."""
    file, function = write.at.file, write.at.file.function(write.at.node)
    reading = code.reading(file, function, file.owner(function)) if function is not None else None
    own = [each for each in reading.writes if each.at.node is write.at.node] if reading is not None else []
    if reading is None or not own:
        raise Unwritten("its write stands in no function: put it in one")
    return reading, own[-1]


def laid_right(
    source: Source, seen: Seen, own: tuple[Reading, Effect], write: Effect, name: str
) -> tuple[list[Edit], list[list[Edit]]]:
    """What clamps the columns of a write, and the ways to take the window's columns for them. Raises Unwritten."""
    reading, mine = own
    found, context = columns(mine.value), columns(write.value)
    if found is None or context is None or seen.judged is None:
        ways = list(later_turns(source, reading, mine.value))
        if not ways:
            raise Unwritten("its columns are not counted from a number to another: write them as a slice")
        return [], ways
    clamps = []
    if found.offset is found.start:
        clamps.append(rewrite(source, _node(source, found.start), lambda code: f"max({code}, 0)"))
    end, length = found.end, _length(reading, mine)
    is_over = context.end is not None and runs_over(seen.judged, write, context.end)
    if is_over and end is not None and end.op != "min" and length is not None:
        clamps.append(rewrite(source, _node(source, end), lambda code: f"min({code}, {length})"))
    if not seen.judged.is_padded:
        return clamps, [[]]
    return clamps, list(moved(source, reading, mine, found, name))


def _length(reading: Reading, mine: Effect) -> str | None:
    """How long a map is, where it is written to."""
    root = root_of(mine.value)
    return spelled(root["size"].items[-1], reading, mine.at.node) if root is not None else None


def _node(source: Source, value: Value):  # type: ignore[no-untyped-def]
    place = value.at
    if place is None or place.file.path != source.path or not isinstance(place.node, ast.expr):
        raise Unwritten("where its columns begin is computed elsewhere: compute it where they are written")
    return source.at(place.node)


def moved(source: Source, reading: Reading, write: Effect, found: Columns, name: str) -> Iterator[list[Edit]]:
    """Take a window's columns from the one that stands for the first column written: in every way that may be."""
    file = reading.file
    given = _given(file, write)
    if given is None:
        raise Unwritten("what is written has no text of its own: write it by an index")
    window, value = given, reading.values.get(given)
    while value is not None and value.op in _SAME:
        value = value["input"]
    cut = value.at.node if value is not None and value.op == "index" and value.at is not None else None
    at = cut if cut in reading.values and isinstance(cut, ast.Subscript) else window
    if file.scopes[reading.node].is_taken(name):
        raise Unwritten(f"the name {name} is taken: rename yours")
    statement = file.statement(at)
    insert = insert_before(source, source.at(statement), f"{name} = {lack(found.offset, reading, at)}")
    last = _indices(at)[-1:] if isinstance(at, ast.Subscript) else []
    if last and isinstance(last[0], ast.Slice) and ast.unparse(last[0]).startswith((":", "0:")) and not last[0].step:
        kept = [file.text(each) for each in _indices(at)[:-1]]
        upper = last[0].upper
        text = file.text(upper) if upper is not None else ""
        end = reading.values.get(upper) if upper is not None else None
        counts = end is not None and any(each.key == found.start.key for each in end.walk())
        widths = [f"{name} + {_operand(text, -1)}", text] if upper is not None else [""]
        for width in widths if counts else reversed(widths):
            inner = ", ".join([*kept, f"{name} : {width}".strip() if width else f"{name}:"])
            yield [insert, rewrite(source, source.at(at), lambda _, inner=inner: f"{file.text(at.value)}[{inner}]")]  # type: ignore[attr-defined, misc, arg-type]
    statement = file.statement(window)
    insert = insert_before(source, source.at(statement), f"{name} = {lack(found.offset, reading, window)}")
    part: ast.AST | None = window
    while part is not None:  # what is written, or what that is cut out of
        yield [insert, rewrite(source, source.at(part), lambda code: f"{code}[..., {name}:]")]  # type: ignore[arg-type]
        cut_of = reading.values[part].get("input") if part in reading.values else None
        inside = (each for each in walk(part) if each is not part and each in reading.values)
        part = next((each for each in inside if cut_of is not None and reading.values[each].key == cut_of.key), None)


def _indices(node: ast.AST) -> list[ast.expr]:
    if not isinstance(node, ast.Subscript):
        return []
    return list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]


def _given(file: File, write: Effect) -> ast.expr | None:
    """The expression of what a write writes."""
    node = write.at.node
    statement = file.statement(node)
    if write.value.op == "setitem":
        return statement.value if isinstance(statement, ast.Assign) else None
    place, keyword = _SOURCES.get(write.value.op, (0, ""))
    if not isinstance(node, ast.Call):
        return None
    named = [each.value for each in node.keywords if each.arg == keyword]
    return named[0] if named else node.args[place] if place < len(node.args) else None


def later_turns(source: Source, reading: Reading, new: Value) -> Iterator[list[Edit]]:
    """Where columns are written one by one, begin with the one that stands for the map's first."""
    file, index = reading.file, indices_of(new)[-1]
    terms = linear(index)
    for key, (each, times) in terms.items():
        loop = each["of"] if each.op == "item" and times == 1 else None
        if loop is None or loop.op != "range" or loop.at is None or not isinstance(loop.at.node, ast.Call):
            continue
        call = loop.at.node
        rest = [found for other, found in terms.items() if other != key]
        if len(call.args) != 1 or not rest:
            continue
        texts = [(spelled(value, reading, each.data), count) for value, count in sorted(rest, key=lambda t: t[1])]
        if all(text is not None and abs(count) == 1 for text, count in texts):
            signed = [f"{' - ' if count > 0 else ' + '}{_operand(text or '', count)}" for text, count in texts]
            first = f"max({''.join(signed).removeprefix(' + ')}, 0)"
            text = f"{file.text(call.func)}({first}, {file.text(call.args[0])})"
            yield [rewrite(source, source.at(call), lambda _, text=text: text)]  # type: ignore[misc, arg-type]
