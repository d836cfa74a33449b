"""Tell what is a Python number, and which one is the width of queries and keys."""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst

from .matchers import calls_builtin, elements, followed, operation
from .names import Binding
from .source import Source


def set_attribute(source: Source, attribute: cst.BaseExpression) -> list[cst.BaseExpression]:
    """What the class around sets `self.x` to."""
    own, text = source.enclosing(attribute, cst.ClassDef), source.code(attribute)
    if own is None or not text.startswith("self."):
        return []
    assigns = source.walk(cst.Assign, inside=own)
    return [each.value for each in assigns if text in [source.code(target.target) for target in each.targets]]


def is_number(source: Source, node: cst.BaseExpression, depth: int = 8) -> bool:
    """Whether an expression is a Python number for certain: a size, a power of one, a setting of a constructor."""
    if isinstance(node, cst.BaseNumber):
        return True
    if depth == 0:
        return False
    if isinstance(node, cst.UnaryOperation):
        return is_number(source, node.expression, depth)
    if isinstance(node, cst.BinaryOperation):
        return is_number(source, node.left, depth) and is_number(source, node.right, depth)
    if isinstance(node, cst.Call):
        is_size = source.code(node.func).endswith(".size") and bool(node.args)
        is_converted = any(calls_builtin(source, node, name) for name in ("float", "int", "len"))
        return is_size or is_converted or (source.names.qualified(node.func) or "").startswith("math.")
    if isinstance(node, cst.Subscript):
        return source.code(node.value).endswith(".shape")
    if isinstance(node, cst.Attribute):
        values = set_attribute(source, node)
        return bool(values) and all(is_number(source, value, depth - 1) for value in values)
    bound = source.names.bindings(node.value, node) if isinstance(node, cst.Name) else []
    return bool(bound) and all(_is_bound_to_number(source, binding, depth) for binding in bound)


def _is_bound_to_number(source: Source, binding: Binding, depth: int) -> bool:
    if isinstance(binding.node, cst.Param):
        kind = source.code(binding.node.annotation.annotation) if binding.node.annotation is not None else ""
        function = source.function(binding.node)
        is_setting = not kind and function is not None and function.name.value == "__init__"
        return kind in ("int", "float") or is_setting
    if binding.value is not None:
        return is_number(source, binding.value, depth - 1)
    return isinstance(binding.node, cst.Assign) and source.code(binding.node.value).endswith((".shape", ".size()"))


@dataclass(frozen=True, slots=True)
class Factors:
    """The queries and keys that make scores."""

    queries: cst.BaseExpression
    keys: str


def is_root_of_width(source: Source, node: cst.BaseExpression, factors: Factors, power: str) -> bool:
    """Whether an expression is a power of the last dimension of queries and keys: math.sqrt(D), D ** -0.5."""
    node = followed(source, node)
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Power):
        return source.code(node.right).strip("()") == power and _is_width(source, node.left, factors)
    is_root = isinstance(node, cst.Call) and source.names.qualified(node.func) == "math.sqrt"
    return power == "0.5" and is_root and _is_width(source, node.args[0].value, factors)  # type: ignore[attr-defined]


def _is_width(source: Source, node: cst.BaseExpression, factors: Factors) -> bool:
    owners = (source.code(factors.queries), factors.keys)
    if source.code(node) in [f"{owner}{size}" for owner in owners for size in (".size(-1)", ".shape[-1]")]:
        return source.statement(node) is source.statement(factors.queries)
    bound = [binding.node for binding in source.names.bindings(node.value, node)] if isinstance(node, cst.Name) else []
    return bool(bound) and all(
        isinstance(assign, cst.Assign)
        and source.code(assign.value) in [f"{owner}{size}" for owner in owners for size in (".shape", ".size()")]
        and [source.code(size) for size in elements(assign.targets[0].target)][-1:] == [source.code(node)]
        and _keeps_width(source, assign, factors.queries)
        for assign in bound
    )


def _keeps_width(source: Source, shape: cst.CSTNode, factor: cst.BaseExpression) -> bool:
    """Whether the queries are set anew, behind where their shape is read, only to what has the same last dimension."""
    later = [
        binding
        for binding in (source.names.bindings(factor.value, factor) if isinstance(factor, cst.Name) else ())
        if source.order[shape] < source.order[binding.node] < source.order[factor]
    ]
    for binding in later:
        made = operation(source, binding.value)
        while made is not None:
            arguments = [source.code(argument) for argument in made.operands[1:]]
            padded = [source.code(amount) for amount in elements(made.argument(1, "pad"))]
            is_kept = made.name == "pad" and padded[:2] == ["0", "0"]
            is_kept = is_kept or (made.name == "unflatten" and arguments[:1] in (["0"], ["1"], ["2"]))
            is_kept = is_kept or (made.name == "flatten" and set(arguments) < {"0", "1", "2"} and len(arguments) > 1)
            if not is_kept:
                return False
            inner, made = made.operands[0], operation(source, made.operands[0])
            if made is None and source.code(inner) != source.code(factor):
                return False
    return True
