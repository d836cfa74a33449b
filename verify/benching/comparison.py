"""What each task does to one tree's speed and memory on one machine, beside what is noise there.

A task that the tree has not is applied in a copy; one that it has is taken out of a copy, where `revert` can. The
copies take turns (interleaving.py), each turn in a process as checks have them. An effect is shown where its interval
and that of the tree against itself have nothing in common.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...patches.applying.engine import plan
from ...patches.applying.originals import load
from ...patches.applying.revert import plan_revert
from ...patches.reading.tree import SourceTree, command_on, open_tree
from ...patches.task import BitpatchError, Change, Outcome, Task
from ..running.driven import driving
from ..running.limits import Limits
from ..running.proof import changed
from ..running.runner import Job, Progress, Zygote, run_jobs
from .interleaving import FEWEST, Ratio, ratio_of, rounds
from .machine import machine_parts
from .turns import MEASURES, Turn

OPTIONS: Mapping[int, dict[str, Any]] = {  # that tasks bring, and that are off unless they are asked for
    1: {"batch_size": 32},
    3: {"amp": "bf16"},
    4: {"accum_steps": 4},
    8: {"compile": True},
}
LONGEST = 10.0  # seconds of a turn at least, which is more than a usual one takes
SLOW = {8: 120.0}  # tasks whose every turn takes long, as it compiles, and the seconds that one may take
ENOUGH = 5  # rounds: with fewer, intervals of noise alone are often apart, and an effect is to be
FAR = 4  # times the noise


@dataclass(frozen=True, slots=True)
class Effect:
    """One figure before and after a task, and how many times the first the second is; or why that is not known."""

    before: float | None = None
    after: float | None = None
    ratio: Ratio | None = None
    is_shown: bool = False
    reason: str = ""

    def to_json(self, measure: str) -> dict[str, Any]:
        """As the schema has it."""
        ratio = {name: self.ratio and getattr(self.ratio, name) for name in ("median", "low", "high")}
        named = {"measure": measure, "unit": MEASURES[measure][1], "before": self.before, "after": self.after}
        return {**named, "ratio": ratio.pop("median"), **ratio, "shown": self.is_shown, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Compared:
    """A task, what stands before and after it, and the effects by their measures; or why there is no such pair."""

    task: Task
    change: str  # "applied" or "reverted", in a copy; "none"
    reason: str = ""
    jobs: tuple[Job, Job] | None = None
    effects: Mapping[str, Effect] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """What the task brings, and was on."""
        return OPTIONS.get(self.task.number, {}) if self.jobs is not None else {}

    @property
    def is_measured(self) -> bool:
        """Whether any effect is known, shown or not."""
        return any(each.ratio is not None for each in self.effects.values())

    def to_json(self) -> dict[str, Any]:
        """As the schema has it."""
        own = {"id": self.task.id, "change": self.change, "reason": self.reason, "options": self.options}
        return {**own, "effects": [each.to_json(name) for name, each in self.effects.items()]}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of a tree, the effect of each task, and the noise: the tree against itself."""

    tree: Path
    rounds: int
    machine: Sequence[str]
    noise: Mapping[str, Effect]
    tasks: Sequence[Compared]

    def to_json(self) -> dict[str, Any]:
        """What bench --json prints; its schema is schemas/bench.json."""
        noise = [each.to_json(name) for name, each in self.noise.items()]
        own = {"tree": str(self.tree), "rounds": self.rounds, "machine": [*self.machine], "noise": noise}
        return {**own, "tasks": [each.to_json() for each in self.tasks]}


def pairs(tree: SourceTree, tasks: Sequence[Task], copies: ExitStack) -> tuple[Job, list[Compared]]:
    """The tree as it is, and what stands before and after each task: copies, which last as long as the stack."""
    package, as_it_is = Path(tree.model_path).parent, copies.enter_context(changed(tree.root, []))

    def copied(task: Task, changes: Sequence[Change]) -> Job:
        return _job(task.id, copies.enter_context(changed(as_it_is, changes)), package, [task])

    plain = _job("as it is", as_it_is, package, tasks)
    return plain, [_pair(tree, task, plain, copied) for task in tasks]


def _job(name: str, root: Path, package: Path, tasks: Sequence[Task]) -> Job:
    driven = driving(open_tree(root), tasks)
    top = root if driven is not None else root / package.parent
    return Job(top.resolve(), None, 0, name, "", driving=json.dumps(driven), turn="{}")


