"""What the commands print, and how they end: texts, tables, JSON, progress, errors and their exit codes."""

from __future__ import annotations

import errno
import functools
import inspect
import io
import json
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer

from .__main__ import AGAIN, EXIT_IO, EXIT_SIGNAL, INTERRUPTED
from .parameters import Format

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from .patches.task import Plan, Task, TaskStatus
    from .verify.running.runner import Progress

EXIT_CHANGES, EXIT_USAGE, EXIT_REFUSED, EXIT_UNPROVEN = 1, 2, 3, 5
GOOD, BAD, OPEN = {"fg": "green"}, {"fg": "red", "bold": True}, {"fg": "yellow"}
STYLES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("applied", "pass", "verified", "done", "found", "settled"), GOOD),
    **dict.fromkeys(("fail", "violated", "failed", "stopped"), BAD),
    **dict.fromkeys(("missing", "partial", "unrecognised", "unproven", "error", "unfinished"), OPEN),
}
GAP = 2  # columns between those of a table
CONTROL = re.compile(r"[^\n\t -~\u00a0-\U0010ffff]")


class Failure(Exception):
    """A command that ends without its result: what to say, the exit code, and what to do about it."""

    def __init__(self, message: str, code: int, then: str = "") -> None:
        super().__init__(message)
        self.message, self.code, self.then = message, code, then


class OutputLost(Exception):
    """Standard output cannot be written; the cause is an OSError."""

    code = 0  # of the command's result, which does not change because a reader left


COMMON = {
    "as_json": Annotated[bool, typer.Option("--json", help="The same as --format json.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
}


def guarded(command: Callable[..., None], *, without: Sequence[str] = ()) -> Callable[..., None]:
    """Give a command --json and --debug, let it end as `ending` says, and leave out the options in `without`."""

    @functools.wraps(command)
    def run(*, as_json: bool, debug: bool, **options: Any) -> None:
        options["as_format"] = Format.JSON if as_json else options["as_format"]
        with ending(as_json=options["as_format"] == Format.JSON, debug=debug):
            command(**options)

    own = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in COMMON.items()
    ]
    kept = [each for name, each in own.parameters.items() if name not in without]
    run.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    return run


@contextmanager
def ending(*, as_json: bool, debug: bool) -> Iterator[None]:
    """Turn every end into an exit code, with one message for what a user can mend; a traceback only where asked for."""
    code = 0
    try:
        try:
            yield
        except typer.Exit as end:
            code = end.exit_code
        flushed()
    except OutputLost as lost:
        let_go_of_output()
        lost.code = lost.code or code
        code = told(lost, as_json=False)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exception(error)
        code = told(error, as_json=as_json)
    raise SystemExit(code)


def told(error: BaseException, *, as_json: bool) -> int:
    """Say why a command ended without its result; gives its exit code."""
    failure = failure_of(error)
    if failure.message:
        warn("error: ", fg="red", bold=True, nl=False)
        warn(failure.message)
    if as_json:
        try:
            show_json({"error": {"code": failure.code, "message": failure.message, "next": failure.then}})
            flushed()
        except OutputLost:
            let_go_of_output()
    return failure.code


def failure_of(error: BaseException) -> Failure:
    """An error as what is to be said of it."""
    from .patches.task import BitpatchError

    cause = error.__cause__ if isinstance(error, OutputLost) else error
    if isinstance(error, Failure):
        return error
    if isinstance(error, BitpatchError):
        return Failure(str(error), error.exit_code, error.then or AGAIN)
    if isinstance(error, KeyboardInterrupt):
        return Failure(INTERRUPTED, EXIT_SIGNAL + (error.args or (2,))[0], AGAIN)
    if isinstance(error, OutputLost) and isinstance(cause, BrokenPipeError):
        return Failure("", error.code)  # somebody read as much as they wanted
    if isinstance(cause, OSError):
        if isinstance(error, OutputLost):
            said = f"standard output: {cause.strerror}; only what was to be printed is lost"
        else:
            said = f"{cause.filename or 'a file'}: {cause.strerror or cause}"
        return Failure(said, EXIT_IO, f"mend this, then {AGAIN}")
    if callable(message := getattr(error, "format_message", None)):  # Click's own, wherever it lives
        context = getattr(error, "ctx", None)
        shown = f"{context.command_path if context else 'bitpatch'} -h"
        return Failure(
            f"{message().rstrip('.')} ({shown} shows what there is)", getattr(error, "exit_code", EXIT_USAGE), shown
        )
    return Failure(
        f"bitpatch itself failed ({type(error).__name__}: {error}); please report it, with what --debug shows",
        EXIT_REFUSED,
        "report it, with what --debug shows",
    )


def fail(message: str, code: int, then: str) -> NoReturn:
    """End a command with an error, its exit code, and what to do about it."""
    raise Failure(message, code, then)


def printed(text: str | bytes) -> None:
    """Write to standard output, bytes as they are. Raises OutputLost where it is closed, full, or no longer read."""
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "closed")
        if isinstance(text, str):
            sys.stdout.write(text)
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(text)
    except OSError as error:
        raise OutputLost from error


