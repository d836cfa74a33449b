"""What operations compute, in one normal form: spelled in any way, they give the same value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from .signatures import CASTS, OTHER_DTYPES, PARAMETERS, RANDOM
from .values import Graph, Place, Value

Normal = Callable[[Graph, dict[str, Value], Place | None], Value | None]


def applied(graph: Graph, op: str, args: dict[str, Value], at: Place | None) -> Value:
    """The value of an operation in its normal form."""
    if op in CASTS and set(args) == {"input"}:
        return graph.value("cast", {**args, "dtype": graph.value("global", data=CASTS[op])}, at=at)
    normal = _NORMAL.get(op)
    made = normal(graph, args, at) if normal is not None else None
    if made is not None:
        return made
    if op in RANDOM:
        return graph.unique(op, args, at=at)
    if args and all(value.op == "const" for value in args.values()):
        folded = _folded(op, [value.data for value in args.values()])
        if folded is not None:
            return graph.const(folded, at)
    return graph.value(op, args, at=at)


def _folded(op: str, data: Sequence[object]) -> float | None:
    numbers = [each for each in data if isinstance(each, (int, float))]
    if len(numbers) != len(data) or op not in _FOLDS:
        return None
    try:
        made = _FOLDS[op](*numbers)
    except (ArithmeticError, ValueError, TypeError):
        return None
    is_real = isinstance(made, (int, float)) and (abs(made) < 1e300 or math.isinf(made))
    return made if is_real else None


_FOLDS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "pow": lambda a, b: a**b if abs(b) < 64 else None,
    "neg": lambda a: -a,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "not": lambda a: not a,
    "min": min,
    "max": max,
}


def rank_of(graph: Graph, value: Value) -> int | None:
    """How many dimensions a tensor has, where the code tells."""
    known = graph.ranks.get(value.key)
    if known is not None:
        return known
    match value.op:
        case (
            "view" | "reshape" | "expand" | "ones" | "zeros" | "full" | "new_zeros" | "new_ones" | "new_full" | "empty"
        ):
            size = value.get("size")
            return len(size.args) if size is not None and size.op in ("tuple", "list") else None
        case "unflatten":
            inner, sizes = rank_of(graph, value["input"]), value.get("sizes")
            return (
                inner - 1 + len(sizes.args)
                if inner is not None and sizes is not None and sizes.op in ("tuple", "list")
                else None
            )
        case "flatten":
            inner = rank_of(graph, value["input"])
            start, end = (value.get("start_dim"), value.get("end_dim"))
            low = start.number if start is not None else 0
            high = end.number if end is not None else -1
            if inner is None or low is None or high is None:
                return None
            return inner - (int(high) % inner - int(low) % inner)
        case "unsqueeze" | "unfold" | "stack":
            inner = rank_of(graph, value["input"]) if "input" in value.args else None
            return inner + 1 if inner is not None else None
        case "arange":
            return 1
        case "phi":
            return rank_of(graph, value["yes"]) or rank_of(graph, value["no"])
        case "matmul":
            ranks = [rank_of(graph, each) for each in value.items]
            return None if None in ranks else max(ranks)  # type: ignore[type-var]
        case "add" | "sub" | "mul" | "div":
            known_ranks = [rank for each in value.items if (rank := rank_of(graph, each)) is not None]
            return max(known_ranks, default=None)
        case (
            "softmax"
            | "dropout"
            | "masked_fill"
            | "mT"
            | "permute"
            | "swap"
            | "cast"
            | "contiguous"
            | "clone"
            | "detach"
            | "pad"
            | "linear"
            | "neg"
            | "triu"
            | "tril"
            | "invert"
        ):
            return rank_of(graph, value["input"]) if "input" in value.args else None
    return None


def _transpose(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    first, second = args.get("dim0"), args.get("dim1")
    if first is None or second is None or not isinstance(first.number, int) or not isinstance(second.number, int):
        return None
    return _swapped(graph, args["input"], first.number, second.number, at)


def _swapped(graph: Graph, tensor: Value, a: int, b: int, at: Place | None) -> Value:
    if {a, b} == {-1, -2}:
        return _turned(graph, {"input": tensor}, at)
    rank = rank_of(graph, tensor)
    if rank is None or not (-rank <= a < rank and -rank <= b < rank):
        return graph.value("swap", {"input": tensor}, (min(a, b), max(a, b)), at)
    order = list(range(rank))
    order[a], order[b] = order[b], order[a]
    return _ordered(graph, tensor, order, at)


def _ordered(graph: Graph, tensor: Value, order: Sequence[int], at: Place | None) -> Value:
    """A tensor with its dimensions in another order."""
    rank = len(order)
    order = [each % rank for each in order]
    if tensor.op in ("permute", "mT"):
        inner = list(tensor.data) if tensor.op == "permute" else [*range(rank - 2), rank - 1, rank - 2]
        if len(inner) == rank:
            tensor, order = tensor["input"], [inner[each] for each in order]
    if order == list(range(rank)):
        return tensor
    if order == [*range(rank - 2), rank - 1, rank - 2]:
        made = graph.value("mT", {"input": tensor}, at=at)
    else:
        made = graph.value("permute", {"input": tensor}, tuple(order), at)
    graph.ranks[made.key] = rank
    return made


def _permute(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    dims = args.get("dims")
    numbers = [value.number for value in dims.items] if dims is not None and dims.op in ("tuple", "list") else [None]
    if any(not isinstance(each, int) for each in numbers) or "input" not in args:
        return None
    order: list[int] = [each for each in numbers if isinstance(each, int)]
    return (
        _ordered(graph, args["input"], order, at)
        if sorted(e % len(order) for e in order) == list(range(len(order)))
        else None
    )


def _turned(graph: Graph, args: dict[str, Value], at: Place | None) -> Value:
    tensor = args["input"]
    if tensor.op == "mT":
        return tensor["input"]
    rank = rank_of(graph, tensor)
    if rank is not None and rank >= 2 and tensor.op == "permute":
        return _ordered(graph, tensor, [*range(rank - 2), rank - 1, rank - 2], at)
    return graph.value("mT", {"input": tensor}, at=at)


def _to(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    """x.to(dtype), x.to(device), x.to(device, dtype), x.type(dtype); x.to(other) is like another tensor."""
    made = {"input": args["input"]}
    for name, value in args.items():
        if name in ("input", "non_blocking", "copy"):
            continue
        kind = name if name in ("dtype", "device") else _kind_of_setting(value)
        made[kind] = (
            graph.value("global", data=OTHER_DTYPES.get(str(value.data), value.data))
            if kind == "dtype" and value.op == "global"
            else value
        )
    return graph.value(
        "cast", {name: made[name] for name in ("input", "dtype", "device", "like") if name in made}, at=at
    )


def _kind_of_setting(value: Value) -> str:
    is_dtype = (value.op == "global" and str(value.data).startswith("torch.")) or (
        value.op == "builtin" and value.data in ("bool", "float", "int")
    )
    if is_dtype or (value.op == "attr" and value.data == "dtype"):
        return "dtype"
    is_device = value.is_const() or value.op == "device" or (value.op == "attr" and value.data == "device")
    return "device" if is_device else "like"


def _size(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    tensor = args["input"]
    dim = args.get("dim") or args.get("1")
    if dim is None:
        return graph.value("shape", {"input": tensor}, at=at)
    return size_of(graph, tensor, dim, at)


def size_of(graph: Graph, tensor: Value, dim: Value, at: Place | None) -> Value:
    """How long a tensor is in one dimension."""
    while (
        tensor.op in ("contiguous", "clone", "detach", "cast", "softmax", "dropout", "masked_fill")
        and "input" in tensor.args
    ):
        tensor = tensor["input"]
    place, rank = dim.number, rank_of(graph, tensor)
    if isinstance(place, int) and rank is not None and -rank <= place < rank:
        place %= rank
        if tensor.op in ("view", "reshape") and (given := tensor["size"].items[place]).number != -1:
            return given
        if tensor.op == "mT" and place >= rank - 2:
            return size_of(graph, tensor["input"], graph.const(2 * rank - 3 - place), at)
        if tensor.op == "permute":
            return size_of(graph, tensor["input"], graph.const(tensor.data[place]), at)
        if place == rank - 1 and _keeps_last(graph, tensor):
            return size_of(graph, tensor["input"], graph.const(-1), at)
        dim = graph.const(place)
    if isinstance(place, int) and tensor.op == "matmul" and (place == -1 or place == (rank or 0) - 1):
        return size_of(graph, tensor["other"], graph.const(-1), at)
    if isinstance(place, int) and tensor.op == "matmul" and (place == -2 or place == (rank or 0) - 2):
        return size_of(graph, tensor["input"], graph.const(-2), at)
    return graph.value("size", {"input": tensor, "dim": dim}, at=at)


def _keeps_last(graph: Graph, tensor: Value) -> bool:
    """Whether an operation leaves the length of the last dimension as it is."""
    inner = rank_of(graph, tensor["input"]) if "input" in tensor.args else None
    if inner is None:
        return False
    if tensor.op == "pad":
        amounts = tensor["pad"].items[:2] if tensor["pad"].op in ("tuple", "list") else ()
        return len(amounts) == 2 and all(each.number == 0 for each in amounts)
    if tensor.op == "unflatten":
        return isinstance(tensor["dim"].number, int) and tensor["dim"].number % inner != inner - 1
    if tensor.op == "flatten":
        end = tensor.get("end_dim")
        return end is not None and isinstance(end.number, int) and end.number % inner != inner - 1
    return False


_TENSORS = {"permute", "mT", "swap", "cast", "index", "setitem", "linear", "size"}


def _is_none(holds: bool) -> Normal:
    """Whether something is None, or is not, where the code tells."""

    def made(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
        value, other = args.get("input"), args.get("other")
        if value is None or other is None or not other.is_const(None):
            return None
        if value.op == "phi":
            yes, no = (
                applied(graph, "is" if holds else "isnot", {"input": value[side], "other": other}, at)
                for side in ("yes", "no")
            )
            if yes.is_const(True) and no.is_const(False):
                return value["test"]
            if yes.is_const(False) and no.is_const(True):
                return applied(graph, "not", {"input": value["test"]}, at)
            return None
        if value.op == "const":
            return graph.const((value.data is None) == holds, at)
        return graph.const(not holds, at) if value.op in PARAMETERS or value.op in _TENSORS else None

    return made


def _dim(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    rank = rank_of(graph, args["input"])
    return graph.const(rank, at) if rank is not None else None


def _einsum(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    """A sum of products of two tensors over one letter, as a product of matrices; None of any other."""
    equation, operands = args.get("input"), [value for name, value in args.items() if name != "input"]
    if equation is None or not equation.is_const() or not isinstance(equation.data, str) or len(operands) != 2:
        return None
    text = equation.data.replace(" ", "")
    sides, arrow, out = text.partition("->")
    names = sides.split(",")
    if (
        not arrow
        or len(names) != 2
        or not all(part.isalpha() and len(set(part)) == len(part) for part in (*names, out))
    ):
        return None
    first, second = names
    batch = [letter for letter in out if letter in first and letter in second]
    summed = [letter for letter in first if letter in second and letter not in out]
    rows = [letter for letter in out if letter in first and letter not in second]
    columns = [letter for letter in out if letter in second and letter not in first]
    if [len(summed), len(rows), len(columns)] != [1, 1, 1] or len(out) != len(batch) + 2:
        return None
    if len(first) != len(batch) + 2 or len(second) != len(batch) + 2:
        return None
    for tensor, letters in zip(operands, names, strict=True):
        graph.ranks.setdefault(tensor.key, len(letters))
    a = _ordered(graph, operands[0], [first.index(letter) for letter in [*batch, *rows, *summed]], at)
    b = _ordered(graph, operands[1], [second.index(letter) for letter in [*batch, *summed, *columns]], at)
    made = graph.value("matmul", {"input": a, "other": b}, at=at)
    graph.ranks[made.key] = len(out)
    plain = [*batch, *rows, *columns]
    return _ordered(graph, made, [plain.index(letter) for letter in out], at)


def _bmm(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    """A product of matrices in three dimensions, which says how many its operands have."""
    if not {"input", "other"} <= args.keys():
        return None
    sides = {}
    for name in ("input", "other"):
        side = args[name]
        is_turned = side.op == "swap" and {each % 3 for each in side.data} == {1, 2}
        sides[name] = _turned(graph, {"input": side["input"]}, at) if is_turned else side
        graph.ranks.setdefault(sides[name].key, 3)
        if is_turned:
            graph.ranks.setdefault(side["input"].key, 3)
    made = graph.value("matmul", sides, at=at)
    graph.ranks.setdefault(made.key, 3)
    return made


def _baddbmm(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    if not {"input", "batch1", "batch2"} <= args.keys():
        return None
    made = applied(graph, "bmm", {"input": args["batch1"], "other": args["batch2"]}, at)
    alpha, beta = args.get("alpha"), args.get("beta")
    if alpha is not None:
        made = applied(graph, "mul", {"input": made, "other": alpha}, at)
    if beta is not None and beta.number == 0:
        return made
    added = args["input"] if beta is None else applied(graph, "mul", {"input": args["input"], "other": beta}, at)
    return graph.value("add", {"input": made, "other": added}, at=at)


def _root(power: float) -> Normal:
    def made(graph: Graph, args: dict[str, Value], at: Place | None) -> Value:
        return applied(graph, "pow", {"input": args["input"], "exponent": graph.const(power)}, at)

    return made


def _pow(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    base, exponent = args.get("input"), args.get("exponent")
    if base is None or exponent is None or exponent.number is None:
        return None
    if exponent.number == 1:
        return base
    if base.op == "pow" and base["exponent"].number is not None:
        power = graph.const(base["exponent"].number * exponent.number)
        return applied(graph, "pow", {"input": base["input"], "exponent": power}, at)
    return None


def _div(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    top, bottom = args.get("input"), args.get("other")
    if top is not None and bottom is not None and top.number == 1 and bottom.number is None:
        return applied(graph, "pow", {"input": bottom, "exponent": graph.const(-1)}, at)
    return None


def _cast_like(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    return graph.value(
        "cast", {"input": args["input"], "like": args.get("other") or args.get("1") or args["input"]}, at=at
    )


def _t(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    graph.ranks.setdefault(args["input"].key, 2)
    return _swapped(graph, args["input"], -1, -2, at)


def _moved(device: str) -> Normal:
    def made(graph: Graph, args: dict[str, Value], at: Place | None) -> Value:
        return graph.value("cast", {"input": args["input"], "device": graph.const(device)}, at=at)

    return made


_NORMAL: dict[str, Normal] = {
    "baddbmm": _baddbmm,
    "bmm": _bmm,
    "cpu": _moved("cpu"),
    "cuda": _moved("cuda"),
    "dim": _dim,
    "div": _div,
    "einsum": _einsum,
    "is": _is_none(True),
    "isnot": _is_none(False),
    "mT": _turned,
    "permute": _permute,
    "pow": _pow,
    "rsqrt": _root(-0.5),
    "size": _size,
    "sqrt": _root(0.5),
    "t": _t,
    "to": _to,
    "transpose": _transpose,
    "type": _to,
    "type_as": _cast_like,
}
