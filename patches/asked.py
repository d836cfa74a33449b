"""What a command line asks for: tasks by their names, and a tree to work on."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from .donor import REFERENCE
from .engine import all_tasks, task_named
from .task import BitpatchError, Task
from .tree import open_tree


class AskedWrongly(BitpatchError):
    """What was asked for does not exist, or says too little."""

    exit_code = 2


def tasks_asked(names: Sequence[str] | None, *, every: bool) -> list[Task]:
    """The tasks that are named, each once, or every task. Raises AskedWrongly."""
    if bool(names) == every:
        raise AskedWrongly("name one task or more, or give --all; bitpatch list shows them", then="bitpatch list")
    try:
        return list(all_tasks()) if every else list(dict.fromkeys(task_named(name) for name in names or ()))
    except KeyError as error:
        raise AskedWrongly(error.args[0], then="bitpatch list") from None


def again(command: str, tasks: Sequence[Task] | None, tree: Path | None) -> str:
    """A command for the same tasks, or for all twelve, and the same tree."""
    every = tasks is None or len(tasks) == len(all_tasks())
    words = ["--all"] * (command != "status") if every else [task.id for task in tasks or ()]
    return shlex.join(["bitpatch", command, *words, *(["--tree", str(tree)] if tree not in (None, Path()) else [])])


def tree_or_reference(tree: Path | None, doing: str, tell: Callable[[str], None] | None) -> Path:
    """The tree that is named, else the one in the folder this runs in, else the embedded reference, which is told."""
    if tree is not None:
        return tree
    try:
        return open_tree(Path()).root
    except BitpatchError:
        if tell is not None:
            tell(f"no BitTransformerLM tree here: {doing} the embedded reference, {REFERENCE}")
        return REFERENCE
