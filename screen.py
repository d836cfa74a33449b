"""What the commands print, and how they end: texts, tables, JSON, progress, errors and their exit codes."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec

import typer

if TYPE_CHECKING:
    from .patches.task import Plan, TaskStatus
    from .verify.runner import Progress


EXIT_CHANGES, EXIT_USAGE, EXIT_REFUSED, EXIT_UNPROVEN, EXIT_IO, EXIT_INTERRUPTED = 1, 2, 3, 5, 6, 130


class Format(StrEnum):
    """How a result is printed."""

    TEXT = "text"
    JSON = "json"


P = ParamSpec("P")


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what a user can mend into one message and its exit code; a traceback only where it is asked for."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        from .patches.task import BitpatchError

        if kwargs.get("as_json"):
            kwargs["as_format"] = Format.JSON
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except KeyboardInterrupt:
            fail("interrupted; nothing is half done", EXIT_INTERRUPTED)
        except BrokenPipeError:
            sys.stderr.close()
            raise typer.Exit(0) from None
        except (BitpatchError, OSError) as error:
            if kwargs.get("debug"):
                raise
            text = str(error) if isinstance(error, BitpatchError) else f"{error.filename or 'output'}: {error.strerror}"
            fail(text, getattr(error, "exit_code", EXIT_IO))
        except Exception as error:
            if kwargs.get("debug") or isinstance(error, typer.Exit):
                raise
            fail(
                f"bitpatch itself failed ({type(error).__name__}: {error}); please report it, with what --debug shows",
                EXIT_REFUSED,
            )

    return run


def fail(message: str, code: int) -> NoReturn:
    """Print an error and leave with its exit code."""
    say("error: ", fg="red", bold=True, err=True, nl=False)
    say(message, err=True)
    raise typer.Exit(code)


def say(text: str, **style: Any) -> None:
    """Print a text, coloured on a terminal unless NO_COLOR is set (no-color.org)."""
    typer.secho(text, color=False if os.environ.get("NO_COLOR") else None, **style)


def warn(text: str) -> None:
    """Print a message to standard error."""
    say(text, err=True)


def show_json(value: dict[str, Any]) -> None:
    """Print a JSON document."""
    say(json.dumps(value, indent=2))


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal, tab-separated lines in a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            say("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def show_findings(statuses: Iterable[TaskStatus]) -> None:
    """How far a tree holds each task, and the places that say so."""
    for one in statuses:
        say(f"{one.task.id} {one.task.slug}: ", nl=False, bold=True)
        say(one.state, fg="green" if one.state == "applied" else "yellow")
        for finding in one.findings:
            say(f"  {finding.state:12} {finding.site}")


def show_diff(lines: Iterable[bytes]) -> None:
    """A unified diff, coloured on a terminal."""
    colours = {b"+": "green", b"-": "red", b"@": "cyan"}
    for line in lines:
        text = line.decode(errors="replace").rstrip("\r\n")
        say(text, fg=colours.get(line[:1]), bold=line.startswith((b"+++", b"---")) or None)


def show_outcomes(planned: Plan, *, written: bool) -> None:
    """What was done, or would be, task by task."""
    for outcome in planned.outcomes:
        acted = outcome.outcome in ("applied", "reverted")
        say(f"{outcome.task.id} {outcome.task.slug}: ", nl=False, bold=True)
        say(f"{'would be ' * (acted and not written)}{outcome.outcome}", fg="green" if acted else None)
        for site in outcome.sites if acted else ():
            say(f"  {site}")
    for change in planned.changes:
        say(f"{'wrote' if written else 'would write'} {change.path}")


@contextmanager
def shown_progress(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """A progress line on a terminal, nothing in a pipe."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("starting the judges ...") as line:
        yield lambda event: line.update(f"{event.done}/{event.total} {event.name}")