def require_output(words: Sequence[str]) -> None:
    """Raise OutputLost, before anything is done, where a command prints and standard output is closed."""
    if sys.stdout is None and not {"-q", "--quiet", "--output"} & set(words):
        raise OutputLost from OSError(errno.EBADF, "closed")


def flushed() -> None:
    """Let nothing that was printed wait. Raises OutputLost."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        raise OutputLost from error


def let_go_of_output() -> None:
    """What is still to be written to a lost output goes nowhere, or Python complains of it at its end."""
    with suppress(OSError, AttributeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def spell_everything() -> None:
    """Print what a stream's encoding does not hold as an escape, such as a file's name that is not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def in_colour(stream: TextIO | None) -> bool:
    """Whether a stream takes colours: no-color.org before force-color.org before what the terminal is."""
    is_asked = os.environ.get("FORCE_COLOR") or (is_terminal(stream) and os.environ.get("TERM") != "dumb")
    return bool(is_asked) and not os.environ.get("NO_COLOR")


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody looks at a stream."""
    return stream is not None and stream.isatty()


def shown(text: str, stream: TextIO | None = None, **style: Any) -> str:
    """A text for a stream; a control character in it, of a file's name say, is an escape: no order to a terminal."""
    text = CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return typer.style(text, **style) if style and in_colour(stream) else text


def say(text: str, *, nl: bool = True, **style: Any) -> None:
    """Print a text."""
    printed(shown(text, sys.stdout, **style) + "\n" * nl)


def warn(text: str, *, nl: bool = True, **style: Any) -> None:
    """Print a message to standard error, if that can be written: nothing fails because of a message."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(shown(text, sys.stderr, **style) + "\n" * nl)
        sys.stderr.flush()


def show_json(value: dict[str, Any]) -> None:
    """Print a JSON document."""
    printed(json.dumps(value, indent=2) + "\n")


def require_accepted(planned: Plan, *, written: bool = False, code: int = 0) -> None:
    """Leave with the reasons if a task was refused, with a code of its own where a judge refused it."""
    reasons = dict.fromkeys(outcome.reason for outcome in planned.outcomes if outcome.outcome == "refused")
    if planned.refused:
        warn("error: ", fg="red", bold=True, nl=False)
        warn("\n".join([f"refused, and {'the rest' if written else 'nothing'} was written", *reasons]))
        if then := next((outcome.then for outcome in planned.outcomes if outcome.then), None):
            show_next(then)
        raise typer.Exit(code or EXIT_REFUSED)


def show_next(command: str) -> None:
    """Name the command that comes next."""
    warn("next: ", bold=True, nl=False)
    warn(command)


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]], typed: Sequence[str] = ()) -> None:
    """A table on a terminal, tab-separated lines in a pipe. What stands in the columns `typed` is never broken."""
    if not (is_terminal(sys.stdout) or in_colour(sys.stdout)):
        for row in rows:
            say("\t".join(row))
        return
    rows = [[*map(shown, row)] for row in rows]
    if (widths := fitting_widths(header, rows, typed)) is None:
        show_records(header, rows)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for name, width, *cells in zip(header, widths, *rows, strict=True):
        numbers = all(re.fullmatch(r"[-+.,\de]*|nan|[-+]?inf", cell) for cell in cells)
        table.add_column(Text(name), width=width, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=rich_style(cell)) for cell in row))
    console = console_of(sys.stdout, width=sum(widths) + GAP * len(widths), force_terminal=True)
    with console.capture() as lines:
        console.print(table)
    printed("".join(f"{line.rstrip()}\n" for line in lines.get().splitlines()))


def console_of(stream: TextIO | None, **options: Any) -> Console:
    """What Rich prints with, in the colours that everything else is printed in."""
    from rich.console import Console

    return Console(file=stream, color_system="standard" if in_colour(stream) else None, no_color=False, **options)


def rich_style(word: str) -> str:
    """The style of a state or a verdict, as Rich spells it."""
    style = STYLES.get(word, {})
    return f"{'bold ' * bool(style.get('bold'))}{style.get('fg', '')}".strip()


def fitting_widths(header: Sequence[str], rows: Sequence[Sequence[str]], typed: Sequence[str]) -> list[int] | None:
    """Widths at which no word is broken, the widest columns wrapped first; None where the terminal is too narrow."""
    columns = [(name, *cells) for name, *cells in zip(header, *rows, strict=True)]
    widths = [max(map(len, cells)) for cells in columns]
    least = [
        width if cells[0] in typed else max(len(word) for cell in cells for word in (cell.split() or [""]))
        for cells, width in zip(columns, widths, strict=True)
    ]
    while sum(widths) + GAP * (len(widths) - 1) > shutil.get_terminal_size().columns:
        shrinking = [place for place, width in enumerate(widths) if width > least[place]]
        if not shrinking:
            return None
        widths[max(shrinking, key=widths.__getitem__)] -= 1
    return widths


def show_records(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a narrow terminal: a paragraph a row, which the terminal may wrap."""
    margin = max(map(len, header)) + GAP
    for row in rows:
        say(row[0], bold=True)
        for name, cell in zip(header[1:], row[1:], strict=True):
            if cell:
                say(f"  {name:{margin}}", nl=False)
                say(cell, **STYLES.get(cell, {}))


