"""What a command line asks for: tasks by their names, and a tree to work on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..editing.ranks import REFERENCE
from ..files.settled import WronglySettled
from ..known import all_tasks, task_named
from ..reading.tree import SourceTree, command_on, open_tree
from ..task import BitpatchError, Line, Task


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


def again(command: str, tasks: Sequence[Task] | None, tree: Path | None, at: Path | None = None) -> str:
    """A command for the same tasks, or for all twelve, and the same tree and site."""
    every = tasks is None or len(tasks) == len(all_tasks())
    words = ["--all"] * (command != "status") if every else [task.id for task in tasks or ()]
    return command_on(tree, command, *words, *(["--at", str(at)] if at else []))


def narrowed(tree: SourceTree, tasks: Sequence[Task], at: Path | None) -> SourceTree:
    """A tree of which one task is asked at one line alone, if there is one. Raises AskedWrongly."""
    if at is None:
        return tree
    form = re.fullmatch(r"(.+?):(\d+)(?::(\d+))?", str(at))
    if form is None or not int(form[2]):
        raise AskedWrongly(f"--at: expected PATH:LINE, found {str(at)!r}", then="name a place as a refusal does")
    if len(tasks) != 1:
        raise AskedWrongly("--at says which site of one task is meant: name one task", then="bitpatch list")
    path = next((each for each in _spelled(tree, form[1]) if each in tree.paths), None)
    if path is None:
        raise AskedWrongly(
            f"--at: {form[1]} is no Python file of the tree; places are told from its root, as in {tree.model_path}:1",
            then=again("status", tasks, tree.root),
        )
    return replace(tree, at={tasks[0].id: (Line(path, int(form[2]), int(form[3]) if form[3] else None),)})


def _spelled(tree: SourceTree, path: str) -> Iterator[str]:
    """A path as the tree has it: from its root, or from where the user is."""
    yield os.path.normpath(path)
    yield os.path.relpath(path, tree.root)


def tree_or_reference(tree: Path | None, doing: str, tell: Callable[[str], None] | None, others: str = "") -> Path:
    """The tree that is named, else the one in the folder this runs in, else the embedded reference, which is told."""
    if tree is not None:
        return tree
    try:
        return open_tree(Path(), others=others).root
    except WronglySettled:
        raise
    except BitpatchError:
        if tell is not None:
            tell(f"no BitTransformerLM tree here: {doing} the embedded reference, {REFERENCE}")
        return REFERENCE
