"""Recognise code by what it does: an operation, however it is spelled, and the shapes that patches look for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from .source import Source


@dataclass(frozen=True, slots=True)
class Operation:
    """A tensor operation: `torch.triu(x, 1)`, `F.pad(x, p)` and `x.triu(1)` alike."""

    name: str
    call: cst.Call
    operands: tuple[cst.BaseExpression, ...]  # positional, the tensor first where there is one
    keywords: dict[str, cst.BaseExpression]
    is_method: bool

    def argument(self, position: int, keyword: str) -> cst.BaseExpression | None:
        """An argument by position or by keyword."""
        if keyword in self.keywords:
            return self.keywords[keyword]
        return self.operands[position] if position < len(self.operands) else None


def operation(source: Source, node: cst.CSTNode | None) -> Operation | None:
    """The tensor operation that a call makes, if it is one of torch's functions or a method."""
    if not isinstance(node, cst.Call) or any(argument.star for argument in node.args):
        return None
    operands = tuple(argument.value for argument in node.args if argument.keyword is None)
    keywords = {argument.keyword.value: argument.value for argument in node.args if argument.keyword is not None}
    qualified = source.names.qualified(node.func)
    if qualified is not None and qualified.startswith("torch."):
        return Operation(qualified.rsplit(".", 1)[1], node, operands, keywords, is_method=False)
    if qualified is None and isinstance(node.func, cst.Attribute):
        return Operation(node.func.attr.value, node, (node.func.value, *operands), keywords, is_method=True)
    return None


def operations(source: Source, *names: str, inside: cst.CSTNode | None = None) -> Iterator[Operation]:
    """All operations of some names, in source order."""
    for call in source.walk(cst.Call, inside):
        found = operation(source, call)
        if found is not None and found.name in names:
            yield found


def is_number(node: cst.CSTNode | None, value: int) -> bool:
    """Whether an expression is an integer literal."""
    return isinstance(node, cst.Integer) and node.evaluated_value == value


def same_code(source: Source, a: cst.CSTNode, b: cst.CSTNode) -> bool:
    """Whether two expressions read the same."""
    return a.deep_equals(b) or source.code(a).strip() == source.code(b).strip()


def calls_builtin(source: Source, node: cst.CSTNode | None, name: str) -> bool:
    """Whether an expression calls a builtin that nothing shadows."""
    return (
        isinstance(node, cst.Call)
        and isinstance(node.func, cst.Name)
        and node.func.value == name
        and not source.names.bindings(name, node)
    )


def followed(source: Source, node: cst.BaseExpression) -> cst.BaseExpression:
    """What a local name was assigned, through any number of names; the expression itself if it is no name."""
    value = source.names.value(node)
    while value is not None:
        node, value = value, source.names.value(value)
    return node


def index_of(node: cst.Subscript) -> list[cst.BaseSlice]:
    """The indices of a subscript: `x[a, b:c]` has two."""
    return [element.slice for element in node.slice]


def elements(node: cst.CSTNode | None) -> list[cst.BaseExpression]:
    """The members of a tuple or list display."""
    if not isinstance(node, (cst.Tuple, cst.List)):
        return []
    return [element.value for element in node.elements]


def is_method(node: cst.CSTNode, *names: str) -> bool:
    """Whether a node calls a method of one of the names."""
    return isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value in names


def is_alone(statement: cst.CSTNode) -> bool:
    """Whether a statement has its line to itself."""
    return isinstance(statement, cst.SimpleStatementLine) and len(statement.body) == 1


def is_inside(source: Source, node: cst.CSTNode | None, outer: cst.CSTNode) -> bool:
    """Whether a node is another, or stands in it."""
    while node is not None and node is not outer:
        node = source.parents.get(node)
    return node is outer


@dataclass(frozen=True, slots=True)
class Iteration:
    """The parts of `for item in items`, taken out of an enumerate if there is one."""

    items: cst.BaseExpression
    item: cst.BaseExpression
    counted: bool


