"""The door: `bitpatch list | explain | new | status | diff | apply | revert | verify | train | validate`."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .screen import (
    EXIT_CHANGES,
    EXIT_REFUSED,
    EXIT_UNPROVEN,
    EXIT_USAGE,
    Format,
    fail,
    guarded,
    say,
    show_diff,
    show_findings,
    show_json,
    show_outcomes,
    show_table,
    shown_progress,
    warn,
)
from .verify.clean_start import restart_clean

if TYPE_CHECKING:
    from .patches.source import SourceTree
    from .patches.task import Plan, Task

app = typer.Typer(
    name="bitpatch",
    help="Patch a BitTransformerLM tree, and prove by behaviour that each patch holds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 done or verified, 1 changes needed (--check), 2 usage, 3 refused, 4 violated, 5 unproven, "
    "6 cannot read or write.",
)


class DiffFormat(StrEnum):
    """How a diff is printed."""

    TEXT = "text"
    JSON = "json"
    PATCH = "patch"


class Preset(StrEnum):
    """A run of Phase 2."""

    A = "task-a"
    B = "task-b"
    C = "task-c"


Tasks = Annotated[list[str] | None, typer.Argument(metavar="TASK...", help="task-11, 11 or stitched-attention")]
OneTask = Annotated[str, typer.Argument(metavar="TASK", help="task-11, 11 or stitched-attention")]
All = Annotated[bool, typer.Option("--all", help="Every task.")]
Tree = Annotated[Path, typer.Option("--tree", metavar="DIR", help="The BitTransformerLM tree.")]
OptionalTree = Annotated[
    Path | None, typer.Option("--tree", metavar="DIR", help="The tree; default: here, or the reference.")
]
Json = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
AsFormat = Annotated[Format, typer.Option("--format", help="How the result is printed.")]
Check = Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if there is anything to do.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and write nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Jobs = Annotated[int, typer.Option("-j", min=1, help="Checks at once; only verify runs any.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command("list")
@guarded
def list_tasks(as_format: AsFormat = Format.TEXT, as_json: Json = False, debug: Debug = False) -> None:
    """List the tasks."""
    from .patches.engine import all_tasks

    if as_format == Format.JSON:
        show_json({"tasks": [task.to_json() for task in all_tasks()]})
    else:
        rows = [(task.id, task.slug, str(task.contract), task.summary) for task in all_tasks()]
        show_table(("task", "slug", "contract", "summary"), rows)


@app.command()
@guarded
def explain(task: OneTask, as_format: AsFormat = Format.TEXT, as_json: Json = False, debug: Debug = False) -> None:
    """Say what a task changes, why, and what it promises."""
    (chosen,) = choose([task], every=False)
    if as_format == Format.JSON:
        show_json({**chosen.to_json(), "why": chosen.why, "sought": chosen.sought})
        return
    say(f"{chosen.id} {chosen.slug}: {chosen.title} ({chosen.contract})", bold=True)
    say(f"\n{chosen.why.strip()}\n\nLooks for {chosen.sought}.")
    say(f"See the change: bitpatch diff {chosen.id}. Have it judged: bitpatch verify {chosen.id}.")


@app.command()
@guarded
def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that does not exist yet, or is empty.")],
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a fresh copy of the baseline tree."""
    from .patches.transaction import copy_baseline

    copy_baseline(folder)
    if not quiet:
        say(f"{folder}: a fresh BitTransformerLM tree; see what it lacks with: bitpatch status --tree {folder}")


@app.command()
@guarded
def status(
    tasks: Tasks = None,
    tree: Tree = Path(),
    check: Check = False,
    as_format: AsFormat = Format.TEXT,
    as_json: Json = False,
    quiet: Quiet = False,
    jobs: Jobs = 1,
    debug: Debug = False,
) -> None:
    """Say which tasks a tree holds, and where."""
    from .patches.survey import survey
    from .patches.task import State

    chosen = choose(tasks, every=not tasks)
    with opened(tree, shared=True) as source_tree:
        found = survey(source_tree, chosen)
    if as_format == Format.JSON:
        show_json({"tree": str(tree), "tasks": [one.to_json() for one in found]})
    elif not quiet:
        show_findings(found)
    if check and any(s.state is not State.APPLIED for s in found):
        raise typer.Exit(EXIT_CHANGES)


