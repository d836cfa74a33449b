"""A result on a terminal, or wherever else it is asked for."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ...patches.task import Task
from ...patches.tree import SourceTree
from ...screen import STYLES, in_colour, is_terminal, printed, save, say, show_table
from . import forms
from .github import summary
from .report import COLUMNS, Report, cells, complaints, exit_code, fit_summary, text_of
from .surroundings import Shown, looked_round


def look(
    tree: SourceTree, tasks: Sequence[Task], named: str, form: str, page: Path | None
) -> Callable[[Report], Shown]:
    """What a tree's source says beside the verdict, as it is before it is judged: where the form says that."""
    return looked_round(tree, tasks, named) if page is not None or form in forms.TELLING else Shown


def give(shown: Shown, form: str, output: Path | None, page: Path | None, *, quiet: bool) -> int:
    """Print what verify found out, or write it to a file, and to a page where one is asked for; gives the exit code."""
    if output is not None:
        save(output, forms.FORMS[form](shown), "--output")
    elif form != "text":
        printed(forms.FORMS[form](shown))
    elif not quiet:
        show(shown.report)
    if form == "github" and (summed := os.environ.get("GITHUB_STEP_SUMMARY")):
        save(Path(summed), summary(shown), "GITHUB_STEP_SUMMARY", "a")
    if page is not None:
        save(page, forms.page(shown), "--report")
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
