"""Task-1, batch size and OneCycle accounting: what enters the model, and how long the schedule is."""

import contextlib
import gc
import io
import math
import multiprocessing
from collections.abc import Iterator
from itertools import chain, combinations
from typing import Any

import torch
from torch import Tensor

from .driving.arguments import unreached, unreached_flags
from .driving.kept_runs import Runs, judged, kept_runs, wrong_plan
from .driving.loaders import (
    drawn_by_workers,
    held_more,
    micro_batches_shown,
    most_alike,
    stray_device,
    trouble_with_a_skip,
    trouble_with_rows,
)
from .driving.pictures import one_cycle_curves
from .driving.short_fit import one_cycle
from .driving.space import Points, Span, over
from .driving.spies import Ledger, updates
from .driving.training_runs import (
    LENGTH,
    Stopped,
    command_line,
    freeze_the_first,
    planned_rows,
    planned_updates,
    refused,
    run_command,
    train,
    watching,
)
from .driving.tree import Tree
from .driving.world import differences, noisy_models, settings, started_processes, streams
from .running.evidence import Evidence, at_most, check, failed, passed

MOST = 60  # micro-batches of a run that is one of many
ROWS, BATCH_SIZES = Span(1, 90, 37, 24, 9, 5, 1), Span(1, 100, 8, 5, 1, 33)
EPOCHS, MANY, BATCH = 7, 64, 8  # rows of a run that is asked for its order
SEEDS = 100  # of which no two have one order


def few(values: dict[str, Any]) -> bool:
    """Whether a run has so few micro-batches that there may be many of it."""
    if not values.keys() >= {"rows", "batch_size", "epochs"}:
        return True
    micro_batches = math.ceil(values["rows"] / values["batch_size"]) + values.get("extra_steps", 0)
    return bool(values["epochs"] * micro_batches <= MOST)


