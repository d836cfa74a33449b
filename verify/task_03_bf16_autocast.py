"""Task-3, bfloat16 autocast: the type of each thing, and when autocast is on, while a training loop runs."""

import contextlib
import io
import math
import re
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch.amp.autocast_mode import autocast
from torch.amp.grad_scaler import GradScaler

from .driving.autocast_runs import FORMS, loss_error, poisoned_gradient, train_at, watch
from .driving.compiler import hearing
from .driving.derivatives import all_close, as_weighed, distance
from .driving.kept_runs import Runs, judged, kept_runs
from .driving.operations import tensors_in
from .driving.pictures import curves, ledgers
from .driving.space import Points, over
from .driving.spies import Ledger
from .driving.training_runs import LENGTH, losses_beside, planned_sizes, refused, run_command, train, watching
from .driving.tree import Tree
from .driving.world import differences, settings, streams
from .running.evidence import Evidence, at_most, check, failed, passed, unproven

MODELS = ("num_layers", "reversible", "use_act", "use_checkpoint")
WINDOWS: dict[str, Any] = {"windows": ((None, 0), (4, 2))}
OFF: list[dict[str, Any]] = [{}, {"amp": "off"}]
USAGE = 2  # exit status of a command line that is refused
UNKNOWN = ("fp8", "int4", "yes", "")
LETTERS = {"backward": "b", "clip": "c", "step": "s"}


