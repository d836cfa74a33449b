"""What was compared with a commit: the data classes, their JSON, their plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..running.evidence import Verdict

if TYPE_CHECKING:
    from ...patches.task import Task


@dataclass(frozen=True, slots=True)
class OwnTests:
    """How many of a tree's own tests run, before and now, and each that was lost."""

    before: int
    now: int
    detail: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """Fail where one was lost."""
        return Verdict.FAIL if self.detail else Verdict.PASS

    def lost(self) -> Iterator[tuple[str, int, str]]:
        """Path, line and words of each that was lost."""
        for each in self.detail:
            path, line, words = re.split(r":(\d+): ", each, maxsplit=1)
            yield path, int(line), words

    def to_json(self) -> dict[str, Any]:
        """Its part of the verify JSON."""
        return {"verdict": str(self.verdict), "before": self.before, "now": self.now, "detail": list(self.detail)}


@dataclass(frozen=True, slots=True)
class Since:
    """What changed since a commit, the tasks that are left out, each with the reason, and the tree's own tests."""

    ref: str
    changed: tuple[str, ...]  # paths from the tree's folder
    left_out: Mapping[str, str]
    tests: OwnTests
    judged: tuple[Task, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        """Its part of the verify JSON."""
        left_out = [{"id": name, "why": why} for name, why in self.left_out.items()]
        return {"ref": self.ref, "changed": list(self.changed), "left_out": left_out, "tests": self.tests.to_json()}

    def lines(self) -> Iterator[str]:
        """The same for people."""
        count, tests = len(self.changed), self.tests
        yield f"since {self.ref}: {count} file{'s' * (count != 1)} changed"
        yield from (f"  {name} is left out: {why}" for name, why in self.left_out.items())
        if not self.judged:
            yield "  no task is left to be judged"
        yield f"the tree's own tests: {tests.verdict}  {tests.before} ran at {self.ref}, {tests.now} do now"
        yield from (f"  {each}" for each in tests.detail)
