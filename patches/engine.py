"""Find, plan, edit: what a tree holds, what applying tasks would do, and the proof that twice is once."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from .beside import beside
from .edits import apply_edits
from .source import Source, SourceTree
from .survey import survey
from .task import (
    BitpatchError,
    Change,
    Edit,
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

HERE, THERE = {1, 2, 3, 4, 5, 6, 8}, {7, 9, 10, 11}  # tasks that, in most trees, change no file in common


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
    return [TaskStatus.of(task, task.find(tree)) for task in tasks]


def plan(tree: SourceTree, tasks: Sequence[Task], *, quick: bool = False) -> Plan:
    """What applying the tasks would do: all of it, or nothing if one is refused.

    With `quick` the same plan, by what is remembered of the tree and in two processes.

    Raises BitpatchError where a file does not parse, and where the plan would not be idempotent.
    """
    tasks = sorted(tasks, key=lambda task: task.number)
    if quick and (done := _all_done(tree, tasks)):
        return done
    outcomes, after = (quick and _applied_beside(tree, tasks)) or _applied(tree, tasks)
    planned = Plan(tuple(outcomes))
    if planned.refused:
        return planned
    if after is not tree:
        _require_nothing_left((survey if quick else status)(after, tasks))
    return Plan(planned.outcomes, tuple(_changes(tree, after)))


def _applied(tree: SourceTree, tasks: Sequence[Task]) -> tuple[list[TaskOutcome], SourceTree]:
    """What becomes of some tasks, and the tree with them."""
    outcomes = []
    for task in tasks:
        try:
            found = TaskStatus.of(task, task.find(tree))
            outcome = _decide(found)
            if outcome.outcome is Outcome.APPLIED:
                tree = _edited(tree, [edit for finding in found.findings for edit in finding.edits])
        except (Unparsable, Unreadable):
            raise
        except BitpatchError as error:
            outcome = TaskOutcome(task, Outcome.REFUSED, str(error), ())
        outcomes.append(outcome)
    return outcomes, tree


def _applied_beside(tree: SourceTree, tasks: Sequence[Task]) -> tuple[list[TaskOutcome], SourceTree] | None:
    """The same in two processes; nothing where both change a file, one refuses, or there is no second core.

    Two sets of tasks that change no file in common have the same result side by side as one after the other,
    since the order of tasks does not matter.
    """
    here, there = ([task for task in tasks if task.number in group] for group in (HERE, THERE))

    def work() -> dict[str, Any]:
        outcomes, after = _applied(tree, there)
        texts = {change.path: change.after.decode("latin-1") for change in _changes(tree, after)}
        return {"texts": texts, "outcomes": [[each.outcome, each.reason, each.to_json()["sites"]] for each in outcomes]}

    if not here or not there:
        return None
    with beside(work) as answer:
        outcomes, after = _applied(tree, here)
        given = answer()
    if given is None or given["texts"].keys() & {change.path for change in _changes(tree, after)}:
        return None
    for task, (outcome, reason, sites) in zip(there, given["outcomes"], strict=True):
        outcomes.append(TaskOutcome(task, Outcome(outcome), reason, tuple(Site.at(**site) for site in sites)))
    if Plan(tuple(outcomes)).refused:
        return None
    for path, text in given["texts"].items():
        after = after.with_source(Source(path, text.encode("latin-1")))
    last, after = _applied(after, [task for task in tasks if task.number not in HERE | THERE])
    outcomes += last
    return sorted(outcomes, key=lambda outcome: outcome.task.number), after


def _changes(before: SourceTree, after: SourceTree) -> Iterator[Change]:
    for path in sorted(after.sources):
        if after.raw(path) != before.raw(path):
            yield Change(path, before.raw(path), after.raw(path))


def _all_done(tree: SourceTree, tasks: Sequence[Task]) -> Plan | None:
    """The plan for a tree that holds all of the tasks; asks the first one first, as most trees hold all or none."""
    try:
        for some in (tasks[:1], tasks):
            found = survey(tree, some)
            if any(each.state is not State.APPLIED for each in found):
                return None
    except BitpatchError:
        return None
    return Plan(tuple(_decide(each) for each in found))


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


def _require_nothing_left(statuses: Sequence[TaskStatus]) -> None:
    for found in statuses:
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
