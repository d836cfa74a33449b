"""What a run handles: rows, micro-batches, loaders, schedules, and which rows something is made of."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..tensors import Unknown
from .kinds import NONE, Marks, Opaque, Thing


class Wanted(Exception):
    """What stands for itself has to be of a kind, "int" or "rows", for a run to go on."""

    def __init__(self, path: str, kind: str) -> None:
        super().__init__(path, kind)
        self.path, self.kind = path, kind


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a data set, in an order."""

    name: str
    at: tuple[int, ...]

    @property
    def marks(self) -> Marks:
        return frozenset((self.name, each) for each in self.at)

    def split(self, size: int) -> Many:
        if size < 1:
            raise Unknown(size)
        return Many(Rows(self.name, self.at[start : start + size]) for start in range(0, len(self.at), size))

    def item(self, index: Any) -> Any:
        """What stands at a place, or at several."""
        first = index[0] if isinstance(index, Many) and index and isinstance(index[0], slice) else index
        if isinstance(first, slice):
            made = Rows(self.name, self.at[first])
            return made if first is index else Opaque("", made.marks)
        places = index.at if isinstance(index, Rows) else index
        if isinstance(places, (Many, tuple)) and all(isinstance(each, int) for each in places):
            return Rows(self.name, tuple(self.at[each] for each in places if each < len(self.at)))
        if isinstance(index, int) and -len(self.at) <= index < len(self.at):
            return Opaque("", frozenset({(self.name, self.at[index])}))
        return Opaque("", self.marks)


class Many(list[Any]):
    """A list, or a tuple, and what was asked of it."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__(items)
        self.asked: list[str] = []


class Stream:
    """What gives one thing after another, and what it has given."""

    def __init__(self, source: Iterator[Any]) -> None:
        self.source = source
        self.given: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        made = next(self.source)
        self.given.append(made)
        return made


@dataclass(eq=False, slots=True)
class Loader:
    """A DataLoader, which gives its micro-batches in order here, though it may shuffle."""

    rows: Any
    settings: Mapping[str, Any]
    made: ast.AST  # the call
    asked: list[str] = field(default_factory=list)

    @property
    def batches(self) -> Many:
        rows = self.rows.rows if isinstance(self.rows, Tuples) else self.rows
        if not isinstance(rows, Rows) or not isinstance(self.settings.get("batch_size", 1), int):
            raise Unknown(rows)
        made = rows.split(self.settings.get("batch_size", 1))
        if self.settings.get("drop_last"):
            made = Many(each for each in made if len(each.at) == len(made[0].at))
        return Many(Many([each]) for each in made) if isinstance(self.rows, Tuples) else made


@dataclass(frozen=True, slots=True)
class Tuples:
    """A TensorDataset of rows."""

    rows: Rows


@dataclass(eq=False, slots=True)
class Optimizer:
    """What steps."""

    path: str = ""


@dataclass(eq=False, slots=True)
class Schedule:
    """What goes by a total; `total` is None where it is not known."""

    total: Any
    made: ast.AST  # the call
    is_pair: bool = False  # whether it may be an optimizer and a schedule, of a function that is not seen
    last_epoch: int = 0
    optimizer: Optimizer = field(default_factory=Optimizer)


@dataclass(eq=False, slots=True)
class Space:
    """An object of attributes alone: a SimpleNamespace."""

    own: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a host's thing."""

    of: Any
    name: str


@dataclass(frozen=True, slots=True)
class Partial:
    function: Any
    placed: tuple[Any, ...]
    named: tuple[tuple[str, Any], ...]


class Counted(int):
    """A number that enumerate gives."""


def marks(value: Any, depth: int = 3) -> Marks:
    """The rows that something is made of."""
    kind = type(value)
    if kind is Opaque or kind is Rows:
        return value.marks  # type: ignore[no-any-return]
    if kind is Method:
        return marks(value.of, depth)
    inner: Iterable[Any] = ()
    if depth and (kind is Many or kind is list or kind is tuple):
        inner = value[:64]
    elif depth and kind is dict:
        inner = value.values()
    elif depth and kind is Thing and value.is_data:
        inner = value.own.values()
    found = NONE
    for each in inner:
        more = marks(each, depth - 1)
        found = found | more if more and found else more or found
    return found
