"""A script in a child's process: run as its user would, in a copy of the folder, watched, then judged."""

import ast
import contextlib
import os
import random
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy
import torch

from ..driving.any_model import AnyModel
from ..driving.seams import AbsentPart, MissingSeam
from ..running.evidence import Evidence, Verdict
from .judged import judge, properties
from .lines import Lines
from .seen import Seen
from .watch import Enough, Watch
from .working_copy import TooLarge, copied

MOST_PASSES, MOST_ROWS = 4, 500  # that are compared with those of another run


def watched(request: dict[str, Any]) -> dict[str, Any]:
    """Run the script that a request names, and say of each property what its run shows."""
    folder, script, here = Path(request["folder"]), Path(request["path"]), Path.cwd()
    as_a_user(request["threads"], request["caches"])
    try:
        copied(folder, here)
    except TooLarge as error:
        return {"results": [], "trouble": f"{error}: {error.then}", "updates": 0}
    if script.is_relative_to(folder):
        script = here / script.relative_to(folder)
    start = AnyModel(here, request["roots"]).train if request["roots"] else as_main(script, request["arguments"])
    try:
        seen = run(start, request["updates"], request["seconds"], [here, script.parent])
        found = list(judge(seen)) if not request["is_again"] else []
    except MissingSeam as lack:
        verdict = Verdict.NOT_APPLICABLE if isinstance(lack, AbsentPart) else Verdict.UNPROVEN
        seen, found = Seen(), [(name, prop, Evidence(verdict, detail=str(lack))) for name, prop in properties()]
    results = [{"name": name, "property": prop, **asdict(evidence)} for name, prop, evidence in found]
    return {"results": results, "trouble": "", "updates": seen.made, **order_of(seen)}


def order_of(seen: Seen) -> dict[str, Any]:
    """The beginnings of the passes that are shuffled, with their lines, and the seeds that were set."""
    shuffled = [each for each in seen.passes if each.trained and each.is_shuffled]
    return {"passes": [(each.line, each.rows[:MOST_ROWS]) for each in shuffled[:MOST_PASSES]], "seeds": seen.seeds}


def as_main(script: Path, arguments: list[str]) -> Callable[[], None]:
    """What runs a script as its user would."""

    def start() -> None:
        top, module = _package_of(script)
        sys.argv = [str(script), *arguments]
        sys.path.insert(0, str(top))
        if module:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(script), run_name="__main__")

    return start


def run(start: Callable[[], None], updates: int, seconds: float, folders: list[Path]) -> Seen:
    """Have a training run in this process for so many updates and seconds of processor time; gives what was seen."""
    lines, until = Lines(folders), time.process_time() + seconds
    watch = Watch(lines, updates, lambda: time.process_time() > until)
    signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, seconds * 1.1 + 1)  # for a script that asks nothing of torch
    try:
        start()
    except MissingSeam:
        raise
    except Enough:
        watch.seen.stopped = watch.seen.stopped or f"stopped for want of time, after {watch.seen.made} updates"
    except SystemExit as end:
        watch.seen.ended = "" if end.code in (None, 0) else f"exit code {end.code}"
    except BaseException as error:
        traceback.print_exc()
        frames = [each for each in traceback.extract_tb(error.__traceback__) if lines.name(each.filename)]
        where = f" at {lines.name(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
        watch.seen.ended = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}{where}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return watch.end()


def _package_of(script: Path) -> tuple[Path, str]:
    """Where imports begin, and the module that a script is, where it imports from a package that it is in."""
    with contextlib.suppress(SyntaxError, ValueError):
        tree = ast.parse(script.read_bytes())
        if any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree)):
            top, parts = script.parent, [script.stem]
            while (top / "__init__.py").exists():
                top, parts = top.parent, [top.name, *parts]
            return top, ".".join(parts)
    return script.parent, ""


def _stop(*_: object) -> None:
    raise Enough


def as_a_user(threads: int, caches: dict[str, str]) -> None:
    """Take back what a check has of its own: one thread, fixed seeds, no caches."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.pop(name, None)
    os.environ.update(caches)
    torch.set_num_threads(threads)
    torch.seed()
    random.seed()
    numpy.random.seed()
