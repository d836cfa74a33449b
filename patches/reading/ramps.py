"""Ramps: how a probability grows with a clock, found by computing it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

from .tensors import NUMBERS, Unknown
from .values import Value

_CLOCKS = ("carried", "item", "counted", "attr", "index", "part", "after", "parameter", "opaque")
_ENDS = (*_CLOCKS, "call", "setting")
_TOTALS = (6, 9)
_END = 0.4
_MOST = 3000  # ways to tell clock, total and end apart
_ALIKE = 1e-9
_FAILURES = (Unknown, TypeError, IndexError, KeyError, ValueError, ZeroDivisionError)
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "cos", "sin")},
    **{f"numpy.{name}": getattr(math, name) for name in ("cos", "sin")},
}


class Ramp(NamedTuple):
    """A value that goes from 0 to an end in a number of steps."""

    shape: str  # "half a cosine", "a line", "a whole cosine"
    clock: Value
    total: Value | None  # None where it is no value of its own
    end: Value | None

    @property
    def parameter(self) -> str | None:
        """The parameter that the clock starts from, if it does."""
        start = self.clock
        while start.op == "carried":
            start = start["start"]
        return str(start.data[2]) if start.op == "parameter" else None

    @property
    def option(self) -> str:
        """What its steps are called."""
        total = self.total
        known = total is not None and total.op in ("parameter", "attr")
        return "" if total is None or not known else str(total.data if total.op == "attr" else total.data[2])


_SHAPES: dict[str, Callable[[float], float]] = {
    "half a cosine": lambda part: (1 - math.cos(math.pi * min(part, 1))) / 2,
    "a line": lambda part: min(part, 1),
    "a whole cosine": lambda part: (1 - math.cos(2 * math.pi * min(part, 1))) / 2,
    "a whole cosine, again and again": lambda part: (1 - math.cos(2 * math.pi * part)) / 2,
    "half a cosine, again and again": lambda part: (1 - math.cos(math.pi * part)) / 2,
    "half a cosine downwards": lambda part: (1 + math.cos(math.pi * min(part, 1))) / 2,
}


def ramp_of(value: Value) -> Ramp | None:
    """The ramp that a value goes along; None of what is none, or of another shape."""
    for tried, (clock, total, end) in enumerate(_roles(value)):
        if tried > _MOST:
            break
        made = _curve(value, clock, total, end)
        for shape, wanted in _SHAPES.items() if made is not None else ():
            if all(abs(got - top * wanted(part)) < _ALIKE for part, top, got in made or ()):
                return Ramp(shape, clock, total, end)
    return None


def ramp_within(threshold: Value, is_below: bool) -> Ramp | None:
    """The ramp of a probability: as a number is to be below it, or a sum with it, or else above what it leaves of 1."""
    if not is_below:
        is_left = threshold.op == "sub" and threshold["input"].is_const(1)
        return ramp_of(threshold["other"]) if is_left else None
    found = [ramp_of(each) for each in (threshold, *(threshold.items if threshold.op == "add" else ()))]
    return next((each for each in found if each is not None), None)


def _roles(value: Value) -> Iterator[tuple[Value, Value | None, Value | None]]:
    """What may be the clock of a value, the steps of its ramp, and where that ends."""
    every = list(value.walk())
    clocks = [each for each in every if each.op in _CLOCKS]
    totals = {each["other"].key: each["other"] for each in every if each.op == "div"}
    ends = {each.key: each for each in every if each.op in _ENDS or each.number is not None}
    for clock, total, end in product(clocks, totals.values(), [*ends.values(), None]):
        if clock.key != total.key and (end is None or end.key not in (clock.key, total.key)):
            yield clock, total, end


def _curve(
    value: Value, clock: Value, total: Value | None, end: Value | None
) -> list[tuple[float, float, float]] | None:
    """What a value is: at some parts of the way, with an end."""
    found = []
    totals = [total.number] if total is not None and total.number else list(_TOTALS)
    for steps in totals:
        for place in range(25):
            step = place if steps in _TOTALS else int(place * steps / 12)
            known: dict[int, Any] = {clock.key: step}
            if total is not None and total.number is None:
                known[total.key] = steps
            top = end.number if end is not None and end.number is not None else _END if end is not None else 1.0
            if end is not None and end.number is None:
                known[end.key] = _END
            try:
                found.append((step / steps, top, float(computed(value, known))))
            except _FAILURES:
                return None
    return found


def computed(value: Value, known: Mapping[int, Any]) -> Any:
    """A number where some values are known by their keys. Raises Unknown."""
    if value.key in known:
        return known[value.key]
    match value.op:
        case "const" if isinstance(value.data, (bool, int, float)):
            return value.data
        case "any" | "all":
            return _either(value, known)
        case "phi":
            return computed(value["yes" if computed(value["test"], known) else "no"], known)
        case "int" | "float":
            return {"int": int, "float": float}[value.op](computed(value["input"], known))
        case "call" if value["func"].data in _FUNCTIONS and len(value.args) == 2:  # noqa: PLR2004 - func, and its argument
            return _FUNCTIONS[value["func"].data](computed(value.items[1], known))
        case op if op in NUMBERS:
            return NUMBERS[op](*(computed(each, known) for each in value.items))
    raise Unknown(value)


def _either(value: Value, known: Mapping[int, Any]) -> Any:
    """`a or b` and `a and b`, which give one of the two."""
    made: Any = None
    for each in value.items:
        made = computed(each, known)
        if bool(made) == (value.op == "any"):
            break
    return made
