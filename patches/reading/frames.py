"""What is kept while code is read: what names stand for, what has been done, and under what."""

from __future__ import annotations

import ast
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol, TypeVar

from .files import File, Files, Function
from .names import Scope
from .signatures import VIEWS
from .values import Graph, Place, Value

Env = dict[str, Value]
DEEPEST = 16  # calls in calls
MAPPINGS = ("cache", "dict", "kept")
PUT = "[]"  # the name under which a run keeps what was put into a mapping
Class = tuple[str, ast.ClassDef]  # the path of its module, and its definition


class Guard(NamedTuple):
    """What a statement stands under: a branch of a condition, a loop, a context."""

    kind: str  # "if", "else", "for", "while", "with", "except"
    value: Value
    at: Place


class Effect(NamedTuple):
    """Something that is done, in its place in the order: a call whose result does not say all of it, or a write."""

    kind: str  # what is called, or "setitem", "setattr", "setglobal"
    value: Value
    at: Place
    under: tuple[Guard, ...]
    is_own: bool  # whether it stands in the text of the function that is read, and in none that it calls
    through: ast.Call | None  # the call in that text by which it is done


class Loop(NamedTuple):
    """What a loop goes through, or its test; and what names stand for at the end of a turn."""

    source: Value | None
    test: Value | None
    last: Env


class Reading:
    """What one function computes."""

    def __init__(self, file: File, node: ast.AST, owner: ast.ClassDef | None) -> None:
        self.file, self.node, self.owner = file, node, owner
        self.values: dict[ast.AST, Value] = {}  # of the expressions in the function's own text
        self.before: dict[ast.stmt, Env] = {}  # what local names stand for where a statement of its own begins
        self.calls: dict[ast.Call, ast.AST] = {}  # calls of the tree's own functions, in its own text
        self.doing: set[ast.AST] = set()  # calls in its own text that have an effect, there or in what they call
        self.effects: list[Effect] = []
        self.changed: list[Value] = []  # what is changed in place, as it was before
        self.writes: list[Effect] = []  # what it is changed to, in order
        self.loops: dict[ast.AST, Loop] = {}  # those that do not break
        self.returned: Value | None = None
        self.attributes: dict[str, Value] = {}  # of self, as its constructor sets them

    @cached_property
    def written(self) -> set[str]:
        """The attributes that are set, of whatever object."""
        return {effect.value.data for effect in self.effects if effect.kind == "setattr"}

    @cached_property
    def own_writes(self) -> dict[ast.AST, Value]:
        """What is changed in place in its own text, by where."""
        return {each.at.node: each.value for each in self.writes if each.is_own}

    @cached_property
    def filled(self) -> set[str]:
        """The attributes whose contents are written to, by way of views too."""
        inputs = [effect.value["input"] for effect in self.effects if effect.kind == "setitem"]
        bases = [base for each in inputs for base in (each, *each.bases(VIEWS | {"setitem"})[-1:])]
        return {base.data for base in bases if base.op == "attr"}


class Run:
    """What the frames of one reading share."""

    def __init__(self, reading: Reading, deepest: int = DEEPEST) -> None:
        self.reading = reading
        self.deepest = deepest  # calls in calls that are followed
        self.attributes: dict[tuple[int, str], Value] = {}  # that were set on the way, by the owner's key
        self.loops: dict[ast.AST, tuple[set[str], set[tuple[int, str]]]] = {}  # what changes in each: names, attributes
        self.calls = self.changes = 0
        self.through: ast.Call | None = None  # the call in the text of what is read that is being followed
        self.active: list[ast.AST] = []
        self.frames: list[Frame] = []


class Known(Protocol):
    """A tree's code, as a frame asks for it."""

    files: Files
    graph: Graph
    homes: dict[ast.AST, str]  # of functions that are called, the paths of their files
    followed: dict[tuple[Hashable, ...], Value]  # what calls without effects returned, by file, function, arguments

    def module(self, path: str) -> Frame: ...

    def member(self, path: str, name: str) -> Value: ...

    def resolved(self, value: Value) -> Value: ...

    def method(self, path: str, node: ast.ClassDef, name: str) -> tuple[str, ast.ClassDef, Function] | None: ...

    def reached(self, callee: Value, at: Place) -> Value | None: ...

    def is_numeric(self, leaf: Value, at: Place) -> bool: ...

    def is_open(self, path: str, node: ast.ClassDef, name: str) -> bool: ...

    def attributes(self, path: str, node: ast.ClassDef, owner: Value) -> dict[str, Value]: ...


