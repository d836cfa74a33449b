"""Work in forked processes, what came of it, and which of them wait. In child processes only.

None of them has a limit of its own: they count as the check that forked them, and end with it.
"""

import ctypes
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

ENDLESS = 50_000  # audit events of work on little text, which has some hundreds
ASLEEP = 50  # looks in a row at a process, 10 ms apart, that find it waiting


class Outcome(NamedTuple):
    """What came of loading a text: "right", "wrong", "raised" or "ended", and a sentence."""

    kind: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.text}".strip()


class Interrupted(Exception):
    """A process was stopped from outside, which says nothing about what it did."""


def start(work: Callable[[], Any]) -> tuple[int, IO[bytes]]:
    """Fork a process that does some work and writes what it returns as JSON."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(json.dumps(work()).encode())
            os._exit(0)
        except Interrupted:
            os.kill(os.getpid(), signal.SIGKILL)  # and so is this process
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)
    os.close(writing)
    return pid, os.fdopen(reading, "rb")


def finish(pid: int, pipe: IO[bytes]) -> Any:
    """What a forked process returned, or an Outcome if it ended itself. Raises Interrupted where another ended it."""
    with pipe:
        answer = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if answer:
        return json.loads(answer)
    if code in (-signal.SIGKILL, -signal.SIGXCPU):
        raise Interrupted(f"a process was ended by {signal.Signals(-code).name}")
    return "ended", f"the process was ended by signal {-code}" if code < 0 else f"the process exited with status {code}"


def in_fork(work: Callable[[], Any]) -> Any:
    return finish(*start(work))


def counted(work: Callable[[], Any]) -> Any:
    """Do some work on little text, in a process with nobody to wait for; say so if it goes round for ever."""
    events = 0

    def count(event: str, _: tuple[Any, ...]) -> None:
        nonlocal events
        events += 1
        if events > ENDLESS:
            raise Endless(f"it goes round for ever: {ENDLESS:,} times it asks the system for something, {event} last")

    sys.addaudithook(count)
    try:
        return work()
    except Endless as error:
        events = -sys.maxsize  # a hook stays
        return "ended", str(error)


class Endless(BaseException):
    """A load asked for more than any load of so little text does."""


def is_asleep(pid: int) -> bool:
    """Whether a process does nothing now, and is not about to: on a busy machine one that waits for its turn is."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"S"
    except OSError:
        return not Path("/proc/self").exists()  # where the system does not tell: then it is given half a second


def wait_until_asleep(pid: int, pipe: IO[bytes]) -> None:
    """Wait until a process has ended, or waits itself: for us, as we do nothing else."""
    asleep = 0
    while asleep < ASLEEP and not select.select([pipe], [], [], 0.01)[0]:
        asleep = asleep + 1 if is_asleep(pid) else 0


def without_rights(folder: Path | None, work: Callable[[], Any]) -> Any:
    """Do some work without the right to write where modes forbid it; None if a folder can be written to still."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "capset"):  # Linux: root is bound by modes once it has no capabilities
        libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
    if folder is not None and os.access(folder, os.W_OK):
        return None
    return work()
