"""Have a script judged: run for a while in a process of its own, in a copy of the folder that one is in."""

import contextlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...patches.task import BitpatchError
from ..benching.machine import cores
from ..rendering.report import SCRIPT, CheckResult, Report, Script, TaskReport
from ..rendering.surroundings import Shown, prefix_in_repository
from ..running.limits import Limits
from ..running.runner import Job, Zygote, run_jobs
from .again import NAME, PROP, judge_order, nothing_shuffled
from .answered import Answered

STARTS = 120.0  # seconds of processor time that imports and compilers may take beside what is asked for
AGAIN = 40  # updates of a second run
LIMITS = Limits(memory=16 << 30, held=16 << 30)
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
    zygote: Zygote, path: Path, arguments: Sequence[str], updates: int, seconds: float, folder: Path
) -> Report:
    """What a script shows that runs in a copy of a folder."""
    began = time.monotonic()
    asked: dict[str, Any] = {"path": str(path.resolve()), "folder": str(folder.resolve()), "arguments": list(arguments)}
    asked |= {"updates": updates or 1 << 62, "seconds": seconds, "threads": threads(), "caches": caches()}
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
    job = Job(Path(asked["folder"]), SCRIPT, 0, "the-script-runs", "", script=json.dumps(asked))
    limits = replace(LIMITS, cpu=asked["seconds"] + STARTS, wall=20 * (asked["seconds"] + STARTS))
    found = Answered(0, ())
    with contextlib.closing(run_jobs(zygote, [job], 1, limits)) as events:
        for _, result in events:
            if isinstance(result, Answered):
                found = result
            elif isinstance(result, CheckResult):
                found = Answered(0, (result,))
    return found


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
