"""A result on a terminal, or wherever else it is asked for."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ...__main__ import AGAIN, EXIT_IO
from ...patches.task import Task
from ...patches.tree import SourceTree
from ...screen import EXIT_USAGE, STYLES, fail, in_colour, is_terminal, printed, save, say, show_table
from ..running.proof import fitted
from . import forms
from .github import summary
from .report import COLUMNS, Report, cells, complaints, exit_code, fit_summary, text_of
from .surroundings import Shown, looked_round


def look(
    tree: SourceTree, tasks: Sequence[Task], named: str, form: str, files: Sequence[Path]
) -> Callable[[Report], Shown]:
    """What a tree's source says beside the verdict, as it is before it is judged: where a form says that.

    Ends the command, before the judges run, where the name of a file in `files` says no form, or its folder takes none.
    """
    for file in files:
        if file.suffix not in forms.BY_SUFFIX:
            known = ", ".join(forms.BY_SUFFIX)
            fail(f"--report {file}: its name is to end in one of {known}", EXIT_USAGE, "bitpatch verify -h")
        if not os.access(file.parent, os.W_OK):
            why = "no folder that can be written to" if file.parent.exists() else "no such folder"
            fail(f"{file.parent}: {why}", EXIT_IO, f"name another file with --report, then {AGAIN}")
    told = {form, *(forms.BY_SUFFIX[file.suffix] for file in files)}
    return looked_round(tree, tasks, named) if told & forms.TELLING else Shown


def give(shown: Shown, form: str, output: Path | None, files: Sequence[Path], *, quiet: bool) -> int:
    """Print what verify found out, or write it to a file, and to further ones in their forms; gives the exit code."""
    if output is not None:
        save(output, forms.FORMS[form](shown), "--output")
    elif form != "text":
        printed(forms.FORMS[form](shown))
    elif not quiet:
        show(shown.report)
    if form == "github" and (summed := os.environ.get("GITHUB_STEP_SUMMARY")):
        save(Path(summed), summary(shown), "GITHUB_STEP_SUMMARY", "a")
    pages = [file for file in files if file.suffix == ".html"]
    if pages and shown.report.sanity_fit is not None and shown.unpatched:
        shown = replace(shown, before=fitted(shown.root, shown.unpatched))
    for file in files:
        save(file, forms.FORMS[forms.BY_SUFFIX[file.suffix]](shown), "--report")
    return exit_code(shown.report)


def show(report: Report) -> None:
    """What verify found out: a table a task on a terminal, then what needs saying of checks that did not pass."""
    if not (is_terminal(sys.stdout) or in_colour(sys.stdout)):
        printed(text_of(report))
        return
    for task in report.tasks:
        say(f"{task.id} ", nl=False, bold=True)
        say(task.verdict, **STYLES[task.verdict])
        if task.checks:
            show_table(COLUMNS, [cells(check) for check in task.checks], typed=("check",))
        say("\n".join([*complaints(task), ""]))
    if report.sanity_fit is not None:
        say("sanity fit ", nl=False, bold=True)
        say(report.sanity_fit.verdict, nl=False, **STYLES[report.sanity_fit.verdict])
        say(f"  {fit_summary(report.sanity_fit)}")
    say("\n".join([*(report.since.lines() if report.since else ()), f"{report.tree}: "]), nl=False)
    say(report.verdict, nl=False, **STYLES[report.verdict])
    say(f" in {report.seconds:.1f} s")
