"""Causal masks: which values are one, where they are built, on which device, and whether they are kept."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .code import Code
from .frames import Reading
from .small import Small
from .tensors import Number, Unknown
from .values import Value

_BUILDERS = {"triu", "tril", "arange", "cumsum", "eye"}
_NO_MASKS = {
    "matmul",
    "softmax",
    "tuple",
    "list",
    "const",
    "size",
    "shape",
    "arange",
    "ones",
    "full",
    "eye",
    "device",
    "index",
}
_COMPARED = {"gt", "ge", "lt", "le"}
_FACTORIES = {"ones", "zeros", "full", "new_ones", "new_zeros", "new_full", "ones_like", "zeros_like", "full_like"}
_CACHES = {"functools.cache", "functools.lru_cache"}
_MAPPINGS = {"cache", "dict", "kept", "attr", "parameter"}


class Mask(NamedTuple):
    """What the last rows of a square tensor hold: one number above its diagonal, and another on and below it."""

    above: Number
    below: Number
    lengths: tuple[Value, ...]  # values of which each is how wide it is, the outermost first
    left_out: tuple[Value, ...] = ()  # values of which each is how many rows are left out at the top, if some are

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


_CHOICES = ((2, 3, 1), (3, 1, 2), (4, 2, 5), (1, 2, 4), (5, 4, 1), (6, 1, 3), (1, 1, 1), (7, 2, 2))  # of the lengths


def causal_mask(value: Value) -> Mask | None:
    """What a value is if it is a triangle for every choice of small lengths, whatever else the code does not tell."""
    found: set[tuple[Number, type, Number, type]] = set()
    order: dict[int, int] = {}
    widths: set[int] = set()
    lengths = left_out = list(_numbers_in(value))
    is_cut = False
    for chosen in _CHOICES:
        small = Small(lambda each, chosen=chosen: _chosen(chosen, order.setdefault(each.key, len(order))))  # type: ignore[misc]
        try:
            tensor = small.tensor(value)
            rows, columns = tensor.shape if len(tensor.shape) == 2 else (1, 0)  # noqa: PLR2004 - rows and columns
            if rows > columns:
                return None
            lengths = [each for each in lengths if small.number(each) == columns]
            left_out = [each for each in left_out if small.number(each) == columns - rows]
        except (Unknown, ArithmeticError, ValueError, TypeError, IndexError, RecursionError):
            return None
        widths.add(columns)
        is_cut = is_cut or rows < columns
        places = [
            (x, type(x), place % columns > place // columns + columns - rows) for place, x in enumerate(tensor.data)
        ]
        above, below = ({(x, kind) for x, kind, is_above in places if is_above is side} for side in (True, False))
        if len(above) > 1 or len(below) > 1:
            return None
        found |= {(*high, *low) for high in above for low in below}
    if len(found) != 1 or len(widths) < 3 or not lengths or (is_cut and not left_out):  # noqa: PLR2004 - or any triangle's
        return None
    high, _, low, _ = found.pop()
    return Mask(high, low, tuple(lengths), tuple(left_out) if is_cut else ()) if high != low else None


def _chosen(lengths: tuple[int, ...], place: int) -> int:
    """One length for each that the code does not tell; who needs more is not known."""
    if place >= len(lengths):
        raise Unknown
    return lengths[place]


def _numbers_in(value: Value) -> list[Value]:
    """The numbers that a value is made with: how long its tensors are, and where their diagonals are."""
    diagonals = [each["diagonal"] for each in value.walk() if "diagonal" in each.args]
    parts = [part for each in diagonals for part in each.walk()]
    cuts = [part for each in value.walk() if each.op == "slice" for part in each.items if part.op != "const"]
    return list({each.key: each for each in (*_sizes_in(value), *parts, *cuts)}.values())


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
    """A causal mask that a function builds: the largest expression that is still this mask."""

    node: ast.expr
    value: Value
    mask: Mask


def built_masks(reading: Reading) -> list[Built]:
    """The causal masks that a function builds in its own text, in source order."""
    found: dict[ast.expr, Built] = {}
    for node, value in reading.values.items():
        if not isinstance(node, ast.expr) or isinstance(node, ast.Name) or node in reading.calls:
            continue
        if value.op not in _NO_MASKS and _is_built_here(reading, value):
            mask = causal_mask(value)
            if mask is not None:
                found[node] = Built(node, value, mask)
    outermost = [
        built for node, built in found.items() if not any(each in found for each in reading.file.ancestors(node))
    ]
    return sorted(outermost, key=lambda built: (built.node.lineno, built.node.col_offset))


def _is_built_here(reading: Reading, value: Value) -> bool:
    """Whether a value is made by a function's own text, and by none that it calls."""
    return any(each.op in _BUILDERS and each.at is not None and each.at.node in reading.values for each in value.walk())


