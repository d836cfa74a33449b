"""Run every check on every mutant, and record which kills which: `make mutants`.

    python tests/mutants/matrix.py              all tasks
    python tests/mutants/matrix.py 4 10         some tasks; what was written of others stays
    python tests/mutants/matrix.py --first 4    each mutant until a check kills it: a fifth of the time

Writes kills.json, docs/mutants.md, and verify/rendering/mutants.json, from which reports say what a check finds.

Exits 1 if a mutant survives, a check kills nothing that nearly all others do not, or reference/ fails.
"""

import json
import os
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from cases import KILLS, KNOWN, ROOT, TASKS, Case, grow, judged, known_kills, mutants, read_kills, telling
from interactions import INTERACTIONS, OPEN
from mutant import Mutant
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bitpatch.verify.rendering.report import CheckResult
from bitpatch.verify.running.evidence import Verdict
from bitpatch.verify.running.runner import Zygote, plan_checks, run_jobs

DOCUMENT = ROOT / "docs" / "mutants.md"
SIGNS = {Verdict.PASS: ".", Verdict.FAIL: "x", Verdict.UNPROVEN: "?", Verdict.ERROR: "!"}
LEGEND = (
    "Cells are decades between what a check measured and its limit; x is a kill without a number, . a pass, "
    "? unproven, ! an error."
)

INTRODUCTION = """# Mutants

Trees that are `reference/` but for a wrong patch, and the checks that kill them. Written by `make mutants`.
A mutant whose description starts with `1 x 4` is wrong between these two tasks.

A margin is the number of decades between what a check measured and its limit: above 0 inside, below 0 outside.
A mutant's is that of its killer which is nearest to the limit; a killer that counts or compares exactly has none.
Where `make mutants` was told that a first killer is enough, the others that a mutant may have are not named."""

Row = dict[str, CheckResult]  # by check
Rows = dict[str, Row]  # by tree: reference, and each mutant


def main(arguments: Sequence[str]) -> int:
    """Judge the mutants of the tasks that are given, or of all; return the exit status."""
    tasks = [int(task.removeprefix("task-")) for task in arguments if task != "--first"] or list(TASKS)
    found = judge_until_killed(tasks) if "--first" in arguments else judge_all(tasks)
    for task in tasks:
        print("\n".join(matrix_lines(task, found[task])), end="\n\n")
    record = {
        f"task-{task}": recorded_kills(task, found[task]) if task in tasks else read_kills(task) for task in TASKS
    }
    KILLS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    KNOWN.write_text(json.dumps(known_kills(), indent=1) + "\n", encoding="utf-8")
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(document(found), encoding="utf-8")
    faults = [fault for task in tasks for fault in faults_of(task, found[task])]
    known = [
        f"task-{task}: {mutant.name} is not killed yet. Needed: {OPEN[mutant.name]}"
        for task, mutant in INTERACTIONS
        if mutant.name in OPEN and task in tasks
    ]
    print("\n".join([*known, *faults]) or f"{sum(len(found[task]) - 1 for task in tasks)} mutants, all killed")
    return 1 if faults else 0


def judge_all(tasks: Sequence[int]) -> dict[int, Rows]:
    """What every check of each task says of reference/ and of each mutant."""
    found: dict[int, Rows] = {task: defaultdict(dict) for task in tasks}
    cases = [Case(task, name) for task in tasks for name in ["reference", *(each.name for each in mutants(task))]]
    with tempfile.TemporaryDirectory(prefix="bitpatch-mutants-") as folder, Zygote() as zygote:
        total = sum(len(zygote.checks.get(case.task, ())) for case in cases)
        with shown(judged(zygote, cases, Path(folder)), total) as results:
            for case, result in results:
                found[case.task][case.tree][result.name] = result
        order = {task: [name for name, _ in zygote.checks.get(task, ())] for task in tasks}
    return {
        task: {case.tree: in_order(found[task][case.tree], order[task]) for case in cases if case.task == task}
        for task in tasks
    }


