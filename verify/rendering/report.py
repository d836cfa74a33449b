"""What verify found out about a tree: the data classes, their JSON, their plain text."""

import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..running.evidence import Evidence, Verdict
from ..since.found import Since


class Outcome(StrEnum):
    """The verdict on a task or a tree, the gravest first."""

    VIOLATED = "violated"
    ERROR = "error"
    UNPROVEN = "unproven"
    VERIFIED = "verified"


OUTCOMES = {
    Verdict.FAIL: Outcome.VIOLATED,
    Verdict.ERROR: Outcome.ERROR,
    Verdict.UNPROVEN: Outcome.UNPROVEN,
    Verdict.PASS: Outcome.VERIFIED,
}
LEVELS = {Verdict.FAIL: "error", Verdict.UNPROVEN: "warning", Verdict.ERROR: "warning"}  # where others know two
EXIT_CODES = {Outcome.VERIFIED: 0, Outcome.VIOLATED: 4, Outcome.UNPROVEN: 5, Outcome.ERROR: 5}
FIRST, LAST = 10, 20  # updates whose mean loss is a sanity fit's first and last
SHOWN = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}  # and moves no terminal
OF_SCRIPT = ("check", "verdict", "what was seen")
NAMED = 4  # checks that do not apply
SCRIPT = 0  # where a check is of a script, and of no task
COLUMNS = ("check", "verdict", "measured", "limit", "margin", "seconds")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check said of one property."""

    task: int
    name: str
    prop: str
    evidence: Evidence
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The check's part of the verify JSON."""
        evidence = self.evidence
        return {
            "name": self.name,
            "property": self.prop,
            "verdict": str(evidence.verdict),
            "measured": finite(evidence.measured),
            "limit": finite(evidence.limit),
            "margin": evidence.margin,
            "detail": detail_of(evidence),
            "reproduce": evidence.reproduce,
            "covered": evidence.covered,
            "picture": None if evidence.picture is None else asdict(evidence.picture),
            "seconds": round(self.seconds, 3),
            **({"at": evidence.at} if self.task == SCRIPT or evidence.at else {}),
        }

    @property
    def subject(self) -> str:
        """What it is a check of."""
        return subject(self.task)


@dataclass(frozen=True, slots=True)
class TaskReport:
    """The results of a task's checks."""

    task: int
    checks: tuple[CheckResult, ...]

    @property
    def id(self) -> str:
        """The task's name, as in `task-11`; `script` of what is asked of a script."""
        return subject(self.task)

    @property
    def red(self) -> tuple[CheckResult, ...]:
        """The checks that did not pass."""
        return tuple(
            each for each in self.checks if each.evidence.verdict not in (Verdict.PASS, Verdict.NOT_APPLICABLE)
        )

    @property
    def verdict(self) -> Outcome:
        """The gravest verdict among the checks; without a check, unproven."""
        verdicts = [result.evidence.verdict for result in self.checks]
        return gravest(OUTCOMES[each] for each in verdicts if each is not Verdict.NOT_APPLICABLE)

    def to_json(self) -> dict[str, Any]:
        """The task's part of the verify JSON."""
        return {"id": self.id, "verdict": str(self.verdict), "checks": [result.to_json() for result in self.checks]}


@dataclass(frozen=True, slots=True)
class Script:
    """A script that was judged: as it was called, and the updates that it made meanwhile."""

    path: str
    arguments: tuple[str, ...]
    updates: int

    @property
    def command(self) -> str:
        """How to have it judged again."""
        rest = ["--", *self.arguments] if self.arguments else []
        return shlex.join(["bitpatch", "verify", "--script", self.path, *rest])

    def to_json(self) -> dict[str, Any]:
        """The script's part of the verify JSON."""
        return {"path": self.path, "arguments": list(self.arguments), "updates": self.updates}


