"""Task-6, the compression ramp: its probabilities, seen by fixing what the tree draws, its clock and its draws."""

import contextlib
import functools
import importlib
import inspect
import math
import multiprocessing
from collections.abc import Iterator
from itertools import combinations, pairwise
from operator import itemgetter
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from .driving.arguments import unreached, unreached_flags
from .driving.coins import HALF, NEAR, Coins, off_by, ramp, shares_shown, tossing
from .driving.kept_runs import Runs, judged, kept_runs
from .driving.pictures import events
from .driving.seams import MissingSeam
from .driving.short_fit import half_cosine
from .driving.space import Points, Span, over
from .driving.text_loads import sample, schedule, write_text
from .driving.training_runs import LENGTH, Stopped, command_line, run_command, train, watching
from .driving.tree import Tree
from .driving.world import differences, noisy_models, spoilt_forward, streams
from .running.evidence import Evidence, Verdict, at_most, check, failed, passed, unproven

MOST = 16  # micro-batches of a run that is one of many
DRAWN: dict[str, Any] = {"extra_steps": 159, "warmup_steps": 0}  # of a run that is asked for its rate
MODELS = ("reversible", "use_act", "windows")


def few(values: dict[str, Any]) -> bool:
    """Whether a run has so few micro-batches that there may be many of it."""
    if not values.keys() >= {"rows", "epochs", "extra_steps"}:
        return True
    batches = math.ceil(values["rows"] / values.get("batch_size", 8)) + values["extra_steps"]
    return bool(values["epochs"] * batches <= MOST)


@check(task=6, prop="p is half a cosine from 0 to compress_prob after warmup_steps updates, of this run and before it")
@tossing("warmup_steps", "global_step")
@over(
    "accum_steps",
    "amp",
    "batch_size",
    "compile",
    "num_workers",
    "reversible",
    "seed",
    extra_steps=(9, 0),
    epochs=(1, 2, 5),
    rows=Span(1, 30, 1, 20),
    warmup_steps=Span(0, 40, 8, 0, 1, 1000),
    compress_prob=(1.0, 0.6, None),
    global_step=Span(0, 50, 0, 3, 400),
    allowed=few,
)
def ramp_is_half_a_cosine(_: Tree, coins: Coins, points: Points) -> Evidence:
    """From the first update on, with 0.5 as the end where none is given, and a warmup of 0 and of 1."""
    return coins.follow((point.values for point in points), runs=120)


@check(
    task=6, prop="cosine_ramp, where a tree has it, is half a cosine between any two ends, over any number of updates"
)
@over(step=Span(0, 40, 0, 1, 5, 10, 1000), total=Span(0, 30, 0, 1, 10), start=(0.0, 0.2, 1.0), end=(0.5, 1.0, 0.0))
def cosine_ramp_takes_any_ends(tree: Tree, points: Points) -> Evidence:
    try:
        function = tree.part("training", "cosine_ramp")
    except MissingSeam:
        return Evidence(Verdict.NOT_APPLICABLE, detail="there is none")
    for point in points:
        step, total, start, end = (point[axis] for axis in ("step", "total", "start", "end"))
        wanted = end if step >= total else half_cosine(start, end, step / total)
        found = function(step, start=start, end=end, total_steps=total)
        if not abs(found - wanted) <= 1e-9:  # noqa: PLR2004 - rounding
            return failed(
                f"{found}, not {wanted}", f"cosine_ramp({step}, start={start}, end={end}, total_steps={total})"
            )
    return passed(f"{len(points.done)} values")


@check(task=6, prop="the clock counts updates: an update that is skipped, its gradient being no number, is none")
@tossing("warmup_steps")
@over("accum_steps", "amp", epochs=(1, 2), rows=(37,), warmup_steps=(7,), compress_prob=(1.0,))
def clock_counts_updates(tree: Tree, coins: Coins, points: Points) -> Evidence:
    kind = tree.kind
    if not coins.fixable:
        return passed("no draw can be fixed")
    for point in points:
        for side in (-NEAR, NEAR):
            with spoilt_forward(kind, 1):
                wrong = coins.miss(point.values, (side,))
            if wrong:
                shown = coins.ramp_shown(point.values, functools.partial(spoilt_forward, kind, 1))
                return failed(f"where a gradient is no number, {wrong}", coins.call, picture=shown)
    return passed("one gradient of each run is no number")


