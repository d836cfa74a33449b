"""What the folder of a training run says: its flags, its records, its report. Nothing here runs a tree's code."""

import errno
import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FLAGS = (
    "preset", "data", "val_data", "dataset", "eval_rows", "max_seq_len", "batch_size", "accum_steps", "extra_steps",
    "epochs", "max_steps", "amp", "lr", "lr_schedule", "lr_warmup", "lr_floor", "patience", "quantization", "grow_from",
    "force",
)  # fmt: skip
FILES = {"report": "report.json", "model": "model.safetensors", "int8": "model.int8.safetensors"}


class RunUnreadableError(OSError):
    """There is no run where one was expected, or it is damaged; `strerror` says what to do about `filename`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(errno.EINVAL, reason, str(path))


class Unmeasured(Exception):
    """What a threshold is about could not be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run: its flags, its records, and its report, which it has once it is done."""

    folder: Path
    values: dict[str, Any]
    records: list[dict[str, Any]]
    report: dict[str, Any] | None

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The records of a kind: start, train, eval, drop or stop."""
        return [record for record in self.records if record.get("kind") == kind]

    @property
    def start(self) -> dict[str, Any]:
        """The run's first record; Unmeasured where it has none."""
        for record in self.of_kind("start"):
            return record
        raise Unmeasured("metrics.jsonl holds no record of the start")

    @property
    def updates(self) -> int:
        """The last update of which there is a record."""
        return max((int(record.get("step", 0)) for record in self.records), default=0)

    @property
    def planned(self) -> int:
        """How many updates the flags come to; Unmeasured where the records do not tell."""
        if self.values["max_steps"]:
            return int(self.values["max_steps"])
        values, rows = self.values, self.start["rows"]
        micro_batches = math.ceil(rows / values["batch_size"]) + values["extra_steps"]
        return int(values["epochs"] * math.ceil(micro_batches / values["accum_steps"]))

    @property
    def is_done(self) -> bool:
        """Whether it has made and reported all its updates; one that goes on for longer is not done any more."""
        return self.report is not None and {self.updates, self.report.get("updates", self.updates)} == {self.planned}


def read_run(folder: Path) -> Run:
    """The run in a folder. Raises RunUnreadableError where there is none, or a damaged one."""
    values = read_json(folder / "run.json")
    if values is None:
        raise RunUnreadableError(folder, "there is no run: expected run.json in it, which bitpatch train writes")
    if missing := [name for name in FLAGS if name not in values]:
        raise RunUnreadableError(folder / "run.json", f"damaged: expected the flags {', '.join(missing)} in it")
    path = folder / "metrics.jsonl"
    try:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        records = [json.loads(line) for line in lines if line.endswith(b"\n")]  # a torn last line is written again
    except ValueError as error:
        raise RunUnreadableError(path, f"damaged: {error}") from error
    return Run(folder, values, records, read_json(folder / "report.json"))


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is no file. Raises RunUnreadableError where it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunUnreadableError(path, f"damaged: {error}") from error
    if not isinstance(content, dict):
        raise RunUnreadableError(path, f"damaged: expected an object, found {type(content).__name__}")
    return content


def hashes_of(folder: Path) -> dict[str, str | None]:
    """The SHA-256 of the files that a validation is about, by its names for them; None for what is absent."""
    hashes: dict[str, str | None] = {}
    for name, file in FILES.items():
        try:
            with (folder / file).open("rb") as stream:
                hashes[f"{name}_sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError:
            hashes[f"{name}_sha256"] = None
    return hashes


def tree_environment(tree: Path) -> dict[str, str]:
    """The environment of this process, with a tree before all else that is imported."""
    paths = [str(tree.resolve()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
