"""What functions, methods, modules and operators are called, and which parameters they have: one table."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence

from .values import Graph, Value

BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.Pow: "pow",
    ast.MatMult: "matmul",
    ast.BitOr: "or",
    ast.BitAnd: "and",
    ast.BitXor: "xor",
}
COMPARE: dict[type[ast.cmpop], str] = {
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Is: "is",
    ast.IsNot: "isnot",
    ast.In: "in",
    ast.NotIn: "notin",
}
UNARY: dict[type[ast.unaryop], str] = {ast.USub: "neg", ast.Invert: "invert", ast.Not: "not"}

_TWO = ("input", "other")
_UNARY = ("input",)
PARAMETERS: dict[str, tuple[str, ...]] = {  # of torch's functions, in their order: a method's tensor is the first
    "abs": _UNARY,
    "amax": ("input", "dim", "keepdim"),
    "add": _TWO,
    "and": _TWO,
    "arange": ("start", "end", "step"),
    "argmax": ("input", "dim"),
    "bmm": _TWO,
    "baddbmm": ("input", "batch1", "batch2"),
    "cat": ("tensors", "dim"),
    "chunk": ("input", "chunks", "dim"),
    "clamp": ("input", "min", "max"),
    "clone": _UNARY,
    "contiguous": _UNARY,
    "cross_entropy": ("input", "target", "weight", "size_average", "ignore_index", "reduce", "reduction"),
    "cumsum": ("input", "dim"),
    "detach": _UNARY,
    "dim": _UNARY,
    "div": _TWO,
    "dropout": ("input", "p", "training", "inplace"),
    "empty": ("size",),
    "empty_like": _UNARY,
    "eq": _TWO,
    "exp": _UNARY,
    "eye": ("n", "m"),
    "flatten": ("input", "start_dim", "end_dim"),
    "flip": ("input", "dims"),
    "floordiv": _TWO,
    "full": ("size", "fill_value"),
    "full_like": ("input", "fill_value"),
    "ge": _TWO,
    "gt": _TWO,
    "index_copy": ("input", "dim", "index", "source"),
    "index_put": ("input", "indices", "values"),
    "index_select": ("input", "dim", "index"),
    "invert": _UNARY,
    "le": _TWO,
    "logsumexp": ("input", "dim", "keepdim"),
    "log_softmax": ("input", "dim", "dtype"),
    "lt": _TWO,
    "masked_fill": ("input", "mask", "value"),
    "matmul": _TWO,
    "maximum": _TWO,
    "mean": ("input", "dim"),
    "minimum": _TWO,
    "mod": _TWO,
    "mul": _TWO,
    "narrow": ("input", "dim", "start", "length"),
    "ne": _TWO,
    "neg": _UNARY,
    "not": _UNARY,
    "numel": _UNARY,
    "new_empty": ("input", "size"),
    "new_full": ("input", "size", "fill_value"),
    "new_ones": ("input", "size"),
    "new_zeros": ("input", "size"),
    "nll_loss": ("input", "target", "weight", "size_average", "ignore_index", "reduce", "reduction"),
    "ones": ("size",),
    "ones_like": _UNARY,
    "or": _TWO,
    "pad": ("input", "pad", "mode", "value"),
    "pow": ("input", "exponent"),
    "repeat_interleave": ("input", "repeats", "dim"),
    "rsqrt": _UNARY,
    "scaled_dot_product_attention": (
        *("query", "key", "value", "attn_mask", "dropout_p"),
        *("is_causal", "scale", "enable_gqa"),
    ),
    "scatter": ("input", "dim", "index", "src"),
    "scatter_add": ("input", "dim", "index", "src"),
    "select": ("input", "dim", "index"),
    "sigmoid": _UNARY,
    "softmax": ("input", "dim", "dtype"),
    "split": ("input", "split_size_or_sections", "dim"),
    "sqrt": _UNARY,
    "squeeze": ("input", "dim"),
    "stack": ("tensors", "dim"),
    "sub": _TWO,
    "sum": ("input", "dim", "keepdim"),
    "tensor": ("data",),
    "transpose": ("input", "dim0", "dim1"),
    "tril": ("input", "diagonal"),
    "tril_indices": ("row", "col", "offset"),
    "triu": ("input", "diagonal"),
    "triu_indices": ("row", "col", "offset"),
    "unflatten": ("input", "dim", "sizes"),
    "unbind": ("input", "dim"),
    "unfold": ("input", "dimension", "size", "step"),
    "unsqueeze": ("input", "dim"),
    "where": ("condition", "input", "other"),
    "xor": _TWO,
    "zeros": ("size",),
    "zeros_like": _UNARY,
}
GATHERED = {  # operations whose last parameter takes any number of arguments: x.view(2, 3), torch.ones(n, n)
    "view": "size",
    "reshape": "size",
    "expand": "size",
    "repeat": "size",
    "permute": "dims",
    "ones": "size",
    "zeros": "size",
    "empty": "size",
    "new_ones": "size",
    "new_zeros": "size",
    "new_empty": "size",
}
PARAMETERS |= dict.fromkeys(("view", "reshape", "expand", "repeat"), ("input", "size"))
PARAMETERS["permute"] = ("input", "dims")
OTHER_NAMES = {
    "absolute": "abs",
    "bitwise_and": "and",
    "bitwise_not": "invert",
    "bitwise_or": "or",
    "bitwise_xor": "xor",
    "clip": "clamp",
    "concat": "cat",
    "concatenate": "cat",
    "divide": "div",
    "floor_divide": "floordiv",
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "logical_and": "and",
    "logical_not": "not",
    "logical_or": "or",
    "logical_xor": "xor",
    "mm": "matmul",
    "multiply": "mul",
    "ndimension": "dim",
    "negative": "neg",
    "not_equal": "ne",
    "remainder": "mod",
    "subtract": "sub",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "true_divide": "div",
    "truediv": "div",
}
CASTS = {
    "bool": "torch.bool",
    "float": "torch.float32",
    "double": "torch.float64",
    "half": "torch.float16",
    "bfloat16": "torch.bfloat16",
    "int": "torch.int32",
    "long": "torch.int64",
}
MODULES = {  # operations that a module's call makes, and the settings that are theirs
    "torch.nn.Softmax": ("softmax", ("dim",)),
    "torch.nn.Dropout": ("dropout", ("p", "inplace")),
    "torch.nn.CrossEntropyLoss": ("cross_entropy", PARAMETERS["cross_entropy"][2:]),
    "torch.nn.NLLLoss": ("nll_loss", PARAMETERS["nll_loss"][2:]),
}
NAMESPACES = ("torch", "torch.nn.functional", "torch.Tensor", "torch.special", "operator")
NUMBERS = {"math.inf": math.inf, "torch.inf": math.inf, "numpy.inf": math.inf, "math.pi": math.pi, "math.e": math.e}
RANDOM = {
    *("dropout", "rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal"),
    *("rand_like", "randn_like"),
}
VIEWS = {  # which show the elements of another tensor
    *("index", "mT", "permute", "swap", "view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "expand"),
    *("select", "detach", "contiguous", "part"),
}
NEUTRAL = {"contiguous", "clone", "detach"}  # the same elements
OTHER_DTYPES = {
    "torch.float": "torch.float32",
    "torch.long": "torch.int64",
    "torch.int": "torch.int32",
    "torch.double": "torch.float64",
}


def operation_named(dotted: str) -> str | None:
    """The operation that a function of torch's means, by its full name."""
    space, _, name = dotted.rpartition(".")
    if space not in NAMESPACES:
        return None
    name = OTHER_NAMES.get(name.removesuffix("_"), name.removesuffix("_"))
    return name if name in PARAMETERS or name in _SPECIAL else None


