"""Files that are not real, paths to them, and what a scope is given, which may be one."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from .grids import Grid, dtype_named
from .kinds import Class, Library, Opaque, Stuck

_PAIR = 2


@dataclass(eq=False, slots=True)
class Given:
    """What a scope is given, or an attribute of that: a path once it is opened, a number once it is counted with."""

    text: str
    cls: Class | None = None
    attrs: dict[str, Any] = field(default_factory=dict)
    path: FilePath | None = None
    number: int | None = None
    is_path: bool = False  # whether it is known for an object of pathlib's, by what it is asked for


class Disk:
    """Files that a program reads and writes; the one that it reads and did not write is the sample."""

    def __init__(self, sample: bytes) -> None:
        self.sample, self.files = sample, dict[str, bytes | Grid]()
        self.source: str | None = None
        self.reads = 0
        self.is_plain = True  # whether all text was read as UTF-8, no byte left out

    def read(self, name: str) -> bytes | Grid:
        """A file's bytes. Raises Stuck where several files are read that nobody wrote."""
        self.reads += 1
        if name in self.files:
            return self.files[name]
        if self.source not in (None, name):
            raise Stuck("several files are read")
        self.source = name
        return self.sample

    def open(
        self, name: Any, mode: str = "r", encoding: Any = None, errors: Any = None, newline: Any = None, **_: Any
    ) -> Any:
        """A file, of text or of bytes."""
        if "w" in mode and "b" in mode:
            return _Written(self, str(name))
        held = self.read(str(name))
        if set(mode) - set("rbt") or isinstance(held, Grid):
            raise Stuck("a file is written in a way that is not understood")
        raw = io.BytesIO(held)
        if "b" in mode:
            return raw
        known = str(encoding or "utf-8").lower().replace("_", "-")
        self.is_plain = self.is_plain and known in ("utf-8", "utf8") and errors in (None, "strict")
        return io.TextIOWrapper(raw, encoding or "utf-8", errors, newline)

    def opened(self, given: Any) -> FilePath:
        """The path that something is, or is given as."""
        path = FilePath(self, given) if isinstance(given, str) else path_of(given)
        if path is None and isinstance(given, Given) and given.number is None:
            path = given.path = FilePath(self, f"/given/{given.text}")
        if path is None:
            raise Stuck("which file it is is not known")
        return path

    def mapped(self, name: str, dtype: Any = "uint8", mode: str = "r+", offset: int = 0, shape: Any = None) -> Grid:
        """An array that is kept in a file."""
        if mode == "w+":
            sizes = shape if isinstance(shape, tuple) else (shape,)
            made = self.files[name] = Grid(sizes, [0] * math.prod(sizes), dtype_named(dtype), is_tensor=False)
            return made
        held = self.read(name)
        flat = held if isinstance(held, Grid) else Grid((len(held),), list(held), "uint8", is_tensor=False)
        return (flat.reshaped(-1)[offset:] if offset else flat.reshaped(-1)).reshaped(
            shape if shape is not None else -1
        )

    def moved(self, name: Any, other: Any) -> None:
        """Give a file another name."""
        if str(name) not in self.files:
            raise Stuck("a file is renamed that nobody wrote")
        self.files[str(other)] = self.files.pop(str(name))


class _Written(io.BytesIO):
    """A file of bytes that is written; what is written is there at once."""

    def __init__(self, disk: Disk, name: str) -> None:
        super().__init__()
        self._disk, self._name = disk, name
        disk.files[name] = b""

    def write(self, data: Any) -> int:
        count = super().write(bytes(data.data) if isinstance(data, Grid) else data)
        self._disk.files[self._name] = self.getvalue()
        return count