def iteration(source: Source, loop: cst.For) -> Iteration | None:
    """What a loop goes through; None where an enumerate's target is not a pair."""
    if not calls_builtin(source, loop.iter, "enumerate"):
        return Iteration(loop.iter, loop.target, counted=False)
    pair = elements(loop.target)
    assert isinstance(loop.iter, cst.Call)
    return Iteration(loop.iter.args[0].value, pair[1], counted=True) if len(pair) == 2 else None  # noqa: PLR2004


def is_update(source: Source, statement: cst.CSTNode) -> bool:
    """Whether a statement is part of an optimizer update: a clip, step, zero_grad, or one of them under a condition."""
    if isinstance(statement, cst.If):
        body = statement.body.body
        return statement.orelse is None and len(body) == 1 and is_update(source, body[0])
    if not isinstance(statement, cst.SimpleStatementLine) or len(statement.body) != 1:
        return False
    small = statement.body[0]
    if not isinstance(small, (cst.Expr, cst.Assign)) or small.value is None:
        return False
    made = operation(source, small.value)
    clips = made is not None and made.name.startswith("clip_grad")
    return clips or (isinstance(small, cst.Expr) and is_method(small.value, "step", "zero_grad", "unscale_", "update"))


def used_outside(source: Source, statements: list[cst.CSTNode]) -> cst.Name | None:
    """A use, outside of some statements, of a name that they set."""
    for assign in (assign for statement in statements for assign in source.walk(cst.Assign, inside=statement)):
        target = assign.targets[0].target
        for use in source.uses(source.function(assign)):
            is_same = isinstance(target, cst.Name) and use.value == target.value
            if is_same and not any(is_inside(source, use, statement) for statement in statements):
                return use
    return None


def schedule_totals(source: Source, function: cst.FunctionDef) -> Iterator[cst.BaseExpression]:
    """The total_steps that a function gives to configure_optimizer or to a scheduler."""
    for call in source.walk(cst.Call, inside=function):
        named = [a.value for a in call.args if a.keyword is not None and a.keyword.value == "total_steps"]
        if named:
            yield named[0]
        elif source.code(call.func).endswith("configure_optimizer") and len(call.args) == 4:  # noqa: PLR2004
            yield call.args[3].value


def factor_beside_range(
    source: Source, function: cst.FunctionDef, product: cst.BaseExpression
) -> cst.BaseExpression | None:
    """The other factor of a product with the length of one of the function's ranges: `steps` of `epochs * steps`.

    `max(1, epochs * steps)` is seen through.
    """
    if isinstance(product, cst.Call) and calls_builtin(source, product, "max"):
        inner = [argument.value for argument in product.args if not is_number(argument.value, 1)]
        return factor_beside_range(source, function, inner[0]) if len(inner) == 1 else None
    ranges = [c for loop in source.walk(cst.For, inside=function) for c in source.walk(cst.Call, inside=loop.iter)]
    lengths = {source.code(c.args[-1].value) for c in ranges if calls_builtin(source, c, "range") and c.args}
    if isinstance(product, cst.BinaryOperation) and isinstance(product.operator, cst.Multiply):
        if source.code(product.left) in lengths:
            return product.right
        if source.code(product.right) in lengths:
            return product.left
    return None


@dataclass(frozen=True, slots=True)
class PaddedWindows:
    """Keys cut into windows of overlap + chunk, after a pad of `overlap` on the left."""

    function: cst.FunctionDef
    overlap: cst.BaseExpression
    chunk: cst.BaseExpression


def padded_windows(source: Source) -> Iterator[PaddedWindows]:
    """One for each function that pads a sequence on its left and unfolds it."""
    seen = set()
    for unfold in operations(source, "unfold"):
        function = source.function(unfold.call)
        pad = operation(source, followed(source, unfold.operands[0]))
        if pad is None or pad.name != "pad" or function is None or function in seen:
            continue
        amounts, step = elements(pad.argument(1, "pad")), unfold.argument(3, "step")  # amounts: pairs, last dim first
        if len(amounts) > 2 and not is_number(amounts[2], 0) and step is not None:  # noqa: PLR2004
            seen.add(function)
            yield PaddedWindows(function, amounts[2], step)


