"""Runs of a tree's train_loop and of its command line, seen by a ledger. In child processes only."""

import contextlib
import functools
import inspect
import io
import math
import random
import string
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .evidence import Evidence, at_most, failed, unproven
from .spies import Event, Ledger, Update, updates
from .tree import Tree

LENGTH = 18  # bits a row
REPORTED = ("loss", "acc", "accuracy")  # last words of the keys of a history that no grouping may change


@dataclass(frozen=True, slots=True)
class Run:
    """What one call of train_loop did."""

    call: str
    model: nn.Module
    data: Tensor
    events: list[Event]
    totals: list[int]
    history: Any
    forward_kwargs: dict[str, Any]
    streams: frozenset[tuple[int, ...]] = frozenset()  # what its rows are, run-length encoded and cut to fit

    @property
    def updates(self) -> list[Update]:
        return updates(self.events)

    @property
    def micro_batches(self) -> list[Tensor]:
        return [event.bits for event in self.events if event.bits is not None]

    def scored(self, micro_batch: Tensor) -> Tensor | None:
        """Which next bits [rows, L - 1] of a micro-batch are its rows' own, and no padding.

        None if it holds neither rows of the data nor their streams.
        """
        rows, known = [tuple(row) for row in micro_batch.tolist()], {tuple(row) for row in self.data.tolist()}
        widths = [len(row) for row in rows]
        if not known.issuperset(rows):
            fitting = [{len(stream) for stream in self.streams if is_padded(stream, row)} for row in rows]
            if any(len(found) != 1 for found in fitting):
                return None
            widths = [found.pop() for found in fitting]
        return torch.arange(1, micro_batch.shape[1]) < torch.tensor(widths)[:, None]


def is_padded(stream: tuple[int, ...], row: tuple[int, ...]) -> bool:
    """Whether a row is a stream with zeros behind it, or without."""
    return row[: len(stream)] == stream and not any(row[len(stream) :])


def watching(*options: str) -> Callable[[Callable[[Tree, Ledger], Evidence]], Callable[[Tree], Evidence]]:
    """Give a check a ledger that was made before the tree was imported; fail where train_loop lacks an option."""

    def decorate(function: Callable[[Tree, Ledger], Evidence]) -> Callable[[Tree], Evidence]:
        @functools.wraps(function)
        def judge(tree: Tree) -> Evidence:
            ledger = Ledger()
            ledger.watch_tree(tree)
            parameters = inspect.signature(tree.module("training").train_loop).parameters
            takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
            missing = [option for option in options if option not in parameters]
            if missing and not takes_any:
                return failed(f"train_loop takes no {missing[0]}")
            return function(tree, ledger)

        return judge

    return decorate


def train(
    tree: Tree,
    ledger: Ledger,
    rows: int,
    *,
    config: dict[str, Any] | None = None,
    alike: bool = False,
    uneven: bool = False,
    scale: float = 1.0,
    dropout: float = 0.0,
    dtype: torch.dtype = torch.float64,
    **options: Any,
) -> Run:
    """Call the tree's train_loop with the ledger open and the weights scaled, on random rows, or one repeated.

    Rows that are `uneven` have short runs of equal bits and long ones, so that their streams differ in length.
    """
    model = tree.model(dtype=dtype, **config or {})
    for weight in model.parameters():
        weight.data.mul_(scale)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    data = tree.bits(1, LENGTH).repeat(rows, 1) if alike else tree.bits(rows, LENGTH)
    if uneven:
        data = torch.stack([row.repeat_interleave(1 + 2 * (at % 5))[:LENGTH] for at, row in enumerate(data)])
    compress = tree.module("compression").compress_bits  # what a stream is, is the tree's to say; what is scored, ours
    streams = frozenset(tuple(compress(row).tolist()[: model.max_seq_len]) for row in data)
    arguments = ", ".join(f"{name}={value}" for name, value in options.items())
    torch.manual_seed(1)
    random.seed(1)
    ledger.take()
    history = tree.module("training").train_loop(model, data, **{"compress_prob": 0.0, "direct_prob": 0.0} | options)
    shown = f"bits(1, {LENGTH}).repeat({rows}, 1)" if alike else f"bits({rows}, {LENGTH})"
    call = f"train_loop(model, {f'stretched({shown})' if uneven else shown}, {arguments})"
    return Run(call, model, data, *ledger.take(), history, options.get("forward_kwargs", {}), streams)


