"""The order of Phase 2: what is done, what comes next, and the command for it.

Phase 1 -> task-a -> validate -> task-b -> validate -> task-c -> validate. A step is ready once all before
it are done. What is done is read from the tree's status and from the folders of the runs.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ...screen import EXIT_REFUSED, EXIT_UNPROVEN, EXIT_USAGE, fail, show_json, show_next, show_table, warn
from .run_folder import Run, Unmeasured, hashes_of, read_json, read_run
from .validation import BITS_A_PARAMETER, missing_packages

RUNS = Path("runs")  # where the tree's training puts a run that is not told otherwise
PRESETS = ("task-a", "task-b", "task-c")
COLUMNS = ("step", "state", "detail", "needs", "command")


class StepState(StrEnum):
    """How far a step is."""

    DONE = "done"
    READY = "ready"
    WAITING = "waiting"  # for the steps before it
    UNFINISHED = "unfinished"  # a run that is going on, or was interrupted
    STOPPED = "stopped"  # by the safety gate
    FAILED = "failed"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the order: its state, what there is to say of it, what it needs, and the command to type."""

    name: str
    state: StepState
    detail: str
    needs: str
    command: str

    def cells(self) -> tuple[str, ...]:
        """The step's row under COLUMNS."""
        return self.name, str(self.state), self.detail, self.needs, self.command

    def to_json(self) -> dict[str, str]:
        """The step's part of the JSON."""
        named = {"name": self.name, "state": str(self.state), "detail": self.detail}
        return {**named, "needs": self.needs, "command": self.command}


def order(states: Mapping[str, str], runs: Path = RUNS, tree: Path | None = None) -> list[Step]:
    """The steps, given the state of each task of Phase 1 in a tree, and the folder of the runs.

    Raises RunUnreadableError where a run is damaged.
    """
    option = "" if tree is None else f" --tree {shlex.quote(str(tree))}"
    steps = [phase_1(states, option)]
    for preset in PRESETS:
        steps.append(training(preset, steps, runs, option))
        steps.append(judging(preset, steps, runs, option))
    return steps


def phase_1(states: Mapping[str, str], option: str) -> Step:
    """All twelve patches are in the tree, as far as its source tells; verify proves it."""
    needs = "nothing; bitpatch verify --all proves it"
    missing, unclear = lacking(states), unrecognised(states)
    if missing:
        detail = f"missing: {', '.join(missing)}"
        return Step("phase-1", StepState.READY, detail, needs, f"bitpatch apply --all{option}")
    state = StepState.UNPROVEN if unclear else StepState.DONE
    detail = f"unrecognised: {', '.join(unclear)}" if unclear else f"{len(states)} tasks applied"
    return Step("phase-1", state, detail, needs, f"bitpatch verify --all{option}")


def training(preset: str, before: Sequence[Step], runs: Path, option: str) -> Step:
    """A run."""
    folder = runs / preset
    needs = {"task-a": "phase-1", "task-b": "task-a validated", "task-c": "task-a and task-b validated"}[preset]
    if preset == "task-c":
        needs += f", and {enough_data(runs)}"
    out = "" if runs == RUNS else f" --out {shlex.quote(str(folder))}"
    start, go_on = (f"bitpatch train {preset}{option} {flag}{out}" for flag in ("--data TEXT", "--resume"))
    if not (folder / "run.json").exists():
        return Step(preset, waiting_or_ready(before), "", needs, start)
    run = read_run(folder)
    made = progress(run)
    if run.of_kind("stop"):
        return Step(preset, StepState.STOPPED, f"{made}, by the safety gate", needs, f"{start} --lr LOWER")
    if is_done(run):
        return Step(preset, StepState.DONE, made, needs, "")
    return Step(preset, StepState.UNFINISHED, made, needs, go_on)


def judging(preset: str, before: Sequence[Step], runs: Path, option: str) -> Step:
    """The validation of a run; done if it passed, and is of the files that lie there now."""
    folder, run = runs / preset, before[-1]
    name, needs = f"validate {preset}", f"{preset} done"
    place = "" if runs == RUNS else f" --run {shlex.quote(str(folder))}"
    command = f"bitpatch validate {preset}{option}{place}"
    content = read_json(folder / "validation.json") if run.state is StepState.DONE else None
    if content is None:
        return Step(name, StepState.READY if run.state is StepState.DONE else StepState.WAITING, "", needs, command)
    if not hashes_of(folder).items() <= content.items():
        return Step(name, StepState.READY, "the run has changed since it was validated", needs, command)
    open_ = [each["name"] for each in content["thresholds"] if each["verdict"] != "pass"]
    state = {"pass": StepState.DONE, "fail": StepState.FAILED}.get(content["verdict"], StepState.UNPROVEN)
    return Step(name, state, ", ".join(open_), needs, "" if state is StepState.DONE else command)


def waiting_or_ready(before: Sequence[Step]) -> StepState:
    """Ready if all steps before are done; a tree that was patched by hand is no reason to wait."""
    done = all(step.state is StepState.DONE for step in before[1:])
    return StepState.READY if done and before[0].state is not StepState.READY else StepState.WAITING


