"""Task-6, the compression ramp: its probabilities, seen by fixing what the tree draws, its clock and its draws."""

import contextlib
import functools
import importlib
import random
import sys
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from .coins import HALF, NEAR, Coins, Stopped, off_by, ramp, tossing
from .evidence import Evidence, at_most, check, failed, passed, unproven
from .text_loads import sample, schedule, write_text
from .training_runs import run_command


@check(task=6, prop="p is half a cosine from 0 at the first update to compress_prob after warmup_steps, and stays")
@tossing("warmup_steps")
def ramp_is_half_a_cosine(coins: Coins) -> Evidence:
    shapes = [(8, 1.0), (7, 0.6)] if coins.fixable else [(4, 1.0)]
    cases = [{"extra_steps": steps + 2, "warmup_steps": steps, "compress_prob": end} for steps, end in shapes]
    return coins.follow(*cases, runs=400)


@check(task=6, prop="warmup_steps of 0 and 1 are defined: compress_prob at once, and after one update")
@tossing("warmup_steps")
def short_warmups_are_defined(coins: Coins) -> Evidence:
    shapes = [(0, 0.4), (0, 1.0), (1, 0.4), (1, 1.0)]
    return coins.follow(*({"extra_steps": 2, "warmup_steps": steps, "compress_prob": end} for steps, end in shapes))


@check(task=6, prop="the clock counts optimizer updates: over all epochs, extra steps too, and not micro-batches")
@tossing("warmup_steps")
def clock_counts_updates(coins: Coins) -> Evidence:
    cases: list[dict[str, Any]] = [{"rows": 20, "epochs": 3}, {"rows": 9, "epochs": 2, "extra_steps": 2}]
    if "accum_steps" in coins.options:
        cases.append({"rows": 37, "epochs": 2, "accum_steps": 2})
    return coins.follow(*(case | {"warmup_steps": 7, "compress_prob": 1.0} for case in cases))


@check(task=6, prop="a run that goes on after global_step updates goes on with the ramp there")
@tossing("warmup_steps", "global_step")
def ramp_goes_on_after_a_resume(coins: Coins) -> Evidence:
    places = [(3, 8), (8, 8), (400, 1000)]
    options = {"extra_steps": 2, "compress_prob": 1.0}
    cases = [options | {"global_step": made, "warmup_steps": steps} for made, steps in places]
    if "accum_steps" in coins.options:
        cases.append({"rows": 37, "accum_steps": 2, "compress_prob": 1.0, "global_step": 3, "warmup_steps": 7})
    return coins.follow(*cases)


@check(task=6, prop="the rounds of the schedule have one clock: the ramp goes on where the round before left it")
@tossing("warmup_steps", "global_step")
def rounds_have_one_clock(coins: Coins) -> Evidence:
    """Train in rounds, the model growing between them, with a ramp that is through within the first."""
    try:
        module = schedule(coins.tree)
    except ModuleNotFoundError:
        return passed("no schedule trains in rounds here")
    forms = watch_rounds(coins, module)
    path = write_text("rounds.txt", sample(8 * 90))
    sizes = {"rounds": 3, "layers": 1, "d_model": 8, "nhead": 2, "max_seq_len": 72, "min_gain": 9, "most_width": 16}
    words = ["--data", str(path), *(str(word) for name, value in sizes.items() for word in (f"--{name}", value))]
    line = f"wikitext_schedule.main({words[2:]}), with warmup_steps=3 and compress_prob=1.0 as defaults"
    try:
        module.main(words)
    except SystemExit as error:
        return unproven(f"the schedule does not take the options of old: it exits with {error.code}: {line}")
    if len(forms) != sizes["rounds"] or any(len(each) <= 3 for each in forms):  # noqa: PLR2004 - the ramp's updates
        return unproven(
            f"the schedule trains in {[len(each) for each in forms]} micro-batches, not in 3 rounds of more"
        )
    if forms[0][0] != "raw":
        return failed("the first micro-batch is compressed, before the ramp has begun", line)
    for number, each in enumerate(forms[1:], start=2):
        if "raw" in each:
            return failed(f"round {number} begins the ramp again: its first micro-batches are {each[:4]}", line)
    return passed(f"{sum(map(len, forms))} micro-batches of 3 rounds, through the ramp once")


