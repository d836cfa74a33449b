"""What a training loop loads and holds: its order, its workers, its memory, and an update that is no number.

In child processes only.
"""

import contextlib
import io
import warnings
from itertools import chain, combinations, pairwise
from operator import eq
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..running.evidence import Picture
from .pictures import events, one_cycle_curves
from .short_fit import one_cycle
from .spies import Ledger
from .training_runs import LENGTH, Run, light_model, planned_rows, planned_updates, set_seeds, train
from .tree import Tree
from .world import held_tensors, spoilt_forward

DRAWN = 28  # bits of a row that a data set draws from each stream


def trouble_with_rows(run: Run, batch_size: int) -> str:
    """What is wrong with the rows of a run's epochs; nothing, if each has all of them and its last again."""
    extra_steps = run.options.get("extra_steps", 0)
    planned = planned_rows(len(run.data), batch_size, extra_steps)
    for epoch in run.order:
        sizes = [len(rows) for rows in epoch]
        if sizes != planned:
            return f"micro-batches of {sizes} rows, not {planned}"
        usual = len(epoch) - extra_steps
        if sorted(chain.from_iterable(epoch[:usual])) != list(range(len(run.data))):
            return "an epoch does not hold each row once"
        if epoch[usual:] != extra_steps * epoch[usual - 1 : usual]:
            return f"{extra_steps} extra steps are not the last micro-batch again"
    return ""


def micro_batches_shown(run: Run, batch_size: int) -> Picture | None:
    """How many rows each micro-batch has, beside what is planned."""
    planned = run.options.get("epochs", 1) * planned_rows(len(run.data), batch_size, run.options.get("extra_steps", 0))
    sides = ([f"{count} rows" for count in each] for each in (map(len, run.micro_batches), planned))
    return events("rows of each micro-batch", *sides)


def most_alike(first: list[list[int]], second: list[list[int]]) -> str:
    """What two orders of 64 rows, in eights or at once, share more of than chance gives 1 in 1e6 times; or nothing."""
    flat = [list(chain.from_iterable(order)) for order in (first, second)]
    neighbours = [{frozenset(pair) for pair in pairwise(order)} for order in flat]
    shared = {"places": (sum(map(eq, *flat)), 8), "neighbours": (len(neighbours[0] & neighbours[1]), 12)}
    if min(len(first), len(second)) > 1:
        mates = [{pair for bits in order for pair in combinations(sorted(bits), 2)} for order in (first, second)]
        shared["pairs in one micro-batch"] = len(mates[0] & mates[1]), 60
    too_many = (
        f"{count} {what} in common, by chance {most} at most" for what, (count, most) in shared.items() if count > most
    )
    return next(too_many, "")


class DrawnRows(Dataset[Tensor]):
    """Rows of bits that are drawn from the streams of torch and of numpy when they are asked for."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Tensor:
        return torch.cat([torch.randint(2, (DRAWN,)), torch.from_numpy(np.random.randint(0, 2, DRAWN))])


def drawn_by_workers(tree: Tree, ledger: Ledger) -> dict[str, list[tuple[int, ...]]]:
    """What two workers draw for rows, by stream; nothing, if the loop takes no data set."""
    set_seeds(1)
    ledger.take()
    options: dict[str, Any] = {"epochs": 2, "batch_size": 4, "num_workers": 2, "compress_prob": 0.0}
    with contextlib.suppress(Exception):
        tree.train(light_model(tree, ledger), DrawnRows(), **options)
    rows = [row for event in ledger.take() if event.bits is not None for row in event.bits.tolist()]
    return {"torch": [tuple(row[:DRAWN]) for row in rows], "numpy": [tuple(row[DRAWN:]) for row in rows]}


def stray_device(tree: Tree, ledger: Ledger) -> str:
    """Where the first micro-batch is if not where the model is, on a device that computes nothing."""
    model = light_model(tree, ledger).to("meta")
    ledger.take()
    with contextlib.suppress(Exception):  # a loss that is nowhere can't be read
        tree.train(model, tree.bits(8, LENGTH), compress_prob=0.0)
    devices = [event.bits.device.type for event in ledger.take() if event.bits is not None]
    return "" if devices[:1] in ([], ["meta"]) else f"the {devices[0]}"


def held_more(tree: Tree, ledger: Ledger, options: dict[str, Any]) -> tuple[int, str]:
    """How many tensors or graphs more a run of 48 micro-batches holds than one of 14, and the call of the long one."""
    held = []
    for epochs, rows in ((1, 192 if tree.seams.is_told else 112), (2, 192)):  # another tree may hold an epoch's
        counts = list[tuple[int, int]]()

        def count(counts: list[tuple[int, int]] = counts) -> None:
            ledger.take()
            is_asked = len(counts) % 15 == 13  # noqa: PLR2004 - the second of a group of three, each time: it takes long
            counts.append(held_tensors() if is_asked else (0, 0))

        ledger.on_entry = count
        run = train(tree, ledger, rows, light=True, epochs=epochs, **options)
        ledger.on_entry = int
        held.append([max(column) for column in zip(*counts, strict=True)])
    return max(after - before for before, after in zip(*held, strict=True)), run.call


def trouble_with_a_skip(tree: Tree, ledger: Ledger, options: dict[str, Any]) -> tuple[str, Run, Picture | None]:
    """What is wrong where one micro-batch's loss is no number; nothing, if its update is made, or left out rightly."""
    said, kind = io.StringIO(), tree.kind
    with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(said), spoilt_forward(kind, 3):
        warnings.simplefilter("always")
        run = train(tree, ledger, 48, light=True, epochs=2, lr=0.01, **options)
    planned = planned_updates(48, epochs=2, batch_size=8, **options)
    peak = run.peak(planned)
    skipped, shown = planned - len(run.updates), one_cycle_curves(run.rates, planned, peak)
    if skipped > 1:
        return f"{skipped} of {planned} updates are skipped, where one gradient was no number", run, shown
    expected = [one_cycle(at, planned, peak) for at in range(planned)]
    if skipped and run.goes_on(expected) and not (warned or said.getvalue()):
        return "an update is skipped, the schedule goes on, and nothing says so", run, shown
    return "", run, None
