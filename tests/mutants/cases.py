"""The trees that judges are tried on, and how many of them are judged at once."""

import compileall
import importlib
import importlib.util
import json
import shutil
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from interactions import INTERACTIONS
from mutant import Mutant
from outsiders_loops import LOOPS
from outsiders_others import OTHERS
from outsiders_right import OUTSIDERS_RIGHT

from bitpatch.verify.rendering.report import CheckResult
from bitpatch.verify.running.runner import Zygote, plan_checks, run_jobs

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KILLS = HERE / "kills.json"
KNOWN = ROOT / "verify" / "rendering" / "mutants.json"  # the same for people
TASKS = {int(path.stem[-2:]): importlib.import_module(path.stem) for path in sorted(HERE.glob("task_??.py"))}


@dataclass(frozen=True, slots=True)
class Case:
    """A tree, by its name among those of a task, and the checks of the task to run on it: those named, or all."""

    task: int
    tree: str  # of a mutant or a good tree, or `reference` or `baseline`
    only: tuple[str, ...] | None = None


def mutants(task: int) -> list[Mutant]:
    """What the judge of a task must refuse: its own mutants, and those of it with other tasks."""
    interactions = (mutant for whose, mutant in INTERACTIONS if whose == task)
    return [*TASKS[task].MUTANTS, *interactions, *(LOOPS | OTHERS).get(task, ())]


def good(task: int) -> list[Mutant]:
    """What the judge of a task must let pass."""
    return [*TASKS[task].GOOD, *OUTSIDERS_RIGHT.get(task, ())]


def read_kills(task: int) -> dict[str, list[str]]:
    """Which checks kill each mutant of a task, the fastest first, as `make mutants` found last."""
    recorded = json.loads(KILLS.read_text(encoding="utf-8")) if KILLS.exists() else {}
    return recorded.get(f"task-{task}", {})


def known_kills() -> dict[str, list[str]]:
    """What is wrong with the mutants that each check kills, in words: verify/rendering/mutants.json, for reports."""
    known: dict[str, list[str]] = {}
    for task in TASKS:
        recorded = read_kills(task)
        for mutant in mutants(task):
            for check in recorded.get(mutant.name, ()):
                known.setdefault(f"task-{task}/{check}", []).append(mutant.wrong)
    return dict(sorted(known.items()))


def telling(kills: Mapping[str, Sequence[str]], checks: Collection[str]) -> dict[str, list[str]]:
    """By check, the mutants that it kills; what all checks but one kill, or all, says little of each."""
    return {
        check: [mutant for mutant, killers in kills.items() if check in killers and len(killers) < len(checks) - 1]
        for check in checks
    }


def choose_killers(kills: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The killers by which each mutant is judged: one, mostly, such that each check is somewhere among them.

    The check with the least choice chooses first: a mutant that no other has yet, and that it kills fast.
    """
    chosen: dict[str, list[str]] = {mutant: [] for mutant in kills}
    victims = telling(kills, {check for killers in kills.values() for check in killers})
    for check, mutants_of_check in sorted(victims.items(), key=lambda item: (len(item[1]), item[0])):
        if mutants_of_check:
            best = min(mutants_of_check, key=lambda name: (len(chosen[name]), kills[name].index(check), name))
            chosen[best].append(check)
    return {mutant: tuple(chosen[mutant] or killers[:1]) for mutant, killers in kills.items()}


def judged(
    zygote: Zygote, cases: Iterable[Case], folder: Path, jobs: int = 2
) -> Generator[tuple[Case, CheckResult], None, None]:
    """Run the checks of many cases, `jobs` at a time, and yield each result.

    A tree stands in the folder only while it is judged.
    """
    for name in ("baseline", "reference"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(folder / name, quiet=1)  # children write no bytecode: once here, or in each of them
    whose = {folder.resolve() / f"{number}-{case.tree}": case for number, case in enumerate(dict.fromkeys(cases))}
    planned = [job for tree, case in whose.items() for job in plan_checks(zygote, tree, [case.task], case.only)]
    left = Counter(job.tree for job in planned)
    with closing(run_jobs(zygote, planned, jobs)) as events:
        for job, result in events:
            if isinstance(result, CheckResult):
                left[job.tree] -= 1
                if not left[job.tree]:
                    shutil.rmtree(job.tree)
                yield whose[job.tree], result
            elif not job.tree.exists():
                grow(whose[job.tree], job.tree)


def grow(case: Case, tree: Path) -> None:
    """Make the tree of a case, beside the two that all are copied from."""
    shutil.copytree(tree.with_name("baseline" if case.tree == "baseline" else "reference"), tree)
    for each in (*mutants(case.task), *good(case.task)):
        if each.name == case.tree:
            each.apply(tree)
            for path, _, _ in each.edits:
                Path(importlib.util.cache_from_source(str(tree / path))).unlink(missing_ok=True)
