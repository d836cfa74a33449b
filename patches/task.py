"""What a task is, and what is found and decided about it: the data classes of patches."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import libcst as cst

    from .reading.source import Source
    from .reading.tree import SourceTree


class Contract(StrEnum):
    """What a task promises, and so what its check compares."""

    EQUIVALENT = "equivalent"  # old and new compute the same
    FIXES = "fixes"  # a witness is red before and green after
    EXTENDS = "extends"  # the default is bit-identical; the new option has a property


class State(StrEnum):
    """How far a tree holds a task, as far as its source tells."""

    APPLIED = "applied"
    MISSING = "missing"
    PARTIAL = "partial"
    UNRECOGNISED = "unrecognised"


class Outcome(StrEnum):
    """What an apply or a revert does about a task, or would do."""

    APPLIED = "applied"
    WOULD_APPLY = "would-apply"
    ALREADY_APPLIED = "already-applied"
    REVERTED = "reverted"
    WOULD_REVERT = "would-revert"
    NOT_APPLIED = "not-applied"
    REFUSED = "refused"


UNWRITTEN = {Outcome.APPLIED: Outcome.WOULD_APPLY, Outcome.REVERTED: Outcome.WOULD_REVERT}


class BitpatchError(Exception):
    """Something the user can mend: what was expected, what was found, where, and then what to do about it.

    `then` says that alone, for programs; else it is the message's last clause, as in "model.py: is read-only; make it
    writable".
    """

    exit_code = 3

    def __init__(self, message: str, *, then: str = "") -> None:
        super().__init__(message)
        clauses = re.split(r"; |\. (?=[A-Z])", message)[1:]
        self.then = then or next((each for each in reversed(clauses) if not each.startswith("nothing was ")), "")


class Unparsable(BitpatchError):
    """A file does not parse, or would not survive a round trip through LibCST."""


class Unreadable(BitpatchError):
    """A file or folder cannot be read or written, or a killed run waits for its recovery."""

    exit_code = 6


@dataclass(frozen=True, slots=True)
class Site:
    """A place in a tree, and what was seen there; `locate` counts line and column from 1, when it is asked."""

    path: str
    note: str
    locate: Callable[[], tuple[int, int]] = field(compare=False, repr=False)

    @classmethod
    def at(cls, path: str, note: str, line: int, column: int) -> Site:
        """A site whose place is known."""
        return cls(path, note, lambda: (line, column))

    @property
    def line(self) -> int:
        return self.locate()[0]

    @property
    def place(self) -> Line:
        return Line(self.path, *self.locate())

    def __str__(self) -> str:
        return f"{self.place}: {self.note}"

    def to_json(self) -> dict[str, Any]:
        line, column = self.locate()
        return {"path": self.path, "line": line, "column": column, "note": self.note}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file, or a place in it, that somebody names."""

    path: str
    line: int
    column: int | None = None

    def holds(self, site: Site) -> bool:
        """Whether a site is there."""
        if site.path != self.path:
            return False
        line, column = site.locate()
        return line == self.line and self.column in (None, column)

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.path, self.line, self.column) if part is not None)


