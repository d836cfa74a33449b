"""The door: what each command of `bitpatch` takes, and what does its work."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import __version__, parameters, screen
from .__main__ import lacking, undoing, wants_json
from .screen import guarded
from .verify.running.clean_start import restart_clean

if TYPE_CHECKING:
    from .patches.reading.tree import SourceTree

app = typer.Typer(
    name="bitpatch",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done or verified, 1 changes needed (--check), 2 usage, 3 refused, 4 violated, 5 unproven, "
    "6 cannot read or write.",
)


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
def list_tasks(as_format: parameters.AsFormat = parameters.Format.TEXT, quiet: parameters.Quiet = False) -> None:
    """List the tasks."""
    from .patches.known import all_tasks

    if as_format == parameters.Format.JSON:
        screen.show_json({"tasks": [task.to_json() for task in all_tasks()]})
    elif not quiet:
        rows = [(task.id, task.slug, str(task.contract), task.summary) for task in all_tasks()]
        screen.show_table(("task", "slug", "contract", "summary"), rows, typed=("task", "slug"))
        screen.show_next("bitpatch explain TASK")


@app.command()
@guarded
def explain(
    task: parameters.OneTask,
    tree: parameters.TreeToLookAt = None,
    as_format: parameters.AsFormat = parameters.Format.TEXT,
    quiet: parameters.Quiet = False,
) -> None:
    """Say what a task changes, why, and what it promises; of a tree, which of its conditions hold, and where."""
    from .patches.applying.asked import again, tasks_asked
    from .patches.applying.engine import diff_of, plan, status

    (chosen,) = tasks_asked([task], every=False)
    on_tree, found, shown = {}, None, b""
    if tree is not None:
        with locked_tree(tree, shared=True) as source_tree:
            (found,) = status(source_tree, [chosen])
            shown = diff_of(plan(source_tree, [chosen], quick=True).changes)
            on_tree = {"tree": str(tree), **found.explained(), "diff": shown.decode(errors="replace")}
    if as_format == parameters.Format.JSON:
        screen.show_json({**chosen.to_json(), "why": chosen.why, "sought": chosen.sought, **on_tree})
    elif not quiet:
        screen.show_task(chosen, found, shown)
        screen.show_next(f"{again('diff', [chosen], tree)}, or {again('verify', [chosen], tree)}")


@app.command()
@guarded
def new(
    folder: parameters.NewFolder,
    as_format: parameters.AsFormat = parameters.Format.TEXT,
    quiet: parameters.Quiet = False,
) -> None:
    """Make a fresh copy of the baseline tree."""
    from .patches.applying.transaction import copy_baseline

    undoing()
    copy_baseline(folder)
    if as_format == parameters.Format.JSON:
        screen.show_json({"tree": str(folder)})
    elif not quiet:
        screen.say(f"{folder}: a fresh BitTransformerLM tree")
        screen.show_next(shlex.join(["bitpatch", "status", "--tree", str(folder)]))


@app.command()
@guarded
def status(
    tasks: parameters.Tasks = None,
    tree: parameters.Tree = Path(),
    at: parameters.At = None,
    check: parameters.Check = False,
    verbose: parameters.Verbose = False,
    as_format: parameters.AsFormat = parameters.Format.TEXT,
    quiet: parameters.Quiet = False,
) -> None:
    """Say which tasks a tree holds, and where."""
    from .patches.applying.asked import again, narrowed, tasks_asked
    from .patches.applying.survey import survey
    from .patches.task import State

    chosen = tasks_asked(tasks, every=not tasks)
    with locked_tree(tree, shared=True) as source_tree:
        found = survey(narrowed(source_tree, chosen, at), chosen)
    screen.warn_of_unused(found)
    if as_format == parameters.Format.JSON:
        screen.show_json({"tree": str(tree), "tasks": [one.to_json() for one in found]})
    elif not quiet:
        screen.show_findings(found, with_places=verbose or bool(tasks))
        lacking = [one.task for one in found if one.state in (State.MISSING, State.PARTIAL)]
        screen.show_next(again("apply", lacking, tree, at) if lacking else again("verify", chosen, tree))
    if check and any(s.state is not State.APPLIED for s in found):
        raise typer.Exit(screen.EXIT_CHANGES)


@app.command("seams")
@guarded
def show_seams(
    tree: parameters.Tree = Path(),
    write: parameters.Write = False,
    as_format: parameters.AsFormat = parameters.Format.TEXT,
    quiet: parameters.Quiet = False,
) -> None:
    """Say where a tree has what patches and judges need of it, and what settles the rest."""
    from .patches.applying import driver
    from .patches.reading import seams

    with locked_tree(tree, shared=not write, others="any") as source_tree:
        found = seams.seams(source_tree)
        written = driver.write_draft(tree, found) if write else None
    if as_format == parameters.Format.JSON:
        screen.show_json({"tree": str(tree), "seams": [each.to_json() for each in found]})
    elif not quiet:
        for each in found:
            screen.show_block(each.name, each.state, each.lines(), **screen.STYLES[each.state])
        screen.show_next(f"edit {written}" if written else source_tree.command(*source_tree.first_step))


@app.command()
@guarded
def diff(
    tasks: parameters.Tasks = None,
    every: parameters.All = False,
    tree: parameters.Tree = Path(),
    at: parameters.At = None,
    as_format: parameters.AsDiff = parameters.DiffFormat.TEXT,
    quiet: parameters.Quiet = False,
) -> None:
    """Show what apply would write."""
    from .patches.applying.asked import again, narrowed, tasks_asked
    from .patches.applying.engine import diff_of, plan

    chosen = tasks_asked(tasks, every=every)
    with locked_tree(tree, shared=True) as source_tree:
        planned = plan(narrowed(source_tree, chosen, at), chosen, quick=True)
    shown = diff_of(planned.changes)
    if as_format == parameters.DiffFormat.JSON:
        screen.show_json({"tree": str(tree), **planned.to_json(), "diff": shown.decode(errors="replace")})
    screen.require_accepted(planned)
    if quiet or as_format == parameters.DiffFormat.JSON:
        return
    screen.show_diff(shown, as_it_is=as_format == parameters.DiffFormat.PATCH)
    screen.show_next(again("apply", chosen, tree, at) if shown else again("verify", chosen, tree))


def enact(
    context: typer.Context,
    tasks: parameters.Tasks = None,
    every: parameters.All = False,
    tree: parameters.Tree = Path(),
    at: parameters.At = None,
    dry_run: parameters.DryRun = False,
    check: parameters.Check = False,
    prove: parameters.Prove = False,
    keep_going: parameters.KeepGoing = False,
    as_format: parameters.AsFormat = parameters.Format.TEXT,
    quiet: parameters.Quiet = False,
) -> None:
    """Plan under the tree's lock, write unless asked not to, and say what was done."""
    from .patches.applying.asked import again, narrowed, tasks_asked
    from .patches.applying.originals import load
    from .patches.applying.revert import plan_apply, plan_revert
    from .patches.applying.transaction import write

    chosen, command, code = tasks_asked(tasks, every=every), context.info_name or "", 0
    with locked_tree(tree) as source_tree:
        if command == "apply":
            source_tree = narrowed(source_tree, chosen, at)
            planned, originals = plan_apply(source_tree, chosen, tell=screen.warn, keep_going=keep_going)
        else:
            planned, originals = plan_revert(source_tree, load(tree), chosen, every=every)
        if prove and planned.changes:
            from .verify.running.proof import proved

            package = Path(source_tree.model_path).parent
            planned, code = proved(tree, package, planned, screen.shown_progress(quiet))
        writes = not (dry_run or check or code) and (keep_going or not planned.refused)
        if writes:
            write(tree, planned.changes, originals, tell=screen.warn)
    if as_format == parameters.Format.JSON:
        screen.show_json({"tree": str(tree), **planned.to_json(written=writes)})
    elif not quiet and (writes or not planned.refused):
        screen.show_outcomes(planned, written=writes)
    screen.require_accepted(planned, written=writes, code=code)
    if as_format != parameters.Format.JSON and not quiet:
        done = writes or not planned.changes
        then = {"apply": "verify", "revert": "status"}[command] if done else command
        screen.show_next(again(then, chosen, tree, None if done else at))
    if check and planned.changes:
        raise typer.Exit(screen.EXIT_CHANGES)


