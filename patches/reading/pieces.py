"""How tensors are cut, padded and joined, whatever their elements are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .elements import TENSORS
from .loops import Turned
from .picks import wrapped
from .tensors import Impossible, Tensor, Unknown, joined, permuted, taken
from .values import Value


def _counted(small: Turned, value: Value) -> Tensor:
    if "step" in value.args and small.number(value["step"]) == 0:
        raise Impossible
    return TENSORS["arange"](small, value)


def _padded(small: Turned, value: Value) -> Tensor:
    tensor = small.tensor(value["input"])
    amounts = [int(small.number(each)) for each in value["pad"].items]
    fill = small.number(value["value"]) if "value" in value.args and not value["value"].is_const(None) else 0.0
    if "mode" in value.args and not value["mode"].is_const("constant"):
        raise Unknown(value)
    for place, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        dim = len(tensor.shape) - 1 - place
        size = tensor.shape[dim]
        tensor = taken(tensor, dim, range(max(-before, 0), size - max(-after, 0)))
        sides = [Tensor((*tensor.shape[:dim], max(n, 0), *tensor.shape[dim + 1 :]), ()) for n in (before, after)]
        ends = [Tensor(each.shape, (fill,) * math.prod(each.shape)) for each in sides]
        tensor = joined([ends[0], tensor, ends[1]], dim)
    return tensor


def _stack(small: Turned, value: Value) -> Tensor:
    tensors, dim = small.tensors(value["tensors"]), small.option(value, "dim", 0)
    dim %= len(tensors[0].shape) + 1
    return joined([Tensor((*each.shape[:dim], 1, *each.shape[dim:]), each.data) for each in tensors], dim)


def _unfolded(small: Turned, value: Value) -> Tensor:
    tensor, (dim, size, step) = small.tensor(value["input"]), (int(small.number(e)) for e in value.items[1:4])
    if size < 1 or step < 1:
        raise Impossible
    dim %= len(tensor.shape)
    windows = [taken(tensor, dim, range(at, at + size)) for at in range(0, tensor.shape[dim] - size + 1, step)]
    ends = [permuted(each, [a for a in range(len(each.shape)) if a != dim] + [dim]) for each in windows]
    stacked = [Tensor((*each.shape[:dim], 1, *each.shape[dim:]), each.data) for each in ends]
    return joined(stacked, dim)


def _selected(small: Turned, value: Value) -> Tensor:
    tensor, dim = small.tensor(value["input"]), int(small.number(value["dim"]))
    dim %= len(tensor.shape)
    if value.op == "narrow":
        start, length = int(small.number(value["start"])), int(small.number(value["length"]))
        return taken(tensor, dim, range(wrapped(start, tensor.shape[dim] + 1), start + length))
    index = small.tensor(value["index"])
    places = [wrapped(each, tensor.shape[dim]) for each in index.data]
    return taken(tensor, dim, places, keep=value.op == "index_select")


def _clamped(small: Turned, value: Value) -> Tensor:
    tensor = small.tensor(value["input"])
    low, high = (value.get(name) for name in ("min", "max"))
    data = list(tensor.data)
    if low is not None and not low.is_const(None):
        data = [max(each, small.number(low)) for each in data]
    if high is not None and not high.is_const(None):
        data = [min(each, small.number(high)) for each in data]
    return Tensor(tensor.shape, tuple(data))


def _repeated(small: Turned, value: Value) -> Tensor:
    tensor, dim = small.tensor(value["input"]), int(small.number(value["dim"]))
    count = int(small.number(value["repeats"]))
    return taken(tensor, dim % len(tensor.shape), [p for p in range(tensor.shape[dim]) for _ in range(count)])


PIECES: dict[str, Callable[[Any, Value], Tensor]] = {
    "arange": _counted,
    "cat": lambda small, value: joined(small.tensors(value["tensors"]), small.option(value, "dim", 0)),
    "clamp": _clamped,
    "index_select": _selected,
    "narrow": _selected,
    "pad": _padded,
    "repeat_interleave": _repeated,
    "select": _selected,
    "stack": _stack,
    "unfold": _unfolded,
}
