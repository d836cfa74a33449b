"""What a child answers over its pipe, believed only where it has the right shape."""

import contextlib
import json
import math
import os
import re
from collections.abc import Callable
from typing import Any

from .evidence import Evidence, Picture, Verdict

ANSWER_LIMIT = 1 << 20
PLACE = re.compile(r"[^\x00-\x1f\x7f]{1,500}:[0-9]{1,9}")
LONGEST, WIDEST, MOST, LINE = 4000, 64, 200, 80  # numbers of a curve; of a map's row, and rows; events; characters


def read_answer(pipe: int, nonce: str) -> dict[str, Any] | None:
    """The one line of JSON in a child's pipe, if it carries the nonce."""
    os.set_blocking(pipe, False)
    content = b""
    with contextlib.suppress(BlockingIOError):  # a process that fled may hold the other end open
        while len(content) < ANSWER_LIMIT and (chunk := os.read(pipe, 65536)):
            content += chunk
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) and answer.pop("nonce", None) == nonce else None


def read_evidence(answer: dict[str, Any]) -> Evidence:
    """The evidence in an answer; an error if its shape is wrong."""
    verdict, measured, limit = answer.get("verdict"), answer.get("measured"), answer.get("limit")
    detail, reproduce, covered = answer.get("detail"), answer.get("reproduce"), answer.get("covered")
    picture, at = answer.get("picture"), answer.get("at", "")
    if (
        isinstance(verdict, str)
        and verdict in set(Verdict)
        and isinstance(measured, float | None)
        and isinstance(limit, float | None)
        and isinstance(detail, str)
        and isinstance(reproduce, str)
        and is_coverage(covered)
        and is_picture(picture)
        and isinstance(at, str)
        and (at == "" or PLACE.fullmatch(at))
    ):
        shown = None if picture is None else Picture(**picture)
        return Evidence(Verdict(verdict), measured, limit, detail, reproduce, covered, shown, at)
    return Evidence(Verdict.ERROR, detail="the answer is not shaped like evidence")


def is_coverage(value: Any) -> bool:
    """Whether a value is shaped as what a check says of the points that it tried."""
    if value is None:
        return True
    counts = ("points", "pairs", "of_pairs")
    return (
        isinstance(value, dict)
        and set(value) == {*counts, "axes"}
        and all(isinstance(value[name], int) for name in counts)
        and isinstance(value["axes"], dict)
        and all(isinstance(each, list) and all(isinstance(one, str) for one in each) for each in value["axes"].values())
    )


def is_picture(value: Any) -> bool:
    """Whether a value is shaped as what a check found beside what should be."""
    if value is None:
        return True
    words, sides = ("kind", "title", "x", "y"), ("found", "wanted")
    if not isinstance(value, dict) or set(value) != {*words, *sides} or not all(is_line(value[name]) for name in words):
        return False
    fits = SIDES.get(value["kind"])
    return fits is not None and all(isinstance(value[name], list) and fits(value[name]) for name in sides)


def is_line(value: Any) -> bool:
    """Whether a value is a short text that a terminal can show."""
    return isinstance(value, str) and len(value) <= LINE and value.isprintable()


def is_curve(values: list[Any], most: int = LONGEST) -> bool:
    """Whether values are so many numbers at most, each finite, or None."""
    return len(values) <= most and all(
        each is None or (isinstance(each, float) and math.isfinite(each)) for each in values
    )


def is_map(rows: list[Any]) -> bool:
    """Whether values are rows of numbers, all of one length."""
    return 0 < len(rows) <= WIDEST and all(
        isinstance(row, list) and 0 < len(row) == len(rows[0]) and is_curve(row, WIDEST) for row in rows
    )


SIDES: dict[str, Callable[[list[Any]], bool]] = {  # by the kind of a picture, what either side of it has to be
    "curves": is_curve,
    "maps": is_map,
    "events": lambda events: len(events) <= MOST and all(map(is_line, events)),
}