app.command("apply", help="Apply tasks to a tree: all of them, or none.")(guarded(enact))
app.command("revert", help="Take tasks back that bitpatch applied; later edits by hand stay.")(
    guarded(enact, without=("at", "prove", "keep_going"))
)


@app.command()
@guarded
def verify(
    tasks: parameters.Tasks = None,
    every: parameters.All = False,
    tree: parameters.OptionalTree = None,
    as_format: parameters.AsResult = parameters.ResultFormat.TEXT,
    output: parameters.Output = None,
    reports: parameters.Reports = None,
    sanity_fit: parameters.WithFit = None,
    jobs: parameters.Jobs = 2,
    thorough: parameters.Thorough = 0.0,
    since: parameters.Since = None,
    script: parameters.Script = None,
    updates: parameters.Updates = 200,
    seconds: parameters.ScriptSeconds = 120.0,
    quiet: parameters.Quiet = False,
) -> None:
    """Judge by behaviour whether tasks hold in a tree."""
    from .patches.applying.asked import again, tasks_asked, tree_or_reference
    from .verify.rendering import terminal
    from .verify.running import runner
    from .verify.running.driven import driving
    from .verify.scripts.judging import judge_tree
    from .verify.since.judged import compare

    if script is not None:
        trees = {"--all": every, "--tree": tree, "--since": since, "--thorough": thorough, "--sanity-fit": sanity_fit}
        run = script, tasks or (), updates, seconds
        raise typer.Exit(terminal.give_script(*run, trees, as_format, output, reports or (), quiet=quiet))
    chosen = tasks_asked(tasks, every=(every := every or not tasks))
    where = tree_or_reference(tree, "judging", None if quiet else screen.warn, others="driven")
    with locked_tree(where, shared=True, others="driven") as source_tree:
        is_ours = terminal.is_ours(source_tree, {"--since": since, "--sanity-fit": sanity_fit})
        package, driven = Path(source_tree.model_path).parent, driving(source_tree, tasks_asked([], every=True))
        shown = terminal.look(source_tree, chosen, str(where), as_format, output, reports or ())
        compared = None if since is None else compare(source_tree, since, chosen, driven)
    numbers = [task.number for task in (chosen if compared is None else compared.judged)]
    fits = is_ours and every and bool(numbers) if sanity_fit is None else sanity_fit
    with screen.shown_progress(quiet) as show, runner.Zygote(needed=bool(numbers) or fits) as zygote:
        how: dict[str, Any] = {"zygote": zygote, "jobs": jobs, "on_event": show, "seconds": 60 * thorough}
        if driven is not None and not is_ours:
            bounds, tell = (updates, seconds), screen.warn
            report = judge_tree(where, numbers, driven, bounds, every=every, tell=tell, **how)
        else:
            top = where / package.parent if driven is None else where
            report = runner.verify(top, numbers, sanity_fit=fits, driving=driven, since=compared, **how)
    code = terminal.give(shown(report), as_format, output, reports or (), quiet=quiet)
    if as_format == parameters.ResultFormat.TEXT and not quiet and code == 0:
        after = "bitpatch train --plan" if every else again("verify", None, tree)
        screen.show_next(after if is_ours else source_tree.command("verify", "--report", "page.html"))
    raise typer.Exit(code)