@dataclass(frozen=True, slots=True)
class SanityFit:
    """A short training run: its verdict, and per update the loss (bits per bit) and the learning rate."""

    verdict: Verdict
    detail: str
    losses: tuple[float, ...]
    rates: tuple[float, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The sanity fit's part of the verify JSON, without the curves."""
        return {
            "verdict": str(self.verdict),
            "steps": len(self.losses),
            "loss_first": finite(mean(self.losses[:FIRST])),
            "loss_last": finite(mean(self.losses[-LAST:])),
            "lr_last": self.rates[-1] if self.rates else None,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that one run of verify found out about a tree."""

    tree: Path
    tasks: tuple[TaskReport, ...]
    sanity_fit: SanityFit | None
    seconds: float
    since: Since | None = None
    script: Script | None = None  # where one was judged, and no tree

    @property
    def verdict(self) -> Outcome:
        """The gravest verdict among the tasks, the sanity fit and the tree's own tests; of nothing, unproven."""
        fits = () if self.sanity_fit is None else (OUTCOMES[self.sanity_fit.verdict],)
        tests = () if self.since is None else (OUTCOMES[self.since.tests.verdict],)
        return gravest([*(task.verdict for task in self.tasks), *fits, *tests])

    def to_json(self) -> dict[str, Any]:
        """The verify JSON; its schema is schemas/verify.json."""
        return {
            "tree": str(self.tree),
            "verdict": str(self.verdict),
            "seconds": round(self.seconds, 3),
            "tasks": [task.to_json() for task in self.tasks],
            "sanity_fit": None if self.sanity_fit is None else self.sanity_fit.to_json(),
            **({} if self.since is None else {"since": self.since.to_json()}),
            **({} if self.script is None else {"script": self.script.to_json()}),
        }


def subject(task: int) -> str:
    """What checks are of: a task, or a script."""
    return "script" if task == SCRIPT else f"task-{task}"


def exit_code(report: Report) -> int:
    """0 verified, 4 violated, 5 unproven or a check that ended in error."""
    return EXIT_CODES[report.verdict]


def gravest(outcomes: Iterable[Outcome]) -> Outcome:
    """The gravest outcome; of none, unproven."""
    return min(outcomes, key=list(Outcome).index, default=Outcome.UNPROVEN)


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of nothing."""
    return sum(values) / len(values) if values else math.nan


def finite(value: float | None) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if value is not None and math.isfinite(value) else None


def detail_of(evidence: Evidence) -> str:
    """The evidence's detail, led by a measured value that JSON cannot hold."""
    if evidence.measured is None or math.isfinite(evidence.measured):
        return evidence.detail
    return f"measured {evidence.measured}; {evidence.detail}".removesuffix("; ")


def text_of(report: Report) -> str:
    """The report for people, as plain text."""
    return "\n".join(plain_lines(report)) + "\n"


def plain_lines(report: Report) -> Iterator[str]:
    """The lines of the report for people."""
    for task in report.tasks:
        yield f"{task.id}: {task.verdict}"
        if task.checks:
            yield from laid_out(*table(task), [result.name for each in report.tasks for result in each.checks])
        yield from complaints(task)
        yield ""
    if report.sanity_fit is not None:
        yield f"sanity fit: {report.sanity_fit.verdict}  {fit_summary(report.sanity_fit)}"
    yield from () if report.since is None else report.since.lines()
    yield from (f"{name}: {verdict}  {checks}".rstrip() for name, verdict, checks in summary(report))
    yield f"{report.tree}: {report.verdict} in {report.seconds:.1f} s"


def summary(report: Report) -> Iterator[tuple[str, Outcome, str]]:
    """Of several tasks the name, the verdict, and which checks say so, red first, each the gravest first."""
    several = report.tasks if len(report.tasks) > 1 else ()
    for task in sorted(several, key=lambda each: list(Outcome).index(each.verdict)):
        if task.verdict is not Outcome.VERIFIED:
            names = ", ".join(each.name for each in task.red)
            count = f"{len(task.red)} of {len(task.checks)} checks: {names}" if task.checks else "no check"
            yield task.id, task.verdict, count
    whole = [task.id for task in several if task.verdict is Outcome.VERIFIED]
    if whole:
        yield ", ".join(whole), Outcome.VERIFIED, ""


def table(task: TaskReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The checks of a task, or of a script, as columns and rows."""
    if task.task != SCRIPT:
        return COLUMNS, [cells(each) for each in task.checks if each.evidence.verdict is not Verdict.NOT_APPLICABLE]
    shown = [(each.name, str(each.evidence.verdict), each.evidence.detail) for each in task.checks]
    red = {each.name for each in task.red}
    return OF_SCRIPT, [(name, verdict, "" if name in red else detail) for name, verdict, detail in shown]


def laid_out(columns: Sequence[str], rows: Sequence[Sequence[str]], names: Sequence[str]) -> Iterator[str]:
    """A table in lines, as wide as all the names need."""
    first, second = max([5, *map(len, names)]), max([8, *(len(row[1]) for row in rows)])
    rest = "{}" if columns is OF_SCRIPT else "{:>9} {:>9} {:>7} {:>7}"
    layout = f"  {{:{first}}} {{:{second}}} {rest}"
    yield from (layout.format(*row) for row in (columns, *rows))


def cells(result: CheckResult) -> tuple[str, str, str, str, str, str]:
    """A check's row under COLUMNS."""
    evidence = result.evidence
    margin = "" if evidence.margin is None else f"{evidence.margin:+.1f}"
    numbers = ("" if value is None else f"{value:.3g}" for value in (evidence.measured, evidence.limit))
    measured, limit = numbers
    return result.name, str(evidence.verdict), measured, limit, margin, f"{result.seconds:.2f}"


def complaints(task: TaskReport) -> Iterator[str]:
    """What is to be said of each check that did not pass, and why others do not apply."""
    if not task.checks:
        yield "  no check of this task is known"
    for result in task.red:
        yield f"  {result.name}: {result.prop}"
        for label, text in (("", detail_of(result.evidence)), ("reproduce: ", result.evidence.reproduce)):
            if text:
                yield "    " + label + text.translate(SHOWN).replace("\n", "\n    ")
    aside = [each for each in task.checks if each.evidence.verdict is Verdict.NOT_APPLICABLE] if task.task else []
    for why in dict.fromkeys(each.evidence.detail for each in aside):
        names = [each.name for each in aside if each.evidence.detail == why]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield f"  not applicable: {', '.join(names[:NAMED])}{more}"
        yield f"    {why.translate(SHOWN)}"


def fit_summary(fit: SanityFit) -> str:
    """The sanity fit in a line: losses in bits per bit, and why it did not pass."""
    first, last = mean(fit.losses[:FIRST]), mean(fit.losses[-LAST:])
    fall = f"loss {first:.3f} -> {last:.3f} bits per bit in {len(fit.losses)} updates" if fit.losses else ""
    return "; ".join(part for part in (fall, fit.detail) if part)
