"""What functions of Python's own libraries, of numpy and of torch do in a running program; all others are not known."""

from __future__ import annotations

import builtins
import functools
import hashlib
import io
import itertools
import math
import operator
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..tensors import Unknown
from ..values import Place
from .grids import Grid, grid_of, joined, pieces, stacked, unpacked
from .kinds import Left, Raised, Returned, Stuck

_ERRORS = (ValueError, IndexError, KeyError, StopIteration, ZeroDivisionError, OSError, OverflowError, AssertionError)
LIMITS = (Unknown, TypeError, AttributeError, LookupError, RecursionError, MemoryError)
LARGEST = 100_000  # of what is made by a number
NATIVE = (
    *(str, bytes, bytearray, list, tuple, dict, set, frozenset, int, float, range, deque),
    *(io.BytesIO, io.TextIOWrapper, type(hashlib.sha256())),
)
_BUILTINS = (
    *("abs", "all", "any", "bin", "bool", "bytearray", "bytes", "callable", "chr", "dict", "divmod", "enumerate"),
    *("filter", "float", "format", "frozenset", "hex", "int", "isinstance", "iter", "len", "list", "map", "max", "min"),
    *("next", "oct", "ord", "range", "repr", "reversed", "round", "set", "slice", "sorted", "str", "sum", "tuple"),
    "zip",
)
BUILTINS: dict[str, Any] = {name: getattr(builtins, name) for name in _BUILTINS}
COUNTED = {"range", "min", "max", "int", "abs", "round", "divmod", "slice", "float", "islice", "batched", "mapped"}
_ITERTOOLS = ("chain", "islice", "zip_longest", "accumulate", "takewhile", "dropwhile", "starmap", "compress", "tee")


def _filled(number: int, *, is_tensor: bool) -> Callable[..., Grid]:
    def made(*size: Any, dtype: Any = None) -> Grid:
        shape = tuple(size[0]) if isinstance(size[0], (tuple, list)) else size
        if math.prod(shape) > LARGEST:
            raise Unknown
        plain = Grid(shape, [float(number)] * math.prod(shape), "float32", is_tensor=is_tensor)
        return plain if dtype is None else plain.cast(dtype)

    return made


def _from_iterable(data: Any, dtype: Any = None, count: int = -1) -> Grid:
    return grid_of(list(data)[: None if count < 0 else count], dtype, is_tensor=False)


def _numbers(start: int, end: int | None = None, step: int = 1, **_: Any) -> Grid:
    data = range(*((0, start) if end is None else (start, end)), step)
    return Grid((len(data),), data, "int64", is_tensor=False)


def _summed(grid: Any, axis: Any = None, dim: Any = None, **rest: Any) -> Any:
    if not isinstance(grid, Grid):
        return sum(grid)
    return grid.summed(dim if axis is None else axis, keepdims=rest.get("keepdims") or rest.get("keepdim") or False)


def _split(grid: Grid, size: int, dim: int = 0) -> list[Grid]:
    return pieces(grid, size) if dim == 0 and isinstance(size, int) else _unknown()


def _unknown(*_: Any, **__: Any) -> Any:
    raise Unknown


