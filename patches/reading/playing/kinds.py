"""What code is played with: things of a tree, what is not known, scopes, and what ends a block or a play."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..files import File
from ..files import Function as FunctionNode
from ..tensors import Unknown
from ..values import Place

Marks = frozenset[tuple[str, int]]  # of rows: whose they are, and their numbers
NONE: Marks = frozenset()


class Stuck(Unknown):
    """A play would rest on what is not known."""

    def __init__(self, why: str, at: Place | None = None) -> None:
        super().__init__(why)
        self.why, self.at = why, at


class Raised(Exception):
    """The tree's code raises an error."""

    def __init__(self, kind: str = "Exception") -> None:
        super().__init__(kind)
        self.kind = kind


class Returned(Exception):
    """A function returns."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class Left(Exception):
    """A break, or a continue."""

    def __init__(self, *, goes_on: bool) -> None:
        super().__init__()
        self.goes_on = goes_on


@dataclass(frozen=True, slots=True)
class Opaque:
    """What is not known: it may be kept and handed on.

    `path` is how it is come by, `marks` are the rows that it is made of, `why` and `at` say what is not known.
    """

    path: str = ""
    marks: Marks = NONE
    is_given: bool = False  # a parameter, an attribute, an entry: something that can be a number
    why: str = ""
    at: Place | None = None


@dataclass(frozen=True, slots=True)
class Library:
    """Something of Python's own or of a library, by its full name."""

    dotted: str


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the tree."""

    path: str


@dataclass(frozen=True, slots=True)
class Class:
    """A class of the tree."""

    path: str
    node: ast.ClassDef


@dataclass(eq=False, slots=True)
class Thing:
    """An object of a class of the tree."""

    cls: Class
    own: dict[str, Any] = field(default_factory=dict)
    name: str = ""  # how it is come by
    is_data: bool = False  # whether its class is a data class


@dataclass(frozen=True, slots=True)
class Super:
    """What super() gives in a method of a class."""

    of: Thing
    above: ast.ClassDef


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the tree, with the names around it, and the object whose method it is."""

    path: str
    node: FunctionNode | ast.Lambda
    around: Scope | None = None
    owner: Any = None


class Scope:
    """The names of one call, of a comprehension, or of a module."""

    def __init__(self, file: File, node: ast.AST, outer: Scope | None = None, *, is_own: bool = False) -> None:
        self.file, self.node, self.outer = file, node, outer
        self.is_own = is_own  # whether it is the one that is asked about, or a comprehension in it
        self.names: dict[str, Any] = {}

    @property
    def chain(self) -> Iterator[dict[str, Any]]:
        """The names here, and those of the scopes around."""
        here: Scope | None = self
        while here is not None:
            yield here.names
            here = here.outer

    def get(self, name: str, default: Any = None) -> Any:
        """What a name stands for here, or in a scope around."""
        return next((names[name] for names in self.chain if name in names), default)


class World(Protocol):
    """What differs from one use to another: what is no code of the tree, and what comes of what is not known."""

    most: int  # expressions and statements of a play
    deepest: int  # calls in calls
    is_lenient: bool  # whether what is not understood is only not known
    is_shared: bool  # whether functions may set the names of modules

    def came_to(self, scope: Scope, node: ast.expr, made: Any) -> Any:
        """Told what each expression is; says what it counts as."""

    def truth(self, value: Any, node: ast.AST) -> bool | None:
        """Whether something counts as true; None where that is not known."""

    def perhaps(
        self, scope: Scope, node: ast.If | ast.For | ast.AsyncFor | ast.While, source: Any = None
    ) -> Iterator[Any]:
        """Do what may be done, or not."""
        yield

    def is_open(self, value: Any) -> bool:
        """Whether it is not known what a loop over something goes through."""

    def items(self, value: Any, at: Place) -> Iterator[Any]:
        """What one gets by going through something."""

    def alike(self, value: Any) -> tuple[Any, int]:
        """What stands for each of the items of something, and how many these are; 0 where they differ."""

    def unpacked(self, value: Any, targets: Sequence[ast.expr], at: Place) -> Sequence[Any]:
        """The parts of something that is unpacked to some targets."""

    def operated(self, op: ast.operator, left: Any, right: Any, at: Place) -> Any: ...

    def turned(self, op: ast.unaryop, value: Any, at: Place) -> Any: ...

    def compared(self, op: ast.cmpop, left: Any, right: Any, at: Place) -> Any: ...

    def display(self, kind: Callable[..., Any], items: Iterator[Any]) -> Any:
        """A list, a tuple or a set; of `iter` what a generator is."""

    def text(self, scope: Scope, node: ast.JoinedStr) -> Any: ...

    def item(self, owner: Any, index: Any, at: Place) -> Any: ...

    def set_item(self, owner: Any, index: Any, value: Any, at: Place) -> None: ...

    def delete_item(self, owner: Any, index: Any, at: Place) -> None: ...

    def extend(self, owner: Any, more: Any, at: Place) -> None: ...

    def attribute(self, owner: Any, name: str, at: Place) -> Any:
        """An attribute of what is nothing of the tree's."""

    def set_attribute(self, owner: Any, name: str, value: Any, at: Place) -> None: ...

    def lacking(self, owner: Thing | Class, name: str, at: Place) -> Any:
        """An attribute that the tree's code does not give."""

    def library(self, dotted: str) -> Any:
        """What a full name means."""

    def top(self, scope: Scope, name: str, value: ast.expr | None) -> Any:
        """What a name of a module is that an expression is bound to, or something else."""

    def told(self, path: str, made: Any, node: ast.expr) -> Any:
        """What a setting is, by how it is come by, and what it is unless it is told."""

    def defined(self, function: Function) -> Any:
        """What a definition makes, its decorators seen."""

    def follow(self, function: Function, placed: list[Any], named: dict[str, Any], at: Place) -> Any: ...

    def make(self, cls: Class, placed: list[Any], named: dict[str, Any], at: Place) -> Any: ...

    def called(self, callee: Any, placed: list[Any], named: dict[str, Any], at: Place) -> Any:
        """What a call gives of what is nothing of the tree's."""


def kinds_of(function: FunctionNode) -> set[str]:
    """What the decorators of a function are called."""
    return {getattr(each, "id", getattr(each, "attr", "")) for each in function.decorator_list}
