"""A result as a page: one file that loads nothing, for somebody who has read none of our documents."""

import datetime
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ... import __version__
from ...patches.applying.engine import diff_of
from ..running.evidence import Picture, Verdict
from . import pictures
from .report import EXIT_CODES, CheckResult, Outcome, SanityFit, TaskReport, detail_of, fit_summary
from .surroundings import InTree, Shown

FOLDER = Path(__file__).parent
LARGEST = 300_000  # bytes of a page
WORDS = {
    Outcome.VERIFIED: "Every property that was asked about holds.",
    Outcome.VIOLATED: "At least one property does not hold: what is red below is broken, or missing.",
    Outcome.UNPROVEN: "Nothing was seen to be wrong, but not everything could be tried: no promise is made.",
    Outcome.ERROR: "A check ended without an answer: a crash, or limits that it passed. No promise is made.",
}
CODES = {0: "verified", 4: "violated", 5: "unproven, or a check that ended in error"}
SIGNS = {"pass": "✓", "fail": "✗", "unproven": "?", "error": "!", "not applicable": "·"}
RED = [Verdict.FAIL, Verdict.ERROR, Verdict.UNPROVEN]  # the gravest first
OUTRIGHT = -99  # decades: what is so far outside is wrong in kind, not by a distance
MOST_MUTANTS = 5  # wrong patches that are named at a check


@dataclass(frozen=True, slots=True)
class Room:
    """How much a page may say of each thing: a smaller one is tried where a page grows too large."""

    pictures: int
    lines: int  # of a diff
    letters: int  # of a detail


ROOMS = [Room(200, 400, 4000), Room(24, 200, 2000), Room(8, 80, 1000), Room(0, 30, 400), Room(0, 0, 160)]


def html(shown: Shown) -> str:
    """The page, which says less of each thing where it would grow too large."""
    for room in ROOMS:
        page = _page(shown, room)
        if len(page.encode(errors="replace")) <= LARGEST:
            break
    return page


def _page(shown: Shown, room: Room) -> str:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    report = shown.report
    left = iter(range(room.pictures))
    tasks = [_task(shown, each, room, left) for each in report.tasks]
    counts = Counter(str(check.evidence.verdict) for task in report.tasks for check in task.checks)
    words, is_green = WORDS[report.verdict], report.verdict is Outcome.VERIFIED
    if is_green and report.since is not None and not tasks and report.sanity_fit is None:
        words = f"Nothing that was asked about can have changed since {report.since.ref}: none of it was judged."
    since = "" if report.since is None else f" --since {shlex.quote(report.since.ref)}"
    return environment.get_template("page.html").render(
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own
        version=__version__,
        today=datetime.date.today().isoformat(),
        report=report,
        code=EXIT_CODES[report.verdict],
        meaning=CODES[EXIT_CODES[report.verdict]],
        words=words,
        counts={name: counts[name] for name in SIGNS if counts[name]},
        signs=SIGNS,
        tasks=tasks,
        red=[each for each in tasks if each["red"]],
        first=next((each for each in sorted(tasks, key=_gravity) if each["red"]), None),
        fit=report.sanity_fit,
        fit_words="" if report.sanity_fit is None else fit_summary(report.sanity_fit),
        fit_curves=[
            pictures.drawn(each, "before it was patched") for each in training_curves(report.sanity_fit, shown.before)
        ],
        command=shown.command(*(each.task for each in report.tasks)) + since,
    )


def _gravity(task: Mapping[str, Any]) -> int:
    return list(Outcome).index(task["report"].verdict)


def _task(shown: Shown, task: TaskReport, room: Room, left: Iterator[int]) -> dict[str, Any]:
    """What a page says of a task."""
    found = shown.tasks.get(task.task)
    red = sorted(
        task.red,
        key=lambda each: (RED.index(each.evidence.verdict), each.evidence.picture is None),
    )
    return {
        "report": task,
        "found": found,
        "site": shown.site(task.task) if red else None,
        "path": shown.path,
        "command": shown.command(task.task),
        "checks": [_check(each) for each in task.checks],
        "red": [_check(each, room, left) for each in red],
        "diff": _diff(found, room) if red and found is not None else [],
        "apply": shown.command(task.task, verb="apply"),
    }


def _check(result: CheckResult, room: Room = ROOMS[-1], left: Iterator[int] | None = None) -> dict[str, Any]:
    evidence = result.evidence
    picture = evidence.picture
    is_outright = evidence.margin is not None and evidence.margin < OUTRIGHT
    killed = known_mutants().get(f"{result.subject}/{result.name}", [])
    return {
        "name": result.name,
        "anchor": f"{result.subject}-{result.name}",
        "prop": result.prop,
        "verdict": str(evidence.verdict),
        "sign": SIGNS[str(evidence.verdict)],
        "measured": "" if evidence.measured is None or is_outright else f"{evidence.measured:.4g}",
        "limit": "" if evidence.limit is None else f"{evidence.limit:.4g}",
        "margin": "" if evidence.margin is None or is_outright else f"{evidence.margin:+.1f}",
        "seconds": f"{result.seconds:.1f}",
        "detail": _cut(detail_of(evidence), room.letters),
        "reproduce": evidence.reproduce,
        "picture": pictures.drawn(picture) if picture and left and next(left, None) is not None else "",
        "has_more": picture is not None,
        "mutants": killed[:MOST_MUTANTS],
        "more_mutants": max(0, len(killed) - MOST_MUTANTS),
        "covered": _covered(evidence.covered),
    }


def _covered(covered: dict[str, Any] | None) -> str:
    if not covered:
        return ""
    axes = "; ".join(f"{axis}: {', '.join(values[:12])}" for axis, values in covered["axes"].items())
    return f"{covered['points']} points, {covered['pairs']} of {covered['of_pairs']} pairs of values. {axes}"


def _cut(text: str, letters: int) -> str:
    return (
        text if len(text) <= letters else f"{text[:letters]} ... ({len(text) - letters} letters more: --json has them)"
    )


def _diff(found: InTree, room: Room) -> list[tuple[str, str]]:
    """What apply would write, line by line, with what kind of line each is."""
    kinds = {"+": "added", "-": "removed", "@": "place"}
    lines = [line.rstrip("\r") for line in diff_of(found.changes).decode(errors="replace").split("\n")[:-1]]
    shown = [("file" if line.startswith(("+++", "---")) else kinds.get(line[:1], ""), line) for line in lines]
    more = [("place", f"... {len(shown) - room.lines} lines more: see `bitpatch diff`")] * (len(shown) > room.lines)
    return [*shown[: room.lines], *more]


def training_curves(fit: SanityFit | None, before: SanityFit | None = None) -> list[Picture]:
    """The curves of a short training run, as pictures, beside those of the tree before it was patched."""
    if fit is None or not fit.losses:
        return []
    titles = (("loss", "bits per bit", "losses"), ("learning rate", "learning rate", "rates"))
    return [
        Picture(
            "curves",
            f"{title}, {len(fit.losses)} updates of a small model",
            list(getattr(fit, name)),
            [] if before is None else list(getattr(before, name)),
            "update",
            unit,
        )
        for title, unit, name in titles
    ]


@cache
def known_mutants() -> dict[str, list[str]]:
    """What each check is known to tell from a right patch, as `make mutants` found: wrong patches in words."""
    known: dict[str, list[str]] = json.loads((FOLDER / "mutants.json").read_text(encoding="utf-8"))
    return known