@check(task=6, prop="the rounds of the schedule have one clock: the ramp goes on where the round before left it")
@tossing("warmup_steps", "global_step")
def rounds_have_one_clock(tree: Tree, coins: Coins) -> Evidence:
    """Train in rounds, the model growing between them, with a ramp that is through within the first."""
    try:
        module = schedule(tree)
    except MissingSeam:
        return passed("no schedule trains in rounds here")
    loop, begun, given = tree.seams.part("update").load(), list[int](), list[dict[str, Any]]()

    def in_a_round(*args: Any, **kwargs: Any) -> Any:
        begun.append(len(coins.ledger.events))
        given.append(inspect.signature(loop).bind(*args, **kwargs).arguments)
        return loop(*args, **{"warmup_steps": 3, "compress_prob": 1.0} | kwargs)

    for name, value in list(vars(module).items()):
        if value is loop:
            setattr(module, name, in_a_round)
    path = write_text("rounds.txt", sample(8 * 90))
    sizes = {"rounds": 3, "layers": 1, "d_model": 8, "nhead": 2, "max_seq_len": 72, "min_gain": 9, "most_width": 16}
    asked = {"epochs": 2, "lr": 0.002}
    flags = (str(word) for name, value in (sizes | asked).items() for word in (f"--{name}", value))
    words = ["--data", str(path), *flags]
    line = f"wikitext_schedule.main({words[2:]}), with warmup_steps=3 and compress_prob=1.0 as defaults"
    try:
        module.main(words)
    except SystemExit as error:
        return unproven(f"the schedule does not take the options of old: it exits with {error.code}: {line}")
    events = coins.ledger.take()
    ends = [*begun[1:], len(events)]
    forms = [
        [event.form for event in events[at:end] if event.bits is not None] for at, end in zip(begun, ends, strict=True)
    ]
    if len(forms) != sizes["rounds"] or any(len(each) <= 3 for each in forms):  # noqa: PLR2004 - the ramp's updates
        return unproven(
            f"the schedule trains in {[len(each) for each in forms]} micro-batches, not in 3 rounds of more"
        )
    if forms[0][0] != "rows":
        return failed("the first micro-batch is compressed, before the ramp has begun", line)
    for number, each in enumerate(forms[1:], start=2):
        if "rows" in each:
            return failed(f"round {number} begins the ramp again: its first micro-batches are {each[:4]}", line)
    for at, options in zip(begun, given, strict=True):
        made = sum(event.kind == "step" for event in events[:at])
        expected = asked | {"global_step": made}
        if wrong := {name: value for name, value in options.items() if expected.get(name, value) not in (None, value)}:
            return failed(f"a round after {made} updates is told {wrong}, not {expected}", line)
        if missing := asked.keys() - options.keys():
            return failed(f"a round is not told {', '.join(sorted(missing))}", line)
    return passed(f"{sum(map(len, forms))} micro-batches of 3 rounds, through the ramp once")


@check(
    task=6,
    prop="a run that is kept has the ramp too: its first micro-batch is raw, and all are streams once it is over",
)
@watching("warmup_steps")
@kept_runs
def kept_runs_have_the_ramp(runs: Runs) -> Iterator[Evidence]:
    for accum_steps in (1, 2):
        kept = runs.go(compress_prob=1.0, warmup_steps=3, accum_steps=accum_steps, batch_size=4, most=8)
        forms = [event.form for event in kept.events if event.bits is not None]
        is_right = {*forms[:accum_steps]} == {"rows"} and {*forms[3 * accum_steps :]} == {"streams"}
        shown = events("micro-batches", forms, accum_steps * ["rows"] + (len(forms) - accum_steps) * ["streams"])
        yield judged(kept, "" if is_right else f"micro-batches, {accum_steps} an update, are {' '.join(forms)}", shown)


