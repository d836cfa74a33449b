"""Rates that a script computes, and that its optimizer never gets.

A number of the script's that is at some time just what the optimizer's rate is, and then changes, while the
optimizer's does not.
"""

import argparse
import math
import types
from collections.abc import Collection, Iterator
from typing import Any

from torch.optim.optimizer import Optimizer

from .lines import Lines

UNCHANGED = 2  # updates that a rate has to be left behind for
EACH, SELDOM = 50, 10  # updates at each of which numbers are looked at, and between looks after these
SAME = 1e-9  # relative: how far two numbers are one
FEW = 4  # rates that a group has had, after which it is no accident that another has had one
MOST = 200  # numbers that are followed


class Rates:
    """Follows the script's numbers from update to update."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._rate: dict[int, set[float]] = {}  # those that an optimizer had, by its identity
        self._groups: dict[int, list[set[float]]] = {}  # and those of each of its groups
        self._values: dict[tuple[str, str], list[float]] = {}  # of a number, each time that it had changed
        self._behind: dict[tuple[str, str], tuple[str, int]] = {}  # where, and for how many updates
        self._looks = 0
        self._equal: set[tuple[str, str]] = set()

    @property
    def followed(self) -> int:
        """How many numbers were the rate at some time."""
        return len(self._equal)

    def look(self, optimizer: Optimizer, rates: tuple[float, ...]) -> None:
        """Note the numbers of the script as they are at an update."""
        known = self._rate.setdefault(id(optimizer), set())
        known.update(rates)
        self._looks += 1
        groups = self._groups.setdefault(id(optimizer), [{rate} for rate in rates])
        for own, rate in zip(groups, rates, strict=False):
            own.add(rate) if len(own) < MOST else None
        if self._looks > EACH and self._looks % SELDOM:
            return
        for key, value, line in self._numbers(optimizer):
            values = self._values.get(key)
            if values is None:
                if len(self._values) < MOST:
                    self._values[key] = [value]
            elif values[-1] != value:
                values.append(value) if len(values) < MOST else None
            if any(math.isclose(value, rate, rel_tol=SAME) for rate in rates):
                self._equal.add(key)
                self._behind.pop(key, None)
            elif len(self._values.get(key, ())) > 1 and len(known) == 1:
                _, updates = self._behind.get(key, ("", 0))
                self._behind[key] = (line, updates + 1)

    def stale(self) -> list[str]:
        """The numbers that were the rate, changed, and left it as it was: name and place."""
        never_moved = all(len(each) == 1 for each in self._rate.values())
        return [
            f"{key[1]} at {line}"
            for key, (line, updates) in self._behind.items()
            if key in self._equal and updates >= UNCHANGED and never_moved
        ]

    def left_alone(self, scheduled: Collection[int]) -> int:
        """The number of a group whose rate stays where that of another is moved by hand; 0 where there is none.

        Those of optimizers that have a scheduler, by their identity, may have it so.
        """
        for optimizer, groups in self._groups.items():
            stay = [number for number, own in enumerate(groups, 1) if len(own) == 1]
            moved = any(len(own) > FEW and groups[stay[0] - 1] <= own for own in groups) if stay else False
            if moved and self._equal and optimizer not in scheduled:
                return stay[0]
        return 0

    def _numbers(self, optimizer: Optimizer) -> Iterator[tuple[tuple[str, str], float, str]]:
        for depth, frame in enumerate(self._lines.frames()):
            file = self._lines.name(frame.f_code.co_filename)
            line, scope = f"{file}:{frame.f_lineno}", f"{file}:{frame.f_code.co_qualname}"
            yield from _of(scope, line, frame.f_locals)
            if depth == 0:
                yield from _of(file, line, frame.f_globals)
        yield from _of("the optimizer", self._lines.here(), vars(optimizer))
        yield from _of("the optimizer", self._lines.here(), optimizer.defaults)


def _of(scope: str, line: str, names: dict[str, Any]) -> Iterator[tuple[tuple[str, str], float, str]]:
    """The numbers of a scope, and those of its configuration objects."""
    for name, value in list(names.items()):
        if type(value) is float:
            yield (scope, name), value, line
        elif isinstance(value, (argparse.Namespace, types.SimpleNamespace)) or _is_own(value):
            for inner, each in list(vars(value).items()):
                if type(each) is float:
                    yield (scope, f"{name}.{inner}"), each, line


def _is_own(value: Any) -> bool:
    """Whether something is an object of a class of the script's own, or of its folder."""
    kind = type(value)
    return kind.__module__ == "__main__" and hasattr(value, "__dict__") and not isinstance(value, (type, Optimizer))
