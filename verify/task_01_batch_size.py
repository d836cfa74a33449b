"""Task-1, batch size and OneCycle accounting: what enters the model, and how long the schedule is."""

import contextlib
import gc
import inspect
import math
import multiprocessing
import random
from collections.abc import Callable, Iterator
from itertools import chain, combinations, pairwise
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook

from .evidence import Evidence, at_most, check, failed, passed, unproven
from .sanity_fit import one_cycle
from .spies import Ledger, updates
from .training_runs import LENGTH, Run, run_command, train, watching
from .tree import Tree

# (rows, batch_size): whole and short last micro-batches, one row, one row each, fewer rows than a micro-batch.
SHAPES = [(40, 8), (37, 8), (37, 5), (33, 32), (12, 4), (7, 1), (1, 1), (5, 8), (9, 100)]
# (rows, batch_size, epochs, extra_steps)
PLANS = [(24, 8, 1, 0), (37, 8, 3, 0), (37, 8, 2, 3), (5, 8, 2, 1), (20, 7, 2, 3), (36, 16, 3, 1), (10, 1, 1, 2)]
ACCUMULATED = [(37, 8, 2, 3, 3), (21, 8, 2, 1, 4), (9, 2, 3, 2, 2)]  # the same, and accum_steps
EPOCHS, ROWS, BATCH = 3, 64, 8  # of a run that is asked for its order

Order = list[list[list[int]]]  # an epoch's micro-batches' rows, each by its place in the data


class Stopped(Exception):
    """The tree raised an error while it should have trained."""


def completing(function: Callable[[Tree, Ledger], Evidence]) -> Callable[[Tree, Ledger], Evidence]:
    """Let a check fail where the tree raises an error, which `ends` has marked."""

    def judge(tree: Tree, ledger: Ledger) -> Evidence:
        try:
            return function(tree, ledger)
        except Stopped as stopped:
            return failed(*stopped.args)

    judge.__name__ = function.__name__
    return judge


@contextlib.contextmanager
def ends(call: str) -> Iterator[None]:
    """Mark the errors of a call that should end well."""
    try:
        yield
    except Exception as error:
        raise Stopped(f"{type(error).__name__}: {error}", call) from error


