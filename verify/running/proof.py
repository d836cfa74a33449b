"""Have what a plan would write judged before it is written, or what was written left out: in a copy of the tree."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from ...patches.reading.tree import open_tree
from ...patches.task import Change, Plan
from ...patches.task import Outcome as Planned
from ..rendering.report import Outcome, Report, SanityFit, complaints, exit_code
from .driven import driving
from .runner import Progress, Zygote, verify

MOST_BYTES = 64 * 2**20  # of a file that is copied: a judge needs code and samples, no data sets


Show = Callable[[Progress], None]


def proved(root: Path, package: Path, planned: Plan, shown: AbstractContextManager[Show]) -> tuple[Plan, int]:
    """A plan with what the judges say of it, and the exit code that stands for that."""
    with shown as show:
        found = judged(root, package, planned, show)
    return with_reasons(planned, found), exit_code(found)


def judged(root: Path, package: Path, planned: Plan, on_event: Show) -> Report:
    """What the judges say of the tasks that a plan applies, on a copy of the tree with its changes.

    `package` is the folder of the model's package in the tree. Raises VerifyUnavailable where torch is missing.
    """
    tasks = [each.task for each in planned.outcomes if each.outcome is Planned.APPLIED]
    with changed(root, planned.changes) as copy, Zygote() as zygote:
        driven = driving(open_tree(copy), tasks)
        numbers, top = [task.number for task in tasks], copy if driven is not None else copy / package.parent
        return verify(top, numbers, zygote=zygote, jobs=2, driving=driven, on_event=on_event)


def fitted(root: Path, changes: Sequence[Change]) -> SanityFit | None:
    """The short training run of a copy of a tree with changes; None where it is not one that can be driven."""
    with changed(root, changes) as copy, Zygote() as zygote:
        tree = open_tree(copy)
        driven = driving(tree, [])
        top = copy if driven is not None else copy / Path(tree.model_path).parent.parent
        fit = verify(top, [], zygote=zygote, sanity_fit=True, driving=driven).sanity_fit
    return fit if fit is not None and fit.losses else None


@contextmanager
def changed(root: Path, changes: Sequence[Change]) -> Iterator[Path]:
    """A copy of a tree, with what judges need of it and with changes."""
    with tempfile.TemporaryDirectory(prefix="bitpatch-") as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(root, copy, ignore=_needless, symlinks=True)
        for change in changes:
            (copy / change.path).write_bytes(change.after)
        yield copy


def with_reasons(planned: Plan, report: Report) -> Plan:
    """The plan with the tasks refused that the judges did not verify, each with the checks that say so."""
    said = {task.id: "\n".join(complaints(task)) for task in report.tasks if task.verdict is not Outcome.VERIFIED}
    outcomes = tuple(
        replace(each, outcome=Planned.REFUSED, reason=f"{each.task.id} would not hold\n{said[each.task.id]}")
        if each.task.id in said
        else each
        for each in planned.outcomes
    )
    return replace(planned, outcomes=outcomes)


def _needless(folder: str, names: list[str]) -> set[str]:
    """What of a folder no judge needs: histories, environments, caches, data sets."""
    needless = {name for name in names if name in (".git", ".hg", ".tox", ".nox", "node_modules", "__pycache__")}
    for name in set(names) - needless:
        path = os.path.join(folder, name)
        is_environment = os.path.exists(os.path.join(path, "pyvenv.cfg"))
        is_odd = not os.path.islink(path) and not os.path.isfile(path) and not os.path.isdir(path)
        is_large = os.path.isfile(path) and os.path.getsize(path) > MOST_BYTES
        if is_environment or is_odd or is_large:
            needless.add(name)
    return needless
