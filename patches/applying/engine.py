"""Find, plan, edit: what a tree holds, what applying tasks would do, and the proof that twice is once."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..editing.edits import apply_edits
from ..editing.ranks import REFERENCE
from ..reading.source import Source
from ..reading.tree import SourceTree, not_followed
from ..task import (
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
from .beside import beside
from .consequences import broken
from .settling import alone, findings
from .survey import is_remembered, survey

BESIDE, LAST = {"attention", "gate"}, {"model"}  # seams that, in most trees, share no file with others; and that do


def status(tree: SourceTree, tasks: Sequence[Task]) -> list[TaskStatus]:
    """How far a tree holds each task, as far as its source tells."""
    return [TaskStatus.of(task, findings(tree, task)) for task in tasks]


def plan(tree: SourceTree, tasks: Sequence[Task], *, quick: bool = False, keep_going: bool = False) -> Plan:
    """What applying the tasks would do: all of it, or nothing if one is refused.

    With `quick` the same plan, by what is remembered of the tree and in two processes. With `keep_going` what is not
    refused is done all the same.

    Raises BitpatchError where a file does not parse, and where the plan would not be idempotent.
    """
    tasks = sorted(tasks, key=lambda task: task.number)
    if links := _links_in_the_way(tree):
        why = "\n".join(map(str, links))
        return Plan(tuple(TaskOutcome(task, Outcome.REFUSED, why, tuple(links)) for task in tasks))
    if quick and (done := _all_done(tree, tasks)):
        return done
    outcomes, after = (quick and _applied_beside(tree, tasks)) or _applied(tree, tasks)
    planned = Plan(tuple(outcomes))
    if planned.refused and not keep_going:
        return planned
    if after is not tree:
        accepted = [outcome.task for outcome in outcomes if outcome.outcome is not Outcome.REFUSED]
        if tree.at:  # by lines as they were, since that is how sites were named
            left = {(site.path, site.line) for outcome in outcomes for site in outcome.aside}
            _require_nothing_left(status(replace(after, at={}), accepted), left)
        else:
            _require_nothing_left((survey if quick else status)(after.settled(), accepted))
    return Plan(planned.outcomes, tuple(_changes(tree, after)))


def _applied(tree: SourceTree, tasks: Sequence[Task]) -> tuple[list[TaskOutcome], SourceTree]:
    """What becomes of some tasks, and the tree with them."""
    outcomes = []
    for task in tasks:
        try:
            found = TaskStatus.of(task, findings(tree, task))
            outcome = _decide(tree, found)
            if outcome.outcome is Outcome.APPLIED:
                edits = [edit for finding in found.findings if finding.is_open for edit in finding.edits]
                tree, outcome = _with_consequences(tree, _edited(tree, edits), outcome)
        except Unparsable as error:
            raise _every_unparsable(tree, error) from None
        except Unreadable:
            raise
        except BitpatchError as error:
            outcome = TaskOutcome(task, Outcome.REFUSED, str(error), ())
        outcomes.append(outcome)
    return outcomes, tree


def _with_consequences(before: SourceTree, after: SourceTree, outcome: TaskOutcome) -> tuple[SourceTree, TaskOutcome]:
    """A changed tree and what came of a task; where something else breaks, the tree as it was, and a refusal there."""
    sites = tuple(broken(before, after))
    if not sites:
        return after, outcome
    task, explain = outcome.task, before.command("explain", outcome.task.id)
    lines = [f"{task.id} would break what is not its own", *(f"near miss at {site}" for site in sites)]
    lines.append(f"mend that by hand and run the command again; {explain} says what {task.id} changes")
    return before, TaskOutcome(task, Outcome.REFUSED, "\n".join(lines), sites, outcome.aside, explain)


def _applied_beside(tree: SourceTree, tasks: Sequence[Task]) -> tuple[list[TaskOutcome], SourceTree] | None:
    """The same in two processes; nothing where both change a file, one refuses, or there is no second core.

    Two sets of tasks that change no file in common have the same result side by side as one after the other,
    since the order of tasks does not matter.
    """
    there, last = ([task for task in tasks if task.seam in seams] for seams in (BESIDE, LAST))
    here = [task for task in tasks if task not in there and task not in last]

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
        after = after.with_source(Source(path, text.encode("latin-1"), origin=tree.raw(path)))
    more, after = _applied(after, last)
    outcomes += more
    return sorted(outcomes, key=lambda outcome: outcome.task.number), after


def _changes(before: SourceTree, after: SourceTree) -> Iterator[Change]:
    for path in sorted(after.sources):
        if after.raw(path) != before.raw(path):
            yield Change(path, before.raw(path), after.raw(path))


def _all_done(tree: SourceTree, tasks: Sequence[Task]) -> Plan | None:
    """The plan for a tree that holds all of the tasks; asks the first one first, as most trees hold all or none."""
    if len(tasks) == 1 and not is_remembered(tree, tasks[0]):
        return None  # to ask would be the work of its plan, done twice
    try:
        for some in (tasks[:1], tasks):
            found = survey(tree, some)
            if any(each.state is not State.APPLIED for each in found):
                return None
    except BitpatchError:
        return None
    return Plan(tuple(_decide(tree, each) for each in found))


def _decide(tree: SourceTree, found: TaskStatus) -> TaskOutcome:
    task = found.task
    missing = tuple(finding.site for finding in found.findings if finding.is_open and finding.state is State.MISSING)
    aside = tuple(finding.site for finding in found.findings if finding.aside)
    if found.state is State.APPLIED:
        done = tuple(finding.site for finding in found.findings if not finding.aside)
        return TaskOutcome(task, Outcome.ALREADY_APPLIED, "", done, aside)
    if found.state is not State.UNRECOGNISED:
        return TaskOutcome(task, Outcome.APPLIED, "", missing, aside)
    near = tuple(finding for finding in found.findings if finding.is_open and finding.state is State.UNRECOGNISED)
    sites = (*(each.site for each in near), *missing)
    explain = tree.command("explain", task.id)
    return TaskOutcome(task, Outcome.REFUSED, _refusal(tree, found, near, missing), sites, aside, explain)


def _refusal(tree: SourceTree, found: TaskStatus, near: Sequence[Finding], clear: Sequence[Site]) -> str:
    task = found.task
    explain, verify = (tree.command(command, task.id) for command in ("explain", "verify"))
    if not near:
        return (
            f"{task.id} looked for {task.sought}\nand found none, nor anything like it\n{not_followed(tree.links_out)}"
            f"{explain} says what it would change, and {verify} whether the tree behaves so all the same"
        )
    lines = [f"{task.id} looked for {task.sought}"]
    lines += [f"near miss at {each.site}" for each in near]
    lines += [f"clear site at {site}" for site in clear]
    those = "the near miss" if len(near) == 1 else f"the {len(near)} near misses"
    lines.append(
        f"mend {those} by hand and run the command again, or patch all of it by hand ({explain} says what) and have it "
        f"judged: {verify}"
    )
    if (one := next(_clear_alone(found), None)) is not None:
        lines.append(
            f"to have one clear site alone, with what is done with it: {tree.command('apply', task.id, '--at', one)}"
        )
    if task.id in tree.at and not any(each.aside == "left alone" for each in found.findings):
        lines.append("what was found only holds together: no site can be done alone")
    if all(each.units for each in near):
        lines.append(f"to leave {those} as it is for good, say why there: # bitpatch: skip[{task.id}] REASON")
    return "\n".join(lines)


def _clear_alone(found: TaskStatus) -> Iterator[str]:
    """The places of a task that can be done without its near misses."""
    for each in found.findings:
        if each.is_open and each.units and each.state is State.MISSING:
            together = alone(found.findings, [each])
            if not any(other.state is State.UNRECOGNISED for other in together):
                yield str(each.site.place)


def _links_in_the_way(tree: SourceTree) -> list[Site]:
    """The links out of a tree where tasks may change files: in its package, and wherever the reference has one."""
    package = os.path.dirname(tree.model_path)
    return [
        Site.at(path, "leads out of the tree: nothing there is read or written; put the file itself here", 1, 1)
        for path in tree.links_out
        if path.endswith(".py") and (os.path.dirname(path) == package or (REFERENCE / path).exists())
    ]


def _every_unparsable(tree: SourceTree, first: Unparsable) -> Unparsable:
    """All files that stand in the way as this one does, as they are mended in one go."""
    messages = [str(first)]
    for path in tree.contents:
        try:
            tree.source(path)
        except Unparsable as error:
            messages.append(str(error))
    return Unparsable("\n".join(dict.fromkeys(messages)))


def _edited(tree: SourceTree, edits: Sequence[Edit]) -> SourceTree:
    for path in dict.fromkeys(edit.source.path for edit in edits):
        source = tree.source(path)
        tree = tree.with_source(apply_edits(source, [edit for edit in edits if edit.source is source]))
    return tree


def _require_nothing_left(statuses: Sequence[TaskStatus], aside: Collection[tuple[str, int]] = ()) -> None:
    """Raise BitpatchError unless tasks are done, but for the lines that were left alone."""
    for found in statuses:
        sites = [finding.site for finding in found.findings if finding.is_open]
        over = [site for site in sites if (site.path, site.line) not in aside]
        if over or (found.state is not State.APPLIED and not sites):
            raise BitpatchError(
                f"{over[0] if over else 'the tree'}: {found.task.id} would not be done after one apply; nothing was "
                "written. Please report this"
            )


def diff_of(changes: Iterable[Change]) -> bytes:
    """What becomes of files, as a unified diff that `git apply` takes."""
    return b"".join(line for change in changes for line in _unified(change))


def _unified(change: Change) -> Iterator[bytes]:
    """The lines of what becomes of a file."""
    before, after = (re.findall(rb"[^\n]*\n|[^\n]+\Z", raw) for raw in (change.before, change.after))
    old, new = (_quoted(side + os.fsencode(change.path)) for side in (b"a/", b"b/"))
    for line in difflib.diff_bytes(difflib.unified_diff, before, after, old, new, lineterm=b"\n"):
        yield line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"


def _quoted(path: bytes) -> bytes:
    """A path as git writes it: what would be taken for the end of a name, or of a line, is written as in C."""
    if not re.search(rb'[\x00-\x1f\x7f"\\]', path):
        return path
    escaped = (bytes([byte]) if 32 <= byte != 127 and byte not in b'"\\' else b"\\%03o" % byte for byte in path)  # noqa: PLR2004
    return b'"' + b"".join(escaped) + b'"'