@check(task=6, prop="where p is 0, even for a draw of 0.0, micro-batches are the raw rows, bit for bit")
@tossing("warmup_steps")
@over(
    "amp",
    accum_steps=(1, 3),
    batch_size=(8, 3),
    seed=(0, 7),
    warmup_steps=(0, 3),
    draw=(None, 0.0),
    compress_prob=(0.0, 1.0),
)
def zero_is_raw(tree: Tree, coins: Coins, points: Points) -> Evidence:
    for point in points:
        options = {name: value for name, value in point.values.items() if name != "draw"}
        draw = None if point["draw"] is None else lambda: 0.0
        tosses = coins.run(20, draw=draw, epochs=2, **options)
        entered, wanted = sorted(row for toss in tosses for row in toss.bits.tolist()), sorted(2 * coins.data.tolist())
        if point["compress_prob"]:  # then only the first micro-batch comes before the ramp, if there is one
            tosses = tosses[: bool(point["warmup_steps"])]
        elif entered != wanted and not (
            tree.seams.is_told and all(row in wanted for row in entered)
        ):  # or task-1's fault
            return failed("with compress_prob=0 the rows that enter are not those handed over", coins.call)
        if any(toss.form != "raw" or toss.bits.dtype is not coins.data.dtype for toss in tosses):
            shown = events("micro-batches where p is 0", [toss.form for toss in tosses], len(tosses) * ["raw"])
            return failed("where p is 0 not every micro-batch is raw", coins.call, picture=shown)
    return passed("with warmup_steps of 0 and 3, and at the start of a ramp")


@check(
    task=6, prop="the rate at which micro-batches are compressed is within 4 sigma of p, each drawn apart, for any seed"
)
@tossing("warmup_steps")
@over(seed=(1, 7), end=(0.5, 0.2), accum_steps=(1, 3))
def rate_is_the_probability(_: Tree, coins: Coins, points: Points) -> Evidence:
    gaps, forms = [], {}
    for point in points:
        options = {"compress_prob": point["end"], "accum_steps": point.options.get("accum_steps", 1), **DRAWN}
        tosses = coins.run(seed=point["seed"], **options)
        hits = [toss.form == "compressed" for toss in tosses]
        chances = [ramp(toss.updates, options) for toss in tosses]
        if again := [lag for lag in range(1, 81) if hits[lag:] == hits[:-lag]]:
            return failed(f"after {again[0]} micro-batches the same forms come again", coins.call)
        shown = shares_shown(hits, chances)
        halves = slice(80), slice(80, 160)
        gaps += [(off_by(hits[half], chances[half]), "rate", coins.call, shown) for half in halves]
        odds = [p * (1 - q) + q * (1 - p) for p, q in pairwise(chances)]
        gaps.append((off_by([a != b for a, b in pairwise(hits)], odds), "number of changes of form", coins.call, None))
        forms[point["seed"], point["end"]] = hits
    for (a, hits), (b, others) in combinations(forms.items(), 2):
        if a[0] != b[0] and a[1] == b[1] and hits == others:
            return failed(f"seeds {a[0]} and {b[0]} give the same forms", coins.call)
    tosses = coins.run(epochs=2, compress_prob=HALF, **DRAWN | {"extra_steps": 39})
    if len({tuple(toss.form for toss in tosses[at : at + 40]) for at in (0, 40)}) < 2:  # noqa: PLR2004 - epochs
        return failed("each epoch draws the same forms again", coins.call)
    worst, what, reproduce, shown = max(gaps, key=itemgetter(0))
    return at_most(worst, 4.0, f"sigmas between the {what} and what p gives", reproduce, shown)