def other_triangles(reading: Reading, built: Sequence[Built]) -> list[tuple[ast.expr, str]]:
    """Triangles of constants, and comparisons of positions, that are no causal mask for certain; and why not."""
    known = {each.key for mask in built for each in mask.value.walk()}
    found: dict[ast.expr, str] = {}
    for node, value in reading.values.items():
        is_own = isinstance(node, ast.expr) and not isinstance(node, ast.Name) and node not in reading.calls
        is_triangle = value.op in ("triu", "tril") and _is_constant(value["input"])
        is_compared = value.op in _COMPARED and all(any(e.op == "arange" for e in side.walk()) for side in value.items)
        if is_own and value.key not in known and (is_triangle or is_compared):
            found[node] = _why_not(value)  # type: ignore[index]
    return [
        (node, why) for node, why in found.items() if not any(each in found for each in reading.file.ancestors(node))
    ]


def _is_constant(value: Value) -> bool:
    """Whether a tensor is made of numbers alone."""
    while value.op in ("cast", "detach", "clone", "contiguous", "triu", "tril", "invert", "not"):
        value = value["input"]
    return value.op in _FACTORIES


def _why_not(value: Value) -> str:
    chosen = iter(range(3, 100))
    try:
        tensor = Small(lambda _: next(chosen)).tensor(value)
    except (Unknown, ArithmeticError, ValueError, TypeError, IndexError):
        return "what it holds is not known: its dtype or size is another tensor's"
    if len(tensor.shape) != 2 or tensor.shape[0] != tensor.shape[1]:  # noqa: PLR2004 - rows and columns
        return "it is not square: give it a length and a length, or cut it from a square one"
    return "what it marks is not just what lies above the main diagonal, or just the rest"


def kept_by_hand(code: Code, readings: Iterable[Reading]) -> dict[ast.AST, bool]:
    """Where tensors are built that some function keeps: under a caching decorator, in a mapping, in an attribute.

    True where that is outside of inference mode whoever asks: an inference tensor cannot be saved for a backward.
    """
    kept: dict[ast.AST, bool] = {}
    for reading in readings:
        modes = [effect.value for effect in reading.effects if effect.kind == "inference_mode"]
        is_safe = any(each.is_const(False) for value in modes for each in value.items)
        frame = code.module(reading.file.path)
        for decorator in getattr(reading.node, "decorator_list", ()):
            value = frame.expr(decorator)
            value = value["func"] if value.op == "call" else value
            if value.op == "global" and value.data in _CACHES:
                kept |= dict.fromkeys(reading.values, is_safe)
        for effect in reading.effects:
            written = effect.value.get("value")
            is_mapping = effect.kind == "setitem" and effect.value["input"].op in _MAPPINGS
            is_asked = effect.kind == "setattr" and any(guard.kind in ("if", "else") for guard in effect.under)
            if written is not None and (is_mapping or is_asked):
                nodes = [each.at.node for each in written.walk() if each.at is not None and each.op in _BUILDERS]
                kept |= {node: is_safe or kept.get(node, False) for node in nodes}
    return kept


def builders(value: Value) -> list[ast.AST]:
    """Where a mask's parts are built."""
    return [each.at.node for each in value.walk() if each.op in _BUILDERS and each.at is not None]


def device_of(value: Value) -> Value | None:
    """The device that a tensor is on, where its making says so."""
    pending = [value]
    while pending:
        each = pending.pop(0)
        given = each.get("device")
        if given is not None and not given.is_const(None):
            return given
        if each.op.startswith("new_") or each.op.endswith("_like"):
            return _on(each["input"])
        if each.op == "cast" and "like" in each.args:
            return _on(each["like"])
        pending += [arg for name, arg in each.args.items() if name not in ("size", "dim", "diagonal", "dtype", "value")]
    return None


def _on(tensor: Value) -> Value:
    return Value("device", {"of": tensor}, None, -1 - tensor.key, None)