def run_command(tree: Tree, ledger: Ledger, flags: list[str]) -> int | str | None:
    """Run `python -m bit_transformer.training` on 39 short rows of text, here; return its exit status."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        text = Path(folder, "text.txt")
        text.write_text(3 * string.ascii_letters, encoding="utf-8")
        small = ["--layers", "1", "--d_model", "8", "--nhead", "2", "--max_seq_len", "36"]
        sys.argv = ["bit_transformer.training", "--data", str(text), *small, *flags]
        ledger.take()
        try:
            tree.module("training").main()
        except SystemExit as end:
            return end.code
    return None


def mean_gradient(model: nn.Module, rows: Tensor, **kwargs: Any) -> dict[str, Tensor]:
    """The gradient of the mean cross-entropy of each next bit of rows [B, T]."""
    return scored_gradient(model, [(rows, torch.ones_like(rows[:, 1:], dtype=torch.bool))], **kwargs)


def scored_gradient(model: nn.Module, parts: Sequence[tuple[Tensor, Tensor]], **kwargs: Any) -> dict[str, Tensor]:
    """The gradient of the mean cross-entropy over all next bits of some micro-batches [B, L] that are scored."""
    model.train()
    model.zero_grad(set_to_none=True)
    total = sum(int(scored.sum()) for _, scored in parts)
    for rows, scored in parts:
        logits = model(rows, **kwargs)[0].double()  # [B, L, 2]
        losses = -logits[:, :-1].log_softmax(-1).gather(-1, rows[:, 1:, None].long())[..., 0]
        (losses[scored].sum() / total).backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def all_close(cases: list[tuple[Run, Update, Event]]) -> Evidence:
    """Compare the gradients that an event saw with those of the mean loss over all that is scored in its update.

    They are taken at the weights of its step.
    """
    if not cases:
        return failed("train_loop makes no update")
    worst, reproduce = 0.0, ""
    for run, update, event in cases:
        if not update.micro_batches:
            return failed("a step without a micro-batch", run.call)
        run.model.load_state_dict(update.step.weights or {}, strict=False)
        scored = [run.scored(rows) for rows in update.micro_batches]
        parts = [(rows, own) for rows, own in zip(update.micro_batches, scored, strict=True) if own is not None]
        if len(parts) < len(scored):
            return unproven(f"what enters the model is neither a row nor the stream of one, padded: {run.call}")
        wanted = scored_gradient(run.model, parts, **run.forward_kwargs)
        if not any(grad.any() for grad in wanted.values()):
            return unproven("the mean loss of a group has no gradient")
        gap = distance(event.grads or {}, wanted)
        if not (gap <= worst or math.isnan(worst)):
            worst, reproduce = gap, run.call
    detail = f"relative error of the worst of {len(cases)} updates"
    return at_most(worst, max(limit(run) for run, _, _ in cases), detail, reproduce)


def distance(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The largest difference, relative to the largest value wanted; what is missing counts as zero."""
    scale = max(value.abs().max().item() for value in wanted.values())
    zero = torch.zeros(())
    pairs = [(found.get(name, zero), wanted.get(name, zero)) for name in {*found, *wanted}]
    return max((a - b).abs().max().item() for a, b in pairs) / scale


def limit(run: Run) -> float:
    """What rounding may amount to: forks that compute the loss in float32 round more."""
    losses = [event.loss for event in run.events if event.loss is not None]
    return 1e-10 if all(loss.dtype is torch.float64 for loss in losses) else 1e-5


def first_difference(found: list[str], planned: list[str]) -> str:
    """Say where two lists of events part."""
    at = next((at for at, pair in enumerate(zip(found, planned, strict=False)) if pair[0] != pair[1]), None)
    if at is None:
        return f"{len(found)} events, not {len(planned)}"
    return f"event {at} is {found[at]}, not {planned[at]}, after {' '.join(found[max(0, at - 4) : at]) or 'none'}"


def reported(run: Run) -> dict[str, float]:
    """The finite losses and accuracies in a history that is a list of records, by key and epoch."""
    return {
        f"{key} of epoch {epoch}": float(value)
        for epoch, record in enumerate(run.history if isinstance(run.history, list) else [])
        for key, value in (record.items() if isinstance(record, dict) else [])
        if key.split("_")[-1] in REPORTED and isinstance(value, (int, float, Tensor)) and math.isfinite(value)
    }


def group_sizes(micro_batches: int, accum_steps: int) -> list[int]:
    """How many micro-batches each update of an epoch takes."""
    return [min(accum_steps, micro_batches - start) for start in range(0, micro_batches, accum_steps)]


def planned_sizes(run: Run, epochs: int, accum_steps: int) -> list[int]:
    """How many micro-batches each update of a run takes, given how many there were: one an epoch at least."""
    return epochs * group_sizes(max(1, len(run.micro_batches) // epochs), accum_steps)
