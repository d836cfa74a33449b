"""Reach files without being led elsewhere: regular files only, never waited for, and no link out of a tree.

A tree may hold anything: links to a home folder, FIFOs that block whoever opens them, names that change under a
running command. So a file is looked at before it is opened, opened without blocking, and written in a folder that is
held open from the tree's root down, without following a link on the way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..task import BitpatchError, Unreadable

MARK = ".bitpatch-"  # the names of files that a run puts beside those it replaces begin so
_LARGEST = 64 << 20  # bytes of a file that is read: no source file, and nothing that bitpatch writes, is larger
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2 (Linux), RENAME_SWAP of renameatx_np (macOS): the same number
_NOT_THERE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}


@dataclass(frozen=True, slots=True)
class Place:
    """A name in a folder that is held open."""

    folder: int
    name: str
    shown: Path  # as the user knows it

    def beside(self, name: str) -> Place:
        """Another name in the same folder."""
        return Place(self.folder, name, self.shown.with_name(name))

    def read(self) -> bytes | None:
        """The bytes of the file; None where there is none. Raises OSError where it is no regular file."""
        try:
            return _read(self.name, self.folder)
        except FileNotFoundError:
            return None

    def status(self) -> os.stat_result:
        """What the system says of the file itself, not of what a link names."""
        return os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)

    def create(self, content: bytes, like: os.stat_result | None = None) -> None:
        """Write a new file, to the disk, with mode and owner of another; never over something, or through a link."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(self.name, flags, 0o600, dir_fd=self.folder), "wb") as file:
            file.write(content)
            if like is not None:
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), like.st_uid, like.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode))
            file.flush()
            os.fsync(file.fileno())

    def rename(self, name: str) -> None:
        """Give the file another name in its folder, over what has it."""
        os.replace(self.name, name, src_dir_fd=self.folder, dst_dir_fd=self.folder)

    def unlink(self) -> None:
        """Take the file away, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.name, dir_fd=self.folder)

    def exchange(self, name: str) -> None:
        """Swap the file with another of its folder at once; where the system cannot, one after the other.

        In the second case a kill may leave the other file's former content under `leftover(name)` alone.
        """
        try:
            _exchange(self.folder, self.name, name)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            kept = leftover(name)
            try:
                os.link(self.name, kept, src_dir_fd=self.folder, dst_dir_fd=self.folder, follow_symlinks=False)
            except OSError:  # a file system without hard links
                self.beside(kept).create(self.read() or b"", self.status())
            self.beside(name).rename(self.name)
            self.beside(kept).rename(name)

    def sync(self) -> None:
        """Have the folder's names on the disk."""
        os.fsync(self.folder)


def part_of(name: str) -> str:
    """What a new file is called until it is written whole."""
    return f"{name}.part"


def leftover(name: str) -> str:
    """Where a file's former content waits while two files are swapped one after the other."""
    return f"{name}.old"


def fresh_name() -> str:
    """A name that nobody can have put there beforehand: short, whatever the file beside it is called."""
    return MARK + secrets.token_hex(8)


def is_of_a_run(name: str) -> bool:
    """Whether a name is one that a run gives to its own files."""
    return re.fullmatch(rf"{re.escape(MARK)}[0-9a-f]{{16}}(\.part|\.old)?", name) is not None


@contextlib.contextmanager
def places(root: Path, paths: Iterable[str]) -> Iterator[dict[str, Place]]:
    """The place of each path of a tree, by its real name, for as long as their folders are held open.

    Raises BitpatchError for a path that leads out of the tree, OSError where a folder is gone.
    """
    real = Path(os.path.realpath(root))
    held: dict[Path, int] = {}
    try:
        found = {}
        for path in paths:
            inside = real_path(real, path)
            folder = _held(real, Path(inside).parent, held)
            found[path] = Place(folder, os.path.basename(inside), root / path)
        yield found
    finally:
        for handle in held.values():
            os.close(handle)


def real_path(real_root: Path, path: str) -> str:
    """A tree's path without links, relative to its real root; BitpatchError where that is not in the tree."""
    target = Path(os.path.realpath(real_root / path))
    if target == real_root or not target.is_relative_to(real_root):
        raise BitpatchError(
            f"{path}: leads out of the tree, to {target}; nothing there is read or written. Put the file itself into "
            "the tree, or name the tree that it belongs to with --tree DIR"
        )
    return str(target.relative_to(real_root))


def _held(real_root: Path, folder: Path, held: dict[Path, int]) -> int:
    """A folder under the root, opened step by step without following a link."""
    if folder not in held:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        if folder == Path():
            held[folder] = os.open(real_root, flags)
        else:
            above = _held(real_root, folder.parent, held)
            held[folder] = os.open(folder.name, flags | os.O_NOFOLLOW, dir_fd=above)
    return held[folder]


def read_regular(path: str | Path) -> bytes:
    """The bytes of a regular file. Raises OSError for all else, which is not opened: nothing blocks."""
    return _read(path, None)


def read_bytes(path: Path) -> bytes:
    """The same; raises Unreadable with the reason."""
    try:
        return read_regular(path)
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read ({error.strerror}); check what it is, and its permissions") from None


def _read(name: str | Path, folder: int | None) -> bytes:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    flags |= os.O_NOFOLLOW if folder is not None else 0
    status = os.stat(name, dir_fd=folder, follow_symlinks=folder is None)
    _require_regular(status, name)  # before it is opened: to open a device may already do something
    with open(os.open(name, flags, dir_fd=folder), "rb") as file:
        _require_regular(os.fstat(file.fileno()), name)
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise OSError(errno.EFBIG, f"is larger than {_LARGEST >> 20} MiB", str(name))
    return content


def _require_regular(status: os.stat_result, name: str | Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a FIFO, a socket or a device")
        raise OSError(errno.EINVAL, f"is {kind}, no regular file", str(name))


def _exchange(folder: int, one: str, other: str) -> None:
    call = _exchange_call()
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(folder, os.fsencode(one), folder, os.fsencode(other), _EXCHANGE):
        import ctypes  # noqa: PLC0415

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), one)


@cache
def _exchange_call() -> Any:
    import ctypes  # noqa: PLC0415 - only a run that writes pays for it

    return getattr(ctypes.CDLL(None, use_errno=True), {"darwin": "renameatx_np"}.get(sys.platform, "renameat2"), None)