def _pair(tree: SourceTree, task: Task, plain: Job, copied: Callable[[Task, Sequence[Change]], Job]) -> Compared:
    try:
        planned, change, why = plan(tree, [task], quick=True), "applied", "refused"
        if planned.outcomes[0].outcome is Outcome.ALREADY_APPLIED:
            planned, change = plan_revert(tree, load(tree.root), [task])[0], "reverted"
            why = "applied already, and cannot be taken out"
        if planned.refused or not planned.changes:
            return Compared(task, "none", f"{why}: {planned.outcomes[0].reason}")
        copy = copied(task, planned.changes)
    except BitpatchError as error:
        return Compared(task, "none", str(error))
    before, after = (plain, copy) if change == "applied" else (copy, plain)
    with_it = replace(after, name=f"{task.id} {change}", turn=json.dumps(OPTIONS.get(task.number, {})))
    return Compared(task, change, jobs=(before, with_it if copy is after or with_it.turn != "{}" else plain))


def compare(
    root: Path, plain: Job, found: Sequence[Compared], seconds: float, on_event: Callable[[Progress], None]
) -> Comparison:
    """Let the pairs take turns for so many seconds, and say what each task does. Raises VerifyUnavailable."""
    again, turns = replace(plain, name="as it is again (A/A)"), list[dict[Job, Turn]]()
    found = [_if_affordable(root, each, seconds) for each in found]
    jobs = [job for each in found if each.jobs for job in each.jobs]
    players = list(dict.fromkeys([plain, again, *jobs])) if jobs else []
    longest = max(SLOW.get(each.task.number, LONGEST) for each in found if each.jobs) if jobs else LONGEST
    limits = Limits(cpu=longest, wall=4 * longest)
    with Zygote(__package__ or "", needed=bool(jobs)) as zygote:
        for order in rounds(players, most_seconds=seconds):
            turns.append({})
            with closing(run_jobs(zygote, order, 1, limits)) as events:
                for job, result in events:
                    on_event(Progress(None, f"{job.name}, round {len(turns)}", len(turns[-1]), len(order)))
                    if isinstance(result, Turn):
                        turns[-1][job] = result
            for job in [job for job, turn in turns[-1].items() if not turn.figures]:
                players.remove(job)  # nor would its next turn have any
            if plain not in players:
                break
    noise = effects(turns, (plain, again), {})
    compared = [replace(each, effects=effects(turns, each.jobs, noise) if each.jobs else {}) for each in found]
    return Comparison(root, len(turns), machine_parts() if jobs else [], noise, compared)


def _if_affordable(root: Path, one: Compared, seconds: float) -> Compared:
    """A task, unless its turns alone would take longer than there is time."""
    needed = (ENOUGH + 1) * SLOW.get(one.task.number, 0.0)
    if one.jobs is None or needed <= seconds:
        return one
    command = command_on(root, "bench", one.task.id, "--seconds", f"{needed:.0f}")
    return Compared(one.task, "none", f"each turn compiles, which takes longer than there is time: {command}")


def effects(
    turns: Sequence[Mapping[Job, Turn]], jobs: tuple[Job, Job], noise: Mapping[str, Effect]
) -> dict[str, Effect]:
    """Each figure of one job beside that of another in the same rounds, and whether that is more than noise."""
    both = [(each[jobs[0]], each[jobs[1]]) for each in turns if jobs[0] in each and jobs[1] in each]
    return {name: _effect(both, name, noise[name].ratio if noise else None) for name in MEASURES}


def _effect(both: Sequence[tuple[Turn, Turn]], name: str, noise: Ratio | None) -> Effect:
    found = [(one.figures[name], two.figures[name]) for one, two in both if name in one.figures and name in two.figures]
    if len(found) < FEWEST:
        lacks = [side.lacks[name] for pair in both for side in pair if name in side.lacks]
        return Effect(reason=lacks[0] if lacks else f"{len(found)} rounds, and {FEWEST} are needed")
    before, after = zip(*found, strict=True)
    ratio = ratio_of(after, before)
    is_shown = noise is not None and ratio.is_beyond(noise, 1 if len(found) >= ENOUGH else FAR)
    return Effect(statistics.median(before), statistics.median(after), ratio, is_shown)