@app.command()
@guarded
def bench(
    tasks: parameters.Tasks = None,
    every: parameters.All = False,
    tree: parameters.Tree = Path(),
    seconds: parameters.Seconds = 140.0,
    reports: parameters.Pictures = None,
    as_format: parameters.AsFormat = parameters.Format.TEXT,
    quiet: parameters.Quiet = False,
) -> None:
    """Measure what each task does to speed and memory, on this tree and this machine."""
    from .patches.applying.asked import tasks_asked
    from .verify.rendering import effects

    chosen, opened = tasks_asked(tasks, every=every or not tasks), locked_tree(tree, shared=True)
    shown, as_json = screen.shown_progress(quiet), as_format == parameters.Format.JSON
    raise typer.Exit(effects.bench(opened, chosen, seconds, reports or (), shown, as_json=as_json, quiet=quiet))


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Further flags go to the tree's own command line: bitpatch train task-a -- --help lists them. "
    "Exit codes: 0 done, 1 stopped by the safety gate, 2 usage, 3 refused, 130 interrupted.",
)
@guarded
def train(
    context: typer.Context,
    preset: parameters.RunToStart = None,
    plan: parameters.ShowPlan = False,
    runs: parameters.Runs = Path("runs"),
    tree: parameters.OptionalTree = None,
    as_format: parameters.AsFormat = parameters.Format.TEXT,
    quiet: parameters.Quiet = False,
) -> None:
    """Start or resume a run of Phase 2, or show the --plan of all."""
    from .patches.applying.asked import tree_or_reference
    from .patches.applying.survey import survey
    from .patches.known import all_tasks
    from .verify.phase2 import phases, run_folder

    phases.require_one(preset, context.args, plan=plan)
    where = tree_or_reference(tree, "planning with" if plan else "training with", None if quiet else screen.warn)
    with locked_tree(where, shared=True) as source_tree:
        root = where / Path(source_tree.model_path).parent.parent
        states = {one.task.id: str(one.in_code) for one in survey(source_tree, all_tasks())}
    if preset is None:
        as_json = as_format == parameters.Format.JSON
        phases.show_order(phases.order(states, runs, tree), where, runs, as_json=as_json, quiet=quiet)
        return
    phases.require_ready(root, states, where, () if quiet else phases.doubts(preset, states, runs))
    command = phases.command(str(preset), context.args)
    if as_format == parameters.Format.JSON:
        screen.show_json({"tree": str(where), "preset": str(preset), "command": command})
    screen.flushed()
    os.execve(command[0], command, run_folder.tree_environment(root))  # noqa: S606 - a signal is to reach the run itself