@check(task=1, prop="micro-batches have batch_size rows, each row of an epoch once, then the last again in extra steps")
@watching("batch_size")
@over(
    "epochs",
    "extra_steps",
    "accum_steps",
    "amp",
    "compress_prob",
    "direct_prob",
    "seed",
    "compile",
    "data",
    "global_step",
    rows=ROWS,
    batch_size=BATCH_SIZES,
    allowed=few,
)
def batches_hold_each_row_once(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    seen = 0
    for point in points:
        run = train(tree, ledger, point["rows"], light=True, seed=point["seed"], **point.options)
        if trouble := trouble_with_rows(run, point["batch_size"]):
            return failed(trouble, run.call, picture=micro_batches_shown(run, point["batch_size"]))
        if not torch.equal(run.data, tree.bits(point["rows"], LENGTH)):
            return failed("train_loop moves the caller's rows about", run.call)
        seen += len(run.micro_batches)
    if trouble := trouble_with_rows(run := train(tree, ledger, 20, epochs=2), 8):
        return failed(f"without batch_size, {trouble}", run.call, picture=micro_batches_shown(run, 8))
    if stray := stray_device(tree, ledger):
        return failed(f"what enters a model on another device is on {stray}", "train_loop(model.to('meta'), ...)")
    return passed(f"{seen} micro-batches")


@check(task=1, prop="each epoch and each seed shuffles all rows anew: places, micro-batches and neighbours change")
@watching("batch_size")
@over("seed", "data", batch_size=(BATCH, MANY))
def each_epoch_is_shuffled_anew(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    as_given = [list(range(at, at + BATCH)) for at in range(0, MANY, BATCH)]
    usual: dict[str, Any] = {"light": True, "epochs": EPOCHS}
    for point in points:
        options = usual | point.options
        run = train(tree, ledger, MANY, seed=point["seed"], **options)
        others = train(tree, ledger, MANY, seed=point["seed"] + 100, **options)
        pairs = [("the data", as_given, each) for each in run.order]
        pairs += [("two epochs", *each) for each in combinations(run.order, 2)]
        pairs += [("another seed", *each) for each in zip(run.order, others.order, strict=True)]  # epoch by epoch
        for what, one, other in pairs:
            if alike := most_alike(one, other):
                return failed(f"{what}: {alike}", run.call)
    firsts = [
        train(tree, ledger, MANY, light=True, epochs=1, batch_size=BATCH, seed=seed).order[0] for seed in range(SEEDS)
    ]
    if (different := len({str(order) for order in firsts})) < SEEDS:
        return failed(f"{SEEDS} seeds give {different} orders", f"train_loop(model, bits({MANY}, {LENGTH}))")
    return passed(f"epochs of {MANY} rows, of {2 * len(points.done)} runs; {SEEDS} seeds")


@check(task=1, prop="the order is a function of seed and epoch: no other option moves it")
@watching("batch_size")
@over(
    "accum_steps",
    "amp",
    "compress_prob",
    "direct_prob",
    "num_workers",
    "reversible",
    "use_act",
    "windows",
    "seed",
    extra_steps=(0, 2),
    noise=("none", "dropout", "every stream"),
    allowed=lambda values: not values.get("num_workers") or (values.get("seed", 0) == 0 and not values.get("use_act")),
)
def only_seed_and_epoch_make_the_order(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    multiprocessing.set_start_method("fork", force=True)  # the quickest: only what workers do is judged
    sizes: dict[str, Any] = {"epochs": 2, "batch_size": 5}
    usual = {seed: train(tree, ledger, 20, light=True, seed=seed, **sizes).order for seed in points.axes["seed"]}
    for point in points:
        dropout = 0.5 if point["noise"] == "dropout" else 0.0
        with noisy_models(point["noise"] == "every stream"):
            run = train(
                tree,
                ledger,
                20,
                config=point.config,
                dropout=dropout,
                seed=point["seed"],
                dtype=torch.float32,
                **sizes,
                **point.options,
            )
        drawing = point["noise"] != "none" or point.options.get("num_workers")  # a loader's seed may be drawn with it
        same = 1 if drawing else 2
        if [epoch[:4] for epoch in run.order[:same]] != usual[point["seed"]][:same]:
            return failed(f"the order is not that of a plain run from one seed: {point}", run.call)
    entered = []
    for seed in ("3", "3", "4"):
        flags = ["--compress_prob", "0", "--batch_size", "8", "--seed", seed]
        entered.append([bits.tolist() for bits in command_batches(tree, ledger, flags)])
    if entered[0] != entered[1]:
        return failed("two runs with --seed 3 have different orders", command_line(flags))
    if entered[0] == entered[2]:
        return failed("--seed 3 and --seed 4 give the same order", command_line(flags))
    return passed("runs, and three of the command")


@check(task=1, prop="num_workers processes load the rows, draw each its own, stay from epoch to epoch, and then end")
@watching("batch_size", "num_workers")
@over("accum_steps", num_workers=(0, 1, 2))
def workers_stay_for_the_run(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    multiprocessing.set_start_method("fork", force=True)
    with started_processes() as started:
        for point in points:
            started.clear()
            run = train(tree, ledger, 24, light=True, epochs=3, **point.options)
            if len(started) != point["num_workers"]:
                return failed(f"{len(started)} processes started, not {point['num_workers']}", run.call)
            gc.collect()
            if left := multiprocessing.active_children():
                return failed(f"{len(left)} workers still run when train_loop has returned", run.call)
    for name, draws in drawn_by_workers(tree, ledger).items():
        if len({*draws}) < len(draws):
            call = "train_loop(model, a data set that draws its rows, num_workers=2)"
            return failed(f"of {len(draws)} draws from {name}, in 2 workers, {len({*draws})} are different", call)
    return passed("3 epochs each")


@check(task=1, prop="the updates are those planned, each at OneCycle's rate from lr on, the last at its floor to 1e-9")
@watching("batch_size")
@over(
    "epochs",
    "extra_steps",
    "accum_steps",
    "amp",
    "compress_prob",
    "direct_prob",
    "global_step",
    "compile",
    rows=ROWS,
    batch_size=BATCH_SIZES,
    lr=(0.001, 0.05),
    allowed=few,
)
def rates_follow_one_cycle(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    """Whoever sets the rates, for runs of 1 to 12 updates too, and of many."""
    plans = ({"rows": point["rows"], "lr": point["lr"], **point.options} for point in points)
    many = ({"rows": count, "batch_size": 1, "lr": 0.01, "accum_steps": 1} for count in (*range(1, 13), 500))
    worst, reproduce, shown = 0.0, "", None
    for plan in chain(plans, many):
        run = train(tree, ledger, light=True, **{name: plan[name] for name in plan if takes(tree, name)})
        planned = planned_updates(**plan)
        peak = run.peak(planned)
        curves = one_cycle_curves(run.rates, planned, peak)
        if len(run.updates) != planned:
            return failed(f"{len(run.updates)} updates, not {planned}", run.call, picture=curves)
        if not run.is_stepped(tree, planned):
            return failed(f"{planned} updates, {run.scheduler_steps} scheduler steps", run.call, picture=curves)
        gap = run.gap(tree, planned)
        if not gap <= worst:
            worst, reproduce, shown = gap, run.call, curves
    what = f"distance of a rate from OneCycle's, as a share of lr, of {len(points.done) + 13} runs"
    return at_most(worst, 1e-9, what, reproduce, shown)


def takes(tree: Tree, name: str) -> bool:
    """Whether a run can be told so."""
    return name == "rows" or tree.loop_takes(name)


@check(task=1, prop="an update that is skipped, its gradient being no number, is one, and the schedule does not go on")
@watching("batch_size")
@over("amp", "compress_prob", accum_steps=(1, 3))
def skipped_update_is_not_scheduled(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    skips = 0
    for point in points:
        trouble, run, shown = trouble_with_a_skip(tree, ledger, point.options)
        if trouble:
            return failed(trouble, run.call, picture=shown)
        skips += planned_updates(**run.options, rows=len(run.data)) - len(run.updates)
    return passed(f"{skips} updates were skipped" if skips else "no update is skipped")


@check(
    task=1, prop="each argument of the loop reaches where it acts, and changes nothing else; all weights are trained"
)
@watching("batch_size")
@over("amp", "direct_prob", accum_steps=(1, 3), compress_prob=(1.0, 0.0))
def arguments_reach(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    names = ("epochs", "extra_steps", "batch_size", "num_workers", "log", "forward_kwargs", "lr", "weight_decay")
    for point in points:
        if trouble := unreached(tree, ledger, names, point.options):
            return failed(trouble, f"train_loop(model, bits(20, {LENGTH}), ...)")
        run = train(tree, ledger, 48, dtype=torch.float32, lr=0.01, **point.options)
        grads = run.updates[-1].step.grads or {}
        for name, weight in tree.model(dtype=torch.float32).named_parameters():
            if torch.equal(weight, run.model.get_parameter(name)) and grads[name].abs().max() > 1e-6:  # noqa: PLR2004
                return failed(f"{name} is not trained", run.call)
        run = train(tree, ledger, 16, prepare=freeze_the_first, **point.options)
        frozen, first = (next(model.parameters()) for model in (run.model, tree.model()))
        if frozen.requires_grad or not torch.equal(frozen, first):
            return failed("a weight that takes no gradient is trained", f"a frozen weight; {run.call}")
    return passed(f"{len(names)} arguments")


@check(task=1, prop="the caller's settings, files, threads and random streams are its own when a run has ended")
@watching("batch_size")
@over("amp", "compress_prob", "num_workers", "reversible", "use_act", accum_steps=(1, 3), log=(False, True))
def leaves_the_world_as_it_was(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    multiprocessing.set_start_method("fork", force=True)
    ledger.frozen, before, left = True, settings(), []
    for point in points:
        options: dict[str, Any] = {
            "config": point.config,
            "dropout": 0.5,
            "log": point.values.get("log"),
            **point.options,
        }
        for seed in (3, 4):
            with contextlib.redirect_stdout(io.StringIO()):
                run = train(tree, ledger, 16, alike=True, epochs=2, batch_size=4, seed=seed, **options)
            if changed := differences(before, settings()):
                return failed(f"{changed[0]}: no longer what it was", run.call)
            left.append(streams())
        if same := [name for name in left[-2] if left[-2][name] == left[-1][name]]:
            return failed(f"after runs from two seeds the stream of {same[0]} is at one place", run.call)
        losses = [event.loss.item() for event in run.events if event.loss is not None]
        if point.options.get("accum_steps", 1) == 1 and len({*losses}) < len(losses):
            return failed("micro-batches of one row drop the same weights", run.call)
    return passed(f"{len(before)} settings")


@check(task=1, prop="what is held in memory does not grow with a run: few micro-batches, and no graph of one before")
@watching("batch_size")
@over("compress_prob", "amp", accum_steps=(1, 3))
def memory_does_not_grow(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    worst, reproduce = max(held_more(tree, ledger, point.options) for point in points)
    return at_most(worst, 8, "tensors more that are held in a run of 48 micro-batches than in one of 14", reproduce)


@check(
    task=1, prop="a run that is kept has batch_size rows a micro-batch, each row once an epoch, and OneCycle's rates"
)
@watching("batch_size")
@kept_runs
def kept_runs_count_their_rows(runs: Runs) -> Iterator[Evidence]:
    for batch_size, extra_steps in ((8, 0), (5, 2), (16, 1)):
        flags: dict[str, Any] = {"batch_size": batch_size, "extra_steps": extra_steps}
        kept = runs.go(**flags)
        yield judged(kept, *wrong_plan(kept, **flags))


@check(task=1, prop="batch_size below 1 is refused with an error, before anything is trained")
@watching("batch_size")
@over("num_workers", "accum_steps", batch_size=(0, -1))
def refuses_less_than_one(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    return refused(tree, ledger, (point.options for point in points))


@check(
    task=1,
    prop="the flags of the command line reach the loop, each its own argument; the defaults are 8 rows, 0 workers",
)
@watching("batch_size", "num_workers")
def command_line_reaches_the_loop(tree: Tree, ledger: Ledger) -> Evidence:
    multiprocessing.set_start_method("fork", force=True)
    cases: list[tuple[list[str], int, int]] = [
        ([], 8, 0),
        (["--batch_size", "5"], 5, 0),
        (["--batch_size", "64", "--num_workers", "2"], 64, 2),
    ]
    with started_processes() as started:
        for flags, size, workers in cases:
            started.clear()
            flags = ["--compress_prob", "0", "--epochs", "2", *flags]
            sizes, planned = [len(bits) for bits in command_batches(tree, ledger, flags)], 2 * planned_rows(39, size)
            if sizes != planned:
                return failed(f"micro-batches of {sizes} rows, not {planned}", command_line(flags))
            rates = [update.step.lr or 0.0 for update in updates(ledger.events)]
            if not math.isclose(rates[-1], one_cycle(1, 2, 25 * rates[0]), rel_tol=1e-6) and len(rates) > 2:  # noqa: PLR2004 - two have no start
                trouble = f"{len(rates)} updates, and the last at {rates[-1]:.3g}: not the floor"
                return failed(trouble, command_line(flags), picture=one_cycle_curves(rates, len(rates), 25 * rates[0]))
            if len(started) != workers:
                return failed(f"{len(started)} worker processes started, not {workers}", command_line(flags))
    names = ("epochs", "extra_steps", "lr", "weight_decay", "direct_prob")
    if trouble := unreached_flags(tree, ledger, ("batch_size", "num_workers"), names):
        return failed(*reversed(trouble.split(": ", 1)))
    return passed("without flags, with --batch_size 5, with --batch_size 64 and 2 workers; each flag alone")


def command_batches(tree: Tree, ledger: Ledger, flags: list[str]) -> list[Tensor]:
    """The micro-batches of a run of the command line; its events are the ledger's."""
    try:
        status = run_command(tree, ledger, flags)
    except Exception as error:
        raise Stopped(f"{type(error).__name__}: {error}", command_line(flags)) from error
    found = [event.bits for event in ledger.events if event.bits is not None]
    if status or not found:
        raise Stopped(f"exit status {status}, {len(found)} micro-batches", command_line(flags))
    return found