@app.command()
@guarded
def diff(
    tasks: Tasks = None,
    every: All = False,
    tree: Tree = Path(),
    as_format: Annotated[DiffFormat, typer.Option("--format", help="patch is for git apply.")] = DiffFormat.TEXT,
    as_json: Json = False,
    quiet: Quiet = False,
    jobs: Jobs = 1,
    debug: Debug = False,
) -> None:
    """Show what apply would write."""
    from .patches.engine import plan, unified

    with opened(tree, shared=True) as source_tree:
        planned = plan(source_tree, choose(tasks, every), quick=True)
    require_accepted(planned)
    lines = [line for change in planned.changes for line in unified(change)]
    if quiet:
        return
    if as_format == DiffFormat.JSON:
        text = b"".join(lines).decode(errors="replace")
        show_json({"tree": str(tree), "written": False, **planned.to_json(), "diff": text})
    elif as_format == DiffFormat.PATCH:
        sys.stdout.buffer.write(b"".join(lines))
    else:
        show_diff(lines)


@app.command("apply", help="Apply tasks to a tree: all of them, or none.")
@app.command("revert", help="Take back tasks that bitpatch applied, and keep what was edited by hand since.")
@guarded
def enact(
    context: typer.Context,
    tasks: Tasks = None,
    every: All = False,
    tree: Tree = Path(),
    dry_run: DryRun = False,
    check: Check = False,
    as_format: AsFormat = Format.TEXT,
    as_json: Json = False,
    quiet: Quiet = False,
    jobs: Jobs = 1,
    debug: Debug = False,
) -> None:
    """Plan under the tree's lock, write unless asked not to, and say what was done."""
    from .patches.originals import load
    from .patches.revert import plan_apply, plan_revert
    from .patches.transaction import write

    chosen = choose(tasks, every)
    with opened(tree) as source_tree:
        if context.info_name == "apply":
            planned, originals = plan_apply(source_tree, chosen, tell=warn)
        else:
            planned, originals = plan_revert(source_tree, load(tree), chosen, every=every)
        writes = not (dry_run or check or planned.refused)
        if writes:
            write(tree, planned.changes, originals, tell=warn)
    if as_format == Format.JSON:
        show_json({"tree": str(tree), "written": writes and bool(planned.changes), **planned.to_json()})
    elif not quiet and not planned.refused:
        show_outcomes(planned, written=writes)
    require_accepted(planned)
    if check and planned.changes:
        raise typer.Exit(EXIT_CHANGES)


