"""Which tasks a line of reference/ belongs to, and which call it.

Each task is applied to the baseline alone. A line that it inserts or changes there, and that reference/ holds, is its
own. A line that no task makes alone - two of them meet in it - belongs to those whose own line it is most like.
"""

import ast
import difflib
import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from samples import BASELINE, REFERENCE

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import all_tasks
from bitpatch.patches.reading.tree import open_tree

ALIKE = 0.6  # how like its own a line is that a task has a part in
FOLDERS = ("bit_transformer", "dashboard", "data")

Tasks = frozenset[int]
Lines = dict[int, Tasks]  # of a file, by number, from 1


@dataclass(frozen=True, slots=True)
class Owned:
    """The tasks of each line of the reference's files: those that made it, and those whose lines call it."""

    made: dict[str, Lines] = field(default_factory=dict)
    called: dict[str, Lines] = field(default_factory=dict)


@functools.cache
def owned() -> Owned:
    """Every line of reference/ that matters to a task."""
    alone: dict[str, dict[int, str]] = defaultdict(dict)
    base = open_tree(BASELINE)
    for task in all_tasks():
        for change in plan(base, [task]).changes:
            alone[change.path][task.number] = change.after.decode()
    made = {path: made_lines(read(BASELINE, path), read(REFERENCE, path), texts) for path, texts in alone.items()}
    return Owned(made, called_lines(made))


def read(tree: Path, path: str) -> str:
    return (tree / path).read_text(encoding="utf-8")


def made_lines(before: str, after: str, alone: Mapping[int, str]) -> Lines:
    """The tasks of each line that was inserted or changed between two texts, given what each task makes alone."""
    old, new = before.splitlines(), after.splitlines()
    fresh = {number for number in changed(old, new) if new[number - 1].strip()}
    tasks: dict[int, set[int]] = defaultdict(set)
    own: dict[int, list[str]] = {}
    for task, text in alone.items():
        lines = text.splitlines()
        inserted = changed(old, lines)
        own[task] = [lines[number - 1].strip() for number in inserted]
        for block in difflib.SequenceMatcher(None, lines, new, autojunk=False).get_matching_blocks():
            for offset in range(block.size):
                if block.a + offset + 1 in inserted and block.b + offset + 1 in fresh:
                    tasks[block.b + offset + 1].add(task)
    for number in fresh - tasks.keys():
        tasks[number] = alike(new[number - 1].strip(), own)
    return {number: frozenset(tasks[number]) for number in sorted(fresh) if tasks[number]}


def changed(old: list[str], new: list[str]) -> set[int]:
    """The numbers of the new lines that are not among the old ones."""
    codes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return {number + 1 for kind, _, _, start, end in codes if kind != "equal" for number in range(start, end)}


def alike(line: str, own: Mapping[int, list[str]]) -> set[int]:
    """The tasks that have a line which is nearly this one; else the one with the most like it."""
    likeness = {
        task: max((difflib.SequenceMatcher(None, line, each).ratio() for each in lines), default=0.0)
        for task, lines in own.items()
    }
    best = max(likeness.values())
    return {task for task, ratio in likeness.items() if ratio == best or ratio >= ALIKE}


def called_lines(made: Mapping[str, Lines]) -> dict[str, Lines]:
    """The lines of the functions of reference/ that some lines call, with the tasks of these; one level down."""
    trees = {path.relative_to(REFERENCE).as_posix(): ast.parse(path.read_text()) for path in python_files()}
    functions: dict[str, list[tuple[str, ast.AST]]] = defaultdict(list)
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                functions[node.name].append((path, node))
    called: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for path, lines in made.items():
        for name, is_method, call in calls(trees[path]):
            near = [at for at in functions[name] if at[0] == path]
            there = near if near or is_method else functions[name]
            callers = frozenset[int]().union(*(lines.get(number, ()) for number in call))
            if len(there) == 1 and callers:
                ((where, function),) = there
                for number in range(function.lineno, function.end_lineno + 1):
                    called[where][number] |= callers
    return {path: {number: frozenset(tasks) for number, tasks in lines.items()} for path, lines in called.items()}


def python_files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (REFERENCE / folder).glob("*.py"))


def calls(tree: ast.Module) -> Iterator[tuple[str, bool, range]]:
    """What is called in a file, by its last name; whether as a method; and on which lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            is_method = isinstance(node.func, ast.Attribute)
            yield node.func.attr if is_method else node.func.id, is_method, range(node.lineno, node.end_lineno + 1)
