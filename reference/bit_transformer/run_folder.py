"""A run's folder, and who may write to it.

run.json                 the flags
checkpoint.safetensors   weights, optimizer, schedule and gate after an update: what --resume reads
metrics.jsonl            a record a line: training, evaluations, drops of the rate
curves.png, curves.svg   loss, bits per byte, and rate
model.safetensors        the weights alone, once the run is done; model.int8.safetensors the same in INT8
report.json              the last evaluation, beside what compressors make of the same bytes
trackers.json            what the packages of --report_to call the run
rows                     its texts as bits, where the user's cache cannot be written
.lock                    held by the process that trains
"""

import fcntl
import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from data.wikitext_schedule import cache_folder

from .checkpoint import read_content, write_whole
from .corpus import Corpus
from .run_flags import RunError, Values, jsonable

FILES = (
    "run.json",
    "checkpoint.safetensors",
    "metrics.jsonl",
    "model.safetensors",
    "model.int8.safetensors",
    "report.json",
    "trackers.json",
)


def take_folder(out: Path, values: Values) -> TextIO:
    """Make a run's folder, with its flags, and keep other processes from it until the file returned is closed.

    What a process that was killed has left there half written is removed. Raises RunError where another
    process trains, or nothing can be written.
    """
    with ExitStack() as on_error:
        try:
            out.mkdir(parents=True, exist_ok=True)
            lock = on_error.enter_context((out / ".lock").open("w"))
            require_lock(lock, out)
            write_json(out / "run.json", {name: jsonable(value) for name, value in values.items()})
        except OSError as error:
            raise RunError(f"--out {out} cannot be written ({error.strerror}): name another folder") from error
        on_error.pop_all()
    for name in FILES:
        for part in out.glob(f".{name}.*"):
            part.unlink(missing_ok=True)
    return lock


def require_lock(file: TextIO, out: Path) -> None:
    """Lock a file until it is closed, or this process ends; RunError where another process has it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, no process that this one forks holds it
    except OSError as error:
        raise RunError(f"--out {out}: another process trains there; wait for it, or name another folder") from error


def rows_folder(out: Path) -> Path:
    """Where the rows of a run's texts are kept: in the user's cache, or, where that cannot be written, with the run."""
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return out / "rows"
    return folder if os.access(folder, os.W_OK) else out / "rows"


def kept_state(path: Path, corpus: Corpus) -> dict[str, Any] | None:
    """What is in a run's checkpoint; None where the run was stopped before its first: it starts again.

    Raises RunError where it is damaged, or was trained on other text.
    """
    if not path.exists():
        return None
    try:
        content = read_content(path)
    except ValueError as error:
        raise RunError(f"--resume: {error}; start anew in another folder") from error
    extra = content.get("extra")
    if not isinstance(extra, dict) or "progress" not in extra:
        raise RunError(f"--resume: {path} holds a model, and no run to go on with: start one in another folder")
    if extra.get("text") != corpus.digest:
        raise RunError(f"{path} was trained on other text: give the same --data and --val_data, or start another run")
    return content


def is_reported(out: Path, updates: int) -> bool:
    """Whether a run of so many updates has written all its files; the report is the last of them."""
    try:
        return json.loads((out / "report.json").read_text(encoding="utf-8"))["updates"] == updates
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_json(path: Path, content: Any) -> None:
    """Write JSON that is whole or absent."""
    write_whole(path, json.dumps(content, indent=2).encode() + b"\n")