@check(task=1, prop="micro-batches have batch_size rows, the last of an epoch what is left; the default is 8")
@watching("batch_size")
@completing
def batches_have_their_size(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr, seen = 0.0, 0
    for rows, size in [*SHAPES, (20, None)]:
        run = loop(tree, ledger, rows, epochs=2, **({} if size is None else {"batch_size": size}))
        sizes = [len(micro_batch) for micro_batch in run.micro_batches]
        planned = 2 * planned_sizes(rows, size or 8)
        if sizes != planned:
            return failed(f"micro-batches of {sizes} rows, not {planned}", run.call)
        seen += len(sizes)
    return passed(f"{seen} micro-batches of {len(SHAPES) + 1} shapes")


@check(task=1, prop="each row enters the model once an epoch, as the integer bits [rows, T] that were handed over")
@watching("batch_size")
@completing
def each_row_once_an_epoch(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr, seen = 0.0, 0
    for rows, size in SHAPES:
        run = loop(tree, ledger, rows, epochs=2, batch_size=size)
        for bits in run.micro_batches:
            if bits.dim() != 2 or bits.is_floating_point():  # noqa: PLR2004 - rows and bits
                return failed(f"{bits.dtype} {list(bits.shape)} enters the model, not integer bits [rows, T]", run.call)
        for epoch in epochs_of(run, 2):
            if sorted(torch.cat(epoch).tolist() if epoch else []) != sorted(run.data.tolist()):
                return failed("an epoch does not hold each row once", run.call)
            seen += rows
        if not torch.equal(run.data, tree.bits(rows, LENGTH)):
            return failed("train_loop moves the caller's rows about", run.call)
    return passed(f"{seen} rows of {len(SHAPES)} shapes")


@check(task=1, prop="each epoch shuffles all rows anew: places, micro-batches and neighbours change")
@watching("batch_size")
@completing
def each_epoch_is_shuffled_anew(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr = 0.0
    run = loop(tree, ledger, ROWS, epochs=EPOCHS, batch_size=BATCH)
    handed_over = [list(range(at, at + BATCH)) for at in range(0, ROWS, BATCH)]
    orders = [handed_over, *order_of(run)]
    for first, second in combinations(range(len(orders)), 2):
        names = " and ".join("the data" if epoch == 0 else f"epoch {epoch}" for epoch in (first, second))
        for what, most, found in likenesses(orders[first], orders[second]):
            if found > most:
                return failed(f"{names} have {found} {what} in common, by chance {most} at most", run.call)
    return passed(f"{EPOCHS} epochs of {ROWS} rows")


@check(task=1, prop="the order is a function of seed and epoch: the same for the same seed, another for another")
@watching("batch_size")
@completing
def seed_fixes_the_order(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr = 0.0
    runs = [loop(tree, ledger, ROWS, epochs=EPOCHS, batch_size=BATCH) for _ in range(2)]
    if order_of(runs[0]) != order_of(runs[1]):
        return failed("two runs from torch.manual_seed(1) have different orders", runs[0].call)
    entered = []
    for seed in ("3", "3", "4"):
        flags = ["--compress_prob", "0", "--batch_size", "8", "--seed", seed]
        sizes = command_sizes(tree, ledger, flags)
        if not sizes:
            return failed("the command trains on nothing", command_line(flags))
        entered.append([event.bits.tolist() for event in ledger.events if event.bits is not None])
    if entered[0] != entered[1]:
        return failed("two runs with --seed 3 have different orders", command_line(flags))
    if entered[0] == entered[2]:
        return failed("--seed 3 and --seed 4 give the same order", command_line(flags))
    return passed("two runs, and three of the command")


@check(task=1, prop="the order does not depend on how much randomness the model draws")
@watching("batch_size")
@completing
def model_does_not_shift_the_order(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr = 0.0
    options: dict[str, Any] = {"epochs": EPOCHS, "batch_size": BATCH}
    quiet = loop(tree, ledger, ROWS, **options)
    with_dropout = loop(tree, ledger, ROWS, dropout=0.5, **options)
    hook = register_module_forward_pre_hook(lambda *_: draw_from_every_stream())
    try:
        noisy = loop(tree, ledger, ROWS, **options)
    finally:
        hook.remove()
    if order_of(quiet) != order_of(with_dropout):
        return failed("dropout changes the order of the rows", quiet.call)
    if order_of(quiet) != order_of(noisy):
        return failed("what a forward draws from random, numpy or torch changes the order of the rows", quiet.call)
    return passed(f"{EPOCHS} epochs with and without dropout, and with a model that draws from every stream")


@check(task=1, prop="num_workers=0 works, and num_workers=2 gives the same micro-batches in the same order")
@watching("batch_size", "num_workers")
@completing
def workers_keep_the_order(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr = 0.0
    multiprocessing.set_start_method("fork", force=True)  # the quickest: only what workers do is judged
    default, none, two = (
        loop(tree, ledger, 37, epochs=EPOCHS, batch_size=5, **workers)
        for workers in ({}, {"num_workers": 0}, {"num_workers": 2})
    )
    if order_of(default) != order_of(none):
        return failed("num_workers=0 does not give the micro-batches of the default", none.call)
    if order_of(none) != order_of(two):
        return failed("num_workers=2 does not give the micro-batches of num_workers=0", two.call)
    return passed(f"{EPOCHS} epochs with 0 and 2 workers")


@check(task=1, prop="num_workers processes load the rows, stay from epoch to epoch, and end with the run")
@watching("batch_size", "num_workers")
@completing
def workers_stay_for_the_run(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr = 0.0
    multiprocessing.set_start_method("fork", force=True)
    with counted_processes() as started:
        for workers in (0, 2):
            started.clear()
            run = loop(tree, ledger, 24, epochs=EPOCHS, batch_size=8, num_workers=workers)
            if len(started) != workers:
                return failed(f"{len(started)} processes started in {EPOCHS} epochs, not {workers}", run.call)
            gc.collect()
            if left := multiprocessing.active_children():
                return failed(f"{len(left)} workers still run when train_loop has returned", run.call)
    return passed(f"{EPOCHS} epochs with 0 and 2 workers")


@check(task=1, prop="optimizer steps == scheduler steps == total_steps, for any rows, epochs and extra steps")
@watching("batch_size")
@completing
def total_is_what_is_stepped(tree: Tree, ledger: Ledger) -> Evidence:
    accumulates = "accum_steps" in inspect.signature(tree.module("training").train_loop).parameters
    for rows, size, epochs, extra_steps, *group in [*PLANS, *(ACCUMULATED if accumulates else [])]:
        grouped = {"accum_steps": group[0]} if group else {}
        run = loop(tree, ledger, rows, epochs=epochs, batch_size=size, extra_steps=extra_steps, **grouped)
        paces = [event.kind for event in run.events if event.kind in ("step", "scheduler")]
        planned = epochs * math.ceil((math.ceil(rows / size) + extra_steps) / (group[0] if group else 1))
        if len(run.updates) != planned:
            return failed(f"{len(run.updates)} updates, not {planned}", run.call)
        if run.totals != [planned]:
            return failed(f"{planned} updates, but total_steps={run.totals}", run.call)
        if paces != ["step", "scheduler"] * planned:
            return failed(f"{planned} updates, {paces.count('scheduler')} scheduler steps, not in turn", run.call)
    return passed(f"{len(PLANS)} plans, {len(ACCUMULATED) if accumulates else 'none'} with accumulation")


@check(task=1, prop="extra steps repeat the last micro-batch of their epoch")
@watching("batch_size")
@completing
def extra_steps_repeat_the_last(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr = 0.0
    for rows, size, epochs, extra_steps in PLANS:
        usual = len(planned_sizes(rows, size))
        run = loop(tree, ledger, rows, epochs=epochs, batch_size=size, extra_steps=extra_steps)
        for epoch in order_of(run, epochs):
            if sorted(chain.from_iterable(epoch[:usual])) != list(range(rows)):
                return failed(f"the first {usual} micro-batches of an epoch do not hold each row once", run.call)
            if epoch[usual:] != extra_steps * epoch[usual - 1 : usual]:
                return failed(f"{extra_steps} extra steps are not the last micro-batch again", run.call)
    return passed(f"{len(PLANS)} plans")


@check(task=1, prop="the rate of every update is OneCycle's for the updates made, and the last is its floor to 1e-9")
@watching("batch_size")
@completing
def rates_follow_one_cycle(tree: Tree, ledger: Ledger) -> Evidence:
    worst, reproduce = 0.0, ""
    for rows, size, epochs, extra_steps in [(37, 8, 3, 3), (61, 5, 2, 0)]:
        run = loop(tree, ledger, rows, epochs=epochs, batch_size=size, extra_steps=extra_steps)
        rates = [update.step.lr or 0.0 for update in run.updates]
        peak = ledger.optimizer.param_groups[0].get("max_lr") if ledger.optimizer else None
        if not rates or not peak:
            return unproven("train_loop makes no update, or its schedule is no OneCycleLR")
        planned = epochs * (len(planned_sizes(rows, size)) + extra_steps)
        gaps = [abs(rate - one_cycle(update, planned, peak)) / peak for update, rate in enumerate(rates)]
        if max(gaps) >= worst:
            worst, reproduce = max(gaps), run.call
    return at_most(worst, 1e-9, "distance of a rate from OneCycle's, as a share of the peak", reproduce)


@check(task=1, prop="runs of 1 to 12 updates train, each update at a rate above 0, to the floor")
@watching("batch_size")
@completing
def short_runs_train(tree: Tree, ledger: Ledger) -> Evidence:
    gaps = []
    for count in range(1, 13):
        run = loop(tree, ledger, count, epochs=1, batch_size=1)
        rates = [update.step.lr or 0.0 for update in run.updates]
        if len(rates) != count or not all(math.isfinite(rate) and rate > 0 for rate in rates):
            return failed(f"{len(rates)} updates at the rates {rates}, not {count} above 0", run.call)
        floor = ledger.optimizer.param_groups[0].get("min_lr") if ledger.optimizer else None
        if floor is None:
            return unproven("configure_optimizer's schedule is no OneCycleLR: it has no floor")
        gaps.append((abs(rates[-1] - floor), run.call))
    worst, reproduce = max(gaps)
    return at_most(worst, 1e-9, "distance of the last update's rate from the floor", reproduce)


@check(task=1, prop="batch_size below 1 is refused with an error, before anything is trained")
@watching("batch_size")
def refuses_less_than_one(tree: Tree, ledger: Ledger) -> Evidence:
    for size in (0, -1):
        call = f"train_loop(model, bits(24, {LENGTH}), batch_size={size})"
        try:
            run = train(tree, ledger, 24, batch_size=size)
        except Exception:
            if ledger.events:
                return failed(f"refused only after {len(ledger.events)} events", call)
        else:
            return failed(f"no error, and {len(run.updates)} updates", call)
    return passed("0 and -1 are refused")


@check(task=1, prop="--batch_size and --num_workers on the command line reach the loop; the defaults are 8 and 0")
@watching("batch_size", "num_workers")
@completing
def command_line_reaches_the_loop(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr = 0.0
    multiprocessing.set_start_method("fork", force=True)
    cases: list[tuple[list[str], int, int]] = [
        ([], 8, 0),
        (["--batch_size", "5"], 5, 0),
        (["--batch_size", "64", "--num_workers", "2"], 64, 2),
    ]
    with counted_processes() as started:
        for flags, size, workers in cases:
            started.clear()
            flags = ["--compress_prob", "0", "--epochs", "2", *flags]
            sizes, planned = command_sizes(tree, ledger, flags), 2 * planned_sizes(39, size)
            if sizes != planned:
                return failed(f"micro-batches of {sizes} rows, not {planned}", command_line(flags))
            if ledger.totals != [len(updates(ledger.events))]:
                detail = f"{len(updates(ledger.events))} updates, but total_steps={ledger.totals}"
                return failed(detail, command_line(flags))
            if len(started) != workers:
                return failed(f"{len(started)} worker processes started, not {workers}", command_line(flags))
    return passed("without flags, with --batch_size 5, with --batch_size 64 and 2 workers")


def loop(tree: Tree, ledger: Ledger, rows: int, **options: Any) -> Run:
    """A run of the tree's train_loop that should end well."""
    arguments = ", ".join(f"{name}={value}" for name, value in options.items() if name != "dropout")
    with ends(f"train_loop(model, bits({rows}, {LENGTH}), {arguments})"):
        return train(tree, ledger, rows, **options)


def command_sizes(tree: Tree, ledger: Ledger, flags: list[str]) -> list[int]:
    """The rows of each micro-batch of a run of the command line; its events are the ledger's."""
    with ends(command_line(flags)):
        status = run_command(tree, ledger, flags)
    if status:
        raise Stopped(f"exit status {status}", command_line(flags))
    return [len(event.bits) for event in ledger.events if event.bits is not None]


def command_line(flags: list[str]) -> str:
    """What a user types to see a run of the command line again."""
    return " ".join(["python -m bit_transformer.training --data FILE --max_seq_len 36", *flags])


def planned_sizes(rows: int, batch_size: int) -> list[int]:
    """The rows of each micro-batch of an epoch."""
    return [min(batch_size, rows - at) for at in range(0, rows, batch_size)]


def epochs_of(run: Run, epochs: int) -> list[list[Tensor]]:
    """The micro-batches of each epoch, of which all have as many."""
    size = len(run.micro_batches) // epochs
    if size * epochs != len(run.micro_batches) or not size:
        raise Stopped(f"{len(run.micro_batches)} micro-batches do not make {epochs} equal epochs", run.call)
    return [run.micro_batches[at : at + size] for at in range(0, size * epochs, size)]


def order_of(run: Run, epochs: int = EPOCHS) -> Order:
    """The order in which the rows, all different, enter the model."""
    places = {tuple(row): place for place, row in enumerate(run.data.tolist())}
    found = [
        [[places.get(tuple(row), -1) for row in bits.tolist()] for bits in epoch] for epoch in epochs_of(run, epochs)
    ]
    if len(places) != len(run.data) or any(place < 0 for epoch in found for bits in epoch for place in bits):
        raise Stopped("what enters the model is not the rows that were handed over", run.call)
    return found


def likenesses(first: list[list[int]], second: list[list[int]]) -> Iterator[tuple[str, int, int]]:
    """What two orders of 64 rows in eights share: a name, the most that chance gives (1 in 1e6 is above), the count."""
    flat = [list(chain.from_iterable(order)) for order in (first, second)]
    yield "places", 8, sum(a == b for a, b in zip(*flat, strict=False))
    neighbours = [{frozenset(pair) for pair in pairwise(order)} for order in flat]
    yield "neighbours", 12, len(neighbours[0] & neighbours[1])
    mates = [{pair for bits in order for pair in combinations(sorted(bits), 2)} for order in (first, second)]
    yield "pairs in one micro-batch", 60, len(mates[0] & mates[1])


def draw_from_every_stream() -> None:
    """Move on the global random streams."""
    random.getrandbits(32)
    np.random.random()
    torch.rand(())


@contextlib.contextmanager
def counted_processes() -> Iterator[list[str]]:
    """The names of the processes that multiprocessing starts meanwhile."""
    started: list[str] = []
    start = BaseProcess.start

    def spied(process: BaseProcess) -> None:
        started.append(process.name)
        start(process)

    BaseProcess.start = spied  # type: ignore[method-assign,assignment]
    try:
        yield started
    finally:
        BaseProcess.start = start  # type: ignore[method-assign]
