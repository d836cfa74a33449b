"""Judge sets of tasks: law 8, that a tree passes the judges of the tasks that it holds, and no others.

    python tests/laws/diagonal.py           each task alone, and 40 random sets
    python tests/laws/diagonal.py 3         each task alone, and 3 random sets

Trees are baseline/ with codemods applied. A judge that must pass runs all its checks. One that must not
runs the check that failed on baseline/ the fastest; if that one passes, the others decide. Writes
docs/diagonal.md; exits 1 if a judge is wrong about a tree.
"""

from __future__ import annotations

import compileall
import datetime
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.progress import track

import bitpatch
from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import all_tasks
from bitpatch.patches.reading.tree import open_tree
from bitpatch.verify.rendering.report import CheckResult, Outcome, TaskReport
from bitpatch.verify.running.evidence import Verdict
from bitpatch.verify.running.runner import Job, Zygote, plan_checks, run_jobs

ROOT = Path(bitpatch.__file__).parent
DOCUMENT = ROOT / "docs" / "diagonal.md"
TASKS = tuple(task.number for task in all_tasks())
SINGLES = tuple((task,) for task in TASKS)
SEED = 0
SIGNS = {Outcome.VERIFIED: "+", Outcome.VIOLATED: "-", Outcome.UNPROVEN: "?", Outcome.ERROR: "!"}

Corner = tuple[int, ...]  # the tasks that a tree holds
Tellers = Mapping[int, str]  # by task, the check to ask first whether a tree lacks it


@dataclass(frozen=True, slots=True)
class Judged:
    """What the judges said of a tree."""

    corner: Corner
    reports: Mapping[int, TaskReport]
    seconds: float

    @property
    def exceptions(self) -> list[str]:
        """The judges that are wrong about the tree, with what they say."""
        wrong = {task: each for task, each in self.reports.items() if each.verdict is not expected(task, self.corner)}
        return [
            f"baseline + {name(self.corner)}: judge {task} says {report.verdict}, not {expected(task, self.corner)}"
            + "".join(f"; {each}" for each in told(report))
            for task, report in wrong.items()
        ]

    @property
    def second_asked(self) -> list[int]:
        """The judges whose first check let the tree pass, so that the others had to refuse it."""
        return [task for task, report in self.reports.items() if task not in self.corner and len(report.checks) > 1]


def expected(task: int, corner: Corner) -> Outcome:
    return Outcome.VERIFIED if task in corner else Outcome.VIOLATED


def told(report: TaskReport) -> list[str]:
    """What the checks say that did not pass."""
    results = [(result.name, result.evidence) for result in report.checks]
    return [f"{check} {said.verdict} {said.detail}" for check, said in results if said.verdict is not Verdict.PASS]


def name(corner: Corner) -> str:
    """The tasks of a corner, as tests and tables call it."""
    return " ".join(map(str, corner)) or "nothing"


def random_corners(count: int) -> list[Corner]:
    """Sets of two tasks or more, in which each task is as often as not."""
    draws = random.Random(SEED)
    corners: dict[Corner, None] = {}
    while len(corners) < count:
        corner = tuple(task for task in TASKS if draws.random() < 0.5)
        if len(corner) > 1:
            corners[corner] = None
    return list(corners)


def grow(corner: Corner, tree: Path) -> Path:
    """Make the baseline with some tasks applied."""
    shutil.copytree(ROOT / "baseline", tree, ignore=shutil.ignore_patterns("__pycache__"))
    planned = plan(open_tree(tree), [task for task in all_tasks() if task.number in corner])
    assert not planned.refused, [outcome.reason for outcome in planned.outcomes]
    for change in planned.changes:
        (tree / change.path).write_bytes(change.after)
    compileall.compile_dir(tree, quiet=1)  # children write no bytecode: once here, or in each of them
    return tree.resolve()


def run_checks(zygote: Zygote, planned: Sequence[Job]) -> list[CheckResult]:
    """Run checks, two at a time."""
    with closing(run_jobs(zygote, planned, 2)) as events:
        return [result for _, result in events if isinstance(result, CheckResult)]


def find_tellers(zygote: Zygote, folder: Path, tasks: Iterable[int] = TASKS) -> Tellers:
    """By task, the check that fails on the baseline the fastest; AssertionError where none does, or one is an error."""
    results = run_checks(zygote, plan_checks(zygote, grow((), folder / "baseline"), list(tasks)))
    errors = [result for result in results if result.evidence.verdict is Verdict.ERROR]
    assert not errors, errors
    failed = [result for result in results if result.evidence.verdict is Verdict.FAIL]
    tellers = {result.task: result.name for result in sorted(failed, key=lambda result: -result.seconds)}
    assert tellers.keys() == set(tasks), f"the baseline fails judges {sorted(tellers)} only"
    return tellers


