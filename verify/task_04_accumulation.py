"""Task-4, gradient accumulation: the ledger of a training loop against the list that its arguments imply."""

import math
import multiprocessing
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from .driving.arguments import unreached, unreached_flags
from .driving.derivatives import all_close, counted_linears, last_states, norm, seeded_loss, slope_error, with_halting
from .driving.kept_runs import Runs, judged, kept_runs, wrong_plan
from .driving.loaders import held_more, trouble_with_a_skip
from .driving.pictures import ledgers, one_cycle_curves
from .driving.space import Point, Points, Span, over
from .driving.spies import Ledger, updates
from .driving.training_runs import (
    LENGTH,
    Run,
    Stopped,
    command_line,
    first_difference,
    freeze_the_first,
    group_sizes,
    losses_beside,
    planned_sizes,
    refused,
    reported,
    run_command,
    train,
    watching,
)
from .driving.tree import Tree, with_dropout
from .driving.world import spoilt_forward
from .running.evidence import Evidence, Verdict, at_most, check, failed, passed, unproven

MOST = 16  # micro-batches of a run that is one of many


def is_counted(tree: Tree, point: Point) -> bool:
    """Whether a schedule knows how many micro-batches there are: without task-1 those of 8 rows, with none repeated."""
    return tree.loop_takes("batch_size") or not (point["rows"] % 8 or point.values.get("extra_steps"))


def few(values: dict[str, Any], most: int = MOST) -> bool:
    """Whether a run has so few micro-batches that there may be many of it."""
    if not values.keys() >= {"rows", "epochs"}:
        return True
    micro_batches = math.ceil(values["rows"] / values.get("batch_size", 8)) + values.get("extra_steps", 0)
    is_slow = values.get("num_workers") and (values["epochs"] > 1 or values["rows"] > 16)  # noqa: PLR2004
    return bool(values["epochs"] * micro_batches <= most and not is_slow)