@dataclass(frozen=True, slots=True)
class Edit:
    """A change to one node of a file; `change` is given the node with the edits inside it already made."""

    source: Source
    node: cst.CSTNode
    change: Callable[[cst.CSTNode], cst.CSTNode | cst.RemovalSentinel | cst.FlattenSentinel[cst.CSTNode]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where a task matters: already mended, to be mended by edits, or not understood."""

    site: Site
    state: State
    edits: tuple[Edit, ...] = ()
    units: frozenset[Hashable] = frozenset()  # what can be done without the rest; part of all where there are none
    is_opaque: bool = False  # whether what is there could not be followed
    aside: str = ""  # why it does not count: "left alone", "skipped", "unused"

    @property
    def condition(self) -> str:
        """Whether a condition of its task is met there: "matched", "near-miss", or "opaque"."""
        return "opaque" if self.is_opaque else "near-miss" if self.state is State.UNRECOGNISED else "matched"

    @property
    def is_open(self) -> bool:
        """Whether it counts, and something is left to do."""
        return not self.aside and self.state is not State.APPLIED

    def put_aside(self, why: str, more: str = "") -> Finding:
        """The same, left out of what counts, which its note says."""
        return replace(self, aside=why, site=replace(self.site, note=f"{self.site.note} ({why}{more})"))


def mended(site: Site) -> Finding:
    """The task already holds at this site."""
    return Finding(site, State.APPLIED)


def mend(site: Site, edits: Iterable[Edit]) -> Finding:
    """The task is missing at this site; the edits bring it."""
    return Finding(site, State.MISSING, tuple(edits))


def near_miss(site: Site) -> Finding:
    """The site looks like one of the task's, but an edit would rest on a guess; the note says why."""
    return Finding(site, State.UNRECOGNISED)


def opaque(site: Site) -> Finding:
    """A near miss, as what is computed at the site could not be followed."""
    return Finding(site, State.UNRECOGNISED, is_opaque=True)


def apart(units: Iterable[Hashable], found: Iterable[Finding]) -> Iterator[Finding]:
    """Findings that are done together, and can be without all others; of several units, with any of these.

    Whoever says so knows that the tree is right with one unit done and the rest as it was: `--at` does one alone, and
    a skipped one is left out. A task that says nothing is done as a whole.
    """
    own = frozenset(units)
    return (replace(each, units=own) for each in found)


@dataclass(frozen=True, slots=True)
class Task:
    """One of the named patches: what it is, and how its sites are found."""

    number: int
    slug: str
    title: str
    contract: Contract
    seam: str  # of the tree: what it changes
    summary: str
    why: str
    sought: str  # what a tree must have for the task to apply, as a refusal says it
    find: Callable[[SourceTree], Iterator[Finding]]
    option: str = ""  # of a training loop, which it brings

    @property
    def id(self) -> str:
        return f"task-{self.number}"

    def to_json(self) -> dict[str, Any]:
        described = {"slug": self.slug, "title": self.title, "contract": self.contract, "summary": self.summary}
        return {"id": self.id, **described}


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """The state of a task in a tree, and the sites that say so."""

    task: Task
    state: State
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, task: Task, found: Iterable[Finding]) -> TaskStatus:
        """The state that what was found adds up to."""
        findings = tuple(found)
        states = {finding.state for finding in findings if not finding.aside}
        if not states and any(finding.aside == "skipped" for finding in findings):
            return cls(task, State.APPLIED, findings)  # nothing that counts is left to do
        if not states or State.UNRECOGNISED in states:
            return cls(task, State.UNRECOGNISED, findings)
        return cls(task, states.pop() if len(states) == 1 else State.PARTIAL, findings)

    @property
    def in_code(self) -> State:
        """The same for who needs the task to be there: one that is left out altogether is not seen."""
        is_left_out = self.state is State.APPLIED and all(finding.aside for finding in self.findings)
        return State.UNRECOGNISED if is_left_out else self.state

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(finding.site for finding in self.findings)

    def conditions(self) -> list[dict[str, Any]]:
        """Each condition of the task that the tree meets, nearly meets, or does not, with its place."""
        found = [
            {"condition": finding.condition, "state": finding.aside or finding.state, **finding.site.to_json()}
            for finding in self.findings
            if finding.aside != "unused"
        ]
        return found or [{"condition": "absent", "note": self.task.sought}]

    def explained(self) -> dict[str, Any]:
        """The state, and each condition that led to it."""
        return {"state": self.state, "conditions": self.conditions()}

    def to_json(self) -> dict[str, Any]:
        return {"id": self.task.id, "state": self.state, "sites": [site.to_json() for site in self.sites]}


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """What becomes of a task in a plan: applied, already there, taken back, never there, or refused with a reason."""

    task: Task
    outcome: Outcome
    reason: str
    sites: tuple[Site, ...]
    aside: tuple[Site, ...] = ()  # what was left as it is: skipped, or at another site than that which is meant
    then: str = ""  # the command that helps where it is refused

    def to_json(self, *, written: bool = False) -> dict[str, Any]:
        outcome = self.outcome if written else UNWRITTEN.get(self.outcome, self.outcome)
        sites = [site.to_json() for site in (*self.sites, *self.aside)]
        return {"id": self.task.id, "outcome": outcome, "reason": self.reason, "sites": sites}


@dataclass(frozen=True, slots=True)
class Change:
    """A file before and after."""

    path: str
    before: bytes
    after: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """What applying or reverting some tasks would do to a tree; nothing is written yet."""

    outcomes: tuple[TaskOutcome, ...]
    changes: tuple[Change, ...] = field(default=())

    @property
    def refused(self) -> bool:
        return any(outcome.outcome is Outcome.REFUSED for outcome in self.outcomes)

    def to_json(self, *, written: bool = False) -> dict[str, Any]:
        """What was done, or, where nothing is written, would be."""
        return {
            "written": written and bool(self.changes),
            "changed": [change.path for change in self.changes],
            "tasks": [outcome.to_json(written=written) for outcome in self.outcomes],
        }
