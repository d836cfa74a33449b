"""Which tasks there are, by the names of their files: nothing of them is imported."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path


@cache
def slugs() -> dict[str, str]:
    """The slug of each task by its id, in order of number."""
    files = Path(__file__).parent.glob("task_*_*.py")
    parts = sorted(re.findall(r"task_0*(\d+)_(\w+)", file.stem)[0] for file in files)
    return {f"task-{number}": slug.replace("_", "-") for number, slug in sorted(parts, key=lambda part: int(part[0]))}


def id_of(name: str) -> str | None:
    """The id of the task that `task-11`, `11` or `stitched-attention` names; None where it names none."""
    return next((own for own, slug in slugs().items() if name in (own, own.removeprefix("task-"), slug)), None)
