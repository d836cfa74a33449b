"""Tensors of numbers in plain Python, and what operations make of their elements."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

from .values import Value

Number = bool | int | float
MOST_ELEMENTS = 20_000
_MOST_BITS = 1024  # of a whole number: what is longer is no float


class Unknown(Exception):
    """A value is not one of those that can be computed here."""


class Impossible(Exception):
    """Lengths that do not go together: code that is given them does not run."""


class Beyond(Impossible):
    """An index that means no element."""


class Tensor(NamedTuple):
    """Elements in row-major order."""

    shape: tuple[int, ...]
    data: tuple[Number, ...]

    @property
    def is_bool(self) -> bool:
        return all(isinstance(each, bool) for each in self.data)


class Evaluator(Protocol):
    """What computes values, as an operation asks for it."""

    def made(self, value: Value) -> object: ...

    def number(self, value: Value) -> Number: ...

    def tensor(self, value: Value) -> Tensor: ...

    def operand(self, value: Value) -> Tensor: ...

    def sizes(self, value: Value | None) -> tuple[int, ...]: ...

    def option(self, value: Value, name: str, default: int) -> int: ...


def whole(a: Number) -> Number:
    """A number that can be counted with: True is 1."""
    return int(a) if isinstance(a, bool) else a


def _power(a: Number, b: Number) -> Number:
    if isinstance(a, int) and isinstance(b, int) and a.bit_length() * b > _MOST_BITS:
        raise Unknown
    made = whole(a) ** whole(b)
    if isinstance(made, complex):
        raise Unknown
    return made


def _by(divide: Callable[[Number, Number], Number]) -> Callable[[Number, Number], Number]:
    def apply(a: Number, b: Number) -> Number:
        if b == 0:
            raise Unknown
        return divide(a, b)

    return apply


def _added(a: Number, b: Number) -> Number:
    return a or b if isinstance(a, bool) and isinstance(b, bool) else whole(a) + whole(b)


def _times(a: Number, b: Number) -> Number:
    if isinstance(a, int) and isinstance(b, int) and a.bit_length() + b.bit_length() > _MOST_BITS:
        raise Unknown
    return a and b if isinstance(a, bool) and isinstance(b, bool) else whole(a) * whole(b)


def _either(
    function: Callable[[bool, bool], bool], bits: Callable[[int, int], int]
) -> Callable[[Number, Number], Number]:
    def made(a: Number, b: Number) -> Number:
        return function(a, b) if isinstance(a, bool) and isinstance(b, bool) else bits(int(a), int(b))

    return made


ELEMENTWISE: dict[str, Callable[[Number, Number], Number]] = {
    "add": _added,
    "sub": lambda a, b: whole(a) - whole(b),
    "mul": _times,
    "div": _by(operator.truediv),
    "floordiv": _by(operator.floordiv),
    "mod": _by(operator.mod),
    "pow": _power,
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
    "and": _either(operator.and_, operator.and_),
    "or": _either(operator.or_, operator.or_),
    "xor": _either(operator.xor, operator.xor),
    "minimum": min,
    "maximum": max,
}
NUMBERS: dict[str, Callable[..., Number]] = {
    **{
        name: ELEMENTWISE[name]
        for name in ("add", "sub", "mul", "div", "floordiv", "mod", "pow", "eq", "ne", "gt", "ge", "lt", "le")
    },
    "neg": lambda a: -whole(a),
    "not": lambda a: not a,
    "min": min,
    "max": max,
    "abs": lambda a: abs(whole(a)),
    "all": lambda *each: all(each),
    "any": lambda *each: any(each),
}


def promoted(data: Sequence[Number]) -> tuple[Number, ...]:
    """Numbers in the kind that holds them all: floats, else integers, else truth values."""
    kinds = {type(each) for each in data}
    if len(kinds) < 2:  # noqa: PLR2004 - one kind
        return tuple(data)
    return tuple(map(float if float in kinds else int, data))


def broadcast(*tensors: Tensor) -> tuple[tuple[int, ...], list[Sequence[Number]]]:
    """The common shape of some tensors, and their elements in it. Raises Unknown where they have none."""
    rank = max(len(each.shape) for each in tensors)
    shapes = [(1,) * (rank - len(each.shape)) + each.shape for each in tensors]
    shape = []
    for sizes in zip(*shapes, strict=True):
        wide = {size for size in sizes if size != 1}
        if len(wide) > 1:
            raise Unknown
        shape.append(wide.pop() if wide else 1)
    return tuple(shape), [expanded(each.data, own, tuple(shape)) for each, own in zip(tensors, shapes, strict=True)]


def expanded(data: Sequence[Number], own: tuple[int, ...], shape: tuple[int, ...]) -> Sequence[Number]:
    if own == shape:
        return data
    if math.prod(shape) > MOST_ELEMENTS:
        raise Unknown
    steps = steps_of(own)
    places = itertools.product(*map(range, shape))
    return [data[sum(i * s for i, s, size in zip(at, steps, own, strict=True) if size != 1)] for at in places]


def steps_of(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[place + 1 :]) for place in range(len(shape))]


def taken(tensor: Tensor, dim: int, places: Collection[int], *, keep: bool = True) -> Tensor:
    """Some places of a dimension; with one, and `keep` false, without the dimension."""
    shape = tensor.shape
    inner, outer, size = math.prod(shape[dim + 1 :]), math.prod(shape[:dim]), shape[dim]
    if any(not 0 <= place < size for place in places):
        raise Unknown
    data = tuple(
        each
        for block in range(outer)
        for place in places
        for each in tensor.data[(block * size + place) * inner : (block * size + place + 1) * inner]
    )
    return Tensor((*shape[:dim], *([len(places)] if keep else []), *shape[dim + 1 :]), data)


def permuted(tensor: Tensor, axes: Sequence[int]) -> Tensor:
    """A tensor with its dimensions in another order."""
    shape, steps = tuple(tensor.shape[a] for a in axes), steps_of(tensor.shape)
    places = itertools.product(*map(range, shape))
    return Tensor(shape, tuple(tensor.data[sum(i * steps[a] for i, a in zip(at, axes, strict=True))] for at in places))


def joined(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """Tensors one behind another in a dimension."""
    dim %= max(1, len(tensors[0].shape))
    shapes = {(*each.shape[:dim], *each.shape[dim + 1 :]) for each in tensors}
    if len(shapes) != 1:
        raise Unknown
    if sum(len(each.data) for each in tensors) > MOST_ELEMENTS:
        raise Unknown
    data: list[Number] = []
    for block in range(math.prod(tensors[0].shape[:dim])):
        for each in tensors:
            step = math.prod(each.shape[dim:])
            data += each.data[block * step : (block + 1) * step]
    shape = tensors[0].shape
    return Tensor((*shape[:dim], sum(each.shape[dim] for each in tensors), *shape[dim + 1 :]), tuple(data))
