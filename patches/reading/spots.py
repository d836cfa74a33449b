"""Tensors whose elements say where they come from: which position of a sequence, which query and which key.

An attention's queries and keys are taken as their positions, with one row, one head and a width of one. Padding is a
number in their place. A score is then a query's position with a key's, and a weight that is hidden is zero; so it can
be seen where each weight is written to, and what is weighed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .elements import TENSORS
from .loops import Turned
from .numbers import is_number, ranging
from .picks import scattered
from .pieces import PIECES
from .tensors import ELEMENTWISE, Impossible, Number, Tensor, Unknown, broadcast, permuted
from .values import Value

HIDDEN = -math.inf
LOWEST = -1e4  # what is added to scores that are to be hidden is lower


class Spot(NamedTuple):
    """A position of a sequence."""

    at: int


class Pair(NamedTuple):
    """The score, or the weight, of a query and a key; None is padding."""

    query: int | None
    key: int | None


class Layout(NamedTuple):
    """How many dimensions queries and keys have, and which is the sequence's."""

    rank: int
    dim: int


class Spotted(Turned):
    """Computes values with the leaves of a function as sequences of positions."""

    layout = Layout(4, 2)
    length = 1
    is_padded = False  # whether padding has been met beside keys
    ranks: Mapping[int, int] = {}
    leaves: frozenset[int] = frozenset()  # the keys of what is a tensor for certain

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._given: dict[int, Tensor] = {}

    def unknown(self, value: Value) -> Tensor:
        if value.key not in self.leaves or value.op not in _LEAVES:
            return Tensor((), (self.number(value),))
        rank = self.ranks.get(value.key, self.layout.rank)
        dim = self.layout.dim if rank == self.layout.rank else rank - 2
        if not 0 <= dim < rank:
            raise Unknown(value)
        shape = tuple(self.length if place == dim else 1 for place in range(rank))
        return Tensor(shape, tuple(map(Spot, range(self.length))))  # type: ignore[arg-type]

    def applied(self, value: Value, tensor: Tensor) -> Tensor:
        """What an operation makes of another tensor than its own."""
        key = value["input"].key
        self._given[key] = tensor
        try:
            return self._operation(value)
        finally:
            del self._given[key]

    def tensor(self, value: Value) -> Tensor:
        given = self._given.get(value.key)
        return super().tensor(value) if given is None else given

    def operand(self, value: Value) -> Tensor:
        return self.tensor(value)

    def number(self, value: Value) -> Number:
        least = ranging(value)
        return super().number(value) if least is None else least

    def sizes(self, value: Value | None) -> tuple[int, ...]:
        if value is not None and value.op == "shape":
            return self.tensor(value["input"]).shape
        if value is not None and value.op not in ("tuple", "list"):
            made = self.made(value)
            value = made[0] if isinstance(made, tuple) and isinstance(made[0], Value) else value
        if value is not None and value.op == "add":
            return self.sizes(value["input"]) + self.sizes(value["other"])
        if value is not None and value.op == "index" and value["input"].op == "shape":
            bounds = [None if e.is_const(None) else int(self.number(e)) for e in value["0"].items]
            return self.tensor(value["input"]["input"]).shape[slice(*bounds)]
        if value is not None and value.op in ("tuple", "list"):
            return tuple(
                size for e in value.items for size in (self.sizes(e) if _is_of_sizes(e) else [int(self.number(e))])
            )
        return super().sizes(value)


def _is_of_sizes(value: Value) -> bool:
    """Whether a value is several sizes of a tensor, or some with others beside."""
    return value.op in ("shape", "index") or (value.op == "add" and any(each.op == "tuple" for each in value.items))


_LEAVES = {"parameter", "attr", "part", "linear", "module", "call", "index", "item", "opaque"}


def _is_marked(element: object) -> bool:
    return isinstance(element, tuple)


def _mixed(op: str) -> Callable[[Spotted, Value], Tensor]:
    def made(small: Spotted, value: Value) -> Tensor:
        first, second = value.items[:2]
        if op in ("mul", "div"):
            scaled = _scaled(small, first, second)
            if scaled is not None:
                return scaled
        shape, (a, b) = broadcast(small.operand(first), small.operand(second))
        if op in ("floordiv", "mod") and 0 in b:
            raise Impossible
        return Tensor(shape, tuple(_of_two(op, x, y) for x, y in zip(a, b, strict=True)))

    return made


