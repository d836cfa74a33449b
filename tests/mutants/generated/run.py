"""Judge generated mutants: the second half of `make mutants`. PYTHONPATH is tests:tests/mutants.

    python -m generated.run                 all that are not judged yet
    python -m generated.run 3 4             those of some tasks
    python -m generated.run --sample 200 --seed 1 --seconds 600 --jobs 1
    python -m generated.run --seconds 0     none: write the pages again

A mutant is done for with the first check that fails or crashes. The judges of the tasks whose lines it changes come
first, then those of tasks whose lines call what it changes, then all others. Results are added to results.jsonl as they come; a kill is
kept as long as there is that check, and what was not killed is judged again once verify/ has changed. Writes
docs/mutants_generated.md, docs/mutants.json and docs/mutants.html; exits 1 if a mutant survives that is not known to be right.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from threading import Event, Lock

from samples import CODE_ONLY, REFERENCE, ROOT

from bitpatch.verify.rendering.report import CheckResult
from bitpatch.verify.running.evidence import Verdict
from bitpatch.verify.running.limits import Limits
from bitpatch.verify.running.runner import Zygote, plan_checks, run_jobs
from generated.lines import FOLDERS, Lines, Tasks, owned, read
from generated.operators import Mutation, mutations
from generated.report import CRASHED, DETECTED, write_pages

RESULTS = Path(__file__).with_name("results.jsonl")
LIMITS = Limits(cpu=60.0)  # of a mutant that never ends; the longest check takes a sixth of it


@dataclass(frozen=True, slots=True)
class Generated:
    """A mutation of a file of reference/, the tasks whose lines it changes, and those whose lines call these."""

    path: str
    mutation: Mutation
    tasks: Tasks
    callers: Tasks


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a mutant: status as mutation testing calls it, and the check that decided."""

    mutant: str
    status: str  # Killed, RuntimeError where the tree crashed, Timeout, Survived, or NoCoverage where that is unproven
    by: str = ""  # as task-3/name-of-the-check
    tried: int = 0
    seconds: float = 0.0
    judges: str = ""  # a digest of verify/, where nothing was detected

    def is_current(self, checks: Iterable[str], judges: str) -> bool:
        """Whether a mutant need not be judged again."""
        return self.by in checks if self.status in DETECTED else self.judges == judges


Asked = tuple[
    Generated, Sequence[str] | None
]  # a mutant, and the checks to ask about it, or None for all of its judges


def generate(names: Iterable[str] | None = None) -> Iterator[Generated]:
    """The mutants of reference/, or those of some names, of which it is not asked whose they are."""
    made, called = (owned().made, owned().called) if names is None else ({}, {})
    sought = set(names or ())
    for file in sorted(file for folder in FOLDERS for file in (REFERENCE / folder).glob("*.py")):
        path = file.relative_to(REFERENCE).as_posix()
        own, calling = made.get(path, {}), called.get(path, {})
        if own or calling or any(name.startswith(f"{file.stem}.") for name in sought):
            whole = {} if names is None else dict.fromkeys(range(1, 1000), frozenset[int]())
            for each in mutations(read(REFERENCE, path), file.stem, own | calling | whole, sought):
                yield Generated(path, each, tasks_of(each, own), tasks_of(each, calling))


def tasks_of(mutation: Mutation, lines: Lines) -> Tasks:
    return frozenset[int]().union(*(lines.get(line, frozenset()) for line in mutation.lines))