@app.command()
@guarded
def validate(
    preset: parameters.Run,
    folder: parameters.RunFolder = None,
    tree: parameters.OptionalTree = None,
    as_format: parameters.AsFormat = parameters.Format.TEXT,
    quiet: parameters.Quiet = False,
) -> None:
    """Judge whether a finished run of Phase 2 is good enough."""
    from .patches.applying.asked import tree_or_reference
    from .verify.phase2 import phases, run_folder, validation

    run = phases.run_of(preset, run_folder.read_run(phases.RUNS / preset if folder is None else folder))
    where = tree_or_reference(tree, "judging", None if quiet else screen.warn)
    with locked_tree(where, shared=True) as source_tree:
        root = where / Path(source_tree.model_path).parent.parent
    phases.require_runs(root)
    with screen.shown_progress(quiet) as show:
        found = validation.validate(root, run, on_event=show)
    raise typer.Exit(validation.give(found, as_json=as_format == parameters.Format.JSON, quiet=quiet))


def locked_tree(tree: Path, *, shared: bool = False, others: str = "") -> AbstractContextManager[SourceTree]:
    """The tree under its lock, of `others` models too; what is begun is undone if a signal comes."""
    from .patches.applying.opening import opened

    undoing()
    return opened(tree, shared=shared, tell=screen.warn, others=others)


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
