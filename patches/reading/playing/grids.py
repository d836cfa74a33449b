"""Small tensors and arrays of a running program: numbers in rows, made and cut as torch and numpy do it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from .. import tensors
from ..tensors import ELEMENTWISE, MOST_ELEMENTS, Tensor, Unknown, broadcast, steps_of

KINDS = {"long": "int64", "int": "int32", "byte": "uint8", "float": "float32", "double": "float64", "uint8": "uint8"}


class Grid:
    """Numbers in row-major order, of a dtype: a tensor of torch's, or an array of numpy's."""

    def __init__(self, shape: Sequence[int], data: Sequence[Any], dtype: str, *, is_tensor: bool) -> None:
        self.shape, self.data, self.dtype, self.is_tensor = tuple(shape), list(data), dtype, is_tensor
        if math.prod(self.shape) != len(self.data) or len(self.data) > MOST_ELEMENTS:
            raise Unknown

    def like(self, shape: Sequence[int], data: Sequence[Any], dtype: str = "") -> Grid:
        """Other numbers of the same library."""
        return Grid(shape, data, dtype or self.dtype, is_tensor=self.is_tensor)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        shape, at = self._chosen(index)
        data = [self.data[each] for each in at]
        return self.like(shape, data) if shape or self.is_tensor else data[0]

    def __setitem__(self, index: Any, value: Any) -> None:
        shape, at = self._chosen(index)
        given = value if isinstance(value, Grid) else grid_of(value, is_tensor=False)
        if len(given.data) not in (1, len(at)):
            raise ValueError("could not broadcast")
        for place, each in zip(at, given.data * (len(at) if len(given.data) == 1 else 1), strict=True):
            self.data[place] = each

    def _chosen(self, index: Any) -> tuple[list[int], list[int]]:
        """The shape that an index gives, and where its numbers stand."""
        places = [*index] if isinstance(index, tuple) else [index]
        if any(each is ... for each in places):
            at = places.index(...)
            places[at : at + 1] = [slice(None)] * (len(self.shape) - sum(each is not None for each in places) + 1)
        shape: list[int] = []
        chosen: list[Sequence[int]] = []
        sizes = iter(self.shape)
        for each in places:
            if each is None:
                shape.append(1)
                continue
            every = range(next(sizes))
            picked = every[each] if isinstance(each, slice) else [every[place] for place in _places(each)]
            shape += [] if isinstance(each, int) else [len(picked)]
            chosen.append(picked)
        for size in sizes:
            shape.append(size)
            chosen.append(range(size))
        steps = steps_of(self.shape)
        return shape, [sum(i * s for i, s in zip(at, steps, strict=True)) for at in itertools.product(*chosen)]

    def tolist(self) -> Any:
        """The numbers in nested lists."""
        if not self.shape:
            return self.data[0]
        return self.data[:] if len(self.shape) == 1 else [each.tolist() for each in self]

    def reshaped(self, *sizes: Any) -> Grid:
        """The same numbers in another shape; one size may be left open by -1."""
        wanted = list(sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes)
        if wanted.count(-1) == 1:
            rest = math.prod(each for each in wanted if each != -1)
            wanted[wanted.index(-1)] = len(self.data) // rest if rest else 0
        if math.prod(wanted) != len(self.data):
            raise ValueError("shape is invalid for the number of elements")
        return self.like(wanted, self.data)

    def unfolded(self, dimension: int, size: int, step: int) -> Grid:
        """Windows of a row of numbers."""
        if dimension not in (0, -1) or len(self.shape) != 1:
            raise Unknown
        starts = range(0, len(self.data) - size + 1, step)
        return self.like((len(starts), size), [each for at in starts for each in self.data[at : at + size]])

    def cast(self, dtype: Any) -> Grid:
        """The same numbers as ones of another dtype."""
        name = dtype_named(dtype)
        made = {"f": float, "b": bool}.get(name[0], int)
        data = [made(each) for each in self.data]
        return self.like(self.shape, [each % 256 for each in data] if name == "uint8" else data, name)

    def combined(self, op: str, other: Any, *, is_first: bool = True) -> Grid:
        """An operation on each number and its fellow."""
        theirs = other if isinstance(other, Grid) else self.like((), [other])
        sides = (self, theirs) if is_first else (theirs, self)
        shape, (a, b) = broadcast(*(Tensor(each.shape, tuple(each.data)) for each in sides))
        function = _SHIFTS.get(op) or ELEMENTWISE[op]
        data = [function(x, y) for x, y in zip(a, b, strict=True)]
        kind = "bool" if data and isinstance(data[0], bool) else self.dtype
        return self.like(shape, data, kind)

    def summed(self, axis: int | None = None, *, keepdims: bool = False) -> Grid:
        """The sum of all numbers, or along the last axis."""
        if axis is None:
            return self.like((), [sum(self.data)], "int64")
        if axis % len(self.shape) != len(self.shape) - 1:
            raise Unknown
        size = self.shape[-1]
        sums = [sum(self.data[at : at + size]) for at in range(0, len(self.data), size)]
        return self.like((*self.shape[:-1], *([1] if keepdims else [])), sums, "int64")


_SHIFTS = {"shr": lambda a, b: int(a) >> int(b), "shl": lambda a, b: int(a) << int(b)}


def _places(index: Any) -> Sequence[int]:
    if isinstance(index, Grid) and index.dtype != "bool":
        return index.data if len(index.shape) == 1 else _unknown()
    if isinstance(index, int) and not isinstance(index, bool):
        return [index]
    return index if isinstance(index, list) else _unknown()


def _unknown() -> Any:
    raise Unknown


def dtype_named(dtype: Any) -> str:
    """The name of a dtype, by its text, its full name, or the type of Python that it is of."""
    name = getattr(dtype, "__name__", None) or str(getattr(dtype, "dotted", dtype)).rpartition(".")[2]
    return {"int": "int64", "float": "float32"}.get(name, KINDS.get(name, name)) if name else "int64"


def grid_of(data: Any, dtype: Any = None, *, is_tensor: bool) -> Grid:
    """A tensor or an array of nested lists of numbers."""
    if isinstance(data, Grid):
        made = Grid(data.shape, data.data, data.dtype, is_tensor=is_tensor)
        return made if dtype is None else made.cast(dtype)
    if isinstance(data, (bytes, bytearray)):
        data = list(data) if is_tensor else _unknown()
    shape: list[int] = []
    level = [data]
    while level and isinstance(level[0], (list, tuple, range, Grid)):
        sizes = {len(each) for each in level}
        if len(sizes) != 1:
            raise ValueError("expected sequences of equal length")
        shape.append(sizes.pop())
        level = [each for row in level for each in row]
    flat = [each.data[0] if isinstance(each, Grid) else each for each in level]
    if not all(isinstance(each, (bool, int, float)) for each in flat):
        raise Unknown
    kinds = {type(each) for each in flat}
    natural = "float32" if float in kinds or not flat else "bool" if kinds == {bool} else "int64"
    made = Grid(shape, flat, natural, is_tensor=is_tensor)
    return made if dtype is None else made.cast(dtype)


def joined(parts: Sequence[Any], axis: int = 0) -> Grid:
    """Tensors one behind another in a dimension."""
    grids = [each if isinstance(each, Grid) else grid_of(each, is_tensor=False) for each in parts]
    made = tensors.joined([Tensor(each.shape, tuple(each.data)) for each in grids], axis)
    return grids[0].like(made.shape, made.data)


def stacked(parts: Sequence[Grid]) -> Grid:
    """Tensors of one shape above each other."""
    return joined([each.like((1, *each.shape), each.data) for each in parts])


def pieces(grid: Grid, size: int) -> list[Grid]:
    """A tensor's rows, so many at a time."""
    return [grid[at : at + size] for at in range(0, len(grid), size)] if size > 0 else _unknown()


def unpacked(grid: Grid, axis: int | None = None, count: int | None = None, bitorder: str = "big") -> Grid:
    """The bits of bytes."""
    order = range(8) if bitorder == "little" else range(7, -1, -1)
    bits = [each >> shift & 1 for each in grid.data for shift in order]
    if axis is None:
        return grid.like((len(bits[:count]),), bits[:count], "uint8")
    if axis % len(grid.shape) != len(grid.shape) - 1 or count is not None:
        raise Unknown
    return grid.like((*grid.shape[:-1], 8 * grid.shape[-1]), bits, "uint8")
