"""Which Python files a folder has, as git sees it: what its index names, and what no .gitignore leaves out.

Links that stay in the folder are followed, each file once; links out of it are named, and not followed.
"""

from __future__ import annotations

import bisect
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from ..task import BitpatchError, Unreadable
from .places import places

SKIPPED_FOLDERS = {"__pycache__", "build", "dist", "node_modules", "site-packages", "venv", "env"}
_LONGEST = 4096  # bytes of a path
_MOST_LINES = 20_000  # of a .gitignore
_MANY_STARS, _MOST_TRIED = 3, 30_000_000  # in a pattern that is looked at, and ways to fit names to such patterns


@dataclass(slots=True)
class Listing:
    """What lies in a folder: its Python files, and the links that lead out of it, both by their paths in it."""

    files: list[str] = field(default_factory=list)
    links_out: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Rule:
    """A line of a .gitignore: what it means, and what it costs to try."""

    is_left_out: bool
    regex: object
    line: int
    stars: int  # most of them in one name
    steps: int  # `**`


class Ignored:
    """What some patterns leave out, and the .gitignore files of a tree, the deepest that says anything first."""

    def __init__(self, root: Path, excluded: Iterable[str] = ()) -> None:
        self._root = root
        self._excluded = GitIgnoreSpec.from_lines(excluded)
        self._tracked = _index(root)
        self._rules: dict[str, list[_Rule]] = {}
        self._spent = 0  # on patterns with many stars

    def leaves_out(self, path: str, *, is_folder: bool) -> bool:
        """Whether a file, or all of a folder, is none of the tree's; the folders around it are the tree's."""
        if self._excluded and self._excluded.match_file(path + "/" * is_folder):
            return True
        if self._names(path + "/" * is_folder, is_folder=is_folder):
            return False
        above = path
        while above:
            above = os.path.dirname(above)
            rules = self._rules_of(above)
            inner = path[len(above) + 1 if above else 0 :] + "/" * is_folder
            for rule in reversed(rules):
                self._spend(rule, inner, above)
                if _matches(rule.regex, inner):
                    return rule.is_left_out
        return False

    def _names(self, path: str, *, is_folder: bool) -> bool:
        """Whether git's index names a file, or one in a folder."""
        place = bisect.bisect_left(self._tracked, path)
        found = self._tracked[place] if place < len(self._tracked) else ""
        return found.startswith(path) if is_folder else found == path

    def _spend(self, rule: _Rule, path: str, folder: str) -> None:
        """Raise Unreadable where a pattern has so many stars that to try them on long names would take for ever."""
        if rule.stars + rule.steps < _MANY_STARS:
            return
        parts = path.split("/")
        longest, depth = max(map(len, parts)), len(parts)
        self._spent += math.comb(longest + rule.stars, rule.stars) * math.comb(depth + rule.steps, rule.steps)
        if self._spent > _MOST_TRIED:
            raise Unreadable(
                f"{self._root / folder / '.gitignore'}:{rule.line}: has too many stars; write it with fewer"
            )

    def _rules_of(self, folder: str) -> list[_Rule]:
        if folder not in self._rules:
            file = self._root / folder / ".gitignore"
            try:
                raw = _inside(self._root, os.path.join(folder, ".gitignore"))
                lines = raw.decode(errors="surrogateescape").splitlines()
            except (OSError, BitpatchError):
                lines = []
            if len(lines) > _MOST_LINES:
                raise Unreadable(f"{file}: has more than {_MOST_LINES:,} lines; shorten it")
            self._rules[folder] = list(_rules(lines))
        return self._rules[folder]


def _rules(lines: Sequence[str]) -> Iterator[_Rule]:
    for number, line in enumerate(lines, 1):
        try:
            patterns = GitIgnoreSpec.from_lines([line]).patterns
        except (ValueError, re.error):  # git leaves out what it does not understand, too
            continue
        steps = line.count("**")
        stars = max(re.sub(r"\*+", "*", part).count("*") for part in line.replace("**", "").split("/"))
        for pattern in patterns:
            if pattern.include is not None:
                yield _Rule(pattern.include, pattern.regex, number, stars, steps)


def _matches(regex: object, path: str) -> bool:
    """Whether a pattern means this very path, and not a folder around it, which was asked before."""
    found = regex.finditer(path)  # type: ignore[attr-defined]
    return any(match.groupdict().get("ps_d") is None or match.end() == len(path) for match in found)


def _index(root: Path) -> list[str]:
    """The paths in git's index (gitformat-index(5), versions 2 to 4), sorted; none where none can be read."""
    try:
        raw = _inside(root, ".git/index")
        signature, version, count = struct.unpack_from(">4sLL", raw)
        if signature != b"DIRC" or version not in (2, 3, 4):
            return []
        return sorted(os.fsdecode(name) for name in _entries(raw, version, count))
    except (OSError, ValueError, IndexError, struct.error, BitpatchError):
        return []


def _inside(root: Path, path: str) -> bytes:
    """The bytes of a file of the tree. Raises BitpatchError where a link on the way leads out of it."""
    with places(root, [path]) as held:
        return held[path].read() or b""


def _entries(raw: bytes, version: int, count: int) -> Iterator[bytes]:
    place, name, total = 12, b"", 0
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
        total += len(name)
        if len(name) > _LONGEST or total > len(raw) * 8:  # no index of git's: version 4 can be made to grow without end
            raise ValueError
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
