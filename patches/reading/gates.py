"""Gates: what is given losses and stops a run, and what it does with a few of them."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .code import Code
from .files import File, Function
from .names import defaults_of, parameters
from .nodes import walk
from .playing.figures import Figures
from .playing.kinds import Class, Raised, Thing
from .playing.kinds import Function as Routine

LONGEST = 128  # losses of a burn-in that is looked for
FAR = 1e6  # from any threshold
_ORDERING = ("max", "min", "gt", "ge", "lt", "le")  # functions
_ORDERS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_CLOCKS = ("step", "epoch", "iter", "update", "global_step")


@dataclass(frozen=True, slots=True)
class Judge:
    """A function that is given losses: a method, one that is given a record, or one that keeps all in its module."""

    file: File
    node: Function
    kind: str  # "object", "record", "module"
    cls: Class | None = None  # of the object, or of the record

    @property
    def record(self) -> str:
        """The parameter that is the object or the record."""
        return parameters(self.node.args)[0].arg if self.kind != "module" else ""

    @property
    def losses(self) -> list[str]:
        """The parameters that are numbers and have no default."""
        return [name for name in required(self.node) if name not in (self.record, *self.clocks)]

    @property
    def clocks(self) -> list[str]:
        """The parameters by which it is told how many losses there were, whether they may be left out or not."""
        names, wanted = [each.arg for each in parameters(self.node.args)], required(self.node)
        return [each for each in names if (each in wanted and self._is_clock(each)) or each in (*_CLOCKS, "iteration")]

    def _is_clock(self, name: str) -> bool:
        own = next(each for each in parameters(self.node.args) if each.arg == name)
        return name.lower().startswith(_CLOCKS) or getattr(own.annotation, "id", "") == "int"


def required(function: Function) -> list[str]:
    """The parameters without a default."""
    defaults = defaults_of(function.args)
    return [each.arg for each in parameters(function.args) if each not in defaults]


@lru_cache(maxsize=512)
def _settings(file: File) -> list[str]:
    """The names that a module sets, tables left out that comprehensions make."""
    made = [
        (each.targets if isinstance(each, ast.Assign) else [each.target], each.value)
        for each in file.nodes
        if isinstance(each, (ast.Assign, ast.AnnAssign)) and file.function(each) is None and each.value is not None
    ]
    plain = [targets for targets, value in made if not any(isinstance(each, ast.comprehension) for each in walk(value))]
    return [each.id for targets in plain for each in targets if isinstance(each, ast.Name)]


class Gate:
    """A new gate, which is given one loss after another. Raises Unknown where it cannot be computed."""

    def __init__(self, code: Code, judge: Judge) -> None:
        self.code, self.judge, self.run, self.clock = code, judge, Figures(code), 0
        self.thing: Thing | None = None
        self.losses, self.clocks = judge.losses, judge.clocks
        if judge.cls is not None:
            setup = code.method(judge.cls.path, judge.cls.node, "__init__")
            wanted = required(setup[2])[1:] if setup is not None else []
            self.thing = self.run.call(judge.cls, **dict.fromkeys(wanted, 2.0))
            for each in (each for _, node in code.bases(judge.cls.path, judge.cls.node) for each in node.body):
                match each:
                    case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)):
                        self.thing.own.setdefault(name, value)
        for name in _settings(judge.file) if judge.kind == "module" else ():
            self.run.member(judge.file.path, name)

    @property
    def state(self) -> dict[Any, Any]:
        """What it keeps, by its names."""
        found: dict[Any, Any] = {}
        for each in self._kept():
            found |= each
        return found

    @property
    def numbers(self) -> dict[Any, Any]:
        """What it keeps that may be compared."""
        return {name: value for name, value in self.state.items() if isinstance(value, (int, float, str, type(None)))}

    def _kept(self) -> list[dict[Any, Any]]:
        if self.thing is not None:
            return [self.thing.own]
        own = self.run.walk.module(self.judge.file.path).names
        return [own, *(each for each in own.values() if isinstance(each, dict))]

    def vary(self, name: Any) -> None:
        """Let it keep something else under a name."""
        for each in self._kept():
            if is_number(each.get(name)):
                each[name] += 1000
            elif name in flags_of(each):
                each[name] = other(each[name])

    def feed(self, loss: float, **changed: Any) -> Any:
        """Give it a loss; returns what shows of that."""
        self.clock += 1
        judge = self.judge
        named = dict.fromkeys(self.losses, loss) | dict.fromkeys(self.clocks, self.clock) | changed
        named |= {judge.record: self.thing} if judge.record else {}
        returned, raises = None, False
        try:
            returned = self.run.call(Routine(judge.file.path, judge.node), **named)
        except Raised:
            raises = True
        self.take(returned)
        flags = flags_of(self.state)
        parts = returned if isinstance(returned, (tuple, list)) else [returned]
        said = [each if isinstance(each, (bool, str)) or is_member(each) else type(each).__name__ for each in parts]
        return said, raises, flags

    def take(self, made: Any) -> None:
        """Go on with what a function made of a record."""
        if self.judge.kind == "record" and isinstance(made, Thing):
            self.thing = made

    def ask(self, function: tuple[str, ast.ClassDef | None, Function], *placed: Any) -> Any:
        """Call another function of its class, or of its module, with the gate first."""
        path, _, node = function
        owner = [] if self.thing is None else [self.thing]
        return self.run.call(Routine(path, node), *owner, *placed)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a gate does: from where on a loss is bad, in which direction, and how many bad ones go by at first."""

    threshold: float
    is_floor: bool
    burn_in: int
    healthy: tuple[Any, ...]  # what shows of good losses
    is_slow: bool  # whether steady losses over the threshold go by for longer

    def first(self, gate: Gate, losses: Sequence[float]) -> int | None:
        """The place of the loss by which it stops; of a floor they are turned round."""
        for place, loss in enumerate(losses):
            if gate.feed(-loss if self.is_floor else loss) != self.healthy[min(place, len(self.healthy) - 1)]:
                return place
        return None

    @property
    def edge(self) -> float:
        """The threshold of losses that are turned round for a floor."""
        return -self.threshold if self.is_floor else self.threshold