class Frame(Protocol):
    """One scope while it is read."""

    code: Known
    graph: Graph
    file: File
    scope: Scope
    outer: Frame | None
    run: Run
    guards: tuple[Guard, ...]
    depth: int  # calls that were followed to get here
    env: Env
    yielded: list[Value]
    owner: Value | None  # self of a method
    cls: Class | None

    def expr(self, node: ast.expr) -> Value: ...

    def bind(self, target: ast.expr, value: Value) -> None: ...

    def call(self, callee: Value, placed: Sequence[Value], named: Mapping[str, Value], at: Place) -> Value: ...

    def inside(self, node: ast.AST, *, called: Frame | None = None, file: File | None = None) -> Frame: ...

    def bind_arguments(
        self, function: Function | ast.Lambda, placed: Sequence[Value], named: Mapping[str, Value]
    ) -> None: ...

    def body(self, statements: Sequence[ast.stmt]) -> Value: ...

    def changed(self, old: Value, new: Value) -> None: ...

    def effect(self, kind: str, value: Value, node: ast.AST) -> None: ...

    def with_outer(self) -> list[Frame]: ...


def choice(graph: Graph, test: Value, yes: Value, no: Value, at: Place | None) -> Value:
    """What is one of two values, by a condition."""
    if yes.key == no.key:
        return yes
    if test.op == "const":
        return yes if test.data else no
    return graph.value("phi", {"test": test, "yes": yes, "no": no}, at=at)


_NEW = {"zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "empty"}


def is_of_a_cache(effect: Effect) -> bool:
    """Whether all that is done is to keep something in a mapping, or to choose a mode: nothing that shows elsewhere."""
    func, base = effect.value.get("func"), effect.value.get("input")
    if effect.kind == "setitem" and base is not None:
        made, file = base.bases({"setitem"})[-1] if base.op == "setitem" else base, effect.at.file
        is_new = made.op in _NEW and made.at is not None and made.at.file is file and not effect.is_own
        return base.op in MAPPINGS or (is_new and file.function(made.at.node) is file.function(effect.at.node))  # type: ignore[union-attr]
    is_mapping = func is not None and func.op == "attr" and func["of"].op in MAPPINGS
    return is_mapping or effect.kind in ("inference_mode", "no_grad", "current_device")


def where(value: Value, condition: Value, holds: bool) -> Value:
    """What a value is where a condition holds, or does not."""
    if value.op != "phi":
        return value
    (own, is_own), (other, is_other) = plain_test(value["test"], True), plain_test(condition, holds)
    return value["yes" if is_own is is_other else "no"] if own.key == other.key else value


def plain_test(test: Value, holds: bool) -> tuple[Value, bool]:
    """A condition without its negations, and whether that holds."""
    while test.op == "not":
        test, holds = test["input"], not holds
    return test, holds


def kept_in(frame: Frame, mapping: Value, at: Place) -> Value:
    """What comes out of a mapping, and what was put there, as far as it has been seen."""
    put = frame.run.attributes.get((mapping.key, PUT))
    return frame.graph.value("kept", {"of": mapping, **({"put": put} if put is not None else {})}, at=at)


Key = TypeVar("Key")


def joined(graph: Graph, test: Value, yes: Mapping[Key, Value], no: Mapping[Key, Value]) -> dict[Key, Value]:
    """What names stand for behind a condition."""
    unset, found = graph.value("unset"), {}
    for name in {**yes, **no}:
        a, b = yes.get(name, unset), no.get(name, unset)
        found[name] = a if a is b else choice(graph, test, a, b, None)
    return found


def all_of(graph: Graph, guards: Sequence[Guard]) -> Value:
    """What holds where a statement is reached, as far as conditions say."""
    tests = [
        graph.value("not", {"input": each.value}, at=each.at) if each.kind == "else" else each.value
        for each in guards
        if each.kind in ("if", "else")
    ]
    return tests[0] if len(tests) == 1 else graph.group("all", tests)


def item_of(graph: Graph, source: Value, node: ast.AST, at: Place) -> Value:
    """What one turn of a loop gets of what it goes through."""
    if source.op == "enumerate":
        counter = graph.value("counted", {"start": source.get("start") or graph.const(0)}, node, at)
        return graph.group("tuple", [counter, item_of(graph, source["input"], node, at)])
    if source.op == "zip":
        return graph.group("tuple", [item_of(graph, each, node, at) for each in source.items])
    return graph.value("item", {"of": source}, node, at)