def read_results() -> dict[str, Result]:
    """What is recorded of each mutant; the last word counts."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    return {each["mutant"]: Result(**each) for each in map(json.loads, lines)}


def write_results(results: Iterable[Result], mode: str = "a") -> None:
    """Add results to those that are recorded, one a line, or put them in their place."""
    with RESULTS.open(mode, encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(each)) + "\n" for each in results)


class Tally:
    """Which checks have killed, and where, and how long they take: in which order they are asked next."""

    def __init__(self, checks: Mapping[int, Sequence[tuple[str, str]]], known: Iterable[Result]) -> None:
        self.checks = {task: [f"task-{task}/{name}" for name, _ in found] for task, found in checks.items()}
        self.seconds: dict[str, float] = defaultdict(lambda: 1.0)
        self.kills = Counter(key for each in known for key in (each.by, (where(each.mutant), each.by)))

    def order(self, mutant: Generated) -> list[str]:
        """The checks of a mutant's own tasks, of its callers', then of all, those first that are likely to kill soon."""
        asked = mutant.tasks | mutant.callers
        groups = [mutant.tasks, mutant.callers - mutant.tasks, self.checks.keys() - asked]
        return [
            check
            for tasks in groups
            for check in sorted(
                (check for task in sorted(tasks) for check in self.checks.get(task, ())),
                key=lambda check: -self.promise(check, where(mutant.mutation.name)),
            )
        ]

    def promise(self, check: str, place: str) -> float:
        return (1 + self.kills[check] / 4 + 5 * self.kills[place, check]) / self.seconds[check]

    def count(self, result: Result) -> None:
        self.kills.update([result.by, (where(result.mutant), result.by)])


def where(mutant: str) -> str:
    """The function that a mutant changes, of its name."""
    return mutant.rsplit(".", 3)[0]


def judge(zygote: Zygote, tree: Path, mutant: Generated, checks: Sequence[str], seconds: dict[str, float]) -> Result:
    """Ask checks about a mutant, one after the other, until one fails or crashes; `tree` is a copy of reference/ to do so in."""
    (tree / mutant.path).write_text(mutant.mutation.text, encoding="utf-8")
    result = Result(mutant.mutation.name, "Survived")
    for check in checks:
        said = ask(zygote, tree, check)
        seconds[check] += (max(said.seconds, 0.05) - seconds[check]) / 4
        result = replace(result, tried=result.tried + 1, seconds=round(result.seconds + said.seconds, 2))
        if said.evidence.verdict is not Verdict.PASS:
            result = replace(result, status=status_of(said), by=check)
        if result.status in DETECTED:
            break
    shutil.copy2(REFERENCE / mutant.path, tree / mutant.path)
    if result.status in CRASHED and (control := ask(zygote, tree, result.by).evidence).verdict is not Verdict.PASS:
        raise RuntimeError(f"{result.by} does not pass reference/ either: {control.detail}")
    return result


def status_of(said: CheckResult) -> str:
    """What a check that did not pass makes of a mutant."""
    if said.evidence.verdict is Verdict.ERROR:
        return "Timeout" if "did not end within" in said.evidence.detail else "RuntimeError"
    return "Killed" if said.evidence.verdict is Verdict.FAIL else "NoCoverage"


def ask(zygote: Zygote, tree: Path, check: str) -> CheckResult:
    """What one check says of a tree."""
    task, _, name = check.removeprefix("task-").partition("/")
    with closing(run_jobs(zygote, plan_checks(zygote, tree, [int(task)], [name]), 1, LIMITS)) as events:
        (result,) = (result for _, result in events if isinstance(result, CheckResult))
    return result


def judge_all(mutants: Sequence[Asked], jobs: int, seconds: float, tell: Callable[[Result], None]) -> None:
    """Judge mutants in as many processes, as long as there is time."""
    known, ends, lock, stop = list(read_results().values()), time.monotonic() + seconds, Lock(), Event()

    def work(number: int) -> None:
        with Zygote() as zygote, tempfile.TemporaryDirectory(prefix="bitpatch-mutant-") as folder:
            tree = Path(shutil.copytree(REFERENCE, Path(folder).resolve() / "reference", ignore=CODE_ONLY))
            tally = Tally(zygote.checks, known)
            for mutant, checks in mutants[number::jobs]:
                if stop.is_set() or time.monotonic() > ends:
                    return
                result = judge(zygote, tree, mutant, checks or tally.order(mutant), tally.seconds)
                tally.count(result)
                with lock:
                    tell(result)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(work, range(jobs if mutants and seconds else 0)))
        finally:
            stop.set()


def digest_of_judges() -> str:
    """What changes whenever a judge does, or what judges stand on."""
    files = sorted([*(ROOT / "verify").glob("task_*.py"), *(ROOT / "verify" / "driving").glob("*.py")])
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


def in_turn(mutants: Sequence[Generated], seed: int) -> list[Generated]:
    """Mutants in an order in which tasks take turns, so that the first of them are a sample over all."""
    turns, order = Counter[int](), []
    for each in random.Random(seed).sample(mutants, len(mutants)):
        task = min(each.tasks or each.callers)
        turns[task] += 1
        order.append((turns[task], task, each))
    return [each for _, _, each in sorted(order, key=lambda item: item[:2])]


def main(arguments: Sequence[str]) -> int:
    """Judge what is asked for, and write results and pages; 1 if a mutant is neither detected nor known to be right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", type=int)
    parser.add_argument("--sample", type=int, help="so many mutants, of all tasks in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no mutant after so long")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args(arguments)
    everything, results, judges = list(generate()), read_results(), digest_of_judges()
    mutants = [each for each in everything if not asked.tasks or (each.tasks | each.callers) & set(asked.tasks)]
    with Zygote() as zygote:
        checks = {f"task-{task}/{name}": prop for task, found in zygote.checks.items() for name, prop in found}

    def keep(result: Result) -> None:
        results[result.mutant] = result = replace(result, judges="" if result.status in DETECTED else judges)
        write_results([result])
        print(f"{result.status:12} {result.mutant} {result.by}", flush=True)

    chosen = {each.mutation.name: each for each in in_turn(mutants, asked.seed)[: asked.sample]}
    known = {name for name, each in results.items() if each.is_current(checks, judges)}
    judge_all([(each, None) for name, each in chosen.items() if name not in known], asked.jobs, asked.seconds, keep)
    results |= read_results()  # another run may have added to them
    names = sorted({each.mutation.name for each in everything} & results.keys())
    write_results([results[name] for name in names], "w")
    return 1 if write_pages(everything, results, checks) else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
