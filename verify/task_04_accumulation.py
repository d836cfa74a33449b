"""Task-4, gradient accumulation: the ledger of a training loop against the list that its arguments imply."""

import functools
import inspect
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from .evidence import Evidence, at_most, check, failed, passed, unproven
from .spies import Ledger, updates
from .training_runs import (
    LENGTH,
    all_close,
    distance,
    first_difference,
    group_sizes,
    limit,
    mean_gradient,
    planned_sizes,
    reported,
    run_command,
    train,
    watching,
)
from .tree import Tree

# (rows, accum_steps): with micro-batches of 8 rows, last groups and last micro-batches that are whole, short and alone.
WHOLE = [(40, 1), (40, 2), (40, 3), (40, 4), (32, 2), (16, 5)]
SHAPES = [*WHOLE, (37, 2), (37, 3), (29, 4), (3, 4)]
RECOMPUTED: list[dict[str, Any]] = [
    {"reversible": True, "use_checkpoint": True},
    {"reversible": True, "use_act": True},
    {"use_checkpoint": True, "use_act": True},
]
SETTINGS = ("max_lr", "initial_lr", "min_lr", "weight_decay", "eps")  # OneCycleLR moves lr and betas


@check(task=4, prop="an epoch makes ceil(micro-batches / accum_steps) updates, none empty, and each row is in one")
@watching("accum_steps")
def groups_partition_each_epoch(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr = 0.1
    epochs, seen = 2, 0
    for rows, accum_steps in SHAPES:
        run = train(tree, ledger, rows, epochs=epochs, accum_steps=accum_steps)
        sizes = [len(update.micro_batches) for update in run.updates]
        if sizes != planned_sizes(run, epochs, accum_steps):
            return failed(f"updates of {sizes}, not {planned_sizes(run, epochs, accum_steps)} micro-batches", run.call)
        rows_seen = torch.split(torch.cat([update.rows for update in run.updates]), rows)
        if any(sorted(epoch.tolist()) != sorted(run.data.tolist()) for epoch in rows_seen):
            return failed("an epoch's updates do not hold each row once", run.call)
        seen += len(sizes)
    return passed(f"{seen} updates of {len(SHAPES)} shapes")


@check(task=4, prop="the gradient at each step is that of the mean loss over all that is scored in its group")
@watching("accum_steps")
def steps_along_the_group_mean(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr, ledger.clips = 0.5, False
    runs = [train(tree, ledger, rows, epochs=2, accum_steps=accum_steps) for rows, accum_steps in SHAPES]
    return all_close([(run, update, update.step) for run in runs for update in run.updates])


@check(task=4, prop="an update is (micro-batch, backward) for each, then clip, step and scheduler, from no gradient")
@watching("accum_steps")
def ledger_is_the_planned_list(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr = 0.1
    epochs, seen = 2, 0
    for rows, accum_steps in WHOLE:
        run = train(tree, ledger, rows, epochs=epochs, accum_steps=accum_steps)
        kinds = [event.kind for event in run.events if event.kind != "zero-grad"]
        sizes = planned_sizes(run, epochs, accum_steps)
        planned = [
            kind for size in sizes for kind in (*size * ("micro-batch", "backward"), "clip", "step", "scheduler")
        ]
        if kinds != planned:
            return failed(first_difference(kinds, planned), run.call)
        backwards = [event for event in run.events if event.kind == "backward"]
        firsts = [backwards[sum(sizes[:update])] for update in range(len(sizes))]
        if any(grad.any() for first in firsts for grad in (first.grads or {}).values()):
            return failed("a group's first backward adds to the gradient of the group before", run.call)
        seen += len(kinds)
    return passed(f"{seen} events of {len(WHOLE)} shapes")


@check(task=4, prop="one clip an update, of the group's mean gradient, between its last backward and its step")
@watching("accum_steps")
def clips_the_group_mean_once(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr = 0.5
    clipped = []
    for rows, accum_steps in SHAPES:
        run = train(tree, ledger, rows, epochs=2, accum_steps=accum_steps)
        acts = [event for event in run.events if event.kind in ("backward", "clip", "step")]
        steps = [at for at, event in enumerate(acts) if event.kind == "step"]
        clips = [acts[at - 1] for at in steps if at and acts[at - 1].kind == "clip"]
        if len(clips) != len(steps) or len(clips) != sum(event.kind == "clip" for event in acts):
            return failed(f"not one clip before each step: {' '.join(event.kind for event in acts[:9])} ...", run.call)
        clipped += [(run, update, clip) for update, clip in zip(run.updates, clips, strict=True)]
    return all_close(clipped)


@check(task=4, prop="the scheduler steps once an update, for as many as its total says, and ends at its floor")
@watching("accum_steps")
def schedule_ends_with_the_last_update(tree: Tree, ledger: Ledger) -> Evidence:
    gaps = []
    for rows, accum_steps in WHOLE:
        try:
            run = train(tree, ledger, rows, epochs=3, accum_steps=accum_steps)
        except ValueError as error:  # so OneCycleLR ends a run that is longer than its total
            return failed(str(error), f"train_loop(model, bits({rows}, {LENGTH}), epochs=3, accum_steps={accum_steps})")
        count = len(run.updates)
        paces = [event.kind for event in run.events if event.kind in ("step", "scheduler")]
        if not count or paces != ["step", "scheduler"] * count:
            return failed(f"{count} updates, {paces.count('scheduler')} scheduler steps, not in turn", run.call)
        if run.totals != [count]:
            return failed(f"{count} updates, but total_steps={run.totals}", run.call)
        floor = ledger.optimizer.param_groups[0].get("min_lr") if ledger.optimizer else None
        if floor is None:
            return unproven("configure_optimizer's schedule is no OneCycleLR: it has no floor")
        gaps.append((abs((run.updates[-1].step.lr or 0.0) - floor), run.call))
    worst, reproduce = max(gaps)
    return at_most(worst, 1e-9, "distance of the last update's LR from the floor", reproduce)


@check(task=4, prop="accum_steps=1 is the default, bit for bit, and is the plain loop")
@watching("accum_steps")
def one_is_the_plain_loop(tree: Tree, ledger: Ledger) -> Evidence:
    options: dict[str, Any] = {"epochs": 2, "dropout": 0.1, "dtype": torch.float32, "compress_prob": 0.5}
    for rows in (37, 40):
        default, one = train(tree, ledger, rows, **options), train(tree, ledger, rows, accum_steps=1, **options)
        if not all(map(torch.equal, default.model.parameters(), one.model.parameters())):
            return failed("the default and accum_steps=1 give different weights", default.call)
    ledger.sgd_lr, ledger.clips = 0.5, False
    run = train(tree, ledger, 37, epochs=2, accum_steps=1)
    if not run.micro_batches:
        return failed("nothing enters the model", run.call)
    plain = tree.model()
    for micro_batch in run.micro_batches:
        grads = mean_gradient(plain, micro_batch)
        with torch.no_grad():
            for name, weight in plain.named_parameters():
                weight.sub_(0.5 * grads.get(name, 0.0))
    weights = [{name: weight.detach() for name, weight in model.named_parameters()} for model in (run.model, plain)]
    return at_most(distance(*weights), limit(run), "weights, relative to the plain loop's", run.call)


@check(task=4, prop="streams of unequal length weigh by their scored bits, as in one batch; forward_kwargs reach them")
@watching("accum_steps")
def every_form_has_its_share(tree: Tree, ledger: Ledger) -> Evidence:
    """Rows whose streams are short and long: raw, compressed, direct, cut to fit, and all of these in one group."""
    ledger.sgd_lr, ledger.clips = 0.5, False
    forms: list[dict[str, Any]] = [
        {"compress_prob": 1.0},
        {"direct_prob": 1.0},
        {"direct_prob": 1.0, "config": {"max_seq_len": LENGTH}},
        {"direct_prob": 0.5, "compress_prob": 0.5},
        {"direct_prob": 0.5, "forward_kwargs": {"causal": False}},
    ]
    at_once: dict[str, Any] = (
        {"warmup_steps": 0} if "warmup_steps" in options_of(tree) else {}
    )  # or nothing would be compressed
    compressed = count_compressed(tree)
    groups = [{"accum_steps": accum_steps, **at_once, **form} for form in forms for accum_steps in (3, 2, 1)]
    runs = [train(tree, ledger, 37, uneven=True, epochs=2, **group) for group in groups]
    if not compressed:
        return unproven("compress_prob=1.0 makes no forward_compressed")
    entered = [rows for run in runs for rows in run.micro_batches]
    widths = {
        tuple(scored.sum(1).tolist())
        for run in runs
        for rows in run.micro_batches
        if (scored := run.scored(rows)) is not None
    }
    if all(len({*each}) == 1 for each in widths) or all(len(rows[0]) == LENGTH for rows in entered):
        return unproven("direct_prob=1.0 gives no streams of unequal length")
    return all_close([(run, update, update.step) for run in runs for update in run.updates])


@check(task=4, prop="rates, decay and the clip's bound are those of accum_steps=1; the whole gradient is clipped")
@watching("accum_steps")
def settings_do_not_know_the_group(tree: Tree, ledger: Ledger) -> Evidence:
    settings = []
    for accum_steps in (1, 3):
        run = train(tree, ledger, 40, accum_steps=accum_steps, lr=0.003, weight_decay=0.02)
        groups = ledger.optimizer.param_groups if ledger.optimizer else []
        settings.append([{name: group[name] for name in SETTINGS if name in group} for group in groups])
    if settings[0] != settings[1]:
        return failed(f"the optimizer has {settings[1]}, not {settings[0]} as with accum_steps=1", run.call)
    ledger.sgd_lr = 0.0
    runs = [train(tree, ledger, 40, scale=8.0, accum_steps=accum_steps) for accum_steps in (1, 3)]  # the clip bites
    grads = [(update.step.grads or {}).values() for run in runs for update in run.updates]
    norms = [math.hypot(*(grad.norm().item() for grad in each)) for each in grads]
    if not norms or not min(norms):
        return unproven("train_loop makes no update, or one without a gradient")
    detail = f"spread of the gradients' norms after the clip, with weights x 8: {min(norms):.6g} to {max(norms):.6g}"
    return at_most(max(norms) / min(norms) - 1, 1e-4, detail, runs[1].call)


@check(task=4, prop="draws, dropout, and the losses and accuracies that are reported are those of accum_steps=1")
@watching("accum_steps")
def forward_does_not_know_its_group(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr = 0.0
    options: dict[str, Any] = {"epochs": 2, "dropout": 0.1, "compress_prob": 0.5, "direct_prob": 0.25}
    runs = [train(tree, ledger, 37, accum_steps=accum_steps, **options) for accum_steps in (1, 2, 3, 4, 7)]
    entered = [[micro_batch.tolist() for micro_batch in run.micro_batches] for run in runs]
    reports, gaps = [reported(run) for run in runs], []
    for run, bits, report in zip(runs, entered, reports, strict=True):
        if not bits or bits != entered[0]:
            return failed("the micro-batches that enter the model change with accum_steps", run.call)
        if report.keys() != reports[0].keys():
            return failed(f"the records hold {', '.join(report)}, not {', '.join(reports[0])}", run.call)
        gaps += [(abs(value - reports[0][key]), key, run.call) for key, value in report.items()]
    if not gaps:
        return unproven("train_loop returns no records with a loss or an accuracy")
    worst, key, reproduce = max(gaps)
    return at_most(worst, 1e-5, f"distance of {key} from that of accum_steps=1", reproduce)


@check(task=4, prop="extra steps are micro-batches of their epoch, and are grouped with it")
@watching("accum_steps")
def extra_steps_join_their_epoch(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr, ledger.clips = 0.5, False
    taken = []
    for rows, extra_steps, accum_steps in [(24, 2, 2), (21, 1, 4), (37, 4, 3)]:
        usual = train(tree, ledger, rows, epochs=2, accum_steps=accum_steps)
        run = train(tree, ledger, rows, epochs=2, accum_steps=accum_steps, extra_steps=extra_steps)
        if len(run.micro_batches) != len(usual.micro_batches) + 2 * extra_steps:
            return failed(f"{len(run.micro_batches)} micro-batches, {len(usual.micro_batches)} without extra", run.call)
        sizes = [len(update.micro_batches) for update in run.updates]
        if sizes != planned_sizes(run, 2, accum_steps):
            return failed(f"updates of {sizes}, not {planned_sizes(run, 2, accum_steps)} micro-batches", run.call)
        taken += [(run, update, update.step) for update in run.updates]
    return all_close(taken)


@check(task=4, prop="accum_steps below 1 is refused with an error that names it, before anything is trained")
@watching("accum_steps")
def refuses_less_than_one(tree: Tree, ledger: Ledger) -> Evidence:
    for accum_steps in (0, -1, -3):
        call = f"train_loop(model, bits(24, {LENGTH}), accum_steps={accum_steps})"
        try:
            run = train(tree, ledger, 24, accum_steps=accum_steps)
        except Exception as error:
            if "accum" not in str(error):
                return failed(f"{type(error).__name__}: {error}: it does not name accum_steps", call)
        else:
            return failed(f"no error, and {len(run.updates)} updates", call)
        if ledger.events:
            return failed(f"refused only after {len(ledger.events)} events", call)
    return passed("0, -1 and -3 are refused")


@check(task=4, prop="--accum_steps on the command line reaches the loop; without it, each micro-batch is an update")
@watching("accum_steps")
def command_line_reaches_the_loop(tree: Tree, ledger: Ledger) -> Evidence:
    for flag in ([], ["--accum_steps", "1"], ["--accum_steps", "3"]):
        accum_steps = int(flag[1]) if flag else 1
        call = " ".join(["python -m bit_transformer.training --data FILE --max_seq_len 36 --epochs 2", *flag])
        status = run_command(tree, ledger, ["--epochs", "2", *flag])
        if status:
            return failed(f"exit status {status}", call)
        sizes = [len(update.micro_batches) for update in updates(ledger.events)]
        planned = 2 * group_sizes(max(1, sum(sizes) // 2), accum_steps)
        if sizes != planned:
            return failed(f"updates of {sizes}, not {planned} micro-batches", call)
    return passed("without the flag, and with 1 and 3")


@check(task=4, prop="every gradient of a reversible model with halting exists, and is the group's mean")
@watching("accum_steps")
def reversible_gradients_exist(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr, ledger.clips = 0.5, False
    config = {"reversible": True, "use_act": True, "use_checkpoint": True, "num_layers": 2}
    run = train(tree, ledger, 37, epochs=2, accum_steps=3, config=config)
    names = [name for name, _ in run.model.named_parameters()]
    for update in run.updates:
        missing = [name for name in names if name not in (update.step.grads or {})]
        if missing:
            return failed(f"no gradient of {', '.join(missing)} at a step", run.call)
    return all_close([(run, update, update.step) for update in run.updates])


def options_of(tree: Tree) -> Collection[str]:
    """The parameters of the tree's train_loop."""
    return inspect.signature(tree.module("training").train_loop).parameters.keys()


def count_compressed(tree: Tree) -> list[None]:
    """A list that grows with each forward_compressed."""
    kind, calls = tree.module("model").BitTransformerLM, list[None]()
    original = kind.forward_compressed

    @functools.wraps(original)
    def forward_compressed(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return original(*args, **kwargs)

    kind.forward_compressed = forward_compressed
    return calls


@check(task=4, prop="gradients that are recomputed are the loss's derivatives, with dropout and with halting")
def recomputed_gradients_are_derivatives(tree: Tree) -> Evidence:
    """Compare backwards with finite differences; the random stream must stay where the forward left it."""
    worst, reproduce = 0.0, ""
    for stack in RECOMPUTED:
        call = f"BitTransformerLM(8, 2, 3, 16, **{stack}) in training, with dropout 0.2"
        model = with_dropout(tree.model(num_layers=3, **stack), 0.2)
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
    worst, call = 0.0, ""
    for reversible in (False, True):
        for dtype, allowed in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
            models = [
                with_dropout(tree.model(dtype=dtype, reversible=reversible, **config), 1.0)
                for config in ({"num_layers": 3, "use_act": True}, {"num_layers": 3}, {"num_layers": 6})
            ]
            for model in models[1:]:
                model.load_state_dict(models[0].state_dict(), strict=False)
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.float32):
                halting, plain, deep = (last_states(model) for model in models)
            if not torch.equal(plain, deep):
                return unproven("no nn.Dropout deletes all that a layer adds")
            if (gap := (halting - plain).abs().max().item() / allowed) >= worst:
                worst, call = gap, f"BitTransformerLM(8, 2, 3, 16, use_act=True, reversible={reversible}), {dtype}"
    return at_most(worst, 1.0, "distance of the last states from equal ones, in 1e-10, or 1e-5 under autocast", call)


def last_states(model: nn.Module) -> Tensor:
    """What the telemetry holds of the last layer [B, T, C], before a norm hides its scale; or else the logits."""
    logits, telemetry = model(Tree.bits(2, LENGTH))
    states: Tensor = telemetry.get("activations", logits)
    return states


def with_dropout(model: nn.Module, rate: float) -> nn.Module:
    """The model, with another rate of dropout."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
    return model


@contextmanager
def counted_linears() -> Iterator[list[None]]:
    """A list that grows with each call of a linear layer."""
    calls = list[None]()
    hook = register_module_forward_hook(
        lambda module, *_: calls.append(None) if isinstance(module, nn.Linear) else None
    )
    try:
        yield calls
    finally:
        hook.remove()


def seeded_loss(model: nn.Module) -> Tensor:
    """The mean cross-entropy of a forward whose dropout a seed fixes."""
    bits = Tree.bits(4, LENGTH)
    torch.manual_seed(7)
    logits: Tensor = model(bits)[0]
    return -logits[:, :-1].log_softmax(-1).gather(-1, bits[:, 1:, None]).mean()


@torch.no_grad()
def slope_error(model: nn.Module, grads: Sequence[Tensor]) -> float:
    """How far gradients are from the difference of the loss along one direction, relative to it."""
    step, losses = 1e-5, []
    generator = torch.Generator().manual_seed(3)
    direction = [torch.randn(grad.shape, generator=generator, dtype=grad.dtype) for grad in grads]
    for shift in (step, -2 * step):
        for weight, along in zip(model.parameters(), direction, strict=True):
            weight.add_(shift * along)
        losses.append(seeded_loss(model).item())
    slope = (losses[0] - losses[1]) / (2 * step)
    found = sum((grad * along).sum().item() for grad, along in zip(grads, direction, strict=True))
    return abs(found - slope) / abs(slope)
