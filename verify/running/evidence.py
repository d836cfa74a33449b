"""What a check is, and what it may say: the data classes of verify."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..driving.tree import Tree


class Verdict(StrEnum):
    """What a check says of its property."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    UNPROVEN = "unproven"  # the property was not exercised
    ERROR = "error"  # the check crashed, or ran out of time or memory
    NOT_APPLICABLE = "not applicable"  # of a script, which does not do what the property is about


@dataclass(frozen=True, slots=True)
class Picture:
    """What a check found, beside what should be.

    kind is "curves" (both are lists of numbers, one a place on x), "maps" (lists of rows of numbers) or "events" (lists
    of words, in the order in which it all happened). None stands for what is no finite number.
    """

    kind: str
    title: str
    found: list[Any]
    wanted: list[Any]
    x: str = ""  # what the axes are
    y: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a check saw: the numbers, a sentence, and one line that shows it again."""

    verdict: Verdict
    measured: float | None = None
    limit: float | None = None
    detail: str = ""
    reproduce: str = ""
    covered: dict[str, Any] | None = None  # the points at which the property was tried, where it has axes
    picture: Picture | None = None  # of the worst that was found
    at: str = ""  # file:line of the user's at which it shows, where a run tells

    @property
    def margin(self) -> float | None:
        """Decades between what was measured and its limit: positive is inside, negative is outside."""
        if self.measured is None or not self.limit or not math.isfinite(self.measured):
            return None
        return round(math.log10(self.limit / max(abs(self.measured), 1e-17)), 2)


@dataclass(frozen=True, slots=True)
class Check:
    """One property of one task, and the function that looks for it in a tree."""

    task: int
    name: str
    prop: str
    function: "Callable[[Tree], Evidence]"


CHECKS: dict[int, list[Check]] = {}
OF_ANY: dict[int, list[Check]] = {}  # those that ask no more of a tree than any training in PyTorch has


def check(
    *, task: int, prop: str, of_any: bool = False
) -> "Callable[[Callable[[Tree], Evidence]], Callable[[Tree], Evidence]]":
    """Register the decorated function as the check of a property of a task; `of_any` one of trees of other models."""

    def register(function: "Callable[[Tree], Evidence]") -> "Callable[[Tree], Evidence]":
        (OF_ANY if of_any else CHECKS).setdefault(task, []).append(
            Check(task, function.__name__.replace("_", "-"), prop, function)
        )
        return function

    return register


def passed(detail: str) -> Evidence:
    """The property was exercised and holds."""
    return Evidence(Verdict.PASS, detail=detail)


def failed(detail: str, reproduce: str = "", *, picture: Picture | None = None) -> Evidence:
    """The property was exercised and does not hold."""
    return Evidence(Verdict.FAIL, detail=detail, reproduce=reproduce, picture=picture)


def unproven(detail: str) -> Evidence:
    """The property could not be exercised; `detail` says why."""
    return Evidence(Verdict.UNPROVEN, detail=detail)


def at_most(
    measured: float, limit: float, detail: str = "", reproduce: str = "", picture: Picture | None = None
) -> Evidence:
    """Pass if measured <= limit; a NaN fails."""
    if measured <= limit:
        return Evidence(Verdict.PASS, float(measured), float(limit), detail)
    return Evidence(Verdict.FAIL, float(measured), float(limit), detail, reproduce, picture=picture)