@check(task=6, prop="draws have their own generator: how many there are moves no global stream, and no row")
@tossing("warmup_steps")
@over("amp", "direct_prob", accum_steps=(1, 3), seed=(0, 7), end=(0.0, 0.5, 1.0))
def draws_move_no_other_stream(_: Tree, coins: Coins, points: Points) -> Evidence:
    for point in points:
        left, orders = [], []
        for extra in (0, 5):
            options = {"epochs": 2, "extra_steps": extra, "compress_prob": point["end"], "warmup_steps": 2}
            tosses = coins.run(20, seed=point["seed"], **options, **point.options)
            left.append(streams())
            epochs = tosses[: len(tosses) // 2], tosses[len(tosses) // 2 :]
            orders.append([toss.bits.tolist() for epoch in epochs for toss in epoch[: len(epoch) - extra]])
        if moved := differences(*left):
            return failed(f"5 more draws an epoch leave the global stream of {moved[0]} elsewhere", coins.call)
        if orders[0] != orders[1]:
            coins.last.require_streams()
            return failed("5 more draws an epoch change the order of the rows", coins.call)
    return passed("with compress_prob 0, 0.5 and 1")


@check(task=6, prop="forms are a function of the seed, whatever the model draws, and p does not move dropout")
@tossing("warmup_steps")
@over("amp", "num_workers", "reversible", "use_act", accum_steps=(1, 3), seed=(0, 7), noise=(False, True))
def seed_fixes_the_forms(tree: Tree, coins: Coins, points: Points) -> Evidence:
    multiprocessing.set_start_method("fork", force=True)
    usual: dict[int, list[str]] = {}
    for point in points:
        options = point.options | {"extra_steps": 39, "warmup_steps": 0, "compress_prob": HALF}
        with noisy_models(point["noise"]):
            forms = [toss.form for toss in coins.run(seed=point["seed"], **options)]
        if usual.setdefault(point["seed"], forms) != forms:
            shown = events("micro-batches of two runs from one seed", forms, usual[point["seed"]])
            return failed(f"two runs from one seed compress other micro-batches: {point}", coins.call, picture=shown)
        if point["noise"] or point.options.get("num_workers"):
            continue
        options = point.options | {"dropout": 0.2, "seed": point["seed"], "config": point.config, "warmup_steps": 0}
        runs = [train(tree, coins.ledger, 16, epochs=2, compress_prob=end, **options) for end in (0.0, 0.5, 1.0)]
        weights = [torch.cat([weight.detach().flatten() for weight in run.model.parameters()]) for run in runs]
        if not all(torch.equal(weights[0], other) for other in weights[1:]):
            coins.last.require_streams()
            return failed("dropout, or the order of the rows, changes with compress_prob", runs[2].call)
    return passed(f"{len(usual)} seeds, and weights after updates with dropout")


@check(task=6, prop="evaluation is not compressed, and draws nothing, whatever the ramp has reached")
@tossing("warmup_steps")
def evaluation_has_no_ramp(tree: Tree, coins: Coins) -> Evidence:
    """Look at what enters the model, and whether it came as streams."""
    run = train(tree, coins.ledger, 24, epochs=2, compress_prob=1.0, warmup_steps=1)
    model, entered, kind = run.model.eval(), list[tuple[bool, Any]](), tree.kind

    def see(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, kind) and args:
            entered.append((coins.ledger.is_in_streams, args[0]))

    evaluations: list[Any] = [model]
    with contextlib.suppress(ImportError, AttributeError):
        evaluations.append(functools.partial(tree.part("safety", "hil_safe_inference"), model))
    with contextlib.suppress(ImportError, AttributeError):
        evaluations.append(functools.partial(importlib.import_module("data.wikitext_schedule").evaluate, model))
    known, before = {tuple(row) for row in run.data.tolist()}, streams()
    for evaluate in 8 * evaluations:  # suppressed is what the gate raises, which may withhold the logits
        with register_module_forward_pre_hook(see), torch.no_grad(), contextlib.suppress(Exception):
            evaluate(run.data)
    call = f"{run.call}; model.eval(); model(bits)"
    for is_stream, bits in entered:
        if is_stream or not known.issuperset(map(tuple, bits.tolist())):
            return failed("what enters the model in evaluation was compressed, or is not the rows", call)
    if moved := differences(before, streams()):
        return failed(f"evaluation draws from the global stream of {moved[0]}", call)
    return passed(f"{8 * len(evaluations)} evaluations after a run that reached compress_prob=1")


@check(task=6, prop="direct_prob is no ramp: it holds from the first update, and goes before compression")
@tossing("warmup_steps")
@over("amp", accum_steps=(1, 3), epochs=(1, 2), end=(1.0, 0.5), warmup_steps=(0, 5), global_step=(0, 400))
def direct_prob_has_no_ramp(tree: Tree, coins: Coins, points: Points) -> Evidence:
    stream = tree.part("compression", "compress_bits")
    for point in points:
        options = point.options | {name: point[name] for name in ("warmup_steps", "global_step")}
        options["compress_prob"] = point["end"]
        tosses = coins.run(20, direct_prob=1.0, extra_steps=6, **options)
        known = {tuple(stream(row).tolist()) + 64 * (0,) for row in coins.data}  # as far as a row can be padded
        for toss in tosses:
            wide = {row[: toss.bits.shape[1]] for row in known}
            if toss.form != "direct" or not wide.issuperset(map(tuple, toss.bits.tolist())):
                return failed(f"with direct_prob=1 a micro-batch is {toss.form}, not the run-length stream", coins.call)
    gaps = []
    shapes = [(1.0, 0, {"compressed"}), (0.0, 0, {"raw"}), (1.0, 10**6, {"raw"}), (0.3, 0, {"compressed", "raw"})]
    for end, warmup_steps, others in shapes:
        tosses = coins.run(extra_steps=89, compress_prob=end, warmup_steps=warmup_steps, direct_prob=0.3)
        forms = [toss.form for toss in tosses]
        if set(forms) != {"direct"} | others:
            return failed(f"with direct_prob=0.3 the forms are {', '.join(sorted(set(forms)))}", coins.call)
        gaps.append((off_by([form == "direct" for form in forms], len(forms) * [0.3]), coins.call))
        plain = [form == "compressed" for form in forms if form != "direct"]
        gaps.append((off_by(plain, len(plain) * [0.0 if warmup_steps else end]), coins.call))
    worst, reproduce = max(gaps)
    return at_most(worst, 4.0, "sigmas between the rates of forms and those that direct_prob=0.3 gives", reproduce)


@check(task=6, prop="each argument of the ramp, and each flag, reaches where it acts, and changes nothing else")
@tossing("warmup_steps", "global_step")
@over("amp", accum_steps=(1, 3), batch_size=(8, 3))
def arguments_reach(tree: Tree, coins: Coins, points: Points) -> Evidence:
    names = ("compress_prob", "direct_prob", "warmup_steps", "global_step", "forward_kwargs")
    for point in points:
        if trouble := unreached(tree, coins.ledger, names, point.options):
            return failed(trouble, f"train_loop(model, bits(20, {LENGTH}), ...)")
    if trouble := unreached_flags(tree, coins.ledger, ("compress_prob", "warmup_steps"), ("direct_prob",)):
        return failed(*reversed(trouble.split(": ", 1)))
    return passed(f"{len(names)} arguments")


@check(task=6, prop="--compress_prob and --warmup_steps on the command line reach the loop; the default ends at 0.5")
@tossing("warmup_steps")
def command_line_reaches_the_loop(tree: Tree, coins: Coins) -> Evidence:
    cases: list[tuple[list[str], float | None, list[bool]]] = [
        (["--compress_prob", "0", "--warmup_steps", "0"], None, 10 * [False]),
        (["--compress_prob", "1", "--warmup_steps", "1"], None, [False] + 9 * [True]),
        (["--compress_prob", "1"], None, [False]),
    ]
    if coins.fixable:
        ramped = [ramp(update, {"compress_prob": 1.0, "warmup_steps": 8}) > HALF - NEAR for update in range(10)]
        cases += [
            (["--compress_prob", "1", "--warmup_steps", "8"], HALF - NEAR, ramped),
            (["--warmup_steps", "0"], HALF - NEAR, 10 * [True]),
            (["--warmup_steps", "0"], HALF + NEAR, 10 * [False]),
        ]
    for flags, draw, planned in cases:
        flags = ["--epochs", "2", *flags]
        found = command_forms(tree, coins, flags, draw)
        if len(found) < len(planned) or found[: len(planned)] != planned:
            shown = ", ".join("compressed" if each else "raw" for each in found)
            return failed(f"micro-batches are {shown or 'not seen'}; expected another ramp", command_line(flags))
    forms = [
        command_forms(tree, coins, ["--warmup_steps", "0", "--epochs", "4", "--seed", seed], None) for seed in "56"
    ]
    if forms[0] == forms[1]:
        return failed("--seed 5 and --seed 6 compress the same micro-batches", command_line(["--seed", "6"]))
    return passed(f"{len(cases) + 2} commands")


def command_forms(tree: Tree, coins: Coins, flags: list[str], draw: float | None) -> list[bool]:
    """Whether each micro-batch of a run of the command line was compressed, with all draws fixed or none."""
    with coins.fixed(None if draw is None else lambda: draw):
        try:
            status = run_command(tree, coins.ledger, flags)
        except Exception as error:
            raise Stopped(f"{type(error).__name__}: {error}", command_line(flags)) from error
    if status:
        raise Stopped(f"exit status {status}", command_line(flags))
    return [event.form == "streams" for event in coins.ledger.take() if event.bits is not None]