@dataclass(frozen=True, slots=True)
class FilePath:
    """A path of pathlib's; one that is made of another has a file once it is written."""

    disk: Disk
    name: str
    is_made: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.name)

    def _other(self, path: PurePosixPath) -> FilePath:
        return FilePath(self.disk, str(path), is_made=True)

    def joined(self, *others: Any) -> FilePath:
        """A path below this one."""
        return self._other(self._pure.joinpath(*map(str, others)))

    def attribute(self, name: str) -> Any:
        """What pathlib gives a path under a name; LookupError where it is not known."""
        if name in ("with_suffix", "with_name", "with_stem"):
            return lambda *args: self._other(getattr(self._pure, name)(*args))
        if name in ("name", "stem", "suffix"):
            return getattr(self._pure, name)
        if name == "parent":
            return self._other(self._pure.parent)
        if name in ("replace", "rename"):
            return lambda other: self.disk.moved(self.name, other)
        if name in ("mkdir", "unlink"):
            return lambda *_, **__: None
        if name not in PATH_METHODS or not hasattr(self, name):
            raise LookupError(name)
        return getattr(self, name)

    def open(self, mode: str = "r", *rest: Any, **settings: Any) -> Any:
        return self.disk.open(self.name, mode, *rest[1:], **settings)  # without the size of a buffer

    def read_bytes(self) -> bytes:
        held = self.disk.read(self.name)
        return bytes(held.data) if isinstance(held, Grid) else held

    def write_bytes(self, data: Any) -> None:
        self.disk.files[self.name] = bytes(data)

    def read_text(self, encoding: Any = None, errors: Any = None, newline: Any = None) -> str:
        with self.disk.open(self.name, "r", encoding, errors, newline) as file:
            return str(file.read())

    def write_text(self, text: str, **_: Any) -> None:
        self.disk.files[self.name] = text.encode()

    def exists(self) -> bool:
        return not self.is_made or self.name in self.disk.files

    is_file = exists

    def same(self) -> FilePath:
        return self

    expanduser = resolve = absolute = same

    def size(self) -> int:
        """Its bytes."""
        held = self.disk.read(self.name)
        return len(held.data if isinstance(held, Grid) else held)


PATH_METHODS = {  # which nothing else that a scope is given has
    *("open", "read_bytes", "read_text", "write_bytes", "write_text", "exists", "is_file", "with_suffix", "with_name"),
    *("with_stem", "expanduser", "resolve", "absolute"),
}


def mutables(values: Any) -> Iterator[Any]:
    """What may be changed by whoever is handed some values."""
    for each in values:
        if isinstance(each, (list, bytearray, dict, set)):
            yield each


def path_of(value: Any) -> FilePath | None:
    """The path that something is, or is given as."""
    return value if isinstance(value, FilePath) else value.path if isinstance(value, Given) else None


def on_paths(
    disk: Disk, callee: Any, placed: list[Any], named: dict[str, Any]
) -> tuple[Any, list[Any], dict[str, Any]]:
    """Calls that open files or make paths, with what is given as one."""
    dotted = callee.dotted if isinstance(callee, Library) else ""
    is_open = callee == disk.open or dotted in ("io.open", "codecs.open")
    if is_open and (placed or "file" in named):
        first = named.pop("file", None) if not placed else placed[0]
        if dotted == "codecs.open":  # which translates no ends of lines
            named = {"encoding": placed[2] if len(placed) > _PAIR else None, "newline": "", **named}
            placed = placed[:2]
        elif len(placed) > _PAIR:
            placed = [*placed[:2], *placed[3:]]  # without the size of a buffer
        return disk.open, [disk.opened(first).name, *placed[1:]], named
    if dotted in ("pathlib.Path", "os.fspath", "os.path.expanduser", "os.path.abspath") and len(placed) == 1:
        return (callee, placed, named) if isinstance(placed[0], Opaque) else ((lambda: disk.opened(placed[0])), [], {})
    if dotted in ("numpy.memmap", "numpy.fromfile") and placed:
        return disk.mapped, [disk.opened(placed[0]).name, *placed[1:]], named
    if dotted in ("os.replace", "os.rename", "shutil.move") and len(placed) == _PAIR:
        return disk.moved, placed, {}
    if dotted in ("os.path.exists", "os.path.isfile", "os.path.getsize") and len(placed) == 1:
        path = disk.opened(placed[0])
        return (path.size if dotted.endswith("getsize") else path.exists), [], {}
    if callee is str and len(placed) == 1 and path_of(placed[0]) is not None:
        return (lambda: path_of(placed[0])), [], {}
    return callee, placed, named
