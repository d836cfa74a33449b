"""What a run shows while it goes on: a line that lives on a terminal, and records in a file."""

import json
import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .bit_io import BITS_PER_BYTE
from .checkpoint import write_whole

BYTE = BITS_PER_BYTE / math.log(2)  # bits a byte, from nats a bit
WIDE = 110  # columns of a terminal that have room for a bar beside the numbers


def attempt(what: str, work: Callable[..., object], *args: Any) -> bool:
    """Do what a run can do without; where it fails, warn of what is missing, and return False."""
    try:
        work(*args)
    except Exception as error:  # whatever it is, it must not cost the run
        with suppress(Exception):  # what the user looks at may be gone too
            print(f"warning: {what}: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    return True


class Display:
    """Takes a run's records: appends them to metrics.jsonl, and shows the latest; a context manager.

    Of a run that goes on at `update`, records of later updates are dropped first: they come again.
    The file is the run's; the screen is left out once it fails.
    """

    def __init__(self, out: Path, updates: int, update: int, is_main: bool = True) -> None:
        self.is_main = is_main
        if not is_main:
            return
        self.console = Console(stderr=True)
        self.file = opened_metrics(out / "metrics.jsonl", update)
        self.updates = updates
        bar = [BarColumn(20)] if self.console.width >= WIDE else []
        columns = (*bar, MofNCompleteColumn(), TextColumn("{task.fields[shown]}"))
        self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.progress.add_task("", total=updates, completed=update, shown="")
        self.is_lost = False

    def record(self, record: dict[str, Any]) -> None:
        """Keep a record, and show it."""
        if not self.is_main:
            return
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        self._unless_lost(self._show, record)

    def _unless_lost(self, work: Callable[..., object], *args: Any) -> None:
        self.is_lost = self.is_lost or not attempt("the display fails, and is left out", work, *args)

    def _show(self, record: dict[str, Any]) -> None:
        step = record.get("step", 0)
        if record["kind"] == "train":
            shown = train_line(record)
            self.progress.update(self.task, completed=step, shown=shown)
            if not self.console.is_terminal:
                self.console.print(f"{step}/{self.updates} {shown}", highlight=False, soft_wrap=True)
        elif record["kind"] in LINES:
            self.console.print(f"{step}/{self.updates} {LINES[record['kind']].format(**record)}", highlight=False)

    def flush(self) -> None:
        """Bring all records to the disk: a checkpoint that is about to be written rests on them."""
        if self.is_main:
            os.fsync(self.file.fileno())

    def __enter__(self) -> "Display":
        if self.is_main:
            self._unless_lost(self.progress.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.is_main:
            self._unless_lost(self.progress.stop)
            self.file.close()


LINES = {
    "eval": "validation: loss {loss:.4f}, {bpb_data:.3f} bits per byte, parity {parity_waste:.4f}",
    "drop": "the rate is halved to {lr:.2e}: no gain on {best:.4f}",
    "stop": "the safety gate trips: validation loss averages {ema:.4f}",
}


def train_line(record: dict[str, Any]) -> str:
    """A record of training in a line."""
    loss, rate = record["loss"], record["bits_per_second"]
    minutes, seconds = divmod(round(record["seconds_left"]), 60)
    left = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    return f"loss {loss:.4f} ({loss * BYTE:.3f} bits/byte) lr {record['lr']:.2e} {rate / 1e3:,.1f} kbit/s {left} left"


def opened_metrics(path: Path, update: int) -> Any:
    """The file of records, without those after an update, and without torn lines, to append to."""
    lines = path.read_bytes().splitlines(keepends=True) if update and path.exists() else []
    write_whole(path, b"".join(line for line in lines if is_kept(line, update)))
    return path.open("a", encoding="utf-8")


def is_kept(line: bytes, update: int) -> bool:
    """Whether a line of metrics is whole, and not of a later update."""
    try:
        return line.endswith(b"\n") and json.loads(line).get("step", 0) <= update
    except (ValueError, AttributeError, TypeError):
        return False
