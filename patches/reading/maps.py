"""Square maps of all positions: where they are made, the writes to them, and which elements a write changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .frames import Effect, Reading
from .picks import places_of, scattered
from .spots import Spotted
from .tensors import Tensor
from .values import Value, walked

_MADE = {"zeros", "new_zeros", "full", "new_full", "zeros_like", "empty", "new_empty"}


@dataclass(frozen=True, slots=True)
class Map:
    """A square map of all positions that windows are written to, or that is made of them."""

    made: Value
    writes: tuple[Effect, ...] = ()


def root_of(value: Value) -> Value | None:
    """The tensor of zeros that a value is a view of, or was before it was written to."""
    for _ in range(40):
        if value.op in _MADE:
            return value
        if value.op == "phi":
            value = value["no"] if value["yes"].op in ("const", "unset") else value["yes"]
        elif value.op in ("carried", "after"):
            if "start" not in value.args:
                return None
            value = value["start"]
        elif value.op == "call" and value["func"].op == "attr":
            value = value["func"]["of"]
        elif "input" in value.args:
            value = value["input"]
        else:
            return None
    return None


def is_square(root: Value) -> bool:
    """Whether a tensor is made as wide as it is high."""
    size = root.get("size")
    sizes = size.items[-2:] if size is not None and size.op in ("tuple", "list") else ()
    return len(sizes) == 2 and sizes[0].key == sizes[1].key and sizes[0].number is None  # noqa: PLR2004


def maps(reading: Reading) -> list[Map]:
    """The square maps that a function writes to, itself or in what it calls."""
    found: dict[int, list[Effect]] = {}
    roots: dict[int, Value] = {}
    for write in reading.writes:
        base = _base(write.value)
        root = root_of(base) if base is not None else None
        if root is not None and is_square(root) and not written_by(write.value).is_const():
            found.setdefault(root.key, []).append(write)
            roots[root.key] = root
    return [Map(roots[key], tuple(writes)) for key, writes in found.items()]


def _base(new: Value) -> Value | None:
    if new.op == "call":
        return new["func"]["of"] if new["func"].op == "attr" and new["func"].data == "copy_" else None
    return new.get("input")


def written_by(new: Value) -> Value:
    """What is written."""
    name = {"setitem": "value", "index_copy": "source", "scatter": "src", "index_put": "values", "call": "0"}.get(
        new.op
    )
    return new.get(name, new) if name is not None else new  # type: ignore[return-value]


def destination(small: Spotted, root: Value, new: Value) -> tuple[tuple[int, ...], list[int]]:
    """The elements of a map that a write changes."""
    base = _base(new)
    assert base is not None
    cells = _cells(small, root, base)
    match new.op:
        case "setitem":
            indices = [each for name, each in new.args.items() if name.isdigit()]
        case "index_put":
            indices = list(new["indices"].items)
        case "index_copy":
            dim = int(small.number(new["dim"])) % len(cells.shape)
            rest = _SLICE
            indices = [*[rest] * dim, new["index"]]
        case "scatter":
            shape, places = scattered(small, cells.shape, new)
            return shape, [int(cells.data[place]) for place in places]
        case _:
            return cells.shape, list(map(int, cells.data))
    shape, places = places_of(small, cells.shape, indices)
    return shape, [int(cells.data[place]) for place in places]


_NOTHING = Value("const", {}, None, -1, None)


_SLICE = Value("slice", {"0": _NOTHING, "1": _NOTHING, "2": _NOTHING}, None, -2, None)


def _cells(small: Spotted, root: Value, value: Value) -> Tensor:
    """Which elements of a map a view of it shows."""
    if value.key == root.key:
        shape = small.sizes(root["size"])
        count = 1
        for size in shape:
            count *= size
        return Tensor(shape, tuple(range(count)))
    if value.op == "phi":
        return _cells(small, root, value["no"] if value["yes"].op in ("const", "unset") else value["yes"])
    if value.op in ("carried", "after"):
        return _cells(small, root, value["start"])
    if value.op == "call":
        return _cells(small, root, value["func"]["of"])
    inner = _cells(small, root, value["input"])
    if value.op in ("setitem", "index_copy", "index_put", "scatter"):
        return inner
    return small.applied(value, inner)


def indices_of(new: Value) -> list[Value]:
    """The indices that a write is made by."""
    match new.op:
        case "setitem":
            return [each for name, each in new.args.items() if name.isdigit()]
        case "index_put":
            return list(new["indices"].items)
        case "index_copy" | "scatter":
            return [new["index"]]
    base = _base(new)  # a view that is written to as a whole
    while base is not None and base.op in ("index", "narrow"):
        return [each for name, each in base.args.items() if name != "input"]
    return []


def is_counted(write: Effect) -> bool:
    """Whether a write in a loop is to columns that are counted from a difference, as those of windows are."""
    in_loop = any(guard.kind in ("for", "while") for guard in write.under)
    parts = list(counted(indices_of(write.value)))
    is_window = any(part.op in ("arange", "range", "slice") for part in parts)
    return in_loop and is_window and any(part.op in ("sub", "neg", "max", "phi") for part in parts)


def counted(indices: Sequence[Value]) -> Iterator[Value]:
    """What indices are made of, but not where the turns of loops come from."""
    turned = ("item", "counted", "carried", "after", "size")
    return walked(indices, lambda each: each.items if each.op not in turned else ())
