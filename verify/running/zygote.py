"""The process that imports torch once, and forks a guarded child for each check of a tree.

Started by `runner.Zygote`, which speaks to it in lines of JSON over a unix socket. A request names a
check; the write end of the pipe that takes the answer travels beside it. A child lives in its own
session with a scrubbed environment, a temporary HOME and working directory, and limits on processor time, memory,
files and open files. Its answer carries the nonce of its request and is written last, so a process
that ends early, however it ends, has given no answer. Its guard tells the parent that it has ended.

What this guards against is accident: trees that exit, hang, print, fork or fill the memory. A tree that
sets out to deceive its judge runs in the same process as the judge, and is out of reach.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import re
import select
import shutil
import signal
import socket
import sys
import traceback
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .confinement import enter
from .evidence import CHECKS, OF_ANY
from .guard import guard
from .limits import children, end_children, kill, own_number, shared_memory_used
from .prctl import DUMPABLE, SUBREAPER, prctl


@dataclass(slots=True)
class Server:
    """The zygote's end of the control socket, and the guards that are running."""

    control: socket.socket
    bell: int  # readable after a SIGCHLD
    confined: bool  # whether checks have namespaces of their own
    lifeline: tuple[int, int] = field(default_factory=os.pipe)  # its write end closes with this process
    shared_before: int = field(default_factory=shared_memory_used)
    guards: dict[int, int] = field(default_factory=dict)  # pid -> id of its request
    ended: deque[dict[str, Any]] = field(default_factory=deque)  # what is to be said of guards that were killed


def main() -> None:
    """Import torch and the judges of the package argv[2], then serve the socket whose fd is argv[1]."""
    control, judges, may_confine = socket.socket(fileno=int(sys.argv[1])), sys.argv[2], sys.argv[3] == "confined"
    confined = may_confine and enter(Path.cwd())  # before there are threads
    prctl(DUMPABLE, 0)
    importlib.import_module(judges)
    preload()
    broken = import_judges(judges)
    checks, of_any = (
        {task: [[check.name, check.prop] for check in known[task]] for task in sorted(known)}
        for known in (CHECKS, OF_ANY)
    )
    gc.collect()
    gc.freeze()  # a collection in a child would otherwise copy every page it marks
    spaces = [check.name for task in CHECKS.values() for check in task if getattr(check.function, "axes", ())]
    send(control, {"checks": checks, "of_any": of_any, "broken": broken, "confined": confined, "spaces": spaces})
    prctl(SUBREAPER, 1)  # what a guard that was killed leaves behind comes to us
    bell, ring = os.pipe()
    os.set_blocking(bell, False)
    os.set_blocking(ring, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    server = Server(control, bell, confined)
    try:
        serve(server)
    finally:
        for pid in server.guards:
            kill(pid)
        end_children()
        shutil.rmtree(Path.cwd(), ignore_errors=True)  # the parent is gone, perhaps without tidying up


def preload() -> None:
    """Import what children would import one by one. Nothing is computed: a fork must find one thread."""
    import torch  # noqa: PLC0415 - a missing torch is reported by the parent, before this process starts

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    importlib.import_module("torch._dynamo")  # 1.8 s, which the first optimizer or checkpoint would pay
    importlib.import_module("torch.utils.data")
    from hypothesis import HealthCheck, settings  # noqa: PLC0415

    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    settings.register_profile("bitpatch", derandomize=True, database=None, deadline=None, suppress_health_check=slow)
    settings.load_profile("bitpatch")


def import_judges(package: str) -> dict[int, str]:
    """Import the modules task_NN_* and any_model of a package; the reasons of those that did not import, that as 0."""
    broken = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        number = re.match(r"task_(\d\d)_|any_model$", module.name)
        if number is None:
            continue
        try:
            importlib.import_module(f"{package}.{module.name}")
        except Exception:
            broken[int(number[1] or 0)] = traceback.format_exc(limit=-1)
    return broken


def serve(server: Server) -> None:
    """Fork and kill as the parent asks, and tell it of each end, until it closes the socket."""
    buffer, pipes = b"", deque[int]()
    while True:
        control = server.control.fileno()
        ready, _, _ = select.select([control, server.bell], [], [])
        if server.bell in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(server.bell, 4096)
            report_ends(server)
        if control in ready:
            received, fds, _, _ = socket.recv_fds(server.control, 65536, 16)
            if not received:
                return
            pipes.extend(fds)
            *lines, buffer = (buffer + received).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if "kill" in request:
                    for pid in [pid for pid, number in server.guards.items() if number == request["kill"]]:
                        kill(pid)
                else:
                    fork_guard(server, request, pipes.popleft())


def send(control: socket.socket, message: dict[str, Any]) -> None:
    control.sendall(json.dumps(message).encode() + b"\n")


def report_ends(server: Server) -> None:
    """Reap what has ended, kill what a guard that was killed has left, and then speak for that guard."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            number = server.guards.pop(pid, None)
            if number is not None and status:
                server.ended.append({"ended": number, "status": status, "left": 0, "exceeded": ""})
    orphans = [pid for pid in children(own_number()) if pid not in server.guards]
    for pid in orphans:
        kill(pid)
    while server.ended and not orphans:
        send(server.control, server.ended.popleft())


def fork_guard(server: Server, request: dict[str, Any], pipe: int) -> None:
    """Fork the guard of the child that will answer a request on a pipe."""
    if pid := os.fork():
        os.close(pipe)
        server.guards[pid] = request["id"]
        return
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        lifeline, ours = server.lifeline
        os.close(ours)
        os.close(server.bell)
        guard(request, pipe, server.control, lifeline, confined=server.confined, shared_before=server.shared_before)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(70)


if __name__ == "__main__":
    main()
