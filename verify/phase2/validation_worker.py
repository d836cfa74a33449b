"""Measure a finished run with the code of its tree; the child process of `validation`.

Takes {"run": folder, "values": flags} as JSON on standard input, and writes a line of JSON for each
measurement: its name with its numbers, or with the error that kept it from being made. The tree is on
PYTHONPATH. Costs, entropy and leak are computed here, from logits and bits, and not by the tree.
"""

import contextlib
import importlib
import json
import math
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..running.prctl import PARENT_DEATH_SIGNAL, prctl

BITS_PER_BYTE = 9  # 8 of data, 1 of even parity
ROWS = 8  # a forward
FLIPS = 8  # bits that are changed, one at a time, to look for a leak
DOUBLE = {"num_layers": "double_layers", "d_model": "double_width", "max_seq_len": "double_length"}
FORWARDS = 9  # of each model, to compare their speed


class Subject:
    """A run under judgement: its flags, its held-out rows, its models."""

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        self.folder = folder
        self.values = values

    @staticmethod
    def module(name: str) -> Any:
        """One of the tree's modules."""
        return importlib.import_module(f"bit_transformer.{name}")

    @cached_property
    def corpus(self) -> Any:
        """The text that the flags name."""
        paths = {name: [Path(path) for path in self.values[name] or []] for name in ("data", "val_data")}
        return self.module("runs").load_data({**self.values, **paths, "out": self.folder})

    @cached_property
    def rows(self) -> Tensor:
        """The held-out rows [rows, T] that the run evaluates on."""
        rows = self.module("corpus").evenly(self.corpus.held_out, self.values["eval_rows"])
        return torch.stack([rows[place] for place in range(len(rows))]).long()

    @cached_property
    def model(self) -> Any:
        """The model that the run saved."""
        return self.load("model.safetensors")

    @property
    def models(self) -> tuple[str, ...]:
        """The names, here, of the models that the run saved."""
        return ("model", "int8") if self.values.get("quantization") == "int8" else ("model",)

    @cached_property
    def int8(self) -> Any:
        """The model that the run saved in INT8."""
        return self.load("model.int8.safetensors")

    def load(self, name: str) -> Any:
        """A saved model on the CPU, in evaluation mode."""
        return self.module("checkpoint").load_checkpoint(self.folder / name)["model"].eval()


def load(subject: Subject) -> dict[str, Any]:
    """What is wrong with the saved models."""
    faults = []
    for name in subject.models:
        try:
            getattr(subject, name)
        except (OSError, ValueError) as error:
            faults.append(str(error))
    return {"faults": faults}


def text(subject: Subject) -> dict[str, Any]:
    """The held-out bytes: how many, their entropy of order 0 in bits, and whether the run was trained on this text."""
    words = subject.rows.reshape(-1, BITS_PER_BYTE)
    if (words.sum(1) % 2).any():
        raise ValueError("held-out rows hold codewords of odd parity")
    places = 2 ** torch.arange(BITS_PER_BYTE - 2, -1, -1)
    shares = torch.bincount((words[:, :-1] * places).sum(1)).double() / len(words)
    order_0 = -(shares[shares > 0] * shares[shares > 0].log2()).sum().item()
    checkpoint = subject.folder / "checkpoint.safetensors"
    kept = subject.module("checkpoint").read_content(checkpoint)["extra"].get("text") if checkpoint.exists() else None
    return {"bytes": len(words), "order_0": order_0, "is_same": kept in (None, subject.corpus.digest)}


@torch.no_grad()
def spent(model: Any, rows: Tensor) -> dict[str, Any]:
    """Bits a byte that a model spends on rows [rows, T]: on the 8 data bits, and on the parity bit."""
    nats = torch.zeros(rows.shape[1], dtype=torch.float64)
    for start in range(0, len(rows), ROWS):
        batch = rows[start : start + ROWS]
        scores = model(batch)[0].double().log_softmax(-1)[:, :-1]
        nats[1:] -= scores.gather(-1, batch[:, 1:, None])[..., 0].sum(0)
    bits = (nats / math.log(2)).view(-1, BITS_PER_BYTE).sum(0)
    bits[0] += len(rows)  # the first bit of a row, which nothing predicts, costs 1
    count = rows.numel() // BITS_PER_BYTE
    return {"bpb_data": bits[:-1].sum().item() / count, "parity_waste": bits[-1].item() / count}