def judge_until_killed(tasks: Sequence[int]) -> dict[int, Rows]:
    """What checks say of each mutant, tried one after the other until one fails; two mutants at once.

    Recorded killers come first, then checks that have killed nothing yet. Those that never did are tried on more.
    """
    found: dict[int, Rows] = {task: defaultdict(dict) for task in tasks}
    with tempfile.TemporaryDirectory(prefix="bitpatch-mutants-") as folder, Zygote() as first, Zygote() as second:
        for name in ("baseline", "reference"):
            shutil.copytree(ROOT / name, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
        with ThreadPoolExecutor(2) as pool:
            halves = [
                pool.submit(_kill, each, tasks[at::2], found, Path(folder)) for at, each in enumerate((first, second))
            ]
            for half in halves:
                half.result()
    return found


def _kill(zygote: Zygote, tasks: Sequence[int], found: dict[int, Rows], folder: Path) -> None:
    for task in tasks:
        names, rows, before = [name for name, _ in zygote.checks[task]], found[task], read_kills(task)
        rows["reference"] = _judged(zygote, Case(task, "reference"), names, folder)
        for mutant in mutants(task):
            victims = Counter(check for row in rows.values() for check in killers(row))
            known = [name for name in before.get(mutant.name, ()) if name in names]
            order = [
                *known,
                *sorted(set(names) - set(known), key=lambda name: (victims[name] > 0, -victims[name], name)),
            ]
            rows[mutant.name] = _judged(zygote, Case(task, mutant.name), order, folder, until_killed=True)
            print(f"task-{task} {mutant.name}: {', '.join(killers(rows[mutant.name])) or 'survives'}", file=sys.stderr)
        for name in names:
            likely = sorted(rows, key=lambda tree: name not in before.get(tree, ()))
            for tree in likely if not any(name in killers(row) for row in rows.values()) else ():
                rows[tree] = rows[tree] | _judged(zygote, Case(task, tree), [name], folder)
                if name in killers(rows[tree]) and tree != "reference":
                    break


def _judged(zygote: Zygote, case: Case, names: Sequence[str], folder: Path, *, until_killed: bool = False) -> Row:
    """What checks say of a tree, up to the first that fails if that is enough."""
    tree, row = folder.resolve() / f"{case.task}-{case.tree}", Row()
    grow(case, tree)
    jobs = {job.name: job for job in plan_checks(zygote, tree, [case.task])}
    for name in names:
        row |= {job.name: each for job, each in run_jobs(zygote, [jobs[name]], 1) if isinstance(each, CheckResult)}
        if until_killed and killers(row):
            break
    shutil.rmtree(tree)
    return row


def in_order(row: Row, checks: Sequence[str]) -> Row:
    """The results of a tree in the order of the judge's checks, not in that in which they ended."""
    return {name: row[name] for name in checks}


@contextmanager
def shown(results: Iterable[tuple[Case, CheckResult]], total: int) -> Iterator[Iterator[tuple[Case, CheckResult]]]:
    """Show on a terminal how many results there are, and on which tree the last one is."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("", total=total)

        def advancing() -> Iterator[tuple[Case, CheckResult]]:
            for case, result in results:
                progress.update(bar, advance=1, description=f"task-{case.task} {case.tree}")
                yield case, result

        yield advancing()


def killers(row: Row) -> list[str]:
    """The checks that fail, the fastest first."""
    failed = [result for result in row.values() if result.evidence.verdict is Verdict.FAIL]
    return [result.name for result in sorted(failed, key=lambda result: result.seconds)]


def kills_of(rows: Rows) -> dict[str, list[str]]:
    """The killers of each mutant."""
    return {tree: killers(row) for tree, row in rows.items() if tree != "reference"}


def recorded_kills(task: int, rows: Rows) -> dict[str, list[str]]:
    """The killers of each mutant, in the order in which they are recorded already if they are the same."""
    before = read_kills(task)
    return {
        tree: before.get(tree, found) if sorted(before.get(tree, ())) == sorted(found) else found
        for tree, found in kills_of(rows).items()
    }


def faults_of(task: int, rows: Rows) -> Iterator[str]:
    """What is wrong with the judge of a task, or with its mutants."""
    for name, result in rows["reference"].items():
        if result.evidence.verdict is not Verdict.PASS:
            yield f"task-{task}: {name} does not pass reference/: {result.evidence.detail}"
    kills = kills_of(rows)
    for mutant in mutants(task):
        if not kills.get(mutant.name) and mutant.name not in OPEN:
            yield f"task-{task}: {mutant.name} survives: {mutant.wrong}"
        if kills.get(mutant.name) and mutant.name in OPEN:
            yield f"task-{task}: {mutant.name} is killed: take it out of OPEN in interactions.py"
    for check, victims in telling(kills, rows["reference"]).items():
        if not victims:
            yield f"task-{task}: {check} kills no mutant, or only those that nearly all checks kill"


def matrix_lines(task: int, rows: Rows) -> Iterator[str]:
    """The kill matrix of a task: a line a tree, a column a check."""
    checks = list(rows["reference"])
    yield f"task-{task}. {LEGEND}"
    yield from (f"  {number:>2} {check}" for number, check in enumerate(checks, 1))
    width = max(map(len, rows))
    yield " ".join([" " * width, *(f"{number:>5}" for number in range(1, len(checks) + 1))])
    for tree, row in rows.items():
        yield " ".join([tree.ljust(width), *(f"{cell(row[check]) if check in row else '':>5}" for check in checks)])


def cell(result: CheckResult) -> str:
    """What a check said of a tree, in five characters at most."""
    margin = result.evidence.margin
    if result.evidence.verdict not in (Verdict.PASS, Verdict.FAIL) or margin is None:
        return SIGNS[result.evidence.verdict]
    return f"{margin:+.1f}"


def document(found: dict[int, Rows]) -> str:
    """The page that is docs/mutants.md: the sections of the tasks that were judged, and those of others as they are."""
    before = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
    sections = {section.partition("\n")[0]: section.strip() for section in before.split("\n## ")[1:]}
    sections |= {f"task-{task}": "\n".join(section_lines(task, rows)) for task, rows in found.items()}
    written = [sections[f"task-{task}"] for task in TASKS if f"task-{task}" in sections]
    return "\n\n## ".join([INTRODUCTION, *written]) + "\n"


def section_lines(task: int, rows: Rows) -> Iterator[str]:
    """A task's section: its mutants, then its checks."""
    yield f"task-{task}\n"
    yield from table(
        ("mutant", "what is wrong", "killed by", "nearest margin"), (mutant_cells(each, rows) for each in mutants(task))
    )
    yield ""
    yield from table(("check", "kills", "margin on reference", "nearest kill"), check_cells(rows))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table."""
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(each.replace('|', chr(92) + '|') for each in row)} |"


def mutant_cells(mutant: Mutant, rows: Rows) -> list[str]:
    """A mutant's row: its name, what is wrong, the checks that kill it, the margin of the nearest."""
    row = rows.get(mutant.name, {})
    killing = [result for result in row.values() if result.evidence.verdict is Verdict.FAIL]
    named = ", ".join(result.name for result in killing) if killing else f"nothing yet: {OPEN.get(mutant.name)}"
    return [mutant.name, mutant.wrong, named, nearest(killing)]


def check_cells(rows: Rows) -> Iterator[list[str]]:
    """A row a check: its name, how many mutants it kills, its margin on reference/, that of the nearest kill."""
    for name, passed in rows["reference"].items():
        each = [row[name] for tree, row in rows.items() if tree != "reference" and name in row]
        killing = [result for result in each if result.evidence.verdict is Verdict.FAIL]
        yield [name, str(len(killing)), nearest([passed]), nearest(killing)]


def nearest(results: Iterable[CheckResult]) -> str:
    """The margin that is nearest to 0; empty if there is none."""
    margins = [result.evidence.margin for result in results if result.evidence.margin is not None]
    return f"{min(margins, key=abs):+.1f}" if margins else ""


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
