"""Which Python files a folder has, as git sees it: what its index names, and what no .gitignore leaves out.

Links that stay in the folder are followed, each file once; links out of it are named, and not followed.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from ..task import Unreadable
from .places import read_regular

SKIPPED_FOLDERS = {"__pycache__", "build", "dist", "node_modules", "site-packages", "venv", "env"}


@dataclass(slots=True)
class Listing:
    """What lies in a folder: its Python files, and the links that lead out of it, both by their paths in it."""

    files: list[str] = field(default_factory=list)
    links_out: list[str] = field(default_factory=list)


class Ignored:
    """What some patterns leave out, and the .gitignore files of a tree, the deepest that says anything first."""

    def __init__(self, root: Path, excluded: Iterable[str] = ()) -> None:
        self._root = root
        self._excluded = GitIgnoreSpec.from_lines(excluded)
        self._tracked = _index(root)
        self._folders = {path[: each.start()] for path in self._tracked for each in re.finditer("/", path)}
        self._rules: dict[str, list[tuple[bool, object]]] = {}

    def leaves_out(self, path: str, *, is_folder: bool) -> bool:
        """Whether a file, or all of a folder, is none of the tree's; the folders around it are the tree's."""
        if self._excluded and self._excluded.match_file(path + "/" * is_folder):
            return True
        if path in (self._folders if is_folder else self._tracked):
            return False
        above = path
        while above:
            above = os.path.dirname(above)
            rules = self._rules_of(above)
            inner = path[len(above) + 1 if above else 0 :] + "/" * is_folder
            for is_left_out, pattern in reversed(rules):
                if _matches(pattern, inner):
                    return is_left_out
        return False

    def _rules_of(self, folder: str) -> list[tuple[bool, object]]:
        if folder not in self._rules:
            try:
                text = read_regular(self._root / folder / ".gitignore").decode(errors="surrogateescape")
            except OSError:
                text = ""
            self._rules[folder] = list(_rules(text))
        return self._rules[folder]


def _rules(text: str) -> Iterator[tuple[bool, object]]:
    for line in text.splitlines():
        try:
            patterns = GitIgnoreSpec.from_lines([line]).patterns
        except ValueError:  # git leaves out what it does not understand, too
            continue
        for pattern in patterns:
            if pattern.include is not None:
                yield pattern.include, pattern.regex


def _matches(regex: object, path: str) -> bool:
    """Whether a pattern means this very path, and not a folder around it, which was asked before."""
    found = regex.finditer(path)  # type: ignore[attr-defined]
    return any(match.groupdict().get("ps_d") is None or match.end() == len(path) for match in found)


def _index(root: Path) -> frozenset[str]:
    """The paths in git's index (gitformat-index(5), versions 2 to 4); none where there is none that can be read."""
    try:
        raw = read_regular(root / ".git" / "index")
        signature, version, count = struct.unpack_from(">4sLL", raw)
        if signature != b"DIRC" or version not in (2, 3, 4):
            return frozenset()
        return frozenset(os.fsdecode(name) for name in _entries(raw, version, count))
    except (OSError, ValueError, IndexError, struct.error):
        return frozenset()


def _entries(raw: bytes, version: int, count: int) -> Iterator[bytes]:
    place, name = 12, b""
    for _ in range(count):
        (flags,) = struct.unpack_from(">H", raw, place + 60)
        start = place + (64 if flags & 0x4000 else 62)
        if version == 4:  # noqa: PLR2004 - what the name shares with the one before is not repeated
            shared, start = _varint(raw, start)
            end = raw.index(b"\0", start)
            name = name[: len(name) - shared] + raw[start:end]
            place = end + 1
        else:
            end = raw.index(b"\0", start)
            name = raw[start:end]
            place += (end - place + 8) & ~7
        yield name


def _varint(raw: bytes, place: int) -> tuple[int, int]:
    value = raw[place] & 127
    while raw[place] & 128:
        place += 1
        value = ((value + 1) << 7) | (raw[place] & 127)
    return value, place + 1


def python_files(root: Path, excluded: Iterable[str] = ()) -> Listing:
    """The Python files of a tree, and the links out of it, without what some patterns of .gitignore leave out.

    Raises Unreadable where a folder cannot be read.
    """
    listing, ignored, real_root = Listing(), Ignored(root, excluded), os.path.realpath(root)
    seen: set[str] = set()  # real paths
    links = _walk(root, "", real_root, ignored, seen, listing)
    while links:  # a link's target may be in a folder that is not searched otherwise
        path, real = links.pop(0)
        if real in seen:
            continue
        if os.path.isdir(real):
            links += _walk(root, path, real, ignored, seen, listing)
        elif os.path.isfile(real):
            seen.add(real)
            listing.files.append(path)
    return listing


def _walk(
    root: Path, start: str, real_root: str, ignored: Ignored, seen: set[str], listing: Listing
) -> list[tuple[str, str]]:
    """List a folder; return the links in it that stay in the tree, each with its real path."""
    inside, links, pending = os.path.realpath(root), [], [(start, real_root)]
    while pending:
        folder, real = pending.pop()
        if real in seen:
            continue
        seen.add(real)
        folders = []
        for entry in _sorted(root / folder):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if not entry.is_symlink():
                if entry.is_dir():
                    if _is_searched(entry) and not ignored.leaves_out(path, is_folder=True):
                        folders.append((path, os.path.join(real, entry.name)))
                elif _is_python(entry.name) and entry.is_file() and not ignored.leaves_out(path, is_folder=False):
                    seen.add(os.path.join(real, entry.name))
                    listing.files.append(path)
            elif not entry.name.startswith(".") and not ignored.leaves_out(path, is_folder=False):
                target = os.path.realpath(entry.path)
                if not (_is_python(entry.name) or (os.path.isdir(target) and _is_searched(entry))):
                    continue
                if target == inside or target.startswith(inside.rstrip("/") + "/"):
                    links.append((path, target))
                else:
                    listing.links_out.append(path)
        pending += reversed(folders)
    return links


def _sorted(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise Unreadable(f"{error.filename}: {error.strerror}; check the folder's permissions") from None


def _is_python(name: str) -> bool:
    return name.endswith(".py") and not name.startswith(".")


def _is_searched(entry: os.DirEntry[str]) -> bool:
    name = entry.name
    if name.startswith(".") or name in SKIPPED_FOLDERS or name.endswith(".egg-info"):
        return False
    return not os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))
