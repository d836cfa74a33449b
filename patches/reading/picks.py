"""Which elements of a tensor indices mean, as torch counts: from the end where they are negative."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from .loops import Turned
from .tensors import Number, Unknown, broadcast, steps_of
from .values import Value


def places_of(small: Turned, shape: Sequence[int], indices: Sequence[Value]) -> tuple[tuple[int, ...], list[int]]:
    """What indices make of a shape, and which elements they mean, as torch counts: from the end where negative."""
    picks: list[tuple[str, Any]] = []
    made = [small.made(each) for each in indices]
    known = [each[0] if isinstance(each, tuple) and isinstance(each[0], Value) else None for each in made]
    used = sum(each is None or not (each.is_const(None) or each.is_const("...")) for each in known)
    for given, each in zip(indices, known, strict=True):
        if each is not None and each.is_const("..."):
            picks += [("all", None)] * (len(shape) - used)
        elif each is not None and each.is_const(None):
            picks.append(("new", None))
        elif each is not None and each.op == "slice":
            picks.append(("slice", [None if e.is_const(None) else int(small.number(e)) for e in each.items]))
        elif (
            (each is not None and each.op == "builtin")
            or (each is not None and each.op == "slice")
            or (each is not None and each.op == "call")
        ):
            raise Unknown(each)
        else:
            picks.append(("tensor", small.tensor(given)))
    picks += [("all", None)] * (len(shape) - sum(kind != "new" for kind, _ in picks))
    return _placed(shape, picks)


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
    if isinstance(number, (bool, float)) or not -size <= number < size:
        raise IndexError(number)
    return int(number) % size


def scattered(small: Turned, shape: Sequence[int], value: Value) -> tuple[tuple[int, ...], list[int]]:
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
