"""Recognise code by what it does: an operation, however it is spelled, and the shapes that patches look for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from .source import Source

LAYOUTS = ("clone", "contiguous", "flatten", "reshape", "view")  # the same elements, laid out anew


_TENSOR = ("input",)
PARAMETERS = {  # of torch's functions, in their order: a method's tensor is the first
    "arange": ("start", "end", "step"),
    "bmm": ("input", "mat2"),
    "DataLoader": ("dataset", "batch_size"),
    "dropout": ("input", "p", "training"),
    "einsum": ("equation",),
    "full": ("size", "fill_value"),
    "matmul": ("input", "other"),
    "masked_fill": ("input", "mask", "value"),
    "ones": ("size",),
    "pad": ("input", "pad", "mode", "value"),
    "softmax": ("input", "dim"),
    "split": ("tensor", "split_size_or_sections", "dim"),
    "tensor": ("data",),
    "transpose": ("input", "dim0", "dim1"),
    "zeros": ("size",),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """A tensor operation: `torch.triu(x, 1)`, `torch.triu(input=x, diagonal=1)` and `x.triu(1)` alike.

    Its operands begin with those that are positional, and go on with keywords for as long as these come next.
    """

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
        name, is_method = qualified.rsplit(".", 1)[1], False
    elif qualified is None and isinstance(node.func, cst.Attribute):
        name, is_method, operands = node.func.attr.value, True, (node.func.value, *operands)
    else:
        return None
    for parameter in PARAMETERS.get(name, _TENSOR)[len(operands) :]:
        if parameter not in keywords:
            break
        operands = (*operands, keywords[parameter])
    return Operation(name, node, operands, keywords, is_method)


def operations(source: Source, *names: str, inside: cst.CSTNode | None = None) -> Iterator[Operation]:
    """All operations of some names, in source order."""
    for call in source.walk(cst.Call, inside, having=names):
        found = operation(source, call)
        if found is not None and found.name in names:
            yield found


def is_number(node: cst.CSTNode | None, value: int) -> bool:
    """Whether an expression is an integer literal."""
    return isinstance(node, cst.Integer) and int(node.value, 0) == value


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


def last_slice(node: cst.CSTNode) -> cst.Slice | None:
    """The slice that a subscript ends with: `b:c` of `x[a, b:c]`."""
    last = index_of(node)[-1] if isinstance(node, cst.Subscript) else None
    return last if isinstance(last, cst.Slice) else None


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
        pad = _maker(source, unfold.argument(0, "input"))
        if pad is None or pad.name != "pad" or function is None or function in seen:
            continue
        amounts, step = elements(pad.argument(1, "pad")), unfold.argument(3, "step")  # amounts: pairs, last dim first
        if len(amounts) > 2 and not is_number(amounts[2], 0) and step is not None:  # noqa: PLR2004
            seen.add(function)
            yield PaddedWindows(function, amounts[2], step)


def _maker(source: Source, tensor: cst.BaseExpression | None) -> Operation | None:
    """The operation that a tensor comes from, past those that only lay it out anew."""
    made = None
    while tensor is not None:
        made = operation(source, followed(source, tensor))
        tensor = made.argument(0, "input") if made is not None and made.name in LAYOUTS else None
    return made


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
    for assign in source.walk(cst.Assign, having=("zeros",)):
        target = assign.targets[0].target
        if isinstance(target, cst.Subscript) and source.enclosing(assign, cst.For, cst.While) is not None:
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


def computed_starts_in_loops(source: Source) -> Iterator[cst.BaseExpression]:
    """The first bounds of slices and aranges in loops, where they are computed and not just a name of the loop's."""
    bounds = [made.operands[0] for made in operations(source, "arange") if len(made.operands) > 1]
    bounds += [cut.lower for cut in source.walk(cst.Slice) if cut.lower is not None]
    for bound in sorted(bounds, key=lambda node: source.order[node]):
        plain = is_loop_target(source, bound) or isinstance(followed(source, bound), cst.Integer)
        if not plain and source.enclosing(bound, cst.For, cst.While) is not None:
            yield bound


def is_loop_target(source: Source, node: cst.BaseExpression) -> bool:
    """Whether an expression is the variable of a loop."""
    bindings = source.names.bindings(node.value, node) if isinstance(node, cst.Name) else []
    return bool(bindings) and all(isinstance(binding.node, cst.For) for binding in bindings)


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


def last_setting(source: Source, function: cst.FunctionDef, name: cst.Name) -> cst.CSTNode | None:
    """The last statement at a function's top that sets a name, if one before it sets the name for certain."""
    bound = [binding.node for binding in source.names.bindings(name.value, name)]
    tops = [top for top in function.body.body if any(is_inside(source, node, top) for node in bound)]
    certain = any(source.statement(node) is top for node in bound for top in tops[:1])
    return tops[-1] if certain else None
