"""What commands take: arguments and options, described for --help, and completed by a shell."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .patches.known import slugs


class Format(StrEnum):
    """How a result is printed."""

    TEXT = "text"
    JSON = "json"


class DiffFormat(StrEnum):
    """How a diff is printed."""

    TEXT = "text"
    JSON = "json"
    PATCH = "patch"


class ResultFormat(StrEnum):
    """How what the judges say is printed."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    JUNIT = "junit"
    GITHUB = "github"


class Preset(StrEnum):
    """A run of Phase 2."""

    A = "task-a"
    B = "task-b"
    C = "task-c"


def completed(begun: str) -> list[tuple[str, str]]:
    """The names of tasks that begin so: a shell waits, so nothing of them is imported."""
    pairs = [*slugs().items(), *((slug, name) for name, slug in slugs().items())]
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
At = Annotated[
    Path | None,  # so that a shell completes it as far as it goes
    typer.Option("--at", metavar="PATH:LINE", help="Of the one task that is named, the site at this line alone."),
]
TreeToLookAt = Annotated[
    Path | None, typer.Option("--tree", metavar="DIR", help="Say what of it this BitTransformerLM tree has, and where.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
AsResult = Annotated[ResultFormat, typer.Option("--format", help="How the result is printed.")]
Reports = Annotated[
    list[Path] | None,
    typer.Option("--report", metavar="FILE.html", help="Write it here too: a page, or .sarif, .xml (JUnit), .json."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Of all tasks too, every place that says so.")]
Output = Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write the result to a file.")]
WithFit = Annotated[
    bool | None, typer.Option("--sanity-fit/--no-sanity-fit", help="A short training run; default: with --all.")
]
Jobs = Annotated[int, typer.Option("-j", metavar="N", min=1, help="Checks at once.")]
Thorough = Annotated[float, typer.Option("--thorough", metavar="MINUTES", min=0, help="Try random points for so long.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="REF", help="Judge what changed since a commit, and the tests' number.")
]
Script = Annotated[
    Path | None,
    typer.Option("--script", metavar="FILE.py", help="Judge a training script, any; its arguments follow after --."),
]
Updates = Annotated[int, typer.Option("--updates", metavar="N", min=0, help="Of a script: so many; 0: all.")]
ScriptSeconds = Annotated[float, typer.Option("--seconds", metavar="S", min=1, help="Of a script: CPU time, at most.")]
Seconds = Annotated[float, typer.Option("--seconds", metavar="N", min=1, help="How long to measure, about.")]
Pictures = Annotated[
    list[Path] | None, typer.Option("--report", metavar="FILE.svg", help="Write it here too: bars, or .json.")
]
Write = Annotated[bool, typer.Option("--write", help="Begin bitpatch_seams.py with what was found.")]
Prove = Annotated[bool, typer.Option("--prove", help="Write only what the judges verify, in a copy.")]
KeepGoing = Annotated[bool, typer.Option("--keep-going", help="Apply what can be, name the rest, exit 3.")]
ShowPlan = Annotated[bool, typer.Option("--plan", help="Show the order, what is done, and what comes next.")]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where runs lie, for --plan.")]
RunFolder = Annotated[
    Path | None, typer.Option("--run", metavar="DIR", help="The run's folder; default: runs/ and its name.")
]
Run = Annotated[Preset, typer.Argument(metavar="RUN", help="task-a, task-b or task-c.")]
RunToStart = Annotated[
    Preset | None,
    typer.Argument(metavar="RUN", help="task-a, task-b or task-c: its flags; those that follow override them."),
]
AsDiff = Annotated[DiffFormat, typer.Option("--format", help="patch is for git apply.")]
NewFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that does not exist yet, or is empty.")]
