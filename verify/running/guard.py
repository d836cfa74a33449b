"""The process between the zygote and a check: it confines the check, watches what it uses, and ends what it leaves.

Every process that a check starts comes from the guard, and comes back to it when its parent has ended.
"""

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import traceback
from pathlib import Path
from typing import Any, NoReturn

from .child import HELPER, answer, command_line
from .confinement import confine, lay_down_rights, own_processes
from .limits import (
    Limits,
    bytes_written,
    cpu_seconds,
    descendants,
    end_children,
    hold_more,
    kill,
    own_number,
    shared_memory_used,
)
from .prctl import DUMPABLE, PARENT_DEATH_SIGNAL, SUBREAPER, prctl

LOOK = 0.1  # seconds between two looks at what is used
LOOKS_PER_WALK = 10  # as a folder takes longer to look at


def guard(
    request: dict[str, Any], pipe: int, control: socket.socket, lifeline: int, *, confined: bool, shared_before: int
) -> NoReturn:
    """Have a check answer a request on a pipe, and tell the parent of its end; end it where the zygote ends."""
    limits, folder = Limits(**request["limits"]), Path(request["folder"])
    divert(folder / "output")
    prctl(SUBREAPER, 1)
    bell, ring = os.pipe()
    os.set_blocking(bell, False)
    os.set_blocking(ring, False)
    first, only_ours = own_processes() if confined else (0, ring)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    this, check = os.getpid(), os.fork()
    if check == 0:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            control.close()
            for each in {lifeline, bell, ring, only_ours}:
                os.close(each)
            if confined:
                confine(folder, limits.files)
            lay_down_rights()
            prctl(DUMPABLE, 1)  # or it could not look at itself
            prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
            if confined or os.getppid() == this:  # else the guard is gone already
                answer(request, pipe)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)
    os.close(pipe)
    exceeded, looks = "", itertools.count()
    while not exceeded and not has_ended(check, first, lifeline, bell):
        exceeded = too_much_used(limits)
        if not exceeded and not confined and next(looks) % LOOKS_PER_WALK == 0:
            exceeded = too_much_written(limits, folder, shared_before)
    family = () if exceeded else descendants(own_number())
    lines = [command_line(pid) for pid in family if pid not in (check, first)]
    left = sum(line != b"" and HELPER not in line for line in lines)
    status = end_family(check, first)
    message = {"ended": request["id"], "status": status, "left": left, "exceeded": exceeded}
    control.sendall(json.dumps(message).encode() + b"\n")
    os._exit(0)


def divert(file: Path) -> None:
    """Have this process, and all that come from it, print into a file."""
    output = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)


def has_ended(check: int, first: int, lifeline: int, bell: int) -> bool:
    """Whether a check has ended, which is waited for until the next look; reap others that have."""
    ready, _, _ = select.select([lifeline, bell], [], [], LOOK)
    if lifeline in ready:  # the zygote is gone
        end_family(check, first)
        os._exit(1)
    with contextlib.suppress(BlockingIOError):
        os.read(bell, 4096)
    while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if ended.si_pid == check:
            return True  # and is not reaped yet: until then no other process can have its number
        os.waitpid(ended.si_pid, 0)
    return False


def too_much_used(limits: Limits) -> str:
    """Which limit the processes of a check have passed; nothing where they have not."""
    family = list(itertools.islice(descendants(own_number()), limits.processes + 1))  # a look at thousands takes long
    if len(family) > limits.processes:
        return f"started more than {limits.processes} processes at once"
    if cpu_seconds(own_number(), family) > limits.cpu:
        return f"did not end within {limits.cpu:g} s of CPU time"
    if hold_more(family, limits.held):
        return f"held more than {size(limits.held)} of memory, what its processes share included"
    return ""


def too_much_written(limits: Limits, folder: Path, shared_before: int) -> str:
    """The same of files, where a check has no file system of its own that is full at some time."""
    if bytes_written(folder) > limits.files:
        return f"wrote more than {size(limits.files)} of files"
    if shared_memory_used() - shared_before > limits.files:
        return f"shared memory has grown by more than {size(limits.files)} since checks began"
    return ""


def size(count: int) -> str:
    return f"{count / (1 << 20):g} MiB"


def end_family(check: int, first: int) -> int:
    """Kill and reap all processes that come from this one; return the status of the check."""
    if first:
        kill(first)  # and with it its namespace, however many there are
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(check, signal.SIGKILL)  # all there is where the system does not tell who comes from whom
    return end_children()[check]
