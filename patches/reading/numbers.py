"""Which values are Python numbers for certain."""

from __future__ import annotations

import ast

from .nodes import walk
from .values import Value, once_each

_ARITHMETIC = {"pow", "mul", "div", "add", "sub", "floordiv", "neg", "min", "max", "mod", "sqrt"}


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
