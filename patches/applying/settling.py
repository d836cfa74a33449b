"""What the user settles about the places that a task found: which one is meant, and which are left out, and why.

Findings of one unit are done together; what nobody says of belongs to all of them (see `task.apart`). So no edit is
made whose other half was left out.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace

import libcst as cst

from ..files.positions import in_origin
from ..reading.source import Source
from ..reading.tree import SourceTree
from ..task import BitpatchError, Finding, Line, Site, State, Task, opaque
from .originals import Originals, Remembered
from .skips import MARK, Skip, skips

_NEAREST = 3  # sites that are named where there is none at a line


def settled(tree: SourceTree, task: Task, found: Sequence[Finding]) -> list[Finding]:
    """Findings of a task, and which do not count. Raises BitpatchError where nothing is at a line that is meant."""
    raws = ((path, tree.as_given(path)) for path in tree.contents or tree.paths)
    marks = [mark for path, raw in raws if MARK in raw for mark in skips(path, raw) if task.id in mark.tasks]
    found = _without_skipped(marks, found) if marks else list(found)
    return _meant_alone(tree, task, found, tree.at[task.id]) if task.id in tree.at else found


def alone(found: Sequence[Finding], seeds: Sequence[Finding]) -> list[Finding]:
    """Some findings with all that is done with them."""
    units = frozenset[Hashable]().union(*(each.units for each in seeds))
    is_whole = not all(each.units for each in seeds)
    return [each for each in found if not each.aside and (is_whole or not each.units or each.units & units)]


def meant_lines(
    tree: SourceTree,
    older: Originals,
    files: Mapping[str, Remembered],
    tasks: Collection[str],
    applied: Collection[str],
) -> dict[str, tuple[Line, ...]]:
    """The sites of the tasks that were not done everywhere, by lines of the originals as these are from now on."""

    def moved(line: Line, text: bytes) -> Line:
        original = files[line.path].original if line.path in files else text
        origin, now = (raw.decode(errors="replace") for raw in (original, text))
        return Line(line.path, in_origin(origin, now, line.line, line.column or 1)[0])

    before = {path: file.original for path, file in older.files.items()}
    kept = {
        task: [moved(line, before.get(line.path) or tree.raw(line.path)) for line in lines]
        for task, lines in older.at.items()
        if task in tasks and (task not in applied or task in tree.at)
    }
    for task in tree.at.keys() & set(applied):
        if task in kept or task not in older.tasks:  # else all of it was done before
            kept.setdefault(task, []).extend(moved(line, tree.raw(line.path)) for line in tree.at[task])
    return {task: tuple(dict.fromkeys(lines)) for task, lines in kept.items()}


def _without_skipped(marks: Sequence[Skip], found: Sequence[Finding]) -> list[Finding]:
    """Findings with those put aside that a comment leaves out, each with its unit, and comments that leave none out."""
    hits = [(mark, [each for each in found if each.is_open and mark.covers(each.site)]) for mark in marks]
    gone = {unit: mark for mark, seeds in hits for each in seeds for unit in each.units}
    rest = next((mark for mark, seeds in hits if not all(each.units for each in seeds)), None)
    if gone and {unit for each in found if each.is_open for unit in each.units} <= gone.keys():
        rest = rest or next(iter(gone.values()))

    def left_out(finding: Finding) -> Finding:
        is_gone = finding.units and finding.units <= gone.keys()
        mark = next((gone[unit] for unit in finding.units), None) if is_gone else rest
        return finding.put_aside("skipped", f": {mark.reason}") if finding.is_open and mark is not None else finding

    unused = [Finding(mark.site, State.APPLIED) for mark, seeds in hits if not seeds]
    nothing = ": the task has nothing to do there"
    return [*map(left_out, found), *(each.put_aside("unused", nothing) for each in unused)]


def _meant_alone(tree: SourceTree, task: Task, found: Sequence[Finding], lines: Sequence[Line]) -> list[Finding]:
    """Findings with those put aside that have nothing to do with the sites that are meant."""
    seeds = list[Finding]()
    for line in lines:
        there = [each for each in found if line.holds(each.site)]
        meant = [each for each in there if not each.aside]
        if not meant:
            raise BitpatchError(_nothing_at(line, task, found, there), then=tree.command("explain", task.id))
        seeds += meant
    kept = set(map(id, alone(found, seeds)))  # two near misses may be alike but for their places
    return [each if each.aside or id(each) in kept else each.put_aside("left alone") for each in found]


def _nothing_at(line: Line, task: Task, found: Sequence[Finding], there: Sequence[Finding]) -> str:
    if there:
        return f"{there[0].site}: {task.id} is left out there; take the comment out"
    sites = [each.site for each in found if not each.aside]
    here = sorted((site for site in sites if site.path == line.path), key=lambda site: abs(site.line - line.line))
    near = here[:_NEAREST] or sites[:_NEAREST]
    said = "\n".join(["; found", *map(str, near)]) if near else f", nor anywhere else: it looked for {task.sought}"
    return f"{line}: {task.id} found nothing there{said}"


def findings(tree: SourceTree, task: Task) -> list[Finding]:
    """What a task finds in a tree, and what of it does not count, as the user has settled that."""
    try:
        found = list(task.find(tree))
    except BitpatchError:
        raise
    except Exception as error:
        found = [opaque(_unread(error))]
    return settled(tree, task, found)


def _unread(error: Exception) -> Site:
    """The innermost place in a tree that was being read when an error was raised; raises it where there is none."""
    found, where = None, ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        values = list(frame.f_locals.values())
        where = f"{os.path.basename(frame.f_code.co_filename)}:{line}"
        for source in (each for each in values if isinstance(each, Source)):
            nodes = [each for each in values if isinstance(each, cst.CSTNode) and each in source.parents]
            found = source.site(nodes[-1] if nodes else source.module, "")
    if found is None:
        raise error
    fault = f"{type(error).__name__} at {where}"
    return replace(found, note=f"bitpatch fails to understand what is here ({fault}): please report it")
