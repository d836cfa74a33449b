"""Causal masks: which values are one, where they are built, and on which device."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from .frames import Effect, Reading
from .numbers import is_number, parts_of
from .small import Small
from .tensors import Number, Unknown, broadcast
from .values import Value, holding

_BUILDERS = {"triu", "tril", "triu_indices", "tril_indices", "arange", "cumsum", "eye"}
_NO_MASKS = {
    *("matmul", "softmax", "tuple", "list", "const", "size", "shape", "arange"),
    *("ones", "full", "eye", "device", "index"),
}
_COMPARED = {"gt", "ge", "lt", "le"}
_ABOUT = ("size", "dim", "diagonal", "dtype", "value")  # a tensor, and on no device
_FACTORIES = {"ones", "zeros", "full", "new_ones", "new_zeros", "new_full", "ones_like", "zeros_like", "full_like"}


class Mask(NamedTuple):
    """What the last rows of a square tensor hold: one number above its diagonal, and another on and below it."""

    above: Number
    below: Number
    lengths: tuple[Value, ...]  # values of which each is how wide it is, the outermost first
    left_out: tuple[Value, ...] = ()  # values of which each is how many rows are left out at the top, if some are
    heights: tuple[Value, ...] = ()  # values of which each is how many are left, if some are left out
    leading: int = 0  # dimensions of one in front of its rows

    @property
    def is_cut(self) -> bool:
        """Whether rows are left out at the top."""
        return bool(self.left_out or self.heights)

    @property
    def hides_future(self) -> bool:
        """Whether True, and nothing else, is the future."""
        return self.above is True and self.below is False

    @property
    def keeps_past(self) -> bool:
        """Whether True, and nothing else, is what may be seen."""
        return self.above is False and self.below is True

    @property
    def adds_to_future_alone(self) -> bool:
        """Whether it hides the future where it is added to scores."""
        return self.above == -math.inf and self.below == 0 and not isinstance(self.below, bool)


_UNKNOWN = (Unknown, ArithmeticError, ValueError, TypeError, IndexError, RecursionError)
MOST_PARTS = 400  # of a mask that somebody writes
_CHOICES = ((2, 3, 1), (3, 1, 2), (4, 2, 5), (1, 2, 4), (5, 4, 1), (6, 1, 3), (1, 1, 1), (7, 2, 2))  # of the lengths


def causal_mask(value: Value) -> Mask | None:
    """What a value is if it is a triangle for every choice of small lengths, whatever else the code does not tell."""
    if "out" in value.args or next(islice(value.walk(), MOST_PARTS, None), None) is not None:
        return None
    found: set[tuple[Number, type, Number, type]] = set()
    widths: set[int] = set()
    ranks: set[int] = set()
    lengths = left_out = heights = list(_numbers_in(value))
    is_cut = False
    for small in _every_small([value]):
        try:
            tensor = small.tensor(value)
            if len(tensor.shape) < 2 or math.prod(tensor.shape[:-2]) != 1:  # noqa: PLR2004 - rows and columns
                return None
            rows, columns = tensor.shape[-2:]
            lengths, left_out, heights = (
                [each for each in some if _is_number(small, each, number)]
                for some, number in ((lengths, columns), (left_out, columns - rows), (heights, rows))
            )
        except _UNKNOWN:
            return None
        widths.add(columns)
        ranks.add(len(tensor.shape))
        is_cut = is_cut or rows != columns
        places = [
            (x, type(x), place % columns > place // columns + columns - rows) for place, x in enumerate(tensor.data)
        ]
        above, below = ({(x, kind) for x, kind, is_above in places if is_above is side} for side in (True, False))
        if len(above) > 1 or len(below) > 1:
            return None
        found |= {(*high, *low) for high in above for low in below}
    if len(found) != 1 or len(widths) < 3 or not lengths or (is_cut and not [*left_out, *heights]):  # noqa: PLR2004 - or any triangle's
        return None
    high, _, low, _ = found.pop()
    cut = (tuple(left_out), tuple(heights)) if is_cut else ((), ())
    return Mask(high, low, tuple(lengths), *cut, leading=max(ranks) - 2) if high != low else None


def _every_small(values: Sequence[Value]) -> Iterator[Small]:
    """What computes values under each choice of lengths."""
    counts, order = {key for each in values for key in _counted(each)}, dict[int, int]()
    for chosen in _CHOICES:
        yield Small(
            lambda each, chosen=chosen: _chosen(chosen, order.setdefault(each.key, len(order)), each),  # type: ignore[misc]
            counts,
        )


def leaves_a_key(masks: Sequence[tuple[Value, str]]) -> bool:
    """Whether masks together, each of a kind, leave a key to every query, for every choice of small lengths."""
    for small in _every_small([mask for mask, _ in masks]):
        try:
            shape, sides = broadcast(*(small.tensor(mask) for mask, _ in masks))
            hidden = [any(map(_hides, each, (kind for _, kind in masks))) for each in zip(*sides, strict=True)]
            if any(all(hidden[at : at + shape[-1]]) for at in range(0, len(hidden), shape[-1])):
                return False
        except _UNKNOWN:
            return False
    return True


def _hides(element: Number, kind: str) -> bool:
    """Whether a key is hidden by what a mask of a kind says of it."""
    return bool(element) if kind == "hides" else not element if kind == "keeps" else element != 0


def _is_number(small: Small, value: Value, number: int) -> bool:
    try:
        return small.number(value) == number
    except Unknown:
        return False


def _chosen(lengths: tuple[int, ...], place: int, value: Value) -> int:
    """One length for each that the code does not tell; who needs more is not known. A model is longer than its rows."""
    if place >= len(lengths):
        raise Unknown
    is_setting = value.op == "parameter" and getattr(value.data[1], "name", "") == "__init__"
    return lengths[place] + is_setting * max(map(max, _CHOICES))


def _numbers_in(value: Value) -> list[Value]:
    """The numbers that a value is made with: how long its tensors are, and where their diagonals are."""
    sizes, counts = _sizes_in(value), _counted(value)
    diagonals = [each["diagonal"] for each in value.walk() if "diagonal" in each.args]
    parts = [part for each in diagonals for part in each.walk()]
    cuts = [part for each in value.walk() if each.op == "slice" for part in each.items if part.op != "const"]
    shifts = [part for each in value.walk() if each.op in ("arange", "add", "sub") for part in each.items]
    cuts += [part for part in shifts if part.op != "const" and (is_number(part) or part.key in counts)]
    return list({each.key: each for each in (*sizes, *parts, *cuts)}.values())


def _counted(value: Value) -> set[int]:
    """The keys of what the sizes of its tensors are made of, which is numbers then."""
    return {part.key for each in _sizes_in(value) for part in parts_of(each)}


def _sizes_in(value: Value) -> list[Value]:
    """The numbers that the tensors in a value are made as long as."""
    sizes: list[Value] = []
    for each in value.walk():
        size = each.get("size") or each.get("end")
        size = each.get("n") if each.op == "eye" else size
        if size is not None and ("input" not in each.args or each.op.startswith("new_")):
            sizes += size.items if size.op in ("tuple", "list") else [size]
        if each.op in ("ones_like", "zeros_like", "full_like"):
            sizes.append(each["input"])
    return list({each.key: each for each in sizes if each.op not in ("shape", "ones_like")}.values())


@dataclass(frozen=True, slots=True)
class Built:
    """A causal mask that a function builds: the largest expression that is still this mask, of truth values if any is.

    Of one that is written to a tensor it is what makes that tensor, and the write.
    """

    node: ast.expr
    value: Value
    mask: Mask
    write: ast.stmt | None = None


def built_masks(reading: Reading) -> list[Built]:
    """The causal masks that a function builds in its own text, in source order."""
    found: dict[ast.expr, Built] = {}
    own = _built_here(reading)
    for node, value in reading.values.items():
        if not isinstance(node, ast.expr) or isinstance(node, ast.Name) or node in reading.calls:
            continue
        if value.op not in _NO_MASKS and id(value) in own:
            mask = causal_mask(value)
            if mask is not None:
                found[node] = Built(node, value, mask)
    for write in reading.writes:
        made = _written_once(reading, write)
        mask = causal_mask(write.value) if made is not None and id(write.value) in own else None
        if made is not None and mask is not None:
            statement = reading.file.statement(write.at.node)
            inside = [node for node in found if reading.file.statement(node) is statement]
            if all(found[node].value.key == write.value.key for node in inside):
                found = {node: each for node, each in found.items() if node not in inside}
                found[made] = Built(made, write.value, mask, statement)
    known = {each.value.key for each in found.values() if each.mask.hides_future or each.mask.keeps_past}
    found = {
        node: each
        for node, each in found.items()
        if each.value.key in known or not any(part.key in known for part in each.value.walk())
    }
    outermost = [
        built for node, built in found.items() if not any(each in found for each in reading.file.ancestors(node))
    ]
    return sorted(outermost, key=lambda built: (built.node.lineno, built.node.col_offset))


def _written_once(reading: Reading, write: Effect) -> ast.expr | None:
    """What makes a tensor of numbers that is read for nothing but to be written to by a statement of the same block."""
    base, file = write.value.get("input"), reading.file
    node = base.at.node if base is not None and base.at is not None else None
    if not write.is_own or base is None or node not in reading.values or not _is_constant(base):
        return None
    second, name = file.statement(write.at.node), node
    match second:
        case ast.Assign(targets=[ast.Subscript(value=name)]) | ast.Expr(value=ast.Call(func=ast.Attribute(value=name))):
            pass
    match file.statement(node):
        case ast.Assign(targets=[ast.Name() as target], value=made) as first if made is node:
            own = {each for each, value in reading.values.items() if value.key == base.key}
            is_local = target.id not in file.scopes[reading.node].elsewhere and own == {node, target, name}
            is_next = file.parents[first] is file.parents[second] and (first.end_lineno or 0) < second.lineno
            return made if is_local and is_next else None
    return None


def _built_here(reading: Reading) -> set[int]:
    """The ids of the values that are made by a function's own text, and by none that it calls."""
    nodes, written = reading.values, [write.value for write in reading.writes]
    return holding([*nodes.values(), *written], lambda e: e.op in _BUILDERS and e.at is not None and e.at.node in nodes)


