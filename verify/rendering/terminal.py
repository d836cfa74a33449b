"""A result on a terminal, or wherever else it is asked for."""

import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...__main__ import AGAIN, EXIT_IO
from ...patches.reading.tree import SourceTree
from ...patches.task import Task
from ...screen import EXIT_USAGE, STYLES, OutputLost, fail, in_colour, is_terminal, printed, save, say, show_table
from ..running.proof import fitted
from ..scripts.judging import judge_script
from ..since.history import repository_around
from . import forms
from .github import summary
from .report import Report, complaints, exit_code, fit_summary, table, text_of
from .report import summary as summed
from .surroundings import Shown, looked_round, prefix_in_repository


def look(
    tree: SourceTree, tasks: Sequence[Task], named: str, form: str, output: Path | None, files: Sequence[Path]
) -> Callable[[Report], Shown]:
    """What a tree's source says beside the verdict, as it is before it is judged: where a form says that.

    Ends the command, before the judges run, where the name of a file in `files` says no form, or a file takes none.
    """
    require_forms(tree.root, output, files)
    if not tree.model_path:
        return partial(Shown, prefix=prefix_in_repository(tree.root), tree=named, root=tree.root)
    told = {form, *(forms.BY_SUFFIX[file.suffix] for file in files)}
    return looked_round(tree, tasks, named) if told & forms.TELLING else Shown


def require_forms(root: Path, output: Path | None, files: Sequence[Path]) -> None:
    """End the command where the name of a file says no form, or a file cannot be written to."""
    require_suffixes(files, forms.BY_SUFFIX, "verify")
    require_writable(root, [*([("--output", output)] if output else []), *(("--report", file) for file in files)])


def require_suffixes(files: Sequence[Path], known: Collection[str], command: str) -> None:
    """End a command where the name of a file that it is to report to says no form."""
    for file in files:
        if file.suffix not in known:
            words = f"--report {file}: its name is to end in one of {', '.join(known)}"
            fail(words, EXIT_USAGE, f"bitpatch {command} -h")


def require_writable(root: Path, files: Sequence[tuple[str, Path]]) -> None:
    """End the command where one of the files, each beside the option that names it, cannot be written to."""
    for option, each in files:
        if why := _refusal(each, repository_around(root)):
            fail(f"{each}: {why}", EXIT_IO, f"name another file with {option}, then {AGAIN}")


def _refusal(file: Path, repository: Path) -> str:
    """Why nothing can be written to a file, or is not to be; "" where it can."""
    if not file.parent.is_dir():
        return f"no such folder as {file.parent}"
    if file.is_dir():
        return "a folder"
    if Path(os.path.abspath(file)).is_relative_to(repository) and not file.resolve().is_relative_to(repository):
        return "a link of the tree leads out of it"
    return "" if os.access(file if file.exists() else file.parent, os.W_OK) else "cannot be written to"


def is_ours(tree: SourceTree, options: Mapping[str, object]) -> bool:
    """Whether a tree is of our model; ends the command where it is not, and options are given that are for such."""
    given = [name for name, value in options.items() if value and not tree.model_path]
    if given:
        fail(f"{', '.join(given)}: for BitTransformerLM trees, and this one is of another model", EXIT_USAGE, AGAIN)
    return bool(tree.model_path)


def give_script(
    path: Path,
    arguments: Sequence[str],
    updates: int,
    seconds: float,
    of_trees: Mapping[str, object],
    form: str,
    output: Path | None,
    files: Sequence[Path],
    *,
    quiet: bool,
) -> int:
    """Have a script judged, and give what was found; ends the command where options are given that are for trees."""
    if given := [option for option, value in of_trees.items() if value not in (None, False, 0.0)]:
        fail(
            f"{', '.join(given)}: for trees, and no script", EXIT_USAGE, "bitpatch verify --script FILE.py -- ARGUMENTS"
        )
    require_forms(Path.cwd(), output, files)
    return give(judge_script(path, arguments, updates, seconds), form, output, files, quiet=quiet)


def give(shown: Shown, form: str, output: Path | None, files: Sequence[Path], *, quiet: bool) -> int:
    """Print what verify found out, or write it to a file, and to further ones in their forms; gives the exit code."""
    with ExitStack() as each:  # of what is to be written, whatever becomes of the rest
        for file in files:
            each.callback(_write, shown, file)
        if form == "github" and (summed := os.environ.get("GITHUB_STEP_SUMMARY")):
            each.callback(save, Path(summed), summary(shown), "GITHUB_STEP_SUMMARY", "a")
        try:
            if output is not None:
                save(output, forms.FORMS[form](shown), "--output")
            elif form != "text":
                printed(forms.FORMS[form](shown))
            elif not quiet:
                show(shown.report)
        except OutputLost as lost:
            lost.code = exit_code(shown.report)
            raise
    return exit_code(shown.report)


def _write(shown: Shown, file: Path) -> None:
    """Write a result in the form that a file's name says; a page with the short training run of before."""
    if file.suffix == ".html" and shown.report.sanity_fit is not None and shown.unpatched:
        shown = replace(shown, before=fitted(shown.root, shown.unpatched))
    save(file, forms.FORMS[forms.BY_SUFFIX[file.suffix]](shown), "--report")


def show(report: Report) -> None:
    """What verify found out: a table a task on a terminal, then what needs saying of checks that did not pass."""
    if not (is_terminal(sys.stdout) or in_colour(sys.stdout)):
        say(text_of(report), nl=False)
        return
    for task in report.tasks:
        say(f"{task.id} ", nl=False, bold=True)
        say(task.verdict, **STYLES[task.verdict])
        if task.checks:
            show_table(*table(task), typed=("check",))
        say("\n".join([*complaints(task), ""]))
    if report.sanity_fit is not None:
        say("sanity fit ", nl=False, bold=True)
        say(report.sanity_fit.verdict, nl=False, **STYLES[report.sanity_fit.verdict])
        say(f"  {fit_summary(report.sanity_fit)}")
    for line in report.since.lines() if report.since else ():
        say(line)
    for name, verdict, checks in summed(report):
        say(f"{name}: ", nl=False)
        say(verdict, nl=False, **STYLES[verdict])
        say(f"  {checks}".rstrip())
    say(f"{report.tree}: ", nl=False)
    say(report.verdict, nl=False, **STYLES[report.verdict])
    say(f" in {report.seconds:.1f} s")
