"""The door: `bitpatch list | explain | new | status | diff | apply | revert | verify | train | validate`."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import __version__, screen
from .__main__ import lacking, undoing, wants_json
from .screen import DiffFormat, Format, guarded
from .verify.clean_start import restart_clean

if TYPE_CHECKING:
    from .patches.task import Plan
    from .patches.tree import SourceTree

app = typer.Typer(
    name="bitpatch",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done or verified, 1 changes needed (--check), 2 usage, 3 refused, 4 violated, 5 unproven, "
    "6 cannot read or write.",
)


class Preset(StrEnum):
    """A run of Phase 2."""

    A = "task-a"
    B = "task-b"
    C = "task-c"


def completed(begun: str) -> list[tuple[str, str]]:
    """The names of tasks that begin so, from the names of their files: a shell waits, so nothing is imported."""
    files = sorted((Path(__file__).parent / "patches").glob("task_*_*.py"))
    parts = [re.findall(r"task_0*(\d+)_(\w+)", file.stem)[0] for file in files]
    slugs = {f"task-{number}": slug.replace("_", "-") for number, slug in parts}
    pairs = [*slugs.items(), *((slug, name) for name, slug in slugs.items())]
    return [pair for pair in pairs if pair[0].startswith(begun)]


NAMES = {"help": "task-11, 11 or stitched-attention", "autocompletion": completed}
Tasks = Annotated[list[str] | None, typer.Argument(metavar="TASK...", **NAMES)]
OneTask = Annotated[str, typer.Argument(metavar="TASK", **NAMES)]
All = Annotated[bool, typer.Option("--all", help="Every task.")]
Tree = Annotated[Path, typer.Option("--tree", metavar="DIR", help="The BitTransformerLM tree.")]
OptionalTree = Annotated[
    Path | None, typer.Option("--tree", metavar="DIR", help="The tree; default: here, or the reference.")
]
AsFormat = Annotated[Format, typer.Option("--format", help="How the result is printed.")]
Check = Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if there is anything to do.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and write nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version, and leave.")] = False,
) -> None:
    """Patch a BitTransformerLM tree, and prove by behaviour that each patch holds."""
    if version:
        screen.say(f"bitpatch {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        screen.warn(context.get_help())
        raise typer.Exit(screen.EXIT_USAGE)


@app.command("list")
@guarded
def list_tasks(as_format: AsFormat = Format.TEXT, quiet: Quiet = False) -> None:
    """List the tasks."""
    from .patches.engine import all_tasks

    if as_format == Format.JSON:
        screen.show_json({"tasks": [task.to_json() for task in all_tasks()]})
    elif not quiet:
        rows = [(task.id, task.slug, str(task.contract), task.summary) for task in all_tasks()]
        screen.show_table(("task", "slug", "contract", "summary"), rows, typed=("task", "slug"))
        screen.show_next("bitpatch explain TASK")


@app.command()
@guarded
def explain(task: OneTask, as_format: AsFormat = Format.TEXT, quiet: Quiet = False) -> None:
    """Say what a task changes, why, and what it promises."""
    from .patches.asked import tasks_asked

    (chosen,) = tasks_asked([task], every=False)
    if as_format == Format.JSON:
        screen.show_json({**chosen.to_json(), "why": chosen.why, "sought": chosen.sought})
    elif not quiet:
        screen.say(f"{chosen.id} {chosen.slug}: {chosen.title} ({chosen.contract})", bold=True)
        screen.say(f"\n{chosen.why.strip()}\n\nLooks for {chosen.sought}.")
        screen.show_next(f"bitpatch diff {chosen.id}, or bitpatch verify {chosen.id}")


@app.command()
@guarded
def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that does not exist yet, or is empty.")],
    as_format: AsFormat = Format.TEXT,
    quiet: Quiet = False,
) -> None:
    """Make a fresh copy of the baseline tree."""
    from .patches.transaction import copy_baseline

    undoing()
    copy_baseline(folder)
    if as_format == Format.JSON:
        screen.show_json({"tree": str(folder)})
    elif not quiet:
        screen.say(f"{folder}: a fresh BitTransformerLM tree")
        screen.show_next(shlex.join(["bitpatch", "status", "--tree", str(folder)]))


@app.command()
@guarded
def status(
    tasks: Tasks = None,
    tree: Tree = Path(),
    check: Check = False,
    as_format: AsFormat = Format.TEXT,
    quiet: Quiet = False,
) -> None:
    """Say which tasks a tree holds, and where."""
    from .patches.asked import again, tasks_asked
    from .patches.survey import survey
    from .patches.task import State

    chosen = tasks_asked(tasks, every=not tasks)
    with locked_tree(tree, shared=True) as source_tree:
        found = survey(source_tree, chosen)
    if as_format == Format.JSON:
        screen.show_json({"tree": str(tree), "tasks": [one.to_json() for one in found]})
    elif not quiet:
        screen.show_findings(found)
        lacking = [one.task for one in found if one.state in (State.MISSING, State.PARTIAL)]
        screen.show_next(again("apply", lacking, tree) if lacking else again("verify", chosen, tree))
    if check and any(s.state is not State.APPLIED for s in found):
        raise typer.Exit(screen.EXIT_CHANGES)


@app.command()
@guarded
def diff(
    tasks: Tasks = None,
    every: All = False,
    tree: Tree = Path(),
    as_format: Annotated[DiffFormat, typer.Option("--format", help="patch is for git apply.")] = DiffFormat.TEXT,
    quiet: Quiet = False,
) -> None:
    """Show what apply would write."""
    from .patches.asked import again, tasks_asked
    from .patches.engine import plan, unified

    chosen = tasks_asked(tasks, every=every)
    with locked_tree(tree, shared=True) as source_tree:
        planned = plan(source_tree, chosen, quick=True)
    lines = [line for change in planned.changes for line in unified(change)]
    if as_format == DiffFormat.JSON:
        screen.show_json({"tree": str(tree), **planned.to_json(), "diff": b"".join(lines).decode(errors="replace")})
    screen.require_accepted(planned)
    if quiet or as_format == DiffFormat.JSON:
        return
    if as_format == DiffFormat.PATCH:
        screen.printed(b"".join(lines))
    else:
        screen.show_diff(lines)
    screen.show_next(again("apply" if lines else "verify", chosen, tree))


def enact(
    context: typer.Context,
    tasks: Tasks = None,
    every: All = False,
    tree: Tree = Path(),
    dry_run: DryRun = False,
    check: Check = False,
    prove: Annotated[bool, typer.Option("--prove", help="Write only what the judges verify, in a copy.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Apply what can be, name the rest, exit 3.")] = False,
    as_format: AsFormat = Format.TEXT,
    quiet: Quiet = False,
) -> None:
    """Plan under the tree's lock, write unless asked not to, and say what was done."""
    from .patches.asked import again, tasks_asked
    from .patches.originals import load
    from .patches.revert import plan_apply, plan_revert
    from .patches.transaction import write

    chosen, command, code = tasks_asked(tasks, every=every), context.info_name or "", 0
    with locked_tree(tree) as source_tree:
        if command == "apply":
            planned, originals = plan_apply(source_tree, chosen, tell=screen.warn, keep_going=keep_going)
        else:
            planned, originals = plan_revert(source_tree, load(tree), chosen, every=every)
        if prove and planned.changes:
            planned, code = proved(tree, Path(source_tree.model_path).parent, planned, quiet)
        writes = not (dry_run or check or code) and (keep_going or not planned.refused)
        if writes:
            write(tree, planned.changes, originals, tell=screen.warn)
    if as_format == Format.JSON:
        screen.show_json({"tree": str(tree), **planned.to_json(written=writes)})
    elif not quiet and (writes or not planned.refused):
        screen.show_outcomes(planned, written=writes)
    screen.require_accepted(planned, written=writes, code=code)
    if as_format != Format.JSON and not quiet:
        done = writes or not planned.changes
        screen.show_next(again({"apply": "verify", "revert": "status"}[command] if done else command, chosen, tree))
    if check and planned.changes:
        raise typer.Exit(screen.EXIT_CHANGES)


