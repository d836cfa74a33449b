"""Namespaces of a check's own (Linux): what it writes, it writes to memory of its own, and nobody else hears of it.

The zygote enters once, and each check confines itself. It then sees no process but its own and
has no network but its own; all files are read-only but for its folder, /tmp, /var/tmp and /dev/shm, which are one small
file system that goes with it. Where the system grants no such thing (not Linux, most containers), checks run
without, within the same limits: docs/security.md says what is then not promised.
"""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .prctl import NO_NEW_PRIVILEGES, prctl

NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PIDS, NEW_NETWORK = 0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
NOSUID, NODEV, NOEXEC, BIND, RECURSIVE, PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, READ_ONLY = 442, -100, 0x8000, 1
SET_INTERFACE_FLAGS, UP = 0x8914, 1
CAPABILITIES_3 = 0x20080522
OF_FILES = 0b11111  # the capabilities by which root goes past the modes of files


def enter(folder: Path) -> bool:
    """Give this process namespaces in which checks can be confined; False where that is tried, in a folder, in vain."""
    if not ends_well(lambda: try_out(folder)):
        return False
    enter_for_good()
    return True


def try_out(folder: Path) -> None:
    """Confine a process that then ends. Raises OSError where that cannot be done."""
    enter_for_good()
    first, lifeline = own_processes()
    works = ends_well(lambda: confine(folder, 1 << 20))
    os.close(lifeline)
    os.waitpid(first, 0)
    if not works:
        raise OSError


def ends_well(work: Callable[[], object]) -> bool:
    """Whether some work can be done by a process that ends with it."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def enter_for_good() -> None:
    """Enter namespaces of one's own: mounts, network, and users where one may not have those alone."""
    user, group = os.geteuid(), os.getegid()
    try:
        call("unshare", NEW_MOUNTS | NEW_NETWORK)
    except PermissionError:
        call("unshare", NEW_USER | NEW_MOUNTS | NEW_NETWORK)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:  # a network of 127.0.0.1 alone
        fcntl.ioctl(any_socket, SET_INTERFACE_FLAGS, struct.pack("16sh14x", b"lo", UP))


def own_processes() -> tuple[int, int]:
    """Have processes that are forked from now on live in a namespace; its first one, and a file with which it ends.

    The kernel kills what lives in a namespace when its first process ends. This one ends when nobody has the file open
    any more, as after a kill of all who had.
    """
    call("unshare", NEW_PIDS)
    reading, writing = os.pipe()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    actions = [(os.POSIX_SPAWN_DUP2, reading, 0), (os.POSIX_SPAWN_DUP2, nowhere, 1), (os.POSIX_SPAWN_DUP2, nowhere, 2)]
    first = os.posix_spawnp("cat", ["cat"], {}, file_actions=actions, setsid=True)
    os.close(reading)
    os.close(nowhere)
    return first, writing


def confine(folder: Path, size: int) -> None:
    """Leave this process so many bytes to write, in a folder and in the temporary ones, and its namespace's processes.

    What lies in /tmp is seen there still, and read-only like all else.
    """
    call("unshare", NEW_MOUNTS | NEW_IPC)
    mount(None, "/", None, PRIVATE | RECURSIVE)
    attributes = (ctypes.c_uint64 * 4)(READ_ONLY)  # struct mount_attr: set, clear, propagation, users
    call("syscall", MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, attributes, ctypes.sizeof(attributes))
    mount("proc", "/proc", "proc", NOSUID | NODEV | NOEXEC)
    mount("bitpatch", str(folder), "tmpfs", NOSUID | NODEV, f"size={size},mode=700")
    store = os.open(folder, os.O_PATH)  # as /tmp will be covered, and the folder may lie there
    for place in ("/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 - covered, so that nobody else's are used
        if os.path.isdir(place) and not os.path.islink(place):
            cover(place, store, show=place != "/dev/shm")  # noqa: S108
    os.close(store)


def cover(place: str, store: int, *, show: bool) -> None:
    """Put a new folder of a store in a place, in which what lay there can be seen."""
    before = os.open(place, os.O_PATH)
    name = place.strip("/").replace("/", "-")
    os.mkdir(name, dir_fd=store)
    os.chmod(name, 0o1777, dir_fd=store)  # noqa: S103 - as /tmp has it
    mount(f"/proc/self/fd/{store}/{name}", place, None, BIND)
    for entry in os.listdir(f"/proc/self/fd/{before}") if show else ():
        source, target = f"/proc/self/fd/{before}/{entry}", f"{place}/{entry}"
        with contextlib.suppress(OSError):  # it may be gone by now
            if os.path.islink(source):
                os.symlink(os.readlink(source), target)
                continue
            if os.path.isdir(source):
                os.mkdir(target)
            else:
                os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o600))
            mount(source, target, None, BIND | RECURSIVE)
    os.close(before)


def lay_down_rights() -> None:
    """Keep of root's rights those that are about files, and gain none by running a program."""
    libc, status = ctypes.CDLL(None), Path("/proc/self/status")
    if not hasattr(libc, "capset") or not status.exists():
        return
    prctl(NO_NEW_PRIVILEGES, 1)
    (permitted,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("CapPrm:"))
    kept = int(permitted, 16) & (OF_FILES if os.geteuid() == 0 else 0)
    call("capset", (ctypes.c_uint32 * 2)(CAPABILITIES_3), (ctypes.c_uint32 * 6)(kept, kept))  # effective, permitted


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount what a source names, or what a kind makes, on a target."""
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, data)]
    call("mount", *words[:3], ctypes.c_ulong(flags), words[3])


def call(name: str, *arguments: Any) -> None:
    """Call a function of the C library. Raises OSError where it fails, AttributeError where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
