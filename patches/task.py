"""What a task is, and what is found and decided about it: the data classes of patches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import libcst as cst

    from .source import Source
    from .tree import SourceTree


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

    def __str__(self) -> str:
        line, column = self.locate()
        return f"{self.path}:{line}:{column}: {self.note}"

    def to_json(self) -> dict[str, Any]:
        line, column = self.locate()
        return {"path": self.path, "line": line, "column": column, "note": self.note}


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


def mended(site: Site) -> Finding:
    """The task already holds at this site."""
    return Finding(site, State.APPLIED)


def mend(site: Site, edits: Iterable[Edit]) -> Finding:
    """The task is missing at this site; the edits bring it."""
    return Finding(site, State.MISSING, tuple(edits))


def near_miss(site: Site) -> Finding:
    """The site looks like one of the task's, but an edit would rest on a guess; the note says why."""
    return Finding(site, State.UNRECOGNISED)


@dataclass(frozen=True, slots=True)
class Task:
    """One of the named patches: what it is, and how its sites are found."""

    number: int
    slug: str
    title: str
    contract: Contract
    summary: str
    why: str
    sought: str  # what a tree must have for the task to apply, as a refusal says it
    find: Callable[[SourceTree], Iterator[Finding]]

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
        states = {finding.state for finding in findings}
        if not states or State.UNRECOGNISED in states:
            return cls(task, State.UNRECOGNISED, findings)
        return cls(task, states.pop() if len(states) == 1 else State.PARTIAL, findings)

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(finding.site for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {"id": self.task.id, "state": self.state, "sites": [site.to_json() for site in self.sites]}


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """What becomes of a task in a plan: applied, already there, taken back, never there, or refused with a reason."""

    task: Task
    outcome: Outcome
    reason: str
    sites: tuple[Site, ...]

    def to_json(self, *, written: bool = False) -> dict[str, Any]:
        outcome = self.outcome if written else UNWRITTEN.get(self.outcome, self.outcome)
        sites = [site.to_json() for site in self.sites]
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