def show_findings(statuses: Sequence[TaskStatus], *, with_places: bool) -> None:
    """How far a tree holds each task: with the places that say so, or in a line each and how many are applied."""
    for one in statuses if with_places else ():
        places = (f"{finding.aside or finding.state:12} {finding.site}" for finding in one.findings)
        show_block(f"{one.task.id} {one.task.slug}", one.state, places, **STYLES[one.state])
    if not with_places:
        opens = [next((each.site.place for each in one.findings if each.is_open), "") for one in statuses]
        rows = [(one.task.id, one.task.slug, one.state, str(at)) for one, at in zip(statuses, opens, strict=True)]
        show_table(("task", "slug", "state", "where"), rows, typed=("task", "slug", "where"))
        say(f"{sum(one.state == 'applied' for one in statuses)} of {len(statuses)} applied")


def show_block(name: str, state: str, lines: Iterable[str], **style: Any) -> None:
    """What is in some state, and lines about it."""
    say(f"{name}: ", nl=False, bold=True)
    say(state, **style)
    for line in lines:
        say(f"  {line}")


def show_task(task: Task, found: TaskStatus | None, diff: bytes) -> None:
    """What a task changes and why, and, of a tree, which of its conditions hold, and what apply would write."""
    say(f"{task.id} {task.slug}: {task.title} ({task.contract})", bold=True)
    say(f"\n{task.why.strip()}\n\nLooks for {task.sought}.")
    if found is not None:
        show_conditions(found)
    if diff:
        say("\nWhat apply would write:\n")
        show_diff(diff)


def show_conditions(found: TaskStatus) -> None:
    """What of a task a tree has, and where; what it has not."""
    say(f"\nOf this, the tree has ({found.state}):")
    for each in found.conditions():
        place = ":".join(str(each[name]) for name in ("path", "line", "column") if name in each)
        say(f"  {each['condition']:10} {each.get('state', ''):13} {place + ': ' if place else ''}{each['note']}")


def warn_of_unused(statuses: Iterable[TaskStatus]) -> None:
    """Name the comments that leave a task out where it has nothing to do."""
    for one, finding in ((of, each) for of in statuses for each in of.findings if each.aside == "unused"):
        warn(f"note: {finding.site}; take {one.task.id} out of it")


def show_diff(diff: bytes, *, as_it_is: bool = False) -> None:
    """A unified diff, coloured on a terminal, or for a program to read as it is."""
    if as_it_is:
        printed(diff)
        return
    colours = {b"+": "green", b"-": "red", b"@": "cyan"}
    for line in re.findall(rb"[^\n]*[^\r\n]", diff):
        say(line.decode(errors="replace"), fg=colours.get(line[:1]), bold=line.startswith((b"+++", b"---")) or None)


def show_outcomes(planned: Plan, *, written: bool) -> None:
    """What was done, or would be, task by task."""
    for outcome in planned.outcomes:
        acted = outcome.outcome in ("applied", "reverted")
        said = f"{'would be ' * (acted and not written)}{outcome.outcome}"
        sites = (*(outcome.sites if acted else ()), *outcome.aside)
        show_block(f"{outcome.task.id} {outcome.task.slug}", said, map(str, sites), **GOOD if acted else {})
    for change in planned.changes:
        say(f"{'wrote' if written else 'would write'} {change.path}")


def save(path: Path, text: str, option: str, mode: str = "w") -> None:
    """Write a text to a file that an option names."""
    try:
        with path.open(mode, encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        fail(f"{path}: {error.strerror}", EXIT_IO, f"name another file with {option}, then {AGAIN}")


@contextmanager
def shown_progress(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, with the check that runs; nothing in a pipe."""
    if quiet or not is_terminal(sys.stderr) or os.environ.get("TERM") == "dumb":
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = SpinnerColumn(), BarColumn(24), MofNCompleteColumn(), TextColumn("{task.description}")
    with Bar(*columns, console=console_of(sys.stderr), transient=True) as bar:
        line = bar.add_task("starting the judges ...", total=None)
        yield lambda event: bar.update(line, completed=event.done, total=event.total, description=event.name)