@check(task=3, prop="linear layers give bfloat16, also where they run again; what is kept of a run is float32")
@watching("amp")
@over(
    *(*MODELS, "accum_steps", "compile", "data"),
    extra_steps=(0, 1),
    batch_size=(8, 4),
    epochs=(1, 3),
    form=tuple(FORMS),
    **WINDOWS,
)
def each_thing_has_its_type(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    seen, calls = watch(tree, ledger), 0
    for point in points:
        seen.linear.clear()
        run = train_at(tree, ledger, point)
        state = list(tensors_in(dict(ledger.optimizer.state))) if ledger.optimizer else []
        groups = {
            "parameters": [weights for update in run.updates for weights in (update.step.weights or {}).values()],
            "gradients": [grad for event in run.events for grad in (event.grads or {}).values()],
            "optimizer state": state,
            "parameters and buffers after it": [*run.model.parameters(), *run.model.buffers()],
        }
        types = {name: [each.dtype for each in group if each.is_floating_point()] for name, group in groups.items()}
        for name, found in [*types.items(), ("outputs of linear layers", seen.linear)]:
            wanted = torch.float32 if name in types else torch.bfloat16
            if set(found) != {wanted}:
                return failed(f"{name}: {names(found)}, not {wanted}", f"{run.call} of {point}")
        calls += len(seen.linear)
    return passed(f"{calls} calls of linear layers")


@check(task=3, prop="the loss is float32; of a group of one it is the cross-entropy of float32 logits")
@watching("amp")
@over("accum_steps", "batch_size", "extra_steps", epochs=(2,), form=tuple(FORMS))
def loss_is_computed_in_float32(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    seen = watch(tree, ledger)
    worst, reproduce = 0.0, ""
    for point in points:
        seen.logits.clear()
        run = train_at(tree, ledger, point, scale=4.0, uneven=point["form"] == "direct")
        losses = [event.loss for event in run.events if event.kind == "backward" and event.loss is not None]
        if not losses or not len(losses) == len(seen.logits) == len(run.micro_batches):
            return failed(f"{len(losses)} backwards of {len(seen.logits)} micro-batches", run.call)
        types = [loss.dtype for loss in losses]
        if set(types) != {torch.float32}:
            return failed(f"the loss given to backward is {names(types)}", run.call)
        error = loss_error(run, seen.logits, point.values.get("accum_steps", 1))
        if error is None:
            return unproven(f"what enters the model is neither a row nor the stream of one, padded: {run.call}")
        if not (error <= worst or math.isnan(worst)):
            worst, reproduce = error, run.call
    return at_most(
        worst, 1e-5, "how far the losses are from one multiple of what the model's logits give, relative", reproduce
    )


@check(task=3, prop="backward, clip, step and schedule run outside autocast")
@watching("amp")
@over("reversible", "use_checkpoint", "accum_steps", extra_steps=(0, 1), epochs=(2,), form=tuple(FORMS))
def backward_runs_outside_autocast(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    seen = watch(tree, ledger)
    for point in points:
        seen.autocast.clear()
        run = train_at(tree, ledger, point)
        for kind in ("backward", "clip", "step", "scheduler"):
            on = [on for each, on in seen.autocast if each == kind]
            if not on and kind in ("backward", "step"):  # clips and rates may be written out
                return failed(f"no {kind} was seen", f"{run.call} of {point}")
            if any(on):
                found = f"{sum(on)} of {len(on)} times, {kind} ran under autocast"
                return failed(found, f"{run.call} of {point}")
    return passed("backward, clip, step and scheduler")


@check(task=3, prop="one clip an optimizer step, between its last backward and the step, with the bound of amp off")
@watching("amp")
@over(
    *("accum_steps", "extra_steps", "epochs", "compile", "data", "global_step", "num_workers", "warmup_steps"),
    amp=("off", "bf16"),
    batch_size=(4, 8),
)
def clips_once_before_each_step(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    ledger.sgd_lr = 0.0
    norms, call = [], ""
    for point in points:
        run = train_at(tree, ledger, point, scale=8.0, amp=point["amp"])  # the clip bites
        call = run.call if point["amp"] == "bf16" else call
        acts = "".join(LETTERS.get(event.kind, "") for event in run.events)
        if not re.fullmatch("(b+c?s)+", acts):  # gradients may be clipped by hand
            trouble = f"not backward, clip, step in turn, by their first letters: {acts or 'nothing'}"
            return failed(trouble, run.call, picture=ledgers(run.events, planned_sizes(run)))
        norms += [math.hypot(*(grad.norm() for grad in (update.step.grads or {}).values())) for update in run.updates]
    if not min(norms):
        return unproven("a step without a gradient")
    detail = f"spread of the gradients' norms after the clip, with weights x 8: {min(norms):.6g} to {max(norms):.6g}"
    shown = curves("the gradients' norms after the clip", norms, len(norms) * [min(norms)], y="norm")
    return at_most(max(norms) / min(norms) - 1, 1e-4, detail, call, shown)


@check(task=3, prop="gradients under bfloat16 all exist, and are those of the weights as they then are")
@watching("amp")
@over(*MODELS, "accum_steps", epochs=(2,), **WINDOWS)
def gradients_follow_the_weights(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    ledger.sgd_lr, ledger.clips = 1.0, False
    worst, reproduce = 0.0, ""
    for point in points:
        run, plain = train_at(tree, ledger, point), train_at(tree, ledger, point, amp="off")
        sizes = [[len(update.micro_batches) for update in each.updates] for each in (run, plain)]
        if sizes[0] != sizes[1] or 0 in sizes[0]:
            return failed(f"updates of {sizes[0]} micro-batches, with amp off of {sizes[1]}", run.call)
        exact = tree.model(**point.config)
        for update, own in zip(run.updates, plain.updates, strict=True):
            gap = distance(update.step.grads or {}, as_weighed(exact, update, own))
            if not (gap <= worst or math.isnan(worst)):
                worst, reproduce = gap, f"{run.call} of {point}"
    detail = "distance of the worst gradient from float64's, relative; bfloat16 has 2 to 3 digits"
    return at_most(worst, 0.2, detail, reproduce)


@check(task=3, prop="an update that is skipped, as a gradient is no number, does not advance the schedule, or says so")
@watching("amp")
@over("accum_steps", amp=("bf16", "off"), at=(1, 3))
def a_skipped_update_stops_the_schedule(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    for point in points:
        given: dict[str, Any] = {"rows": 24, "epochs": 2, "amp": point["amp"]}
        plain = train_at(tree, ledger, point, **given)
        said: list[str] = []
        with poisoned_gradient(tree, point["at"]), hearing(said), contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                run = train_at(tree, ledger, point, **given)
            except (ArithmeticError, RuntimeError, ValueError):
                continue  # it says so
        call = f"{run.call} with a gradient that is no number in micro-batch {point['at']}"
        if run.goes_on(plain.rates) and not said and not printed.getvalue():
            return failed(f"{len(run.updates)} updates, and the schedule is beyond them", call)
        grads = [grad for update in run.updates for grad in (update.step.grads or {}).values()]
        if all(bool(grad.isfinite().all()) for grad in grads) and len(run.updates) < len(plain.updates) - 1:
            return failed(
                f"{len(plain.updates) - len(run.updates)} updates are skipped where one gradient is no number", call
            )
    return passed("in the first group and in a later one")


@check(task=3, prop="a run that is kept trains and evaluates under autocast with --amp bf16, and never without")
@watching("amp")
@kept_runs
def kept_runs_have_their_autocast(runs: Runs) -> Iterator[Evidence]:
    for amp, accum_steps in (("bf16", 1), ("bf16", 2), ("off", 1)):
        kept = runs.go(amp=amp, accum_steps=accum_steps)
        trained = [event.is_autocast for event in kept.events if event.bits is not None]
        wrong = [
            what
            for what, found in (("micro-batch", trained), ("evaluation", kept.evaluated))
            if {*found} != {amp == "bf16"}
        ]
        yield judged(
            kept, f"not every {wrong[0]} is {'under' if amp == 'bf16' else 'without'} autocast" if wrong else ""
        )


@check(task=3, prop='amp="off" is the default, bit for bit, and is the plain loop')
@watching("amp")
@over("reversible", "use_act", "use_checkpoint", "accum_steps", num_layers=(2,), **WINDOWS)
def off_is_the_loop_as_before(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    seen = watch(tree, ledger)
    given: dict[str, Any] = {"epochs": 2, "dropout": 0.1}
    given |= {"compress_prob": 0.5} if tree.loop_takes("compress_prob") else {}
    for point in points:
        default = train(tree, ledger, 9, config=point.config, dtype=torch.float32, **given | point.options)
        run = train_at(tree, ledger, point, **given, amp="off")
        if not all(map(torch.equal, default.model.parameters(), run.model.parameters())):
            losses = losses_beside(default, run)
            return failed('the default and amp="off" give different weights', f"{run.call} of {point}", picture=losses)
    if set(seen.linear) != {torch.float32}:
        return failed(f"linear layers give {names(seen.linear)}", run.call)
    ledger.clips = False
    run = train(tree, ledger, 37, epochs=2, amp="off")
    return all_close([(run, update, update.step) for update in run.updates])


@check(task=3, prop='amp="off" leaves the autocast of a caller as it is')
@watching("amp")
def off_leaves_an_outer_autocast(tree: Tree, ledger: Ledger) -> Evidence:
    seen = watch(tree, ledger)
    for amp in OFF:
        seen.linear.clear()
        with torch.autocast("cpu", torch.bfloat16):
            run = train(tree, ledger, 16, dtype=torch.float32, **amp)
            on = torch.is_autocast_enabled("cpu")
        call = f'with torch.autocast("cpu", torch.bfloat16): {run.call}'
        is_off_by_itself = tree.seams.is_told and set(seen.linear) == {torch.float32}  # its own word for off
        if (set(seen.linear) != {torch.bfloat16} and not is_off_by_itself) or not on:
            return failed(f"under the caller's autocast, linear layers give {names(seen.linear)}", call)
    return passed("with amp off and left out")


@check(
    task=3, prop="the settings of the process are as before a run, and its random streams are where amp off has them"
)
@watching("amp")
@over("reversible", "accum_steps", form=tuple(FORMS))
def leaves_the_process_as_it_was(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    train(tree, ledger, 4)  # what is imported, or made once, at a first run
    before = settings()
    for point in points:
        left = {}
        for amp in ("off", "bf16"):
            run = train_at(tree, ledger, point, amp=amp)
            left[amp] = streams()
        if moved := differences(left["off"], left["bf16"]):
            return failed(f"the random stream of {moved[0]} is not where amp off leaves it", f"{run.call} of {point}")
    if changed := differences(before, settings()):
        return failed(f"{changed[0]} is not as before", run.call)
    return passed(f"{len(before)} settings and {len(left['off'])} streams")


@check(task=3, prop="no gradient scaler is made")
@watching("amp")
def makes_no_grad_scaler(tree: Tree, ledger: Ledger) -> Evidence:
    with patch.object(GradScaler, "__init__", autospec=True, side_effect=GradScaler.__init__) as scalers:
        run = train(tree, ledger, 16, dtype=torch.float32, amp="bf16")
    if scalers.call_count:
        return failed(f"a GradScaler was made: {scalers.call_count}", run.call)
    return passed(f"{len(run.updates)} updates without one")


@check(task=3, prop="autocast is of the model's device type, and of no other")
@watching("amp")
def autocast_is_of_the_models_device(tree: Tree, ledger: Ledger) -> Evidence:
    # There is no autocast of meta tensors: a loop asks for one and is refused, or does without.
    for device in ("cpu", "meta"):
        types = autocast_device_types(tree, device)
        if types - {device}:
            call = f'train_loop(model.to("{device}"), bits(16, {LENGTH}), amp="bf16")'
            return failed(f"a model on {device} runs under autocast of {', '.join(sorted(types))}", call)
    if not any(event.kind == "step" for event in ledger.events):
        return failed("train_loop makes no update")
    seen, usual = watch(tree, ledger), torch.get_autocast_dtype("cpu")
    torch.set_autocast_dtype("cpu", torch.float16)  # as it is by default where there is CUDA
    run = train(tree, ledger, 16, dtype=torch.float32, amp="bf16")
    torch.set_autocast_dtype("cpu", usual)
    if set(seen.linear) != {torch.bfloat16}:
        return failed(f"where autocast is float16 by default, linear layers give {names(seen.linear)}", run.call)
    return passed("models on cpu and meta, and where autocast is float16 by default")


@check(task=3, prop="an amp that is unknown is refused with an error that names it, before anything is trained")
@watching("amp")
def refuses_an_unknown_amp(tree: Tree, ledger: Ledger) -> Evidence:
    if tree.seams.is_switch("amp"):
        return passed("it is on or off: none is unknown")
    return refused(tree, ledger, ({"amp": amp} for amp in UNKNOWN), "amp")


@check(task=3, prop="--amp on the command line reaches the loop; off is its default; what is unknown is refused")
@watching("amp")
def command_line_reaches_the_loop(tree: Tree, ledger: Ledger) -> Evidence:
    seen = watch(tree, ledger)
    cases = {(): torch.float32, ("--amp", "off"): torch.float32, ("--amp", "bf16"): torch.bfloat16}
    for flags, dtype in cases.items():
        seen.linear.clear()
        call = " ".join(["python -m bit_transformer.training --data FILE --max_seq_len 36", *flags])
        if status := run_command(tree, ledger, list(flags)):
            return failed(f"exit status {status}", call)
        if set(seen.linear) != {dtype}:
            return failed(f"linear layers give {names(seen.linear)}, not {dtype}", call)
    if tree.seams.is_switch("amp"):
        return passed("without the flag, with off and bf16")
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            status = run_command(tree, ledger, ["--amp", "fp8"])
        except ValueError as refusal:  # which elsewhere may come of the loop
            status = USAGE if tree.seams.is_told and "fp8" in str(refusal) else 1
    if status != USAGE and not (tree.seams.is_told and status):
        return failed(f"exit status {status}, not {USAGE}", "python -m bit_transformer.training --data FILE --amp fp8")
    return passed("without the flag, with off and bf16, and fp8 is refused")


def autocast_device_types(tree: Tree, device: str) -> set[str]:
    """The device types of the autocasts that are made where a model on a device is to be trained."""
    model = tree.model(dtype=torch.float32).to(device)
    made = patch.object(autocast, "__init__", autospec=True, side_effect=autocast.__init__)
    with made as calls, contextlib.suppress(RuntimeError, NotImplementedError):
        tree.train(model, tree.bits(16, LENGTH), compress_prob=0.0, amp="bf16")
    return {str([*call.args[1:], *call.kwargs.values()][0]) for call in calls.call_args_list}


def names(types: list[torch.dtype]) -> str:
    """The types in a list, once each, in words."""
    return ", ".join(sorted(set(map(str, types)))) or "nothing"