@dataclass(frozen=True, slots=True)
class MapWrite:
    """A write in a loop to rows and columns of a square map: `map[..., r0:r1, first:end] = window`."""

    assign: cst.Assign
    map: cst.Subscript
    length: cst.BaseExpression  # T of the T x T map
    first: cst.BaseExpression
    end: cst.BaseExpression


def map_writes(source: Source) -> Iterator[MapWrite]:
    """The writes of windows to zeros(..., T, T), their columns given by a slice or an arange."""
    for assign in source.walk(cst.Assign):
        target = assign.targets[0].target
        if isinstance(target, cst.Subscript) and source.enclosing(assign, cst.For) is not None:
            columns, length = _columns(source, target), _square(source, target)
            if columns is not None and length is not None:
                yield MapWrite(assign, target, length, *columns)


def _columns(source: Source, target: cst.Subscript) -> tuple[cst.BaseExpression, cst.BaseExpression] | None:
    indices = index_of(target)
    if len(indices) < 2 or not isinstance(indices[-2], cst.Slice):  # noqa: PLR2004 - rows and columns
        return None
    last = indices[-1]
    if isinstance(last, cst.Slice):
        return (last.lower, last.upper) if last.lower is not None and last.upper is not None else None
    assert isinstance(last, cst.Index)
    made = operation(source, followed(source, last.value))
    return made.operands[:2] if made is not None and made.name == "arange" and len(made.operands) > 1 else None  # type: ignore[return-value]


def _square(source: Source, target: cst.Subscript) -> cst.BaseExpression | None:
    made = operation(source, followed(source, target.value))
    if made is None or made.name not in ("zeros", "new_zeros"):
        return None
    sizes = list(made.operands[1:] if made.is_method else made.operands)
    sizes = elements(sizes[0]) if len(sizes) == 1 else sizes
    return sizes[-1] if len(sizes) > 1 and same_code(source, sizes[-1], sizes[-2]) else None


def sequence_length(source: Source, function: cst.FunctionDef) -> str | None:
    """T of `B, H, T, D = q.shape` or of `T = q.size(2)`."""
    for assign in source.walk(cst.Assign, inside=function):
        target, value = assign.targets[0].target, source.code(assign.value)
        sizes = elements(target)
        if value.endswith((".shape", ".size()")) and len(sizes) > 2:  # noqa: PLR2004 - more than rows and columns
            return source.code(sizes[-2])
        if isinstance(target, cst.Name) and value.endswith((".size(2)", ".size(-2)", ".shape[2]", ".shape[-2]")):
            return target.value
    return None


def sole_setting(source: Source, node: cst.BaseExpression) -> cst.CSTNode | None:
    """The statement that does nothing but set a local name whose only use this is."""
    if not isinstance(node, cst.Name) or source.names.value(node) is None:
        return None
    statements = [source.statement(binding.node) for binding in source.names.bindings(node.value, node)]
    uses = [use for use in source.uses(source.function(node)) if use.value == node.value]
    others = [use for use in uses if use is not node and source.statement(use) not in statements]
    return statements[0] if len(statements) == 1 and not others and is_alone(statements[0]) else None


def last_setting(source: Source, function: cst.FunctionDef, name: cst.Name) -> cst.CSTNode | None:
    """The last statement at a function's top that sets a name, if one before it sets the name for certain."""
    bound = [binding.node for binding in source.names.bindings(name.value, name)]
    tops = [top for top in function.body.body if any(is_inside(source, node, top) for node in bound)]
    certain = any(source.statement(node) is top for node in bound for top in tops[:1])
    return tops[-1] if certain else None