def judge(zygote: Zygote, corner: Corner, tellers: Tellers, folder: Path) -> Judged:
    """Ask every judge about the baseline with some tasks; the tree stands in the folder meanwhile."""
    began = time.monotonic()
    tree = grow(corner, folder / name(corner).replace(" ", "-"))
    absent = [task for task in TASKS if task not in corner]
    planned = plan_checks(zygote, tree, corner)
    planned += [job for task in absent for job in plan_checks(zygote, tree, [task], [tellers[task]])]
    results = run_checks(zygote, planned)
    missed = [each.task for each in results if each.task in absent and each.evidence.verdict is not Verdict.FAIL]
    others = [job for job in plan_checks(zygote, tree, missed) if job.name != tellers[job.task or 0]]
    results += run_checks(zygote, others)
    shutil.rmtree(tree)
    reports = {task: TaskReport(task, tuple(each for each in results if each.task == task)) for task in TASKS}
    return Judged(corner, reports, time.monotonic() - began)


def main(arguments: Sequence[str]) -> int:
    """Judge each task alone, and random sets; return the exit status."""
    began = time.monotonic()
    corners = [*SINGLES, *random_corners(int(arguments[0]) if arguments else 40)]
    DOCUMENT.parent.mkdir(exist_ok=True)
    console = Console(stderr=True)
    rows: list[Judged] = []
    with tempfile.TemporaryDirectory(prefix="bitpatch-diagonal-") as folder, Zygote() as zygote:
        tellers = find_tellers(zygote, Path(folder))
        for corner in track(corners, "judging", console=console, disable=not console.is_terminal):
            rows.append(judge(zygote, corner, tellers, Path(folder)))
            print("\n".join([row_of(rows[-1]), *rows[-1].exceptions]), flush=True)
            lines = document(rows, tellers, time.monotonic() - began)
            DOCUMENT.write_text("\n".join(lines) + "\n", encoding="utf-8")  # each time: a run may be cut short
    return any(row.exceptions for row in rows)


def document(rows: Sequence[Judged], tellers: Tellers, seconds: float) -> Iterator[str]:
    """The page that is docs/diagonal.md."""
    exceptions = [exception for row in rows for exception in row.exceptions]
    verdicts = sum(len(row.reports) for row in rows)
    second = [f"judge {task} on {name(row.corner)}" for row in rows for task in row.second_asked]
    yield "# The diagonal"
    yield ""
    yield "Law 8: a judge passes a tree if and only if the tree holds its task. `python tests/laws/diagonal.py` applies"
    yield f"each task alone to `baseline/`, then {max(len(rows) - len(SINGLES), 0)} random sets of tasks, and asks every judge."
    yield "A judge that must pass runs all its checks; one that must not, the check that fails on `baseline/` the fastest."
    yield ""
    yield "| trees | verdicts | exceptions | seconds |"
    yield "| --- | --- | --- | --- |"
    yield f"| {len(rows)} | {verdicts} | {len(exceptions)} | {seconds:.0f} |"
    yield ""
    yield from [*(f"- {exception}" for exception in exceptions), *([""] if exceptions else [])]
    yield f"| baseline + tasks | {' | '.join(map(str, TASKS))} | seconds |"
    yield "|".join(["", *[" --- "] * (len(TASKS) + 2), ""])
    yield from map(row_of, rows)
    yield ""
    yield "A column is a judge: + verified, - violated, ? unproven, ! an error; a wrong one stands in brackets."
    yield f"Judges whose first check let a tree pass that lacks the task: {', '.join(second) or 'none'}."
    yield ""
    yield "| judge | asked first |"
    yield "| --- | --- |"
    yield from (f"| {task} | {tellers[task]} |" for task in TASKS)
    yield ""
    yield f"Python {platform.python_version()}, torch {version('torch')}, {datetime.date.today()}."


def row_of(row: Judged) -> str:
    """A tree's line of the table."""
    cells = []
    for task, report in row.reports.items():
        sign = SIGNS[report.verdict]
        cells.append(sign if report.verdict is expected(task, row.corner) else f"({sign})")
    return f"| {name(row.corner)} | {' | '.join(cells)} | {row.seconds:.0f} |"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
