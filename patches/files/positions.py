"""Where a place in a text that a plan has made so far stands in the file as the user has it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache


def lines_of(text: str) -> list[str]:
    """The lines of a text, without their ends, as Python counts them: a form feed ends none."""
    return re.split(r"\r\n|\r|\n", text)


def in_origin(origin: str, text: str, line: int, column: int) -> tuple[int, int]:
    """Line and column, counted from 1, of the same place in the text that another one was made of.

    A place in lines that were put in is where they were put in.
    """
    lines, before = lines_of(text), lines_of(origin)
    before = before[:-1] if len(before) > 1 and not before[-1] else before  # an end of a line begins no other
    for tag, low, high, start, stop in _hunks(origin, text):
        if not low < line <= high:
            continue
        if tag == "equal":
            return start + line - low, column
        if start == stop:
            return _first_word(before, min(start, len(before) - 1))
        return _in_hunk(lines[low:high], before[start:stop], line - low, column, start)
    return min(line, len(before)), column


@lru_cache(maxsize=64)
def _hunks(origin: str, text: str) -> Sequence[tuple[str, int, int, int, int]]:
    return SequenceMatcher(None, lines_of(text), lines_of(origin), autojunk=False).get_opcodes()


def _in_hunk(lines: Sequence[str], before: Sequence[str], line: int, column: int, start: int) -> tuple[int, int]:
    """The place of the nearest word, at or behind this one, that both have."""
    words, known = (re.findall(r"\w+|\s|[^\w\s]", "\n".join(text)) for text in (lines, before))
    offset = sum(len(each) + 1 for each in lines[: line - 1]) + column - 1
    at = len(known)
    for block in SequenceMatcher(None, words, known, autojunk=False).get_matching_blocks():
        end = sum(map(len, words[: block.a + block.size]))
        if end > offset or not block.size:
            ahead = _words_before(words[block.a :], offset - sum(map(len, words[: block.a])))
            at = block.b + ahead
            break
    while at < len(known) and known[at].isspace():
        at += 1
    found = "".join(known[:at])
    return start + found.count("\n") + 1, len(found) - (found.rfind("\n") + 1) + 1


def _words_before(words: Sequence[str], offset: int) -> int:
    """How many words end at or before an offset."""
    count = done = 0
    while count < len(words) and done + len(words[count]) <= offset:
        done += len(words[count])
        count += 1
    return count


def _first_word(lines: Sequence[str], index: int) -> tuple[int, int]:
    text = lines[index] if lines else ""
    return index + 1, len(text) - len(text.lstrip()) + 1
