"""Which tasks there are: by the names of their files, or with all that they bring."""

from __future__ import annotations

import importlib
import re
from functools import cache
from pathlib import Path

from .task import Task


@cache
def slugs() -> dict[str, str]:
    """The slug of each task by its id, in order of number; nothing of them is imported."""
    parts = [re.findall(r"task_0*(\d+)_(\w+)", file.stem)[0] for file in _files()]
    return {f"task-{number}": slug.replace("_", "-") for number, slug in parts}


def id_of(name: str) -> str | None:
    """The id of the task that `task-11`, `11` or `stitched-attention` names; None where it names none."""
    return next((own for own, slug in slugs().items() if name in (own, own.removeprefix("task-"), slug)), None)


@cache
def all_tasks() -> tuple[Task, ...]:
    """Every task, in order of number."""
    return tuple(importlib.import_module(f"{__package__}.{file.stem}").task for file in _files())


def task_named(name: str) -> Task:
    """The task that `task-11`, `11` or `stitched-attention` names. Raises KeyError with the names there are."""
    for task in all_tasks():
        if name in (task.id, str(task.number), task.slug):
            return task
    known = ", ".join(f"{task.id} ({task.slug})" for task in all_tasks())
    raise KeyError(f"no task is called {name!r}; there are {known}")


def _files() -> list[Path]:
    return sorted(Path(__file__).parent.glob("task_*_*.py"))
