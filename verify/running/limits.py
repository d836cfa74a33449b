"""What a check may use, together with every process that it starts; and what they have used so far.

Time is processor time: on a busy machine a check takes longer, and is given longer. Behind it stands a
wall clock, for what waits and never ends.
"""

import contextlib
import os
import resource
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a check may use."""

    cpu: float = 120.0  # seconds of processor time, of all its processes; the longest check needs a tenth
    wall: float = 1800.0  # seconds
    memory: int = 2 << 30  # bytes that a process may allocate for itself
    held: int = 3 << 30  # bytes in memory, of all its processes; what they share counts once
    files: int = 1 << 30  # bytes that it may write, /tmp and /dev/shm included
    file: int = 256 << 20  # bytes of a file
    open_files: int = 1024
    processes: int = 256


def limit(what: int, value: int) -> None:
    """Limit what this process and its children may use of a resource."""
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(what, (value, value))


def limit_process(limits: Limits) -> None:
    """Set the limits that the system itself keeps, of this process and of each that it starts."""
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_CPU, int(limits.cpu) + 2)  # of one process, for when nobody watches
    limit(resource.RLIMIT_FSIZE, limits.file)
    limit(resource.RLIMIT_NOFILE, limits.open_files)
    limit(resource.RLIMIT_DATA, allocated() + limits.memory)


def allocated() -> int:
    """Bytes of private memory that this process had before its tree was imported."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[5]) * resource.getpagesize() if statm.exists() else 0


def own_number() -> int:
    """The number by which /proc knows this process; os.getpid() where there is no /proc."""
    return int(os.readlink("/proc/self")) if Path("/proc/self").exists() else os.getpid()


def children(pid: int) -> list[int]:
    """The children of a process that are not reaped; none where the system does not tell (not Linux)."""
    found = list[int]()
    with contextlib.suppress(OSError):  # a process may end while it is looked at, and so may a thread of it
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
    return found


def descendants(pid: int) -> Iterator[int]:
    """The processes that come from one, each after its parent."""
    found = deque([pid])
    while found:
        young = children(found.popleft())
        yield from young
        found += young


def kill(pid: int) -> None:
    """Kill a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def end_children() -> dict[int, int]:
    """Kill and reap all that come from this process; return their statuses."""
    statuses = dict[int, int]()
    while True:
        for pid in list(descendants(own_number())):  # before one dies, whose children go elsewhere then
            kill(pid)
        try:
            pid, status = os.wait()  # for any: the first of a namespace ends after all others were reaped
        except ChildProcessError:
            return statuses
        statuses[pid] = status


def cpu_seconds(pid: int, family: Iterable[int]) -> float:
    """Seconds of processor time that all that come from a process have taken, also those that have ended."""
    total = times(pid)[1]
    for child in family:  # parents first: what a child took is theirs once it is reaped, and counts once
        total += sum(times(child))
    return total / TICKS


def times(pid: int) -> tuple[int, int]:
    """The ticks that a process has taken, and that its reaped children have; 0 of one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0, 0
    user, system, childrens_user, childrens_system = map(int, fields[11:15])
    return user + system, childrens_user + childrens_system


def hold_more(family: list[int], most: int) -> bool:
    """Whether processes hold more bytes of memory together, shared memory and files in memory included."""
    resident = sum(field(child, "status", "RssAnon") + field(child, "status", "RssShmem") for child in family)
    unmapped = open_in_memory(family)
    if resident + unmapped <= most:  # though what several map was counted for each: seldom is there more to look at
        return False
    anonymous, shared = (
        sum(field(child, "smaps_rollup", name) for child in family) for name in ("Pss_Anon", "Pss_Shmem")
    )
    return anonymous + max(shared, unmapped) > most  # a file in memory may be both mapped and open


def field(pid: int, file: str, name: str) -> int:
    """Bytes that a file of /proc/PID tells under a name; 0 where it does not."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) << 10
    return 0


def open_in_memory(family: list[int]) -> int:
    """Bytes of the files that processes have open and that lie in memory: those of memfd_create and of /dev/shm."""
    devices, sizes = memory_devices(), dict[tuple[int, int], int]()
    for pid in family:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    stat = os.stat(f"/proc/{pid}/fd/{name}")
                    if stat.st_dev in devices:
                        sizes[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return sum(sizes.values())


def memory_devices() -> set[int]:
    """The numbers of the devices whose files lie in memory."""
    devices = set[int]()
    if sys.platform == "linux":
        file = os.memfd_create("bitpatch")
        devices.add(os.fstat(file).st_dev)
        os.close(file)
    if os.path.ismount("/dev/shm"):  # noqa: S108 - a device to be looked at, not a place for our files
        devices.add(os.stat("/dev/shm").st_dev)  # noqa: S108
    return devices


def bytes_written(folder: Path) -> int:
    """Bytes of the files below a folder."""
    total = 0
    for top, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(top, name)).st_blocks * 512
    return total


def shared_memory_used() -> int:
    """Bytes of the files in /dev/shm, whoever made them; 0 where there is no such device."""
    if not os.path.ismount("/dev/shm"):  # noqa: S108
        return 0
    found = os.statvfs("/dev/shm")  # noqa: S108
    return (found.f_blocks - found.f_bfree) * found.f_frsize
