"""What a child answers over its pipe, believed only where it has the right shape."""

import contextlib
import json
import os
from typing import Any

from .evidence import Evidence, Verdict

ANSWER_LIMIT = 1 << 20


def read_answer(pipe: int, nonce: str) -> dict[str, Any] | None:
    """The one line of JSON in a child's pipe, if it carries the nonce."""
    os.set_blocking(pipe, False)
    content = b""
    with contextlib.suppress(BlockingIOError):  # a process that fled may hold the other end open
        while len(content) < ANSWER_LIMIT and (chunk := os.read(pipe, 65536)):
            content += chunk
    try:
        answer = json.loads(content)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and answer.pop("nonce", None) == nonce else None


def read_evidence(answer: dict[str, Any]) -> Evidence:
    """The evidence in an answer; an error if its shape is wrong."""
    verdict, measured, limit = answer.get("verdict"), answer.get("measured"), answer.get("limit")
    detail, reproduce, covered = answer.get("detail"), answer.get("reproduce"), answer.get("covered")
    if (
        isinstance(verdict, str)
        and verdict in set(Verdict)
        and isinstance(measured, float | None)
        and isinstance(limit, float | None)
        and isinstance(detail, str)
        and isinstance(reproduce, str)
        and is_coverage(covered)
    ):
        return Evidence(Verdict(verdict), measured, limit, detail, reproduce, covered)
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
