"""Find, plan, edit: what a tree holds, what applying tasks would do, and the proof that twice is once."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from functools import cache

from .edits import apply_edits
from .source import SourceTree
from .task import (
    BitpatchError,
    Change,
    Edit,
    Finding,
    Outcome,
    Plan,
    Site,
    State,
    Task,
    TaskOutcome,
    TaskStatus,
    Unparsable,
    Unreadable,
)


@cache
def all_tasks() -> tuple[Task, ...]:
    """Every task, in order of number."""
    package = __package__ or ""
    path = importlib.import_module(package).__path__
    names = sorted(module.name for module in pkgutil.iter_modules(path) if module.name.startswith("task_"))
    return tuple(importlib.import_module(f"{package}.{name}").task for name in names)


def task_named(name: str) -> Task:
    """The task that `task-11`, `11` or `stitched-attention` names. Raises KeyError with the names there are."""
    for task in all_tasks():
        if name in (task.id, str(task.number), task.slug):
            return task
    known = ", ".join(f"{task.id} ({task.slug})" for task in all_tasks())
    raise KeyError(f"no task is called {name!r}; there are {known}")


def status(tree: SourceTree, tasks: Sequence[Task]) -> list[TaskStatus]:
    """How far a tree holds each task, as far as its source tells."""
    return [_status(task, tuple(task.find(tree))) for task in tasks]


def _status(task: Task, findings: tuple[Finding, ...]) -> TaskStatus:
    states = {finding.state for finding in findings}
    if not states or State.UNRECOGNISED in states:
        state = State.UNRECOGNISED
    elif len(states) == 1:
        state = states.pop()
    else:
        state = State.PARTIAL
    return TaskStatus(task, state, findings)


def plan(tree: SourceTree, tasks: Sequence[Task]) -> Plan:
    """What applying the tasks would do: all of it, or nothing if one is refused.

    Raises BitpatchError where a file does not parse, and where the plan would not be idempotent.
    """
    before = tree
    outcomes = []
    for task in sorted(tasks, key=lambda task: task.number):
        try:
            found = _status(task, tuple(task.find(tree)))
            outcome = _decide(found)
            if outcome.outcome is Outcome.APPLIED:
                tree = _edited(tree, [edit for finding in found.findings for edit in finding.edits])
        except (Unparsable, Unreadable):
            raise
        except BitpatchError as error:
            outcome = TaskOutcome(task, Outcome.REFUSED, str(error), ())
        outcomes.append(outcome)
    planned = Plan(tuple(outcomes))
    if planned.refused:
        return planned
    if tree is not before:
        _require_nothing_left(tree, tasks)
    changed = {path: tree.raw(path) for path in tree.sources if tree.raw(path) != before.raw(path)}
    return Plan(planned.outcomes, tuple(Change(path, before.raw(path), raw) for path, raw in sorted(changed.items())))


def _decide(found: TaskStatus) -> TaskOutcome:
    task = found.task
    missing = tuple(finding.site for finding in found.findings if finding.state is State.MISSING)
    if found.state is State.APPLIED:
        return TaskOutcome(task, Outcome.ALREADY_APPLIED, "", found.sites)
    if found.state is not State.UNRECOGNISED:
        return TaskOutcome(task, Outcome.APPLIED, "", missing)
    near = tuple(finding.site for finding in found.findings if finding.state is State.UNRECOGNISED)
    return TaskOutcome(task, Outcome.REFUSED, _refusal(task, near, missing), (*near, *missing))


def _refusal(task: Task, near: Sequence[Site], clear: Sequence[Site]) -> str:
    lines = [f"{task.id} looked for {task.sought}"]
    lines += [f"near miss at {site}" for site in near] or ["and found none, nor anything like it"]
    lines += [f"clear site at {site}" for site in clear]
    lines.append(
        f"mend the near miss by hand and run the command again, or patch all of it by hand (bitpatch explain {task.id} "
        f"says what) and have it judged: bitpatch verify {task.id}"
    )
    return "\n".join(lines)


def _edited(tree: SourceTree, edits: Sequence[Edit]) -> SourceTree:
    for path in dict.fromkeys(edit.source.path for edit in edits):
        source = tree.source(path)
        tree = tree.with_source(apply_edits(source, [edit for edit in edits if edit.source is source]))
    return tree


def _require_nothing_left(tree: SourceTree, tasks: Sequence[Task]) -> None:
    for found in status(tree, tasks):
        if found.state is not State.APPLIED:
            left = next(finding.site for finding in found.findings if finding.state is not State.APPLIED)
            raise BitpatchError(
                f"{left}: {found.task.id} would not be done after one apply; nothing was written. Please report this"
            )


def unified(change: Change) -> Iterator[bytes]:
    """The lines of a unified diff that `git apply` takes."""
    lines = difflib.diff_bytes(
        difflib.unified_diff,
        change.before.splitlines(keepends=True),
        change.after.splitlines(keepends=True),
        f"a/{change.path}".encode(),
        f"b/{change.path}".encode(),
        lineterm=b"\n",
    )
    for line in lines:
        yield line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"
