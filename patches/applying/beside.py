"""Do half of the work in a forked process, as LibCST parses on one core only."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_PR_SET_PDEATHSIG = 1


@contextmanager
def beside(work: Callable[[], Any]) -> Iterator[Callable[[], Any]]:
    """Start some work in a forked process; yields what waits for its result, which must be fit for JSON.

    The result is None where nothing came of it: there is no second core, or the work raised. Then it is for the
    caller to do it, or to raise again.
    """
    child, reading = _forked(work) if _has_cores() else (0, -1)
    if not child:
        yield lambda: None
        return
    with open(reading, "rb") as pipe:
        try:
            yield lambda: _received(pipe.read())
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _has_cores() -> bool:
    return hasattr(os, "fork") and hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1


def _forked(work: Callable[[], Any]) -> tuple[int, int]:
    """The process that does the work, and what to read its result from; no process where there are too many."""
    reading, writing = os.pipe()
    parent = os.getpid()
    try:
        child = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        return 0, -1
    if child == 0:
        try:
            _die_with(parent)
            with open(writing, "w") as pipe:
                json.dump(work(), pipe)
        finally:
            os._exit(0)  # not a word of the parent's: neither its buffers nor its clean-up
    os.close(writing)
    return child, reading


def _die_with(parent: int) -> None:
    """Have this process end when its parent does, however that ends (Linux, as is all that has sched_getaffinity)."""
    import ctypes  # noqa: PLC0415 - only the forked process pays for it

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was faster
        os._exit(0)


def _received(sent: bytes) -> Any:
    try:
        return json.loads(sent)
    except ValueError:
        return None