def method_named(name: str) -> str | None:
    """The operation that a tensor's method means; in-place ones end with an underscore, and mean the same."""
    base = name.removesuffix("_")
    base = OTHER_NAMES.get(base, base)
    return base if base in PARAMETERS or base in _SPECIAL or base in CASTS else None


def bound(op: str, placed: Sequence[Value], named: Mapping[str, Value], graph: Graph) -> dict[str, Value]:
    """Arguments by the names of an operation's parameters, in their order."""
    names = PARAMETERS.get(op, _UNARY)
    placed = list(placed)
    gathered = GATHERED.get(op)
    if gathered is not None:
        at = names.index(gathered)
        rest = placed[at:]
        if len(rest) > 1 or (rest and rest[0].op not in ("tuple", "list", "shape", "opaque") and gathered not in named):
            placed = [*placed[:at], graph.group("tuple", rest)]
    if op == "arange" and (len(placed) == 1 and "end" not in named):
        placed = [graph.const(0), placed[0]]
    given = {**dict(zip(names, placed, strict=False)), **{_PARAMETER.get(name, name): v for name, v in named.items()}}
    for name in ("size", "dims"):
        if name in given and given[name].op == "list":
            given[name] = graph.group("tuple", given[name].items)
    extra = {str(place): value for place, value in enumerate(placed[len(names) :], len(names))}
    order = [*names, *sorted(name for name in given if name not in names)]
    return {name: given[name] for name in order if name in given} | extra


_PARAMETER = {"axis": "dim", "fill": "fill_value"}
_SPECIAL = {
    *("to", "type", "type_as", "size", "mT", "einsum", "t", "cpu", "cuda"),
    *("item", "view_as", "expand_as", "float_power"),
}
