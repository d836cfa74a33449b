"""What operations compute, in one normal form: spelled in any way, they give the same value."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from .shapes import rank_of, size_of
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
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": lambda a, b: a**b if abs(b) < 64 else None,
    "neg": operator.neg,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
    "eq": operator.eq,
    "ne": operator.ne,
    "not": operator.not_,
    "min": min,
    "max": max,
}


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


_SOMETHING = {"permute", "mT", "swap", "cast", "index", "setitem", "linear", "size", "max", "min", "add", "mul", "div"}


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
            if yes.is_const(True, False) and yes.key == no.key:
                return yes
            if yes.is_const(True) and no.is_const(False):
                return value["test"]
            if yes.is_const(False) and no.is_const(True):
                return applied(graph, "not", {"input": value["test"]}, at)
            return None
        if value.op == "const":
            return graph.const((value.data is None) == holds, at)
        return graph.const(not holds, at) if value.op in PARAMETERS or value.op in _SOMETHING else None

    return made


def _dim(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    rank = rank_of(graph, args["input"])
    return graph.const(rank, at) if rank is not None else None


def _einsum(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    """A sum of products of two tensors over one letter, as a product of matrices; None of any other."""
    equation, operands = args.get("input"), [value for name, value in args.items() if name != "input"]
    if equation is None or not equation.is_const() or not isinstance(equation.data, str) or len(operands) != 2:
        return None
    text, dots = equation.data.replace(" ", ""), "..."
    sides, arrow, out = text.partition("->")
    names = sides.split(",")
    if text.count(dots) == 3 and all(each.startswith(dots) for each in (*names, out)):
        return _einsum_of_last(graph, operands, [each.removeprefix(dots) for each in (*names, out)], at)
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


def _einsum_of_last(graph: Graph, operands: Sequence[Value], parts: Sequence[str], at: Place | None) -> Value | None:
    """The same where only the last dimensions are named: "...qd,...kd->...qk"."""
    shared = len(parts[-1]) - 2
    batch = parts[-1][:shared]
    if shared < 0 or not all(part.isalpha() and part[:shared] == batch for part in parts):
        return None
    first, second, out = (part[shared:] for part in parts)
    summed, letters = {*first} & {*second}, {*first, *second, *batch}
    if [len(first), len(second), len(summed), len(letters)] != [2, 2, 1, 3 + shared] or {*out} != letters - summed - {
        *batch
    }:
        return None
    a, b = operands
    a = a if first[1] in summed else _turned(graph, {"input": a}, at)
    b = b if second[0] in summed else _turned(graph, {"input": b}, at)
    made = graph.value("matmul", {"input": a, "other": b}, at=at)
    return made if out[0] in first else _turned(graph, {"input": made}, at)


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
    if top is None or bottom is None:
        return None
    if (shares := _share(graph, top, bottom, at)) is not None:
        return shares
    if top.number == 1 and bottom.number is None:
        return applied(graph, "pow", {"input": bottom, "exponent": graph.const(-1)}, at)
    return None


def _exp(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    """A softmax that is written as exponentials of what log-sum-exp, or log-softmax, leaves."""
    inner = args["input"] if "input" in args else graph.const(None)
    if inner.op == "log_softmax":
        return graph.value("softmax", inner.args, at=at)
    of = inner["other"] if inner.op == "sub" else inner
    is_softmax = of.op == "logsumexp" and inner.op == "sub" and of.get("keepdim", inner).is_const(True)  # type: ignore[union-attr]
    if not is_softmax or of["input"].key != inner["input"].key:
        return None
    return graph.value("softmax", {"input": inner["input"], "dim": of["dim"]}, at=at)


def _share(graph: Graph, top: Value, bottom: Value, at: Place | None) -> Value | None:
    """A softmax that is written as exponentials over their sum."""
    is_sum = top.op == "exp" and bottom.op == "sum" and bottom.get("keepdim", top).is_const(True)  # type: ignore[union-attr]
    if not is_sum or bottom["input"].key != top.key or "dim" not in bottom.args:
        return None
    scores, dim = top["input"], bottom["dim"]
    most = scores["other"] if scores.op == "sub" else scores
    if most.op == "amax" and most["input"].key == scores["input"].key and most.get("dim", top).key == dim.key:  # type: ignore[union-attr]
        scores = scores["input"] if most.get("keepdim", top).is_const(True) else scores  # type: ignore[union-attr]
    return graph.value("softmax", {"input": scores, "dim": dim}, at=at)


def _cast_like(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    return graph.value(
        "cast", {"input": args["input"], "like": args.get("other") or args.get("1") or args["input"]}, at=at
    )


def _t(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
    graph.ranks.setdefault(args["input"].key, 2)
    return _swapped(graph, args["input"], -1, -2, at)


def _like(op: str) -> Normal:
    def made(graph: Graph, args: dict[str, Value], at: Place | None) -> Value | None:
        """A tensor made as large as another one, whose sizes the code tells."""
        tensor = args["input"]
        rank = rank_of(graph, tensor)
        if rank is None:
            return None
        sizes = [size_of(graph, tensor, graph.const(place), at) for place in range(rank)]
        like = {name: graph.value("attr", {"of": tensor}, name, at) for name in ("dtype", "device")}
        own = {name: value for name, value in args.items() if name != "input"}
        return graph.value(op, {"size": graph.group("tuple", sizes), **like, **own}, at=at)

    return made


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
    "exp": _exp,
    "full_like": _like("full"),
    "is": _is_none(True),
    "isnot": _is_none(False),
    "mT": _turned,
    "ones_like": _like("ones"),
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
