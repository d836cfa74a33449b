"""Where in a tree each task is, and what `apply` would write there: what a rendering shows beside a verdict."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ...patches.applying.engine import plan
from ...patches.applying.originals import load
from ...patches.applying.revert import plan_revert
from ...patches.applying.survey import survey
from ...patches.known import all_tasks
from ...patches.reading.seams import seams
from ...patches.reading.tree import SourceTree
from ...patches.task import BitpatchError, Change, Line, Site, State, Task, TaskStatus
from ..since.history import repository_around
from .report import CheckResult, Report, SanityFit

SEAMS = {1: "update", 2: "manager", 3: "update", 4: "update", 5: "rows", 6: "update"}
SEAMS |= {7: "gate", 8: "model"} | dict.fromkeys((9, 10, 11, 12), "attention")

AROUND = 3  # lines of an excerpt before and after the one that is meant


@dataclass(frozen=True, slots=True)
class InTree:
    """A task in a tree: how far its source holds it, where that shows, and what `apply` would write, or why not."""

    task: Task
    state: State
    sites: tuple[Site, ...] = ()  # the one that says most comes first
    changes: tuple[Change, ...] = ()
    refusal: str = ""
    excerpt: tuple[tuple[int, str], ...] = ()  # the lines around the first site, with their numbers


@dataclass(frozen=True, slots=True)
class Shown:
    """What is rendered: the result, and what is known of the tree beside it."""

    report: Report
    tasks: Mapping[int, InTree] = field(default_factory=dict)
    prefix: str = ""  # the tree's folder in its repository, as "trees/mine/"
    tree: str = "."  # as it was named on the command line
    root: Path = Path()
    unpatched: tuple[Change, ...] = ()  # what taking back all that bitpatch applied would change
    before: SanityFit | None = None  # the short training run of the tree with these changes

    def site(self, task: int) -> Site | None:
        """Where a task's verdict belongs: no behaviour has a line, but the code that it comes from has."""
        found = self.tasks.get(task)
        return found.sites[0] if found and found.sites else None

    def place(self, result: CheckResult) -> Site | None:
        """Where what a check says belongs: the line at which it was seen, else where its task is."""
        path, _, line = result.evidence.at.rpartition(":")
        return Site.at(path, result.prop, int(line), 1) if path else self.site(result.task)

    def path(self, site: Site | Change) -> str:
        """A path as its repository knows it."""
        return self.prefix + site.path

    def command(self, *tasks: int, verb: str = "verify") -> str:
        """How to have tasks judged again, or whatever else is to be done with them."""
        if self.report.script is not None:
            return self.report.script.command
        return shlex.join(["bitpatch", verb, *(f"task-{each}" for each in tasks), "--tree", self.tree])


def looked_round(tree: SourceTree, tasks: Sequence[Task], named: str) -> Callable[[Report], Shown]:
    """What a tree's source says of tasks, as it is now: to be shown beside the result that the judges will have."""
    known = {each.name: each.site for each in seams(tree)}
    found = {}
    for status in survey(tree, tasks):
        task = status.task
        seam = known.get(SEAMS.get(task.number, "model")) or known["model"]
        sites = dict[Line, Site]()  # the first note of each place
        for site in (*_telling(status), *([] if seam is None else [seam])):
            sites.setdefault(site.place, site)
        excerpt = next((_excerpt(tree, site) for site in sites.values()), ())
        changes, refusal = ((), "") if status.state is State.APPLIED else _planned(tree, task)
        found[task.number] = InTree(task, status.state, tuple(sites.values()), changes, refusal, excerpt)
    prefix, before = prefix_in_repository(tree.root), _taken_back(tree)
    return partial(Shown, tasks=found, prefix=prefix, tree=named, root=tree.root, unpatched=before)


def _taken_back(tree: SourceTree) -> tuple[Change, ...]:
    try:
        planned, _ = plan_revert(tree, load(tree.root), all_tasks(), every=True)
    except BitpatchError:  # what is remembered is damaged, or edits of later are in the way
        return ()
    return planned.changes


def _telling(status: TaskStatus) -> list[Site]:
    """The sites of a task, those first at which something is to be done, then what is not understood."""
    order = [State.MISSING, State.UNRECOGNISED, State.PARTIAL, State.APPLIED]
    return [each.site for each in sorted(status.findings, key=lambda each: order.index(each.state)) if not each.aside]


def _excerpt(tree: SourceTree, site: Site) -> tuple[tuple[int, str], ...]:
    lines = [line.decode(errors="replace") for line in tree.raw(site.path).splitlines()]
    first = max(0, site.line - 1 - AROUND)
    return tuple(enumerate(lines[first : site.line + AROUND], first + 1))


def _planned(tree: SourceTree, task: Task) -> tuple[tuple[Change, ...], str]:
    """What `apply` would write, or why it would refuse."""
    planned = plan(tree, [task], quick=True)
    refusal = next((each.reason for each in planned.outcomes if planned.refused), "")
    return () if refusal else planned.changes, refusal


def prefix_in_repository(root: Path) -> str:
    """A tree's folder as seen from the root of its repository, with a slash at its end; "" where that is the tree."""
    inner = root.resolve().relative_to(repository_around(root)).as_posix()
    return "" if inner == "." else f"{inner}/"