def _scaled(small: Spotted, first: Value, second: Value) -> Tensor | None:
    """A marked tensor times something that is not known: a scale changes no mark."""
    if is_number(first) is not is_number(second):
        tensor = small.operand(second if is_number(first) else first)
        if any(map(_is_marked, tensor.data)):
            return tensor
    sides = []
    for each in (first, second):
        try:
            sides.append(small.operand(each))
        except Unknown:
            sides.append(None)  # type: ignore[arg-type]
    known = [side for side in sides if side is not None and any(map(_is_marked, side.data))]
    is_scale = any(side is None or not side.shape for side in sides)
    return known[0] if len(known) == 1 and is_scale else None


def _of_two(op: str, a: Any, b: Any) -> Any:
    if not _is_marked(a) and not _is_marked(b):
        if isinstance(a, bool) is not isinstance(b, bool) and op in ("and", "or", "xor"):
            raise Unknown
        return ELEMENTWISE[op](a, b)
    if _is_marked(a) and _is_marked(b):
        raise Unknown
    mark, number = (a, b) if _is_marked(a) else (b, a)
    if op in ("mul", "div") and (op == "mul" or mark is a):
        return mark if number else 0.0
    if op == "add" or (op == "sub" and mark is a):
        number = number if op == "add" else -number
        return HIDDEN if number <= LOWEST else mark
    raise Unknown


def _scores(small: Spotted, queries: Tensor, keys: Tensor) -> Tensor:
    """Products of queries [..., n, 1] and keys [..., 1, m]."""
    if len(queries.shape) < 2 or len(keys.shape) < 2 or queries.shape[-1] != 1 or keys.shape[-2] != 1:  # noqa: PLR2004
        raise Unknown
    return _paired(small, queries, keys)


def _paired(small: Spotted, queries: Tensor, keys: Tensor) -> Tensor:
    shape, (a, b) = broadcast(queries, keys)
    if not any(map(_is_marked, (*queries.data, *keys.data))) and queries.data and keys.data:
        raise Unknown
    pairs = tuple(Pair(_position(x), _position(y)) for x, y in zip(a, b, strict=True))
    small.is_padded = small.is_padded or any(pair.query is not None and pair.key is None for pair in pairs)
    return Tensor(shape, pairs)  # type: ignore[arg-type]


def _position(element: object) -> int | None:
    if isinstance(element, Pair):
        raise Unknown
    return element.at if isinstance(element, Spot) else None


def _einsum(small: Spotted, value: Value) -> Tensor:
    """Products summed over dimensions of one."""
    equation, first, second = value.items
    sides, _, out = str(equation.data).replace(" ", "").partition("->")
    tensors = [small.tensor(first), small.tensor(second)]
    names = []
    for each, tensor in zip(sides.split(","), tensors, strict=True):
        rest = len(tensor.shape) - len(each.replace("...", ""))
        names.append(each.replace("...", "ABCDEFG"[7 - rest :]))
    widest = max((name for name in names), key=lambda name: sum(map(str.isupper, name)))
    out = out.replace("...", "".join(filter(str.isupper, widest)))
    laid = []
    for own, tensor in zip(names, tensors, strict=True):
        summed = [letter for letter in own if letter not in out]
        if any(tensor.shape[own.index(letter)] != 1 for letter in summed):
            raise Unknown
        order = [own.index(letter) for letter in out if letter in own]
        turned = permuted(tensor, [*order, *(own.index(letter) for letter in summed)])
        kept = iter(turned.shape)
        laid.append(Tensor(tuple(next(kept) if letter in own else 1 for letter in out), turned.data))
    return _paired(small, *laid)


def _softmax(small: Spotted, value: Value) -> Tensor:
    tensor, dim = small.tensor(value["input"]), small.option(value, "dim", -1)
    if dim not in (-1, len(tensor.shape) - 1):
        raise Unknown(value)
    return _weights(tensor)


