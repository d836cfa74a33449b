"""What a mask, a window or an index is: computed in plain Python for small sizes.

Lengths that the code does not tell are given small numbers, one for each; a claim holds if it does for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from .elements import TENSORS
from .numbers import is_number
from .tensors import MOST_ELEMENTS, NUMBERS, Number, Tensor, Unknown
from .values import Value

_LENGTHS = {"size", "parameter", "attr", "part", "item", "carried", "after", "counted", "index", "int", "len"}


class Small:
    """Computes values under one choice of lengths."""

    def __init__(self, choose: Callable[[Value], int], counts: Collection[int] = ()) -> None:
        self._choose = choose
        self._counts = counts  # the keys of what is a number for certain, as others are made of it
        self._lengths: dict[int, int] = {}
        self._known: dict[int, Tensor] = {}
        self._numbers: dict[int, Number | Tensor] = {}

    def made(self, value: Value) -> object:
        """What a value is here: itself, and in no turn."""
        return value, None

    def number(self, value: Value) -> Number:
        """A Python number; what is none is a length that the code does not tell."""
        made = self._number(value)
        if isinstance(made, Tensor):
            if len(made.data) != 1:
                raise Unknown(value)
            return made.data[0]
        return made

    def _number(self, value: Value) -> Number | Tensor:
        if value.key not in self._numbers:
            self._numbers[value.key] = self._worked_out(value)
        return self._numbers[value.key]

    def _worked_out(self, value: Value) -> Number | Tensor:
        if value.op == "const":
            if isinstance(value.data, (bool, int, float)):
                return value.data
            raise Unknown(value)
        function = NUMBERS.get(value.op)
        if function is not None:
            return function(*(self.number(each) for each in value.items))
        if value.op in ("int", "float") and "input" in value.args:
            number = self.number(value["input"])
            return int(number) if value.op == "int" else float(number)
        if value.op == "size":
            try:
                tensor, dim = self.tensor(value["input"]), int(self.number(value["dim"]))
                return tensor.shape[dim]
            except Unknown:
                return self._length(value)
        if value.op in _LENGTHS:
            return self._length(value)
        return self.tensor(value)

    def _length(self, value: Value) -> int:
        if value.key not in self._lengths:
            self._lengths[value.key] = self._choose(value)
        return self._lengths[value.key]

    def tensor(self, value: Value) -> Tensor:
        """The elements of a tensor. Raises Unknown."""
        known = self._known.get(value.key)
        if known is not None:
            return known
        function = TENSORS.get(value.op)
        if function is None:
            if value.op in ("const", "neg", "int", "float", "size", "pow", "min", "max"):
                return Tensor((), (self.number(value),))
            raise Unknown(value)
        try:
            made = function(self, value)
        except KeyError:  # an operation without an argument that it needs
            raise Unknown(value) from None
        if len(made.data) > MOST_ELEMENTS or math.prod(made.shape) != len(made.data):
            raise Unknown(value)
        self._known[value.key] = made
        return made

    def operand(self, value: Value) -> Tensor:
        """A tensor, or a number as one without dimensions."""
        try:
            return self.tensor(value)
        except Unknown:
            is_one = value.key in self._counts or is_number(value)
            if (value.op in TENSORS and value.op not in NUMBERS) or not is_one:
                raise
            return Tensor((), (self.number(value),))

    def sizes(self, value: Value | None) -> tuple[int, ...]:
        """A shape."""
        if value is None:
            raise Unknown
        if value.op in ("tuple", "list"):
            return tuple(int(self.number(each)) for each in value.items)
        if value.op == "shape":
            return self.tensor(value["input"]).shape
        return (int(self.number(value)),)

    def option(self, value: Value, name: str, default: int) -> int:
        """An integer argument."""
        given = value.get(name)
        return default if given is None else int(self.number(given))