def other_triangles(reading: Reading, built: Sequence[Built]) -> list[tuple[ast.expr, str]]:
    """Triangles of constants, and comparisons of positions, that are no causal mask for certain; and why not."""
    known = {each.key for mask in built for each in mask.value.walk()}
    found: dict[ast.expr, str] = {}
    own = _built_here(reading)
    for node, value in reading.values.items():
        is_own = isinstance(node, ast.expr) and not isinstance(node, ast.Name) and node not in reading.calls
        is_triangle = value.op in ("triu", "tril") and _is_constant(value["input"])
        is_compared = value.op in _COMPARED and all(map(_counts, value.items))
        is_new = value.key not in known and (is_triangle or is_compared)
        if is_own and is_new and id(value) in own:
            found[node] = _why_not(value)  # type: ignore[index]
    for write in reading.writes:
        parts = {each.key for each in write.value.walk()}
        is_own = write.is_own and write.value.op == "setitem" and id(write.value) in own
        is_new = write.value.key not in known and not any(mask.value.key in parts for mask in built)
        if is_own and is_new and causal_mask(write.value) is not None and _is_read(reading, write):
            why = "it is written to a tensor that is read or set elsewhere too: make it in one place"
            found[write.at.node] = why  # type: ignore[index]
    return [
        (node, why) for node, why in found.items() if not any(each in found for each in reading.file.ancestors(node))
    ]