def _weights(scores: Tensor) -> Tensor:
    """A hidden score has no weight."""
    if not all(_is_marked(each) or each == HIDDEN for each in scores.data):
        raise Unknown
    return Tensor(scores.shape, tuple(each if _is_marked(each) else 0.0 for each in scores.data))


def attended(small: Spotted, value: Value) -> Tensor:
    """The weights of an attention: of a softmax, or of what torch computes itself."""
    if value.op == "softmax":
        return small.tensor(value)
    queries, keys = small.tensor(value["query"]), small.tensor(value["key"])
    scores = _scores(small, queries, permuted(keys, [*range(len(keys.shape) - 2), -1, -2]))
    is_causal, mask = value.get("is_causal"), value.get("attn_mask")
    if is_causal is not None and small.truth(is_causal):
        columns, rows = scores.shape[-1], scores.shape[-2]
        places = ((x, place % columns > place // columns % rows) for place, x in enumerate(scores.data))
        scores = Tensor(scores.shape, tuple(HIDDEN if is_above else x for x, is_above in places))
    if mask is not None and not small.is_none(mask):
        shape, (marks, hides) = broadcast(scores, small.tensor(mask))
        pairs = zip(marks, hides, strict=True)
        is_hidden = [(x, not m if isinstance(m, bool) else m <= LOWEST) for x, m in pairs]
        scores = Tensor(shape, tuple(HIDDEN if hides else x for x, hides in is_hidden))
    return _weights(scores)


def _masked(small: Spotted, value: Value) -> Tensor:
    base, mask = small.operand(value["input"]), small.tensor(value["mask"])
    if not mask.is_bool:
        raise Unknown(value)
    shape, (a, m) = broadcast(base, mask)
    fill = small.number(value["value"])
    fill = HIDDEN if fill <= LOWEST and (HIDDEN in a or any(map(_is_marked, a))) else fill
    return Tensor(shape, tuple(_like(x, fill) if hides else x for x, hides in zip(a, m, strict=True)))


def _like(element: Any, fill: Number) -> Number:
    return type(element)(fill) if not _is_marked(element) and element not in (HIDDEN,) else fill


def _where(small: Spotted, value: Value) -> Tensor:
    shape, (c, a, b) = broadcast(*(small.operand(value[name]) for name in ("condition", "input", "other")))
    marked = HIDDEN in (*a, *b) or any(map(_is_marked, (*a, *b)))
    chosen = (x if keeps else y for keeps, x, y in zip(c, a, b, strict=True))
    return Tensor(shape, tuple(HIDDEN if marked and not _is_marked(x) and x <= LOWEST else x for x in chosen))


def _converted(small: Spotted, value: Value) -> Tensor:
    tensor = small.tensor(value["input"])
    is_known = "dtype" in value.args and value["dtype"].op in ("global", "builtin")
    return TENSORS["cast"](small, value) if is_known and not any(map(_is_marked, tensor.data)) else tensor


def _scattered(small: Spotted, value: Value) -> Tensor:
    """A tensor with elements put, or added, where an index says."""
    tensor, new = small.tensor(value["input"]), small.tensor(value["src"])
    index, places = scattered(small, tensor.shape, value)
    if new.shape != index:
        raise Unknown(value)
    data = list(tensor.data)
    for place, element in zip(places, new.data, strict=True):
        data[place] = _of_two("add", data[place], element) if value.op == "scatter_add" else element
    return Tensor(tensor.shape, tuple(data))


_OPERATIONS: dict[str, Callable[[Any, Value], Tensor]] = {
    **{name: function for name, function in TENSORS.items() if name not in ("phi", "kept", "part")},
    **{name: _mixed(name) for name in ELEMENTWISE if name not in ("min", "max")},
    **PIECES,
    "cast": _converted,
    "dropout": TENSORS["clone"],
    "einsum": _einsum,
    "linear": TENSORS["clone"],
    "masked_fill": _masked,
    "matmul": lambda small, value: _scores(small, small.tensor(value["input"]), small.tensor(value["other"])),
    "scatter": _scattered,
    "scatter_add": _scattered,
    "softmax": _softmax,
    "where": _where,
}
Spotted.operations = _OPERATIONS
