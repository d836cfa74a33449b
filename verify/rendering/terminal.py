"""A result on a terminal, or wherever else it is asked for."""

import os
import sys
from pathlib import Path

from ...screen import STYLES, in_colour, is_terminal, printed, save, say, show_table
from . import forms
from .github import summary
from .report import COLUMNS, Report, cells, complaints, fit_summary, text_of
from .surroundings import Shown


def give(shown: Shown, form: str, output: Path | None, page: Path | None, *, quiet: bool) -> None:
    """What verify found out, in some form, to a file or to standard output; and as a page where one is asked for."""
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
    say(f"{report.tree}: ", nl=False)
    say(report.verdict, nl=False, **STYLES[report.verdict])
    say(f" in {report.seconds:.1f} s")
