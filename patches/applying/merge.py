"""Merge two texts that came from one: three ways, line by line, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher


@dataclass(frozen=True, slots=True)
class Conflict:
    """Lines that both sides changed, each in its own way; `line` is 1-based, in our text."""

    line: int
    ours: bytes
    theirs: bytes


@dataclass(frozen=True, slots=True)
class _Hunk:
    """The lines low..high of a base, and what one side has in their place."""

    low: int
    high: int
    side: int
    lines: list[bytes]


def merge(base: bytes, ours: bytes, theirs: bytes) -> tuple[bytes, list[Conflict]]:
    """What two changes of a base make together, and where they conflict: there, ours stands.

    Changes that touch, without an unchanged line between them, conflict: which comes first would be a guess.
    """
    lines = base.splitlines(keepends=True)
    hunks = sorted((*_hunks(lines, ours, 0), *_hunks(lines, theirs, 1)), key=lambda hunk: (hunk.low, hunk.high))
    merged: list[bytes] = []
    conflicts: list[Conflict] = []
    done = shift = 0  # base lines merged so far; how many more lines we have than the base up to there
    while hunks:
        group = [hunks.pop(0)]
        low, high = group[0].low, group[0].high
        while hunks and hunks[0].low <= high:
            group.append(hunks.pop(0))
            high = max(high, group[-1].high)
        unchanged = lines[low:high]
        mine, other = (_side(lines, low, high, [hunk for hunk in group if hunk.side == side]) for side in (0, 1))
        if mine not in (other, unchanged) and other != unchanged:
            conflicts.append(Conflict(low + shift + 1, b"".join(mine), b"".join(other)))
        merged += lines[done:low] + (other if mine == unchanged else mine)
        shift += len(mine) - len(unchanged)
        done = high
    return b"".join(merged + lines[done:]), conflicts


def _hunks(base: list[bytes], text: bytes, side: int) -> Iterator[_Hunk]:
    lines = text.splitlines(keepends=True)
    for tag, low, high, start, stop in SequenceMatcher(None, base, lines, autojunk=False).get_opcodes():
        if tag != "equal":
            yield _Hunk(low, high, side, lines[start:stop])


def _side(base: list[bytes], low: int, high: int, hunks: Sequence[_Hunk]) -> list[bytes]:
    """What one side makes of the lines low..high of the base."""
    lines: list[bytes] = []
    for hunk in hunks:
        lines += base[low : hunk.low] + hunk.lines
        low = hunk.high
    return lines + base[low:high]


def same_line(text: bytes, other: bytes, line: int) -> int:
    """Where a line of a text stands in another one; both 1-based. A line that is not there keeps its number."""
    lines, others = text.splitlines(), other.splitlines()
    for block in SequenceMatcher(None, lines, others, autojunk=False).get_matching_blocks():
        if block.a < line <= block.a + block.size:
            return line + block.b - block.a
    return line