LIBRARY: dict[str, Any] = {
    **{f"itertools.{name}": getattr(itertools, name) for name in _ITERTOOLS},
    "itertools.chain.from_iterable": itertools.chain.from_iterable,
    **{f"operator.{name}": getattr(operator, name) for name in ("add", "iadd", "concat", "xor", "and_", "mul")},
    **{f"math.{name}": getattr(math, name) for name in ("floor", "ceil", "gcd", "prod", "log2")},
    **{f"hashlib.{name}": getattr(hashlib, name) for name in ("sha256", "sha1", "md5", "blake2b")},
    "functools.partial": functools.partial,
    "functools.reduce": functools.reduce,
    "collections.deque": deque,
    "array.array": lambda _, data=(): list(data),
    **dict.fromkeys(
        ("numpy.array", "numpy.asarray"), lambda data, dtype=None, **_: grid_of(data, dtype, is_tensor=False)
    ),
    "numpy.fromiter": _from_iterable,
    "numpy.frombuffer": lambda data, *_, **__: Grid((len(data),), list(data), "uint8", is_tensor=False),
    "numpy.unpackbits": unpacked,
    "numpy.arange": _numbers,
    **dict.fromkeys(
        ("numpy.concatenate", "torch.cat", "torch.concat"),
        lambda parts, axis=0, dim=0: joined(list(parts), axis or dim),
    ),
    "numpy.hstack": lambda parts: joined(list(parts), 1 if len(parts[0].shape) > 1 else 0),
    "numpy.column_stack": lambda parts: joined([p if len(p.shape) > 1 else p.reshaped(-1, 1) for p in parts], 1),
    "numpy.append": lambda a, b, axis=None: joined([a, b], axis or 0),
    **dict.fromkeys(("numpy.sum", "torch.sum"), _summed),
    "numpy.zeros": _filled(0, is_tensor=False),
    **dict.fromkeys(
        ("torch.tensor", "torch.as_tensor"), lambda data, dtype=None, **_: grid_of(data, dtype, is_tensor=True)
    ),
    "torch.LongTensor": lambda data: grid_of(data, "int64", is_tensor=True),
    "torch.from_numpy": lambda grid: grid_of(grid, is_tensor=True),
    "torch.frombuffer": lambda data, **_: Grid((len(data),), list(data), "uint8", is_tensor=True),
    "torch.arange": lambda *args, **_: grid_of(_numbers(*args), is_tensor=True),
    "torch.stack": lambda parts, dim=0: stacked(list(parts)) if dim == 0 else _unknown(),
    "torch.split": _split,
    "torch.zeros": _filled(0, is_tensor=True),
    "torch.reshape": lambda grid, shape: grid.reshaped(shape),
}
_METHODS: dict[str, Callable[..., Any]] = {
    "view": lambda grid, *size: grid.cast(size[0]) if isinstance(size[0], type) else grid.reshaped(*size),
    "reshape": Grid.reshaped,
    "unfold": lambda grid, dimension, size, step: grid.unfolded(dimension, size, step),
    **dict.fromkeys(("flatten", "ravel"), lambda grid, *_: grid.reshaped(-1)),
    "numel": lambda grid: len(grid.data),
    "size": lambda grid, dim=None: grid.shape if dim is None else grid.shape[dim],
    "dim": lambda grid: len(grid.shape),
    "tolist": Grid.tolist,
    "item": lambda grid: grid.data[0],
    "tobytes": lambda grid: bytes(map(int, grid.data)),
    "sum": _summed,
    "long": lambda grid: grid.cast("int64"),
    "int": lambda grid: grid.cast("int32"),
    "float": lambda grid: grid.cast("float32"),
    **dict.fromkeys(("to", "type", "astype"), lambda grid, kind, *_, **__: grid.cast(kind)),
    "numpy": lambda grid: grid_of(grid, is_tensor=False),
    "contiguous": lambda grid: grid,
    "flush": lambda _: None,
    **dict.fromkeys(("clone", "copy"), lambda grid: grid.like(grid.shape, grid.data)),
    "split": _split,
    "unsqueeze": lambda grid, dim: grid[None] if dim == 0 else grid.reshaped(*grid.shape, 1),
}


def attribute_of(owner: Any, name: str) -> Any:
    """An attribute of an object of a library's; LookupError where it is not known."""
    if isinstance(owner, Grid):
        known = {"shape": owner.shape, "size": len(owner.data), "dtype": owner.dtype, "ndim": len(owner.shape)}
        if name in known and (name != "size" or not owner.is_tensor):
            return known[name]
        return functools.partial(_METHODS[name], owner)
    if owner is itertools.chain and name == "from_iterable":
        return itertools.chain.from_iterable
    if isinstance(owner, NATIVE) and not name.startswith("_"):
        return getattr(owner, name)
    raise LookupError(name)


def require_small(args: Any) -> None:
    """Raise Stuck where a call makes something large of a number."""
    for each in args:
        is_large = isinstance(each, int) and abs(each) > LARGEST
        if is_large or (isinstance(each, (range, str, bytes)) and len(each) > LARGEST):
            raise Stuck("numbers that are too large to be tried")


def native(function: Callable[..., Any], placed: Sequence[Any], named: dict[str, Any], at: Place) -> Any:
    """What a function of Python's own, or one that stands for a library's, gives."""
    try:
        return function(*placed, **named)
    except (Stuck, Raised, Returned, Left):
        raise
    except UnicodeError:
        raise Raised("UnicodeDecodeError") from None
    except _ERRORS as error:
        raise Raised(type(error).__name__) from None
    except LIMITS:
        raise Stuck("code that is not understood", at) from None