@app.command()
@guarded
def verify(
    tasks: Tasks = None,
    every: All = False,
    tree: OptionalTree = None,
    as_format: AsFormat = Format.TEXT,
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write the result to a file.")] = None,
    sanity_fit: Annotated[bool | None, typer.Option(help="A short training run; default: with --all.")] = None,
    jobs: Jobs = 2,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Judge by behaviour whether tasks hold in a tree."""
    from .verify import report as reports
    from .verify import runner

    every = every or not tasks
    chosen = choose(tasks, every)
    where = tree if tree is not None else here_or_reference()
    with opened(where, shared=True) as source_tree:
        package = Path(source_tree.model_path).parent
    try:
        with shown_progress(quiet) as show, runner.Zygote() as zygote:
            report = runner.verify(
                where / package.parent,
                [task.number for task in chosen],
                sanity_fit=every if sanity_fit is None else sanity_fit,
                jobs=jobs,
                zygote=zygote,
                on_event=show,
            )
    except runner.VerifyUnavailable as error:
        fail(str(error), EXIT_UNPROVEN)
    if output is not None or as_format == Format.JSON or not quiet:
        with output.open("w", encoding="utf-8") if output is not None else nullcontext(sys.stdout) as stream:
            if as_format == Format.JSON:
                stream.write(json.dumps(report.to_json(), indent=2) + "\n")
            else:
                reports.write_text(report, stream)
    raise typer.Exit(reports.exit_code(report))


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Further flags go to the tree's own command line: bitpatch train task-a -- --help lists them. "
    "Exit codes: 0 done, 1 stopped by the safety gate, 2 usage, 3 refused, 130 interrupted.",
)
@guarded
def train(
    context: typer.Context,
    preset: Annotated[Preset | None, typer.Argument(help="Its flags; those that follow override them.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the order, what is done, and what comes next.")] = False,
    runs: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where runs lie, for --plan.")] = Path("runs"),
    tree: OptionalTree = None,
    as_format: AsFormat = Format.TEXT,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Start a run of Phase 2, or go on with one; or show with --plan what is done."""
    from .patches.engine import all_tasks
    from .patches.survey import survey
    from .verify import phases, run_folder

    if plan == (preset is not None) or (plan and context.args):
        fail("name a run, task-a, task-b or task-c, or give --plan alone", EXIT_USAGE)
    where = tree if tree is not None else here_or_reference("planning with" if plan else "training with")
    with opened(where, shared=True) as source_tree:
        root = where / Path(source_tree.model_path).parent.parent
        states = {one.task.id: str(one.state) for one in survey(source_tree, all_tasks())}
    if preset is None:
        steps = phases.order(states, runs, tree)
        if as_format == Format.JSON:
            show_json(phases.to_json(steps, where, runs))
        else:
            rows = [(step.name, step.state, step.detail, step.needs, step.command) for step in steps]
            show_table(("step", "state", "", "needs", "command"), rows)
        return
    if reason := phases.refusal(root, states, where):
        fail(reason, EXIT_REFUSED)
    for doubt in phases.doubts(preset, states, runs):
        warn(f"note: {doubt}")
    command = phases.command(str(preset), context.args)
    os.execve(command[0], command, run_folder.tree_environment(root))  # noqa: S606 - a signal is to reach the run itself


@app.command()
@guarded
def validate(
    preset: Annotated[Preset, typer.Argument(help="The run to judge.")],
    folder: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="The run's folder; default: runs/ and its name.")
    ] = None,
    tree: OptionalTree = None,
    as_format: AsFormat = Format.TEXT,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Judge by behaviour whether a finished run of Phase 2 reached its thresholds."""
    from .verify import phases, run_folder, validation

    run = run_folder.read_run(phases.RUNS / preset if folder is None else folder)
    if run.values["preset"] != preset:
        fail(f"{run.folder} holds a run of {run.values['preset']}, not of {preset}", EXIT_USAGE)
    where = tree if tree is not None else here_or_reference()
    with opened(where, shared=True) as source_tree:
        root = where / Path(source_tree.model_path).parent.parent
    if reason := phases.no_runs(root):
        fail(reason, EXIT_REFUSED)
    if reason := phases.no_packages():
        fail(reason, EXIT_UNPROVEN)
    with shown_progress(quiet) as show:
        found = validation.validate(root, run, on_event=show)
    if as_format == Format.JSON:
        show_json(found.to_json())
    elif not quiet:
        show_table(validation.COLUMNS, [judged.cells() for judged in found.judged])
    kept = validation.write_validation(found)
    if not quiet:
        warn(f"{run.folder}: {found.verdict}; kept in {kept}")
    raise typer.Exit(validation.EXIT_CODES[found.verdict])


def here_or_reference(doing: str = "judging") -> Path:
    """The folder this runs in if it holds a tree, else the embedded reference."""
    from .patches.donor import REFERENCE
    from .patches.source import open_tree
    from .patches.task import BitpatchError

    try:
        return open_tree(Path()).root
    except BitpatchError:
        say(f"no BitTransformerLM tree here: {doing} the embedded reference, {REFERENCE}", err=True)
        return REFERENCE


@contextmanager
def opened(tree: Path, *, shared: bool = False) -> Iterator[SourceTree]:
    """The tree under its lock, after a killed run was recovered."""
    from .patches.source import open_tree, require_folder
    from .patches.transaction import locked

    require_folder(tree)
    gc.disable()  # a run lives for a second: collecting would walk its syntax trees again and again
    with locked(tree, shared=shared, tell=warn):
        yield open_tree(tree)
    gc.freeze()  # nor are they walked when Python ends


def choose(names: Sequence[str] | None, every: bool) -> list[Task]:
    """The tasks that the command line names."""
    from .patches.engine import all_tasks, task_named

    if bool(names) == every:
        fail("name one task or more, or give --all; bitpatch list shows them", EXIT_USAGE)
    try:
        return list(all_tasks()) if every else list(dict.fromkeys(task_named(name) for name in names or ()))
    except KeyError as error:
        fail(error.args[0], EXIT_USAGE)


def require_accepted(planned: Plan) -> None:
    """Leave with the reasons if a task was refused."""
    reasons = dict.fromkeys(outcome.reason for outcome in planned.outcomes if outcome.outcome == "refused")
    if planned.refused:
        fail("\n".join(["refused, and nothing was written", *reasons]), EXIT_REFUSED)


def main() -> None:
    """Run the command line."""
    restart_clean(sys.argv[1:])
    app(prog_name="bitpatch")


if __name__ == "__main__":
    main()
