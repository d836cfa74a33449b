"""Which values are Python numbers for certain."""

from __future__ import annotations

import ast

from .nodes import walk
from .tensors import NUMBERS, Number
from .values import Value, once_each

_ARITHMETIC = {"pow", "mul", "div", "add", "sub", "floordiv", "neg", "min", "max", "mod", "sqrt"}
_MOST = 65504.0  # the largest number of float16, whose range is the smallest


def parts_of(value: Value) -> list[Value]:
    """A number, and those that it is worked out of."""
    found, pending = dict[int, Value](), [value]
    while pending:
        each = pending.pop()
        pending += each.items if each.op in _ARITHMETIC and each.key not in found else ()
        found[each.key] = each
    return list(found.values())


@once_each
def ranging(value: Value) -> Number | None:
    """What a number made of the range of a dtype (torch.finfo) comes to in float16; None where it is none."""
    if value.op == "attr" and value.data in ("min", "max") and value["of"].op == "finfo":
        return _MOST if value.data == "max" else -_MOST
    if value.op not in ("neg", "mul", "div") or all(each.number is not None for each in value.items):
        return None
    sides = [ranging(each) if each.number is None else each.number for each in value.items]
    return NUMBERS[value.op](*sides) if all(sides) else None


@once_each
def is_number(value: Value) -> bool:
    """Whether a value is a Python number for certain: a size, a power of one, a setting of a constructor."""
    if value.number is not None or value.is_numeric or value.op in ("size", "len", "int", "float", "item"):
        return True
    if value.op in _ARITHMETIC:
        return all(is_number(each) for each in value.items)
    if value.op == "parameter":
        _, function, name = value.data
        arguments = function.args
        annotation = next((a.annotation for a in walk(arguments) if isinstance(a, ast.arg) and a.arg == name), None)
        if annotation is None:
            return getattr(function, "name", "") == "__init__"
        return isinstance(annotation, ast.Name) and annotation.id in ("int", "float")
    return value.op == "attr" and value.data == "p"