def saved(subject: Subject) -> dict[str, Any]:
    """What the saved model spends, and what the tree's own evaluation says it does."""
    own = subject.module("evaluation").evaluate(subject.model, subject.rows, ROWS).to_json()
    return {**spent(subject.model, subject.rows), "tree_bpb_data": own["bpb_data"]}


@torch.no_grad()
def leak(subject: Subject) -> dict[str, Any]:
    """How far logits move when a later bit changes, and when an earlier one does; over FLIPS bits of a row.

    Of the saved models, INT8 too: what moves most before a changed bit, and what moves least from there on.
    Each row has a forward of its own, as a model could look at all of a call.
    """
    row = subject.rows[:1]
    T = row.shape[1]
    flips = sorted({max(1, T * (n + 1) // (FLIPS + 1)) for n in range(FLIPS)})
    changed = row.repeat(len(flips) + 1, 1)
    for n, place in enumerate(flips):
        changed[n, place] ^= 1
    before, after = [], []
    for name in subject.models:
        model = getattr(subject, name)
        logits = torch.cat([model(changed[n : n + 1])[0] for n in range(len(changed))])
        moved = (logits[:-1] - logits[-1:]).abs().amax(-1)  # [flips, T]
        before += [moved[n, :place].max() for n, place in enumerate(flips)]
        after += [moved[n, place:].max() for n, place in enumerate(flips)]
    return {"before": torch.stack(before).max().item(), "after": torch.stack(after).min().item(), "flips": len(flips)}


def int8(subject: Subject) -> dict[str, Any]:
    """What the INT8 model spends after its way through the file, and which of its matrices are in floating point."""
    matrices = [
        name
        for name, tensor in subject.int8.state_dict().items()
        if tensor.is_floating_point() and name.endswith("weight") and tensor.dim() > 1
    ]
    counts = sum(table.nbytes for table in subject.model.buffers())  # whole numbers in both
    floating, whole = (
        (subject.folder / name).stat().st_size - counts for name in ("model.safetensors", "model.int8.safetensors")
    )
    sizes = {"size": whole / floating, "float_bytes": floating, "int8_bytes": whole}
    return {**spent(subject.int8, subject.rows), **sizes, "float_matrices": matrices}


@torch.no_grad()
def speed(subject: Subject) -> dict[str, Any]:
    """The median CPU seconds of a forward in floating point and in INT8; median and quartile of their ratio.

    The forwards take turns, and what else the machine has to do takes no CPU time of theirs.
    """
    rows = subject.rows[:ROWS]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(FORWARDS + 1):
        for model, taken in zip((subject.model, subject.int8), seconds, strict=True):
            began = time.process_time()
            model(rows)
            taken.append(time.process_time() - began)
    floating, whole = (taken[1:] for taken in seconds)  # the first of each packs its weights
    least, share, _ = statistics.quantiles(b / a for a, b in zip(floating, whole, strict=True))
    medians = {"float": statistics.median(floating), "int8": statistics.median(whole)}
    return {**medians, "share": share, "least_share": least, "threads": torch.get_num_threads()}


@torch.no_grad()
def grown(subject: Subject) -> dict[str, Any]:
    """How far logits move, in float64, where the model that the run started from is doubled to the run's size."""
    small = subject.module("checkpoint").load_checkpoint(subject.values["grow_from"])["model"].double().eval()
    bits = torch.randint(0, 2, (2, small.max_seq_len), generator=torch.Generator().manual_seed(1))
    big = small
    for name, double in DOUBLE.items():
        while big.config[name] < subject.model.config[name]:
            big = getattr(big, double)()
    return {"moved": (big.eval()(bits)[0] - small(bits)[0]).abs().max().item()}


def measurements(values: dict[str, Any]) -> Iterator[Any]:
    """What is measured of a run with these flags."""
    yield from (load, text, saved, leak)
    if values.get("quantization") == "int8":
        yield from (int8, speed)
    if values.get("grow_from"):
        yield grown


def main() -> None:
    """Answer the request on standard input, and end where the parent does."""
    prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    request = json.load(sys.stdin)
    if os.getppid() != request["parent"]:
        return
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers, contextlib.redirect_stdout(sys.stderr):
        os.dup2(2, 1)  # what the tree prints is no answer
        subject = Subject(Path(request["run"]), request["values"])
        planned = list(measurements(subject.values))
        for measure in planned:
            try:
                found = measure(subject)
            except Exception as error:
                found = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps({"name": measure.__name__, "of": len(planned), **found}) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
