"""One computation, one value: what an expression is made of, with names, aliases and spelling gone."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple, TypeVar

from .files import File

T = TypeVar("T")
DEEPEST = 256  # operations on the results of others, one after the other


class Place(NamedTuple):
    """Where a value is computed."""

    file: File
    node: ast.AST

    @property
    def line(self) -> int:
        return getattr(self.node, "lineno", 1)

    @property
    def column(self) -> int:
        """Counted from 1, in characters."""
        line, offset = self.file.lines[self.line - 1], getattr(self.node, "col_offset", 0)
        return len(line[:offset].decode(errors="replace")) + 1


class Value:
    """An operation of other values, which are named as the operation's parameters; `data` is what is no value.

    Two values of one key are computed alike from the same things. Objects are told apart all the same, as one may be
    changed in place.
    """

    __slots__ = ("args", "at", "data", "depth", "is_numeric", "key", "known", "op")

    def __init__(
        self, op: str, args: Mapping[str, Value], data: Any, key: int, at: Place | None, *, is_numeric: bool = False
    ) -> None:
        self.op, self.args, self.data, self.key, self.at = op, args, data, key, at
        self.is_numeric = is_numeric  # whether its class says that it is a number
        self.known: dict[Any, Any] = {}  # what functions that are asked once for each value made of it
        self.depth: int = 1 + max([each.depth for each in args.values()], default=0)

    def __getitem__(self, name: str) -> Value:
        return self.args[name]

    def get(self, name: str, default: Value | None = None) -> Value | None:
        """An argument, if it was given."""
        return self.args.get(name, default)

    @property
    def items(self) -> tuple[Value, ...]:
        """The members of a tuple, a list, or of what else has them in order."""
        return tuple(self.args.values())

    @property
    def number(self) -> int | float | None:
        """The number that a constant is; None of any other value, and of True."""
        is_number = self.op == "const" and isinstance(self.data, (int, float)) and not isinstance(self.data, bool)
        return self.data if is_number else None

    def is_const(self, *data: Hashable) -> bool:
        """Whether it is a constant, one of some if they are given."""
        return self.op == "const" and (not data or any(self.data is each or self.data == each for each in data))

    @property
    def name(self) -> str:
        """What a parameter, an attribute, or a field of a configuration is called; nothing of any other value."""
        if self.op in ("parameter", "setting"):
            return str(self.data[-1])
        return str(self.data) if self.op == "attr" else ""

    def copy(self) -> Value:
        """Another object that is computed alike."""
        return Value(self.op, self.args, self.data, self.key, self.at, is_numeric=self.is_numeric)

    def bases(self, views: Collection[str]) -> list[Value]:
        """The values whose elements it may show."""
        found, value = [], self
        while value.op in views and value.args:
            value = value.args.get("input", value.items[0])
            found.append(value)
        return found

    def beneath(self, views: Collection[str]) -> Value:
        """What it is, or shows, under all views of it."""
        return (self, *self.bases(views))[-1]

    def shows(self, other: Value, views: Collection[str]) -> bool:
        """Whether it may show the elements of another value, through operations that are views."""
        return any(base is other for base in self.bases(views))

    def walk(self, into: Callable[[Value], Iterable[Value]] | None = None) -> Iterator[Value]:
        """The value and all that it is made of, each once; where something else is told, what that says of each."""
        return walked([self], into)

    def __repr__(self) -> str:
        parts = [] if self.data is None else [repr(self.data)]
        parts += [repr(v) if name.isdigit() else f"{name}={v!r}" for name, v in self.args.items()]
        return f"{self.op}({', '.join(parts)})"


def walked(values: Iterable[Value], into: Callable[[Value], Iterable[Value]] | None = None) -> Iterator[Value]:
    """Some values and all that they are made of, each once; where something else is told, what that says of each."""
    pending, seen = [*values][::-1], set[int]()
    while pending:
        value = pending.pop()
        if value.key not in seen:
            seen.add(value.key)
            yield value
            pending.extend(reversed([*into(value)] if into is not None else value.items))


def once_each(function: Callable[[Value], T]) -> Callable[[Value], T]:
    """Ask a function once for each value: one that is used twice, sixty times over, would be looked at 2**60 times."""

    @wraps(function)
    def asked(value: Value) -> T:
        if function not in value.known:
            value.known[function] = function(value)
        return value.known[function]  # type: ignore[no-any-return]

    return asked


def holding(values: Iterable[Value], holds: Callable[[Value], bool]) -> set[int]:
    """Which of some values, and of what they are made of, hold or are made of what does; by id, all in one go."""
    every, pending, users = dict[int, Value](), list(values), dict[int, list[int]]()
    while pending:
        value = pending.pop()
        if id(value) not in every:
            every[id(value)] = value
            pending += value.args.values()
            for part in value.args.values():
                users.setdefault(id(part), []).append(id(value))
    found, new = set[int](), [key for key, value in every.items() if holds(value)]
    while new:
        key = new.pop()
        if key not in found:
            found.add(key)
            new += users.get(key, ())
    return found


class Graph:
    """Makes values, and knows which are alike."""

    def __init__(self) -> None:
        self._keys: dict[Hashable, int] = {}
        self.serial = 0
        self.ranks: dict[int, int] = {}  # how many dimensions a tensor has, by its key, where the code tells
        self.found: dict[tuple[int, int], int | None] = {}  # ranks, by the key and how many were told then
        self.numeric: set[int] = set()  # the keys of attributes that are numbers, as their classes say

    def value(
        self, op: str, args: Mapping[str, Value] | None = None, data: Hashable = None, at: Place | None = None
    ) -> Value:
        """The value of an operation: alike all others of the same operation, arguments and data.

        What has been made in very many steps is opaque to those behind: walks of values take as long, and go as deep.
        """
        given = {name: each if each.depth < DEEPEST else self._too_deep(each) for name, each in (args or {}).items()}
        identity = (op, type(data), data, *given, *[value.key for value in given.values()])
        key = self._keys.setdefault(identity, len(self._keys))
        return Value(op, given, data, key, at, is_numeric=key in self.numeric)

    def const(self, data: Hashable, at: Place | None = None) -> Value:
        """A literal."""
        return self.value("const", data=data, at=at)

    def group(self, op: str, values: Sequence[Value], at: Place | None = None) -> Value:
        """A tuple, or a list, of values."""
        return self.value(op, {str(place): value for place, value in enumerate(values)}, at=at)

    def unique(
        self, op: str, args: Mapping[str, Value] | None = None, data: Hashable = None, at: Place | None = None
    ) -> Value:
        """A value that is like no other: what is not understood, or draws at random."""
        self.serial += 1
        return self.value(op, args, (self.serial, data), at)

    def _too_deep(self, value: Value) -> Value:
        return self.value("opaque", None, (-1 - value.key, "what is made in too many steps"), value.at)

    def opaque(self, reason: str, at: Place | None = None, args: Mapping[str, Value] | None = None) -> Value:
        """What is not understood; nothing is matched through it."""
        return self.unique("opaque", args, reason, at)