def _counts(value: Value) -> bool:
    """Whether positions are among what a tensor is made of, and not only what it is looked up by."""
    parts = value.walk(lambda each: each.items[:1] if each.op == "index" else each.items)
    return any(each.op == "arange" for each in parts)


def _is_read(reading: Reading, write: Effect) -> bool:
    names = ((node, value) for node, value in reading.values.items() if isinstance(node, ast.Name))
    loads = (value for node, value in names if isinstance(node.ctx, ast.Load))
    return any(part.key == write.value.key for value in loads for part in value.walk())


def _is_constant(value: Value) -> bool:
    """Whether a tensor is made of numbers alone."""
    return value.beneath(("cast", "detach", "clone", "contiguous", "triu", "tril", "invert", "not")).op in _FACTORIES


def _why_not(value: Value) -> str:
    if "out" in value.args:
        return "it is written to another tensor: name what is returned"
    chosen = iter(range(3, 100))
    try:
        tensor = Small(lambda _: next(chosen), _counted(value)).tensor(value)
    except _UNKNOWN as unknown:
        lost = next(iter(unknown.args), None)
        name = lost.data[2] if isinstance(lost, Value) and lost.op == "parameter" else ""
        why = f"{name} may be a tensor, annotate it if it is an int" if name else "not all of it is made of numbers"
        return f"what it holds is not known: {why}"
    if len(tensor.shape) != 2 or tensor.shape[0] != tensor.shape[1]:  # noqa: PLR2004 - rows and columns
        return "it is not square: give it a length and a length, or cut it from a square one"
    return "what it marks is not just what lies above the main diagonal, or just the rest"


def builders(value: Value) -> list[ast.AST]:
    """Where a mask's parts are built."""
    return [each.at.node for each in value.walk() if each.op in _BUILDERS and each.at is not None]


def device_of(value: Value) -> Value | None:
    """The device that a tensor is on, where its making says so."""
    for each in value.walk(lambda each: [part for name, part in each.args.items() if name not in _ABOUT]):
        given = each.get("device")
        if given is not None and not given.is_const(None):
            return given
        if each.op.startswith("new_") or each.op.endswith("_like"):
            return _on(each["input"])
        if each.op == "cast" and "like" in each.args:
            return _on(each["like"])
    return None


def _on(tensor: Value) -> Value:
    return Value("device", {"of": tensor}, None, -1 - tensor.key, None)
