"""What a value is made of where some conditions are known to hold, or not to."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping

from .code import Code
from .values import Value

_COMPARED: dict[str, Callable[[object, object], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "is": operator.eq,
    "isnot": operator.ne,
}
_LONGEST = 32  # choices in choices


def made_where(code: Code, value: Value, outcomes: Mapping[int, bool]) -> Iterator[Value]:
    """All that a value is made of where conditions, by their keys, come out so; of a choice the side that is taken."""
    pending, seen = [value], set[int]()
    while pending:
        each = taken(code, pending.pop(), outcomes)
        if each.key not in seen:
            seen.add(each.key)
            yield each
            pending += reversed(each.items)


def taken(code: Code, value: Value, outcomes: Mapping[int, bool]) -> Value:
    """What a value is there, as far as that is known: choices, members and attributes seen through."""
    for _ in range(_LONGEST):
        inner = _inner(code, value, outcomes)
        if inner is None or inner.key == value.key:
            break
        value = inner
    return value


def _inner(code: Code, value: Value, outcomes: Mapping[int, bool]) -> Value | None:
    if value.op == "phi":
        holds = truth(code, value["test"], outcomes)
        return None if holds is None else value["yes" if holds else "no"]
    if value.op == "attr":
        owner = taken(code, value["of"], outcomes)
        if owner.op == "instance":
            return code.attributes(owner.data[0], owner.data[1], owner).get(str(value.data))
    if value.op == "part":
        owner = taken(code, value["of"], outcomes)
        return owner.items[value.data] if owner.op in ("tuple", "list") and value.data < len(owner.items) else None
    if value.op == "index" and list(value.args) == ["input", "0"]:
        owner, place = taken(code, value["input"], outcomes), taken(code, value["0"], outcomes)
        known = place.data if place.op == "const" else truth(code, place, outcomes)
        is_place = (
            owner.op in ("tuple", "list") and isinstance(known, int) and -len(owner.args) <= known < len(owner.args)
        )
        return owner.items[int(known)] if is_place else None  # type: ignore[arg-type]
    if value.op == "item" and "of" in value.args:
        source = taken(code, value["of"], outcomes)
        return source["elt"] if source.op == "each" else None
    return None


def truth(code: Code, test: Value, outcomes: Mapping[int, bool]) -> bool | None:
    """Whether a condition holds; None where that is not known."""
    test = taken(code, test, outcomes)
    if test.key in outcomes:
        return outcomes[test.key]
    if test.op == "const":
        return bool(test.data)
    if test.op in ("bool", "int", "not"):
        inner = truth(code, test.items[0], outcomes)
        return inner if inner is None or test.op != "not" else not inner
    if test.op in ("all", "any"):
        every = [truth(code, each, outcomes) for each in test.items]
        decisive = test.op == "any"
        return decisive if decisive in every else None if None in every else not decisive
    sides = [taken(code, each, outcomes) for each in test.items]
    if test.op in _COMPARED and all(each.op == "const" for each in sides):
        return _COMPARED[test.op](*(each.data for each in sides))
    return None
