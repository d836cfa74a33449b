"""Which elements of a tensor indices mean, as torch counts: from the end where they are negative."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from .tensors import Evaluator, Number, Tensor, Unknown, broadcast, steps_of
from .values import Value


def places_of(small: Evaluator, shape: Sequence[int], indices: Sequence[Value]) -> tuple[tuple[int, ...], list[int]]:
    """What indices make of a shape, and which elements they mean, as torch counts: from the end where negative."""
    picks: list[tuple[str, Any]] = []
    for given in indices:
        made = small.made(given)
        each = made[0] if isinstance(made, tuple) and isinstance(made[0], Value) else None
        if each is not None and (each.is_const("...") or each.is_const(None)):
            picks.append(("new" if each.is_const(None) else "rest", None))
        elif each is not None and each.op == "slice":
            picks.append(("slice", [None if e.is_const(None) else int(small.number(e)) for e in each.items]))
        elif each is not None and each.op in ("builtin", "call"):
            raise Unknown(each)
        else:
            tensor = small.operand(given)
            picks += [("tensor", one) for one in (_marked(tensor) if _is_mask(tensor) else [tensor])]
    missing = len(shape) - sum(kind not in ("new", "rest") for kind, _ in picks)
    rest = next((place for place, (kind, _) in enumerate(picks) if kind == "rest"), len(picks))
    picks[rest : rest + 1] = [("all", None)] * missing
    return _placed(shape, picks)


def _is_mask(tensor: Tensor) -> bool:
    return bool(tensor.shape and tensor.data) and tensor.is_bool


def _marked(mask: Tensor) -> Iterator[Tensor]:
    """Where a mask is True: an index for each of its dimensions."""
    at = [each for each, holds in zip(itertools.product(*map(range, mask.shape)), mask.data, strict=True) if holds]
    for dim in range(len(mask.shape)):
        yield Tensor((len(at),), tuple(each[dim] for each in at))


def _placed(shape: Sequence[int], picks: Sequence[tuple[str, Any]]) -> tuple[tuple[int, ...], list[int]]:
    if sum(kind != "new" for kind, _ in picks) != len(shape):
        raise Unknown
    together = [picked for kind, picked in picks if kind == "tensor"]
    common, chosen = broadcast(*together) if together else ((), [])
    where = [place for place, (kind, _) in enumerate(picks) if kind == "tensor"]
    is_apart = bool(where) and where[-1] - where[0] >= len(where)
    axes: list[tuple[str, Any]] = []  # of the result: a slice's places in a dimension, or those of the tensors
    dim, dims = 0, list[int]()
    for kind, picked in picks:
        if kind == "new":
            axes.append(("new", None))
            continue
        if kind == "tensor":
            if not dims and not is_apart:
                axes.append(("tensors", None))
            dims.append(dim)
        else:
            axes.append(("places", (dim, range(shape[dim])[slice(*picked)] if kind == "slice" else range(shape[dim]))))
        dim += 1
    axes = [("tensors", None), *axes] if is_apart else axes
    steps = steps_of(shape)
    offsets = [
        sum(wrapped(x, shape[d]) * steps[d] for x, d in zip(at, dims, strict=True)) for at in zip(*chosen, strict=True)
    ]
    parts = [
        offsets if kind == "tensors" else [0] if kind == "new" else [i * steps[found[0]] for i in found[1]]
        for kind, found in axes
    ]
    made = [
        size
        for kind, found in axes
        for size in (common if kind == "tensors" else [1 if kind == "new" else len(found[1])])
    ]
    return tuple(made), [sum(each) for each in itertools.product(*parts)]


def wrapped(number: Number, size: int) -> int:
    if type(number) is not int or not -size <= number < size:
        raise IndexError(number)
    return number % size


def scattered(small: Evaluator, shape: Sequence[int], value: Value) -> tuple[tuple[int, ...], list[int]]:
    """The shape of what is scattered to a shape, and the elements that it goes to."""
    index, dim = small.tensor(value["index"]), int(small.number(value["dim"])) % len(shape)
    if len(index.shape) != len(shape):
        raise Unknown(value)
    steps, found = steps_of(shape), []
    for at, chosen in zip(itertools.product(*map(range, index.shape)), index.data, strict=True):
        if not 0 <= chosen < shape[dim]:
            raise IndexError(chosen)
        found.append(sum((int(chosen) if d == dim else i) * steps[d] for d, i in enumerate(at)))
    return index.shape, found