def is_done(run: Run) -> bool:
    """Whether a run is done, as far as its records tell."""
    try:
        return run.is_done
    except Unmeasured:
        return False


def progress(run: Run) -> str:
    """How many of its updates a run has made."""
    try:
        return f"update {run.updates:,} of {run.planned:,}"
    except Unmeasured:
        return f"update {run.updates:,}"


def enough_data(runs: Path) -> str:
    """What task-c wants of its data, in the figures of task-a where they are known."""
    rule = f"{BITS_A_PARAMETER} bits to train on a parameter (else --force)"
    folder = runs / "task-a"
    try:
        run = read_run(folder) if (folder / "run.json").exists() else None
        if run is None:
            return rule
        parameters, bits = run.start["parameters"], run.start["rows"] * (run.values["max_seq_len"] // 9 * 9)
    except Unmeasured:
        return rule
    return f"{rule}: task-a had {bits:,} for {parameters:,}, and task-c has about twice as many parameters"


def lacking(states: Mapping[str, str]) -> list[str]:
    """The tasks of Phase 1 that a tree does not hold, or not wholly."""
    return [task for task, state in states.items() if state in ("missing", "partial")]


def unrecognised(states: Mapping[str, str]) -> list[str]:
    """The tasks of which a tree's source does not tell."""
    return [task for task, state in states.items() if state == "unrecognised"]


def refusal(root: Path, states: Mapping[str, str], tree: Path) -> str | None:
    """Why no run can be started with the tree whose package is in `root`; None where one can."""
    if missing := lacking(states):
        return (
            f"{tree} lacks {', '.join(missing)}: training starts from a tree with every patch; "
            f"bitpatch apply --all --tree {shlex.quote(str(tree))}"
        )
    return no_runs(root) or no_packages()


def require_runs(root: Path) -> None:
    """End the command where a tree makes no runs that are kept, or nothing can be measured here."""
    if reason := no_runs(root):
        fail(reason, EXIT_REFUSED, "bitpatch new DIR")
    if reason := no_packages():
        fail(reason, EXIT_UNPROVEN, "pip install 'bitpatch[train]'")


def require_one(preset: str | None, flags: Sequence[str], *, plan: bool) -> None:
    """End the command where it is not asked for just one thing: a run, or the plan."""
    if plan == (preset is not None) or (plan and flags):
        asked = "name a run, task-a, task-b or task-c, or give --plan alone"
        fail(asked, EXIT_USAGE, "bitpatch train --plan")


def run_of(preset: str, run: Run) -> Run:
    """The run, if it is one of a preset; ends the command where it is of another."""
    if (own := str(run.values["preset"])) != preset:
        fail(f"{run.folder} holds a run of {own}, not of {preset}", EXIT_USAGE, f"bitpatch validate {own}")
    return run


def require_ready(root: Path, states: Mapping[str, str], tree: Path, doubts: Sequence[str]) -> None:
    """End the command where no run can be started with the tree whose package is in `root`, else say the doubts."""
    if reason := refusal(root, states, tree):
        fail(reason, EXIT_REFUSED, reason.rpartition(": ")[2].rpartition("; ")[2])
    for doubt in doubts:
        warn(f"note: {doubt}")


def no_runs(root: Path) -> str | None:
    """Why a tree makes no runs that are kept; None where it does."""
    if (root / "bit_transformer" / "runs.py").is_file():
        return None
    return f"{root} has no bit_transformer/runs.py, which makes runs: copy it from the tree that bitpatch new makes"


def no_packages() -> str | None:
    """Why nothing can be trained or measured here; None where it can."""
    missing = missing_packages()
    return f"this needs {', '.join(missing)}: pip install 'bitpatch[train]'" if missing else None


def doubts(preset: str, states: Mapping[str, str], runs: Path) -> list[str]:
    """What to know before a run is started all the same."""
    said = [
        f"{task} is unrecognised in this tree: bitpatch verify {task} says whether it holds"
        for task in unrecognised(states)
    ]
    steps = order(states, runs)
    names = [step.name for step in steps]
    unmet = [step.name for step in steps[1 : names.index(preset)] if step.state is not StepState.DONE]
    if unmet:
        said.append(f"{preset} comes after {', '.join(unmet)}, not done in {runs}: see bitpatch train --plan")
    return said


def command(preset: str, flags: Sequence[str]) -> list[str]:
    """The command of a run; it wants `run_folder.tree_environment`."""
    return [sys.executable, "-P", "-m", "bit_transformer.training", preset, *flags]


def show_order(steps: Sequence[Step], tree: Path, runs: Path, *, as_json: bool, quiet: bool) -> None:
    """Print the steps, and the command that comes next."""
    if as_json:
        show_json(to_json(steps, tree, runs))
    elif not quiet:
        show_table(COLUMNS, [step.cells() for step in steps], typed=("step", "command"))
        show_next(next((step.command for step in steps if step.command), "bitpatch list"))


def to_json(steps: Sequence[Step], tree: Path, runs: Path) -> dict[str, Any]:
    """What --plan --json prints; its schema is schemas/plan.json."""
    return {"tree": str(tree), "runs": str(runs), "steps": [step.to_json() for step in steps]}