def measured(code: Code, judge: Judge) -> Measured | None:
    """What a function does as a gate; None where it is none. Raises Unknown."""
    low, high = Gate(code, judge), Gate(code, judge)
    before = flags_of(low.state)
    shown: list[tuple[Any, Any]] = []
    numbers = set[float]()
    was: list[Any] = []
    while len(shown) < LONGEST and (not shown or shown[-1][0] == shown[-1][1]):
        now = [low.numbers, high.numbers, {node: [*seen] for node, seen in low.run.seen.items() if low.clocks}]
        if shown and not (any(map(orders, low.run.seen)) and was != now):  # a clock that is compared goes on, too
            return None
        was = now
        shown.append((low.feed(-FAR), high.feed(FAR)))
    if shown[-1][0] == shown[-1][1]:
        return None
    for gate in (low, high):
        numbers |= {float(v) for each in gate.run.seen.values() for v in each if is_number(v)}
    burn_in = len(shown) - 1
    first = shown[0][0] if burn_in else ([*shown[0][0][:2], before])
    sides = [shown[-1][side][2] if not burn_in else shown[-1][side] for side in (0, 1)]
    start = first[2] if not burn_in else first
    is_floor = sides[0] != start and (sides[1] == start)
    good = Gate(code, judge)
    healthy = tuple(good.feed(FAR if is_floor else -FAR) for _ in range(burn_in + 40))
    for slack, more in ((1e-9, 1), (0.05, 200)):  # the second for an average that comes near it in time
        for number in sorted(numbers):
            made = Measured(number, is_floor, burn_in, healthy, slack > 1e-9)  # noqa: PLR2004
            room, count = max(1.0, abs(number)) * slack, burn_in + more
            over = made.first(Gate(code, judge), [made.edge + room] * count)
            if over is not None and made.first(Gate(code, judge), [made.edge - room] * count) is None:
                return made
    return Measured(math.nan, is_floor, burn_in, healthy, True)


def is_raw(code: Code, judge: Judge, found: Measured) -> bool:
    """Whether the last loss alone decides."""
    losses = [found.edge - FAR] * 30 + [found.edge + max(1.0, abs(found.edge)) * 1e-6]
    return not found.burn_in and not found.is_slow and found.first(Gate(code, judge), losses) == len(losses) - 1


def orders(node: ast.AST) -> bool:
    """Whether an expression puts something in order."""
    if isinstance(node, ast.Call):
        return getattr(node.func, "id", getattr(node.func, "attr", "")) in _ORDERING
    return isinstance(node, ast.Compare) and any(isinstance(op, _ORDERS) for op in node.ops)


def flags_of(state: Mapping[Any, Any]) -> dict[Any, Any]:
    """What is kept that says whether a run has been stopped: flags and members of enums, or else words."""
    found = {name: value for name, value in state.items() if isinstance(value, bool) or is_member(value)}
    return found or {name: value for name, value in state.items() if isinstance(value, str)}


def is_member(value: Any) -> bool:
    """Whether a value is a member of an enum."""
    return isinstance(value, Thing) and value.name != "" and value.own.get("name") == value.name


def other(flag: Any) -> Any:
    """Another value than one that says whether a run has been stopped."""
    return not flag if isinstance(flag, bool) else f"{flag}?" if isinstance(flag, str) else Thing(flag.cls)


def is_number(value: Any) -> bool:
    """Whether a value is a number, and no flag."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