@check(
    task=4, prop="each update takes accum_steps micro-batches of one epoch, the last what is left, then clips and steps"
)
@watching("accum_steps")
@over(
    "epochs",
    "extra_steps",
    "amp",
    "num_workers",
    "compress_prob",
    "direct_prob",
    "seed",
    "compile",
    "data",
    "global_step",
    rows=Span(1, 80, 40, 37, 16, 3),
    batch_size=Span(1, 40, 8, 4, 1),
    accum_steps=Span(1, 24, 1, 2, 3, 5, 17),
    spoilt=(False, True),
    allowed=partial(few, most=48),
)
def ledger_is_the_planned_list(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    """And from no gradient, also where the update before had one that is no number."""
    multiprocessing.set_start_method("fork", force=True)
    seen, kind, hooked = 0, tree.kind, list[Tensor]()

    def hook(model: nn.Module) -> None:
        for weight in model.parameters():
            weight.register_post_accumulate_grad_hook(hooked.append)  # type: ignore[no-untyped-call] # as sharing does

    for point in points:
        if not is_counted(tree, point):
            continue
        hooked.clear()
        with spoilt_forward(kind, 1) if point["spoilt"] else nullcontext():
            run = train(tree, ledger, point["rows"], light=True, seed=point["seed"], prepare=hook, **point.options)
        if len(hooked) != len(run.micro_batches) * max(1, len(set(map(id, hooked)))):
            return failed(f"{len(run.micro_batches)} micro-batches, {len(hooked)} calls of a gradient's hook", run.call)
        sizes = planned_sizes(run)
        if not point["spoilt"] and (trouble := trouble_with_groups(tree, run, sizes)):
            return failed(trouble, run.call, picture=ledgers(run.events, sizes))
        backwards = [event for event in run.events if event.kind == "backward"]
        if len(backwards) < sum(sizes):
            trouble = f"{len(backwards)} backwards of {sum(sizes)} micro-batches"
            return failed(trouble, run.call, picture=ledgers(run.events, sizes))
        firsts = [backwards[sum(sizes[:update])] for update in range(len(sizes))]
        if any(grad.any() for first in firsts for grad in (first.grads or {}).values()):
            return failed("a group's first backward adds to the gradient of the group before", run.call)
        seen += len(sizes)
    return passed(f"{seen} updates")


def trouble_with_groups(tree: Tree, run: Run, sizes: list[int]) -> str:
    """What is wrong with a run's events; nothing, if they are those of updates of so many micro-batches."""
    found = [len(update.micro_batches) for update in run.updates]
    if found != sizes:
        return f"updates of {found}, not {sizes} micro-batches"
    usual = len(run.data)
    for epoch in run.order:
        rows = [place for places in epoch for place in places]
        if sorted(rows[:usual]) != list(range(usual)):
            return "an epoch's updates do not hold each row once"
    if not run.is_stepped(tree, len(sizes)):
        return f"{len(sizes)} updates, {run.scheduler_steps} scheduler steps"
    kinds = [event.kind for event in run.events if event.kind not in ("zero-grad", "scheduler")]  # rates tell when
    ends = ["clip", "step"]
    if "clip" not in kinds:
        ends.remove("clip")  # and gradients clipped so
    planned = [kind for size in sizes for kind in (*size * ("micro-batch", "backward"), *ends)]
    return first_difference(kinds, planned) if kinds != planned else ""


@check(task=4, prop="the gradient at each step is that of the mean loss over all that is scored in its group")
@watching("accum_steps")
@over(
    "accum_steps",
    "amp",
    "windows",
    "reversible",
    "use_act",
    "use_checkpoint",
    "full_attn_logging",
    "num_layers",
    "extra_steps",
    "epochs",
    "compile",
    "data",
    "num_workers",
    "global_step",
    rows=Span(1, 30, 19, 9, 3),
    batch_size=Span(1, 12, 8, 4, 1),
    form=("raw", "compressed", "direct", "direct, cut", "mixed"),
    causal=(True, False),
    frozen=(False, True),
    allowed=few,
)
def steps_along_the_group_mean(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    """Rows whose streams are short and long: raw, compressed, direct, cut to fit, and all of these in one group."""
    ledger.clips, runs = False, []
    forms: dict[str, dict[str, Any]] = {
        "raw": {},
        "compressed": {"compress_prob": 1.0},
        "direct": {"direct_prob": 1.0},
        "direct, cut": {"direct_prob": 1.0},
        "mixed": {"direct_prob": 0.5, "compress_prob": 0.5},
    }
    at_once: dict[str, Any] = {"warmup_steps": 0} if tree.loop_takes("warmup_steps") else {}
    for point in points:
        config = point.config | ({"max_seq_len": LENGTH} if point["form"] == "direct, cut" else {})
        options = point.options | forms[point["form"]] | at_once
        if not point["causal"] and tree.loop_takes("forward_kwargs"):
            options["forward_kwargs"] = {"causal": False}
        options["prepare"] = freeze_the_first if point["frozen"] else None
        with suppress(Stopped) if point["frozen"] else nullcontext():  # a loop may want all weights to take gradients
            runs.append(train(tree, ledger, point["rows"], uneven=True, config=config, lr=0.05, **options))
    found = all_close([(run, update, update.step) for run in runs for update in run.updates])
    if found.verdict is not Verdict.PASS:
        return found
    entered = [event for run in runs for event in run.events if event.bits is not None]
    if all(event.form == "rows" for event in entered):
        return unproven("compress_prob=1.0 makes no forward of streams")
    widths = {
        tuple(own.sum(1).tolist())
        for run in runs
        for rows in run.micro_batches
        if (own := run.scored(rows)) is not None
    }
    if all(len({*each}) == 1 for each in widths):
        return unproven("direct_prob=1.0 gives no streams of unequal length")
    return found


@check(task=4, prop="what is clipped is the group's mean gradient, whole, once, and to the bound of accum_steps=1")
@watching("accum_steps")
@over("accum_steps", "amp", "extra_steps", "direct_prob", "reversible", "use_act", rows=(37, 20), epochs=(1, 2))
def clips_the_group_mean_once(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    """With weights so large that the clip bites."""
    plain = train(tree, ledger, 40, scale=8.0)
    bound = max(norm(update.step.grads or {}) for update in plain.updates)
    taken = [(plain, update, update.step) for update in plain.updates]
    for point in points:
        run = train(tree, ledger, point["rows"], scale=8.0, config=point.config, **point.options)
        taken += [(run, update, update.step) for update in run.updates]
    whole = [(run, update, update.clip) for run, update, _ in taken if update.clip is not None]
    found = all_close(whole) if whole else passed("clipped by hand")
    return all_close(taken, bound) if found.verdict is Verdict.PASS else found


@check(task=4, prop="rates follow OneCycle over the updates: from lr on, once an update, to its floor")
@watching("accum_steps")
@over(
    *("extra_steps", "amp", "compress_prob", "compile", "global_step"),
    accum_steps=Span(1, 9, 1, 2, 3, 5),
    epochs=(1, 3),
    rows=Span(1, 80, 40, 37, 16),
)
def schedule_ends_with_the_last_update(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    worst, reproduce, shown = 0.0, "", None
    for point in points:
        if not is_counted(tree, point):
            continue
        run = train(tree, ledger, point["rows"], light=True, lr=0.01, **point.options)
        count = len(planned_sizes(run))
        peak = run.peak(count)
        curves = one_cycle_curves(run.rates, count, peak)
        if len(run.updates) != count:
            return failed(f"{len(run.updates)} updates, not {count}", run.call, picture=curves)
        gap = run.gap(tree, count)
        if not gap <= worst:
            worst, reproduce, shown = gap, run.call, curves
    return at_most(worst, 1e-9, "distance of a rate from OneCycle's, as a share of lr", reproduce, shown)


@check(task=4, prop="accum_steps=1 is the default, bit for bit")
@watching("accum_steps")
@over("amp", "compress_prob", "reversible", "use_act", rows=(37, 40))
def one_is_the_default(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    for point in points:
        options: dict[str, Any] = {"epochs": 2, "dropout": 0.1, "dtype": torch.float32, **point.options}
        runs = [
            train(tree, ledger, point["rows"], config=point.config, accum_steps=each, **options) for each in (None, 1)
        ]
        if not all(map(torch.equal, *(run.model.parameters() for run in runs))):
            losses = losses_beside(*runs)
            return failed("the default and accum_steps=1 give different weights", runs[0].call, picture=losses)
        if len(runs[0].updates) != len(runs[0].micro_batches):
            return failed("without accum_steps, not each micro-batch is an update", runs[0].call)
    return passed("with dropout")


@check(task=4, prop="draws, dropout, and the losses and accuracies that are reported are those of accum_steps=1")
@watching("accum_steps")
@over("amp", "reversible", "use_act", "extra_steps", "seed", accum_steps=(2, 3, 7), rows=(29, 16))
def forward_does_not_know_its_group(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    ledger.frozen = True
    gaps = []
    for point in points:
        drawn = {
            name: share for name, share in (("compress_prob", 0.5), ("direct_prob", 0.25)) if tree.loop_takes(name)
        }
        options: dict[str, Any] = {"epochs": 2, "dropout": 0.1, **drawn}
        options |= {"config": point.config, "seed": point["seed"], **point.options}
        plain, run = (train(tree, ledger, point["rows"], **options | each) for each in ({"accum_steps": 1}, {}))
        bits = [
            [(event.form, event.bits.tolist()) for event in each.events if event.bits is not None]
            for each in (plain, run)
        ]
        if not bits[0] or bits[0] != bits[1]:
            return failed("the micro-batches that enter the model change with accum_steps", run.call)
        reports = [reported(each) for each in (plain, run)]
        if reports[0].keys() != reports[1].keys():
            return failed(f"the records hold {', '.join(reports[1])}, not {', '.join(reports[0])}", run.call)
        gaps += [(abs(value - reports[0][key]), key, run.call) for key, value in reports[1].items()]
    if not gaps:
        return unproven("train_loop returns no records with a loss or an accuracy")
    worst, key, reproduce = max(gaps)
    allowed = 0.2 if tree.seams.is_told else 1e-5  # another tree may report the means of its updates
    return at_most(worst, allowed, f"distance of {key} from that of accum_steps=1", reproduce)


@check(
    task=4, prop="accum_steps reaches the groups and the schedule, and no rate, decay, row, or form of the first update"
)
@watching("accum_steps")
@over("amp", "direct_prob", "num_workers", batch_size=(8, 3), compress_prob=(1.0, 0.0))
def arguments_reach(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    multiprocessing.set_start_method("fork", force=True)
    for point in points:
        if trouble := unreached(tree, ledger, ("accum_steps",), point.options):
            return failed(trouble, f"train_loop(model, bits(20, {LENGTH}), ...)")
    return passed("accum_steps=3")


@check(task=4, prop="an update that is skipped, its gradient being no number, is one, and few micro-batches are held")
@watching("accum_steps")
@over("amp", "compress_prob", accum_steps=(1, 3))
def groups_end_with_their_update(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    worst, reproduce = 0, ""
    for point in points:
        trouble, run, shown = trouble_with_a_skip(tree, ledger, point.options)
        if trouble:
            return failed(trouble, run.call, picture=shown)
        held, call = held_more(tree, ledger, point.options)
        if held >= worst:
            worst, reproduce = held, call
    return at_most(worst, 8, "tensors more that are held in a run of 48 micro-batches than in one of 14", reproduce)


@check(task=4, prop="a run that is kept steps along the mean of each group, at the rates of a run of so many updates")
@watching("accum_steps")
@kept_runs
def kept_runs_step_by_groups(runs: Runs) -> Iterator[Evidence]:
    runs.ledger.clips = False
    for batch_size, accum_steps in ((8, 2), (4, 3)):
        flags: dict[str, Any] = {"batch_size": batch_size, "accum_steps": accum_steps}
        kept = runs.go(**flags)
        yield judged(kept, *wrong_plan(kept, **flags))
        yield all_close([(kept.run, update, update.step) for update in kept.run.updates])


@check(task=4, prop="accum_steps below 1 is refused with an error that names it, before anything is trained")
@watching("accum_steps")
@over("epochs", "amp", accum_steps=(0, -1, -3))
def refuses_less_than_one(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    return refused(tree, ledger, (point.options for point in points), "accum")


@check(task=4, prop="--accum_steps on the command line reaches the loop; without it, each micro-batch is an update")
@watching("accum_steps")
def command_line_reaches_the_loop(tree: Tree, ledger: Ledger) -> Evidence:
    for flag in ([], ["--accum_steps", "1"], ["--accum_steps", "3"]):
        accum_steps = int(flag[1]) if flag else 1
        flags = ["--epochs", "2", *flag]
        if status := run_command(tree, ledger, flags):
            return failed(f"exit status {status}", command_line(flags))
        sizes = [len(update.micro_batches) for update in updates(ledger.events)]
        planned = 2 * group_sizes(max(1, sum(sizes) // 2), accum_steps)
        if sizes != planned:
            return failed(f"updates of {sizes}, not {planned} micro-batches", command_line(flags))
    if trouble := unreached_flags(tree, ledger, ("accum_steps",)):
        return failed(*reversed(trouble.split(": ", 1)))
    return passed("without the flag, and with 1 and 3")


@check(task=4, prop="gradients that are recomputed are the loss's derivatives, with dropout and with halting")
@over("reversible", "use_act", "use_checkpoint", "windows", "dropout", num_layers=(1, 3), threshold=(0.9, 0.45))
def recomputed_gradients_are_derivatives(tree: Tree, points: Points) -> Evidence:
    """Compare backwards with finite differences; the random stream must stay where the forward left it."""
    worst, reproduce = 0.0, ""
    for point in points:
        config = point.config | ({"act_threshold": point["threshold"]} if tree.model_takes("act_threshold") else {})
        call = f"BitTransformerLM(8, 2, **{config}) in training, with dropout {point['dropout']}"
        model = with_dropout(tree.model(**config), point["dropout"])
        with counted_linears() as calls:
            loss = seeded_loss(model)
            forward, state = len(calls), torch.get_rng_state()
            grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
        if len(calls) > 2 * forward:
            return failed(f"{len(calls)} calls of linear layers in a step: a block is recomputed twice", call)
        if not torch.equal(state, torch.get_rng_state()):
            return failed("a backward moves the random stream", call)
        gap = slope_error(model, grads)
        if gap >= worst:
            worst, reproduce = gap, call
    return at_most(worst, 1e-5, "relative error of a directional derivative of the loss", reproduce)


@check(task=4, prop="the weights of halting make up 1, reversible or not, under bfloat16 autocast too")
def halting_weights_make_up_one(tree: Tree) -> Evidence:
    """Have dropout delete what every layer adds: a weighted mean of equal states is that state."""
    if not tree.model_takes("use_act"):
        return passed("the model takes no use_act: nothing halts")
    worst, call = 0.0, ""
    stacks = (False, True) if tree.model_takes("reversible") else (False,)
    for reversible, bias in product(stacks, (0.0, -3.0, 3.0)):  # at a layer in the middle, the last, the first
        for dtype, allowed in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
            models = [
                with_dropout(tree.model(dtype=dtype, reversible=reversible, **config), 1.0)
                for config in ({"num_layers": 3, "use_act": True}, {"num_layers": 3}, {"num_layers": 6})
            ]
            with_halting(models[0], bias)
            for model in models[1:]:
                model.load_state_dict(models[0].state_dict(), strict=False)
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.float32):
                halting, plain, deep = (last_states(model) for model in models)
            if not torch.equal(plain, deep):
                return unproven("no nn.Dropout deletes all that a layer adds")
            if (gap := (halting - plain).abs().max().item() / allowed) >= worst:
                worst = gap
                call = (
                    f"BitTransformerLM(8, 2, 3, 16, use_act=True, reversible={reversible}), halt.bias {bias}, {dtype}"
                )
    return at_most(worst, 1.0, "distance of the last states from equal ones, in 1e-10, or 1e-5 under autocast", call)
