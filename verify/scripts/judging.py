"""Have a training judged: run for a while in a process of its own, in a copy of the folder that one is in.

It is that of a script, or that of a tree of any model, of which the tasks are judged by it and by its functions.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...patches.files.spellings import DRIVER
from ...patches.task import BitpatchError
from ..benching.machine import cores
from ..rendering.report import SCRIPT, CheckResult, Report, Script, TaskReport
from ..rendering.surroundings import Shown, prefix_in_repository
from ..running.evidence import Evidence, Verdict, unproven
from ..running.limits import Limits
from ..running.runner import Job, Zygote, run_jobs, verify
from .again import NAME, PROP, judge_order, nothing_shuffled
from .answered import Answered
from .asking import TASKS
from .judged import properties

STARTS = 120.0  # seconds of processor time that imports and compilers may take beside what is asked for
AGAIN = 40  # updates of a second run
LIMITS = Limits(memory=16 << 30, held=16 << 30)
OF_ORDER = (1,)  # the tasks that a second run is of
CACHES = {"HF_HOME": ".cache/huggingface", "TORCH_HOME": ".cache/torch"}  # below the home folder: read, never written


class NoScript(BitpatchError):
    """There is no such script."""

    exit_code = 2


def judge_script(path: Path, arguments: Sequence[str], updates: int, seconds: float) -> Shown:
    """Run a script for so many updates, and seconds of processor time; 0 updates are all of them.

    Raises NoScript, and VerifyUnavailable where torch is missing.
    """
    if not path.is_file():
        raise NoScript(f"no such script as {path}", then="bitpatch verify --script FILE.py -- ARGUMENTS")
    here = Path.cwd()
    with Zygote() as zygote:
        report = run_script(zygote, path, arguments, updates, seconds, here)
    return Shown(report, prefix=prefix_in_repository(here), root=here)


def run_script(
    zygote: Zygote,
    path: Path,
    arguments: Sequence[str],
    updates: int,
    seconds: float,
    folder: Path,
    roots: Sequence[str] = (),
) -> Report:
    """What a script shows that runs in a copy of a folder, or a bitpatch_seams.py that imports from `roots`."""
    began = time.monotonic()
    asked: dict[str, Any] = {"path": str(path.resolve()), "folder": str(folder.resolve()), "arguments": list(arguments)}
    asked |= {
        "updates": updates or 1 << 62,
        "seconds": seconds,
        "threads": threads(),
        "caches": caches(),
        "roots": list(roots),
    }
    first = _run(zygote, asked | {"is_again": False})
    checks = first.checks
    if len(checks) > 1:  # else it was not run
        taken, evidence = time.monotonic(), nothing_shuffled()
        if first.order.passes:
            again = _run(zygote, asked | {"is_again": True, "updates": min(first.updates, AGAIN)})
            evidence = judge_order(first.order, again.order)
        checks += (CheckResult(SCRIPT, NAME, PROP, evidence, time.monotonic() - taken),)
    script = Script(str(path), tuple(arguments), first.updates)
    return Report(path, (TaskReport(SCRIPT, checks),), None, time.monotonic() - began, script=script)


def _run(zygote: Zygote, asked: dict[str, Any]) -> Answered:
    """What a script shows in a process of its own."""
    job = _job(Path(asked["folder"]), asked)
    limits = replace(LIMITS, cpu=asked["seconds"] + STARTS, wall=20 * (asked["seconds"] + STARTS))
    found = Answered(0, ())
    with contextlib.closing(run_jobs(zygote, [job], 1, limits)) as events:
        for _, result in events:
            if isinstance(result, Answered):
                found = result
            elif isinstance(result, CheckResult):
                found = Answered(0, (result,))
    return found


def judge_tree(
    tree: Path,
    tasks: Sequence[int],
    driving: dict[str, Any],
    bounds: tuple[int, float],
    *,
    zygote: Zygote,
    every: bool,
    tell: Callable[[str], None],
    **more: Any,
) -> Report:
    """Judge tasks of a tree of another model: its training for so many updates and seconds, and its functions.

    Of `every` task, those of which nothing applies are told and left out.
    """
    ledger = run_script(zygote, tree / DRIVER, (), *bounds, tree, driving["roots"])
    driving = driving | {"caches": caches()}
    aside = _aside(zygote, tree, driving)
    own = [name for task in tasks for name, _ in zygote.checks.get(task, ()) if (task, name) not in aside]
    own += [name for task in tasks for name, _ in zygote.of_any.get(task, ())]
    report = verify(tree, tasks, zygote=zygote, driving=driving, only=own, **more)
    seen = {each.name: each for each in ledger.tasks[0].checks}
    rest = {task: tuple(each for (of, _), each in aside.items() if of == task) for task in tasks}
    found = [replace(each, checks=(*_of(each.task, seen), *each.checks, *rest[each.task])) for each in report.tasks]
    bare = [each for each in found if every and all(_is_aside(one) for one in each.checks)]
    if bare:
        tell(f"note: no check of {', '.join(each.id for each in bare)} applies to this tree; name one to be told why")
    return replace(
        report, tasks=tuple(each for each in found if each not in bare), seconds=report.seconds + ledger.seconds
    )


def _aside(zygote: Zygote, tree: Path, driving: dict[str, Any]) -> dict[tuple[int, str], CheckResult]:
    """The checks, by task and name, that ask a tree of another model for what it has not: found out in one process."""
    job = replace(_job(tree, {}), driving=json.dumps(driving))
    answered = [each for _, each in run_jobs(zygote, [job], 1, LIMITS) if isinstance(each, Answered)]
    known = [(task, *each) for task in sorted(zygote.checks) for each in zygote.checks[task]]
    found = [each.evidence for one in answered for each in one.checks]
    told = zip(known, found, strict=False) if len(found) == len(known) else ()
    results = (CheckResult(*check, evidence, 0.0) for check, evidence in told)
    return {(each.task, each.name): each for each in results if _is_aside(each)}


def _job(tree: Path, asked: dict[str, Any]) -> Job:
    return Job(tree, SCRIPT, 0, "the-script-runs", "", script=json.dumps(asked))


def _of(task: int, seen: dict[str, CheckResult]) -> Iterator[CheckResult]:
    """The properties of a training that are of a task, as far as its run shows them."""
    run = seen["the-script-runs"].evidence
    for name, prop in [*properties(), (NAME, PROP)]:
        if task not in TASKS.get(name, OF_ORDER):
            continue
        result = seen.get(name, CheckResult(task, name, prop, unproven(run.detail), 0.0))
        if run.verdict is not Verdict.PASS and result.evidence.verdict in (Verdict.PASS, Verdict.NOT_APPLICABLE):
            result = replace(result, evidence=Evidence(run.verdict, detail=run.detail))
        yield replace(result, task=task)


def _is_aside(result: CheckResult) -> bool:
    return result.evidence.verdict is Verdict.NOT_APPLICABLE


def threads() -> int:
    """The threads that torch would take by itself."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told) > 0:
        return int(told)
    return cores()


def caches() -> dict[str, str]:
    """Where data sets and weights lie that were fetched before: there is no network."""
    places = {name: Path(os.environ.get(name) or Path.home() / below) for name, below in CACHES.items()}
    return {name: str(place) for name, place in places.items() if place.is_dir()}