def watch_rounds(coins: Coins, module: ModuleType) -> list[list[str]]:
    """The forms of what is trained on, for each call of train_loop that a schedule makes, whose ramp is made short."""
    forms: list[list[str]] = []
    train_loop, kind = coins.tree.module("training").train_loop, coins.tree.module("model").BitTransformerLM

    def in_a_round(*args: Any, **kwargs: Any) -> Any:
        forms.append([])
        return train_loop(*args, **{"warmup_steps": 3, "compress_prob": 1.0} | kwargs)

    def noting(name: str, form: str) -> None:
        original = getattr(kind, name)

        @functools.wraps(original)
        def entered(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if model.training and forms:
                forms[-1].append(form)
            compressed = len(forms[-1]) if forms else 0
            out = original(model, *args, **kwargs)
            if form == "compressed" and forms:
                del forms[-1][compressed:]  # its own forward
            return out

        setattr(kind, name, entered)

    noting("forward", "raw")
    noting("forward_compressed", "compressed")
    for name, value in list(vars(module).items()):
        if value is train_loop:
            setattr(module, name, in_a_round)
    return forms


@check(task=6, prop="without compress_prob, the ramp ends at 0.5")
@tossing("warmup_steps")
def ramp_ends_at_half_by_default(coins: Coins) -> Evidence:
    return coins.follow(*({"extra_steps": 4, "warmup_steps": steps} for steps in (0, 3)), runs=200)


@check(task=6, prop="where p is 0, even for a draw of 0.0, micro-batches are the raw rows, bit for bit")
@tossing("warmup_steps")
def zero_is_raw(coins: Coins) -> Evidence:
    for draw in (None, lambda: 0.0):
        for warmup_steps in (0, 3):
            tosses = coins.run(20, draw=draw, epochs=2, compress_prob=0.0, warmup_steps=warmup_steps)
            rows = torch.cat([toss.bits for toss in tosses])
            if {toss.form for toss in tosses} != {"raw"} or rows.dtype is not coins.data.dtype:
                return failed("with compress_prob=0 not every micro-batch is raw", coins.call)
            if sorted(rows.tolist()) != sorted(2 * coins.data.tolist()):
                return failed("with compress_prob=0 the rows that enter are not those handed over", coins.call)
        if coins.run(draw=draw, compress_prob=1.0, warmup_steps=9)[0].form != "raw":
            return failed("the first micro-batch of a ramp is compressed", coins.call)
    return passed("with warmup_steps of 0 and 3, and at the start of a ramp")


@check(task=6, prop="the rate at which micro-batches are compressed is within 4 sigma of p, each drawn apart")
@tossing("warmup_steps")
def rate_is_the_probability(coins: Coins) -> Evidence:
    gaps = []
    for end, warmup_steps in [(0.5, 0), (0.2, 0), (1.0, 160)]:
        options: dict[str, Any] = {"compress_prob": end, "warmup_steps": warmup_steps}
        tosses = coins.run(extra_steps=79, epochs=2, **options)
        hits = [toss.form == "compressed" for toss in tosses]
        chances = [ramp(toss.updates, options) for toss in tosses]
        if hits[:80] == hits[80:]:
            return failed("each epoch draws the same forms again", coins.call)
        gaps += [(off_by(hits[half], chances[half]), "rate", coins.call) for half in (slice(80), slice(80, 160))]
        odds = [p * (1 - q) + q * (1 - p) for p, q in pairwise(chances)]
        gaps.append((off_by([a != b for a, b in pairwise(hits)], odds), "number of changes of form", coins.call))
    worst, what, reproduce = max(gaps)
    return at_most(worst, 4.0, f"sigmas between the {what} and what p gives", reproduce)


@check(task=6, prop="draws have their own generator: how many there are moves no global stream, and no row")
@tossing("warmup_steps")
def draws_move_no_other_stream(coins: Coins) -> Evidence:
    for end in (0.0, 0.5, 1.0):
        left, orders = [], []
        for extra in (0, 5):
            tosses = coins.run(40, epochs=2, extra_steps=extra, compress_prob=end, warmup_steps=2)
            left.append(global_streams())
            epochs = tosses[: len(tosses) // 2], tosses[len(tosses) // 2 :]
            orders.append([toss.bits.tolist() for epoch in epochs for toss in epoch[: len(epoch) - extra]])
        moved = [stream for stream in left[0] if left[0][stream] != left[1][stream]]
        if moved:
            return failed(f"5 more draws an epoch leave the global stream of {moved[0]} elsewhere", coins.call)
        if orders[0] != orders[1]:
            return failed("5 more draws an epoch change the order of the rows", coins.call)
    return passed("with compress_prob 0, 0.5 and 1")


@check(task=6, prop="the same seed gives the same forms, whatever the model draws, and p does not move dropout")
@tossing("warmup_steps")
def seed_fixes_the_forms(coins: Coins) -> Evidence:
    forms = []
    for coins.noisy in (False, False, True):
        tosses = coins.run(extra_steps=39, epochs=2, compress_prob=0.5, warmup_steps=0)
        forms.append([toss.form for toss in tosses])
    if forms[0] != forms[1]:
        return failed("two runs from one seed compress other micro-batches", coins.call)
    if forms[0] != forms[2]:
        return failed("what the model draws changes which micro-batches are compressed", coins.call)
    coins.ledger.sgd_lr = 0.1
    options: dict[str, Any] = {"dropout": 0.2, "epochs": 2, "warmup_steps": 0}
    runs = [coins.train(24, compress_prob=end, **options) for end in (0.0, 0.5, 1.0)]
    weights = [torch.cat([weight.detach().flatten() for weight in run.model.parameters()]) for run in runs]
    if not all(torch.equal(weights[0], other) for other in weights[1:]):
        return failed("dropout, or the order of the rows, changes with compress_prob", runs[2].call)
    return passed(f"{len(forms[0])} forms, and weights after {len(runs[0].updates)} updates with dropout")


@check(task=6, prop="evaluation is not compressed, and draws nothing, whatever the ramp has reached")
@tossing("warmup_steps")
def evaluation_has_no_ramp(coins: Coins) -> Evidence:
    options = {"epochs": 2, "compress_prob": 1.0, "warmup_steps": 1}
    run = coins.train(24, **options)
    model, called = run.model.eval(), set[str]()
    evaluations: list[Any] = [model, functools.partial(coins.tree.module("safety").hil_safe_inference, model)]
    with contextlib.suppress(ImportError, AttributeError):
        evaluations.append(functools.partial(importlib.import_module("data.wikitext_schedule").evaluate, model))
    before = global_streams()
    sys.setprofile(lambda frame, *_: called.add(frame.f_code.co_name))
    for evaluate in 8 * evaluations:
        with torch.no_grad(), contextlib.suppress(Exception):  # such as the gate's, which may withhold the logits
            evaluate(run.data)
    sys.setprofile(None)
    if found := called & {"compress_bits", "decompress_bits", "forward_compressed"}:
        return failed(f"evaluation calls {' and '.join(sorted(found))}", f"{run.call}; model.eval(); model(bits)")
    if global_streams() != before:
        return failed("evaluation draws from a global stream", f"{run.call}; model.eval(); model(bits)")
    return passed(f"{8 * len(evaluations)} evaluations after a run that reached compress_prob=1")


@check(task=6, prop="direct_prob is no ramp: it holds from the first update, and goes before compression")
@tossing("warmup_steps")
def direct_prob_has_no_ramp(coins: Coins) -> Evidence:
    stream = coins.tree.module("compression").compress_bits
    for end, warmup_steps in [(1.0, 0), (0.5, 5)]:
        tosses = coins.run(20, epochs=2, compress_prob=end, warmup_steps=warmup_steps, direct_prob=1.0)
        streams = {tuple(stream(row).tolist()) + 64 * (0,) for row in coins.data}  # as far as a row can be padded
        for toss in tosses:
            known = {row[: toss.bits.shape[1]] for row in streams}
            if toss.form != "direct" or not known.issuperset(map(tuple, toss.bits.tolist())):
                return failed(f"with direct_prob=1 a micro-batch is {toss.form}, not the run-length stream", coins.call)
    gaps = []
    shapes = [(1.0, 0, {"compressed"}), (0.0, 0, {"raw"}), (1.0, 10**6, {"raw"}), (0.3, 0, {"compressed", "raw"})]
    for end, warmup_steps, others in shapes:
        tosses = coins.run(extra_steps=89, compress_prob=end, warmup_steps=warmup_steps, direct_prob=0.3)
        forms = [toss.form for toss in tosses]
        if set(forms) != {"direct"} | others:
            return failed(f"with direct_prob=0.3 the forms are {', '.join(sorted(set(forms)))}", coins.call)
        gaps.append((off_by([form == "direct" for form in forms], len(forms) * [0.3]), coins.call))
    worst, reproduce = max(gaps)
    return at_most(worst, 4.0, "sigmas between the rate of direct micro-batches and direct_prob=0.3", reproduce)


@check(task=6, prop="--compress_prob and --warmup_steps on the command line reach the loop; the default ends at 0.5")
@tossing("warmup_steps")
def command_line_reaches_the_loop(coins: Coins) -> Evidence:
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
        found = command_forms(coins, flags, draw)
        if len(found) < len(planned) or found[: len(planned)] != planned:
            shown = ", ".join("compressed" if each else "raw" for each in found)
            return failed(f"micro-batches are {shown or 'not seen'}; expected another ramp", command_line(flags))
    return passed(f"{len(cases)} commands")


def command_line(flags: list[str]) -> str:
    """What a user types to see a run of the command line again."""
    return " ".join(["python -m bit_transformer.training --data FILE --max_seq_len 36", *flags])


def command_forms(coins: Coins, flags: list[str], draw: float | None) -> list[bool]:
    """Whether each micro-batch of a run of the command line was compressed, with all draws fixed or none."""
    kind, ledger = coins.tree.module("model").BitTransformerLM, coins.ledger
    original, places = kind.forward_compressed, []

    def spied(*args: Any, **kwargs: Any) -> Any:
        places.append(len(ledger.events))  # where its forward will be
        return original(*args, **kwargs)

    kind.forward_compressed = spied
    with coins.fixed(None if draw is None else lambda: draw, command_line(flags)):
        status = run_command(coins.tree, ledger, flags)
    kind.forward_compressed = original
    if status:
        raise Stopped(f"exit status {status}", command_line(flags))
    return [place in places for place, event in enumerate(ledger.events) if event.bits is not None]


def global_streams() -> dict[str, object]:
    """Where the global random streams are."""
    _, keys, place, *_ = np.random.get_state()
    return {"random": random.getstate(), "numpy": (list(keys), place), "torch": torch.get_rng_state().tolist()}