app.command("apply", help="Apply tasks to a tree: all of them, or none.")(guarded(enact))
app.command("revert", help="Take tasks back that bitpatch applied; later edits by hand stay.")(
    guarded(enact, without=("prove", "keep_going"))
)


def proved(tree: Path, package: Path, planned: Plan, quiet: bool) -> tuple[Plan, int]:
    """A plan with what the judges say of it, and the exit code that stands for that."""
    from .verify import proof, report, runner

    try:
        with screen.shown_progress(quiet) as show:
            found = proof.judged(tree, package, planned, show)
    except runner.VerifyUnavailable as error:
        screen.fail(str(error), screen.EXIT_UNPROVEN, "pip install 'bitpatch[verify]'")
    return proof.with_reasons(planned, found), report.exit_code(found)


@app.command()
@guarded
def verify(
    tasks: Tasks = None,
    every: All = False,
    tree: OptionalTree = None,
    as_format: AsFormat = Format.TEXT,
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write the result to a file.")] = None,
    sanity_fit: Annotated[bool | None, typer.Option(help="A short training run; default: with --all.")] = None,
    jobs: Annotated[int, typer.Option("-j", metavar="N", min=1, help="Checks at once.")] = 2,
    quiet: Quiet = False,
) -> None:
    """Judge by behaviour whether tasks hold in a tree."""
    from .patches.asked import again, tasks_asked, tree_or_reference
    from .verify import report as reports
    from .verify import runner

    every = every or not tasks
    chosen = tasks_asked(tasks, every=every)
    where = tree_or_reference(tree, "judging", None if quiet else screen.warn)
    with locked_tree(where, shared=True) as source_tree:
        package = Path(source_tree.model_path).parent
    try:
        with screen.shown_progress(quiet) as show, runner.Zygote() as zygote:
            report = runner.verify(
                where / package.parent,
                [task.number for task in chosen],
                sanity_fit=every if sanity_fit is None else sanity_fit,
                jobs=jobs,
                zygote=zygote,
                on_event=show,
            )
    except runner.VerifyUnavailable as error:
        screen.fail(str(error), screen.EXIT_UNPROVEN, "pip install 'bitpatch[verify]'")
    screen.give_report(report, output, as_json=as_format == Format.JSON, quiet=quiet)
    if as_format != Format.JSON and not quiet and report.verdict is reports.Outcome.VERIFIED:
        screen.show_next("bitpatch train --plan" if every else again("verify", None, tree))
    raise typer.Exit(reports.exit_code(report))


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Further flags go to the tree's own command line: bitpatch train task-a -- --help lists them. "
    "Exit codes: 0 done, 1 stopped by the safety gate, 2 usage, 3 refused, 130 interrupted.",
)
@guarded
def train(
    context: typer.Context,
    preset: Annotated[
        Preset | None,
        typer.Argument(metavar="RUN", help="task-a, task-b or task-c: its flags; those that follow override them."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the order, what is done, and what comes next.")] = False,
    runs: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where runs lie, for --plan.")] = Path("runs"),
    tree: OptionalTree = None,
    as_format: AsFormat = Format.TEXT,
    quiet: Quiet = False,
) -> None:
    """Start or resume a run of Phase 2, or show the --plan of all."""
    from .patches.asked import tree_or_reference
    from .patches.engine import all_tasks
    from .patches.survey import survey
    from .verify import phases, run_folder

    if plan == (preset is not None) or (plan and context.args):
        screen.fail(
            "name a run, task-a, task-b or task-c, or give --plan alone", screen.EXIT_USAGE, "bitpatch train --plan"
        )
    where = tree_or_reference(tree, "planning with" if plan else "training with", None if quiet else screen.warn)
    with locked_tree(where, shared=True) as source_tree:
        root = where / Path(source_tree.model_path).parent.parent
        states = {one.task.id: str(one.state) for one in survey(source_tree, all_tasks())}
    if preset is None:
        steps = phases.order(states, runs, tree)
        if as_format == Format.JSON:
            screen.show_json(phases.to_json(steps, where, runs))
        elif not quiet:
            screen.show_table(phases.COLUMNS, [step.cells() for step in steps], typed=("step", "command"))
            screen.show_next(next((step.command for step in steps if step.command), "bitpatch list"))
        return
    if reason := phases.refusal(root, states, where):
        screen.fail(reason, screen.EXIT_REFUSED, reason.rpartition(": ")[2].rpartition("; ")[2])
    for doubt in () if quiet else phases.doubts(preset, states, runs):
        screen.warn(f"note: {doubt}")
    command = phases.command(str(preset), context.args)
    if as_format == Format.JSON:
        screen.show_json({"tree": str(where), "preset": str(preset), "command": command})
    screen.flushed()
    os.execve(command[0], command, run_folder.tree_environment(root))  # noqa: S606 - a signal is to reach the run itself


@app.command()
@guarded
def validate(
    preset: Annotated[Preset, typer.Argument(metavar="RUN", help="task-a, task-b or task-c.")],
    folder: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="The run's folder; default: runs/ and its name.")
    ] = None,
    tree: OptionalTree = None,
    as_format: AsFormat = Format.TEXT,
    quiet: Quiet = False,
) -> None:
    """Judge whether a finished run of Phase 2 is good enough."""
    from .patches.asked import tree_or_reference
    from .verify import phases, run_folder, validation

    run = run_folder.read_run(phases.RUNS / preset if folder is None else folder)
    if run.values["preset"] != preset:
        own = str(run.values["preset"])
        screen.fail(
            f"{run.folder} holds a run of {own}, not of {preset}", screen.EXIT_USAGE, f"bitpatch validate {own}"
        )
    where = tree_or_reference(tree, "judging", None if quiet else screen.warn)
    with locked_tree(where, shared=True) as source_tree:
        root = where / Path(source_tree.model_path).parent.parent
    if reason := phases.no_runs(root):
        screen.fail(reason, screen.EXIT_REFUSED, "bitpatch new DIR")
    if reason := phases.no_packages():
        screen.fail(reason, screen.EXIT_UNPROVEN, "pip install 'bitpatch[train]'")
    with screen.shown_progress(quiet) as show:
        found = validation.validate(root, run, on_event=show)
    if as_format != Format.JSON and not quiet:
        screen.show_table(validation.COLUMNS, [judged.cells() for judged in found.judged], typed=("threshold",))
    kept = validation.write_validation(found)
    if as_format == Format.JSON:
        screen.show_json(found.to_json())
    if not quiet:
        screen.warn(f"{run.folder}: {found.verdict}; kept in {kept}")
    raise typer.Exit(validation.EXIT_CODES[found.verdict])


def locked_tree(tree: Path, *, shared: bool = False) -> AbstractContextManager[SourceTree]:
    """The tree under its lock; what is begun is undone if a signal comes."""
    from .patches.opening import opened

    undoing()
    return opened(tree, shared=shared, tell=screen.warn)


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line; ends with SystemExit."""
    if words is None:
        words = sys.argv[1:]
        restart_clean(words)
    screen.spell_everything()
    with screen.ending(as_json=wants_json(words), debug="--debug" in words):
        screen.require_output(words)
        if reason := lacking(words):
            screen.fail(reason, screen.EXIT_USAGE, f"bitpatch {words[0]} -h")
        command = typer.main.get_command(app)
        if "_BITPATCH_COMPLETE" in os.environ:
            command.main(words, prog_name="bitpatch")
        try:
            with command.make_context("bitpatch", list(words)) as context:
                command.invoke(context)
        except OSError as error:  # Click's own printing of help: what commands raise is dealt with
            raise screen.OutputLost from error
