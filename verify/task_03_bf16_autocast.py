"""Task-3, bfloat16 autocast: the type of each thing, and when autocast is on, while a training loop runs."""

import contextlib
import inspect
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.amp.autocast_mode import autocast
from torch.amp.grad_scaler import GradScaler
from torch.nn.modules.module import register_module_forward_hook

from .evidence import Evidence, at_most, check, failed, passed, unproven
from .operations import tensors_in
from .spies import Ledger
from .training_runs import LENGTH, Run, distance, limit, mean_gradient, run_command, train, watching
from .tree import Tree

CONFIGS: list[dict[str, Any]] = [
    {},
    {"use_checkpoint": True, "use_act": True, "num_layers": 2},
    {"reversible": True, "use_act": True, "num_layers": 2},
    {"chunk_size": 4, "overlap": 2},
]
OFF: list[dict[str, Any]] = [{}, {"amp": "off"}]
USAGE = 2  # exit status of a command line that is refused
UNKNOWN = ("fp8", "int4", "yes", "")


@dataclass(slots=True)
class Seen:
    """What the models and the loop of a run did, next to the ledger."""

    linear: list[torch.dtype] = field(default_factory=list)  # of what each call of a linear layer gave
    logits: list[Tensor] = field(default_factory=list)  # of each micro-batch
    autocast: list[tuple[str, bool]] = field(default_factory=list)  # kind of each event, and whether it was on


@check(task=3, prop='with amp="bf16" every linear layer gives bfloat16, in each form, epoch and configuration')
@watching("amp")
def linear_outputs_are_bfloat16(tree: Tree, ledger: Ledger) -> Evidence:
    seen = watch(tree, ledger)
    cases = [{"config": config} for config in CONFIGS] + forms(tree)
    for case in cases:
        seen.linear.clear()
        run = train_in_bf16(tree, ledger, 19, epochs=2, extra_steps=1, **case)
        if not seen.linear:
            return failed("no nn.Linear was called in training", run.call)
        wide = [dtype for dtype in seen.linear if dtype is not torch.bfloat16]
        if wide:
            return failed(f"{len(wide)} of {len(seen.linear)} outputs of linear layers are {wide[0]}", run.call)
    return passed(f"{len(cases)} runs of 2 epochs, raw, compressed and direct")


@check(task=3, prop="parameters, gradients and optimizer state stay float32")
@watching("amp")
def what_is_kept_is_float32(tree: Tree, ledger: Ledger) -> Evidence:
    watch(tree, ledger)
    kept = 0
    for config in CONFIGS:
        run = train_in_bf16(tree, ledger, 19, epochs=2, config=config)
        state = list(tensors_in(dict(ledger.optimizer.state))) if ledger.optimizer else []
        groups = {
            "parameters": [weights for update in run.updates for weights in (update.step.weights or {}).values()],
            "gradients": [grad for event in run.events for grad in (event.grads or {}).values()],
            "optimizer state": state,
            "parameters and buffers after it": [*run.model.parameters(), *run.model.buffers()],
        }
        for name, tensors in groups.items():
            types = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
            if set(types) != {torch.float32}:
                return failed(f"{name}: {names(types)}, not torch.float32", run.call)
            kept += len(tensors)
    return passed(f"{kept} tensors of {len(CONFIGS)} runs")


@check(task=3, prop="the loss is float32, and is the cross-entropy of float32 logits")
@watching("amp")
def loss_is_computed_in_float32(tree: Tree, ledger: Ledger) -> Evidence:
    seen = watch(tree, ledger)
    worst, reproduce = 0.0, ""
    for form in forms(tree):
        seen.logits.clear()
        run = train_in_bf16(tree, ledger, 24, epochs=2, scale=4.0, **form)
        losses = [event.loss for event in run.events if event.kind == "backward" and event.loss is not None]
        if not losses or not len(losses) == len(seen.logits) == len(run.micro_batches):
            return failed(f"{len(losses)} backwards of {len(seen.logits)} micro-batches", run.call)
        types = [loss.dtype for loss in losses]
        if set(types) != {torch.float32}:
            return failed(f"the loss given to backward is {names(types)}", run.call)
        for loss, logits, rows in zip(losses, seen.logits, run.micro_batches, strict=True):
            wanted = cross_entropy(logits, rows).item()
            gap = abs(loss.item() - wanted) / wanted
            if not (gap <= worst or math.isnan(worst)):
                worst, reproduce = gap, run.call
    return at_most(worst, 1e-5, "relative error of the worst loss, to that of the model's logits", reproduce)


@check(task=3, prop="backward, clip and step run outside autocast, which is as it was when the loop returns")
@watching("amp")
def backward_runs_outside_autocast(tree: Tree, ledger: Ledger) -> Evidence:
    seen = watch(tree, ledger)
    for config in CONFIGS:
        seen.autocast.clear()
        before = autocast_state()
        run = train_in_bf16(tree, ledger, 19, epochs=2, extra_steps=1, config=config)
        states = {kind: [on for each, on in seen.autocast if each == kind] for kind in ("backward", "clip", "step")}
        for kind, on in states.items():
            if not on:
                return failed(f"no {kind} was seen", run.call)
            if any(on):
                return failed(f"{sum(on)} of {len(on)} times, {kind} ran under autocast", run.call)
        if autocast_state() != before:
            return failed("autocast is not as it was before the loop", run.call)
    return passed(f"{len(CONFIGS)} runs")


@check(task=3, prop="one clip an optimizer step, between its last backward and the step, with the bound of amp off")
@watching("amp")
def clips_once_before_each_step(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr = 0.0
    norms, runs = [], []
    for amp in ("off", "bf16"):
        run = train(tree, ledger, 24, epochs=2, scale=8.0, dtype=torch.float32, amp=amp)  # the clip bites
        acts = [event.kind for event in run.events if event.kind in ("backward", "clip", "step")]
        if not acts or acts != ["backward", "clip", "step"] * (len(acts) // 3):
            return failed(f"not backward, clip, step in turn: {' '.join(acts[:9]) or 'nothing'} ...", run.call)
        norms += [math.hypot(*(grad.norm() for grad in (update.step.grads or {}).values())) for update in run.updates]
        runs.append(run)
    if not min(norms):
        return unproven("a step without a gradient")
    detail = f"spread of the gradients' norms after the clip, with weights x 8: {min(norms):.6g} to {max(norms):.6g}"
    return at_most(max(norms) / min(norms) - 1, 1e-4, detail, runs[1].call)


@check(task=3, prop="gradients under bfloat16 all exist, and are those of the weights as they then are")
@watching("amp")
def gradients_follow_the_weights(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr, ledger.clips = 1.0, False
    worst, reproduce = 0.0, ""
    for config in CONFIGS:
        run = train_in_bf16(tree, ledger, 16, epochs=3, config=config)
        if not run.updates:
            return failed("train_loop makes no update", run.call)
        exact = tree.model(**config)
        for update in run.updates:
            grads = update.step.grads or {}
            missing = [name for name, _ in exact.named_parameters() if name not in grads]
            if missing:
                return failed(f"no gradient of {', '.join(missing)} at a step", run.call)
            exact.load_state_dict(update.step.weights or {}, strict=False)
            gap = distance(grads, mean_gradient(exact, update.rows))
            if not (gap <= worst or math.isnan(worst)):
                worst, reproduce = gap, run.call
    detail = "distance of the worst gradient from float64's, relative; bfloat16 has 2 to 3 digits"
    return at_most(worst, 0.2, detail, reproduce)


@check(task=3, prop="what a reversible or checkpointed stack computes again in the backward is bfloat16 too")
@watching("amp")
def recompute_is_bfloat16(tree: Tree, ledger: Ledger) -> Evidence:
    seen = watch(tree, ledger)
    counts = {}
    for name in ("reversible", "use_checkpoint"):
        for value in (False, True):
            seen.linear.clear()
            run = train_in_bf16(tree, ledger, 16, config={"num_layers": 2, "use_act": True, name: value})
            counts[name, value] = len(seen.linear)
            wide = sum(dtype is not torch.bfloat16 for dtype in seen.linear)
            if wide:
                return failed(f"{wide} of {len(seen.linear)} outputs of linear layers are not bfloat16", run.call)
        if not counts[name, False]:
            return failed("no nn.Linear was called in training", run.call)
        if counts[name, True] <= counts[name, False]:
            return unproven(f"{name}: nothing is computed again in the backward")
    return passed(f"{counts['reversible', True]} calls of linear layers of a reversible model")


@check(task=3, prop='amp="off" is the default, bit for bit, and is the plain loop')
@watching("amp")
def off_is_the_loop_as_before(tree: Tree, ledger: Ledger) -> Evidence:
    seen = watch(tree, ledger)
    for config in CONFIGS:
        options: dict[str, Any] = {"epochs": 2, "dropout": 0.1, "dtype": torch.float32, "compress_prob": 0.5}
        runs = [train(tree, ledger, 19, config=config, **options, **amp) for amp in OFF]
        if not all(map(torch.equal, *(run.model.parameters() for run in runs))):
            return failed('the default and amp="off" give different weights', runs[1].call)
    if set(seen.linear) != {torch.float32}:
        return failed(f"linear layers give {names(seen.linear)}", runs[1].call)
    ledger.sgd_lr, ledger.clips = 0.5, False
    run = train(tree, ledger, 37, epochs=2, amp="off")
    if not run.updates:
        return failed("train_loop makes no update", run.call)
    plain = tree.model()
    for update in run.updates:
        grads = mean_gradient(plain, update.rows)
        with torch.no_grad():
            for name, weight in plain.named_parameters():
                weight.sub_(0.5 * grads.get(name, 0.0))
    weights = [{name: weight.detach() for name, weight in model.named_parameters()} for model in (run.model, plain)]
    return at_most(distance(*weights), limit(run), "weights, relative to the plain loop's", run.call)


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
        if set(seen.linear) != {torch.bfloat16} or not on:
            return failed(f"under the caller's autocast, linear layers give {names(seen.linear)}", call)
    return passed("with amp off and left out")


@check(task=3, prop="no gradient scaler is made")
@watching("amp")
def makes_no_grad_scaler(tree: Tree, ledger: Ledger) -> Evidence:
    with patch.object(GradScaler, "__init__", autospec=True, side_effect=GradScaler.__init__) as scalers:
        run = train_in_bf16(tree, ledger, 16)
    if not run.updates:
        return failed("train_loop makes no update", run.call)
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
    return passed("models on cpu and meta")


@check(task=3, prop="an amp that is unknown is refused with an error that names it, before anything is trained")
@watching("amp")
def refuses_an_unknown_amp(tree: Tree, ledger: Ledger) -> Evidence:
    for amp in UNKNOWN:
        call = f"train_loop(model, bits(16, {LENGTH}), amp={amp!r})"
        try:
            run = train(tree, ledger, 16, dtype=torch.float32, amp=amp)
        except Exception as error:
            if "amp" not in str(error):
                return failed(f"{type(error).__name__}: {error}: it does not name amp", call)
        else:
            return failed(f"no error, and {len(run.updates)} updates", call)
        if any(event.kind in ("backward", "step") for event in ledger.events):
            return failed(f"refused only after {len(ledger.events)} events", call)
    return passed(f"{', '.join(map(repr, UNKNOWN))} are refused")


@check(task=3, prop="--amp on the command line reaches the loop; off is its default; what is unknown is refused")
@watching("amp")
def command_line_reaches_the_loop(tree: Tree, ledger: Ledger) -> Evidence:
    seen = watch(tree, ledger)
    cases = {(): torch.float32, ("--amp", "off"): torch.float32, ("--amp", "bf16"): torch.bfloat16}
    for flags, dtype in cases.items():
        seen.linear.clear()
        call = " ".join(["python -m bit_transformer.training --data FILE --max_seq_len 36", *flags])
        status = run_command(tree, ledger, list(flags))
        if status:
            return failed(f"exit status {status}", call)
        if set(seen.linear) != {dtype}:
            return failed(f"linear layers give {names(seen.linear)}, not {dtype}", call)
    with contextlib.redirect_stderr(io.StringIO()):
        status = run_command(tree, ledger, ["--amp", "fp8"])
    if status != USAGE:
        return failed(f"exit status {status}, not {USAGE}", "python -m bit_transformer.training --data FILE --amp fp8")
    return passed("without the flag, with off and bf16, and fp8 is refused")


@check(task=3, prop="training in bfloat16 lowers the loss as training in float32 does, and all stays finite")
@watching("amp")
def trains_as_float32_does(tree: Tree, ledger: Ledger) -> Evidence:
    losses = {}
    for amp in ("off", "bf16"):
        run = train(tree, ledger, 16, alike=True, epochs=12, lr=0.05, dtype=torch.float32, amp=amp)
        backwards = [event.loss.item() for event in run.events if event.kind == "backward" and event.loss is not None]
        records = [value for record in run.history for value in record.values() if isinstance(value, float)]
        weights = [bool(weight.isfinite().all()) for weight in run.model.parameters()]
        if not backwards or not all(map(math.isfinite, backwards + records)) or not all(weights):
            return failed(f"losses, records or weights that are not finite with amp={amp!r}", run.call)
        losses[amp] = backwards
    fall = losses["off"][0] - losses["off"][-1]
    if fall < 0.1:  # noqa: PLR2004 - nats
        return unproven(f"the loss of one row falls by {fall:.3f} nats only in float32")
    gap = abs(losses["bf16"][-1] - losses["off"][-1]) / fall
    return at_most(gap, 0.2, "distance of the last losses, as a share of float32's fall", run.call)


def watch(tree: Tree, ledger: Ledger) -> Seen:
    """Note from now on what linear layers and models give, and whether autocast is on at each event."""
    seen, record = Seen(), ledger._record
    model_class = tree.module("model").BitTransformerLM

    def note_output(module: nn.Module, _: Any, out: Any) -> None:
        if isinstance(module, nn.Linear):
            seen.linear.append(out.dtype)
        elif isinstance(module, model_class) and module.training and torch.is_grad_enabled():
            seen.logits.append(out[0].detach())

    def note_event(kind: str, fields: Callable[[], dict[str, Any]]) -> None:
        seen.autocast.append((kind, torch.is_autocast_enabled("cpu")))
        record(kind, fields)

    register_module_forward_hook(note_output)
    vars(ledger)["_record"] = note_event
    return seen


def train_in_bf16(tree: Tree, ledger: Ledger, rows: int, **options: Any) -> Run:
    """Train a float32 model with amp="bf16"."""
    return train(tree, ledger, rows, dtype=torch.float32, amp="bf16", **options)


def autocast_device_types(tree: Tree, device: str) -> set[str]:
    """The device types of the autocasts that are made where a model on a device is to be trained."""
    model = tree.model(dtype=torch.float32).to(device)
    made = patch.object(autocast, "__init__", autospec=True, side_effect=autocast.__init__)
    with made as calls, contextlib.suppress(RuntimeError, NotImplementedError):
        tree.module("training").train_loop(model, tree.bits(16, LENGTH), compress_prob=0.0, amp="bf16")
    return {str([*call.args[1:], *call.kwargs.values()][0]) for call in calls.call_args_list}


def forms(tree: Tree) -> list[dict[str, Any]]:
    """The options with which micro-batches enter raw, compressed and direct, the last of one length."""
    ramps = "warmup_steps" in inspect.signature(tree.module("training").train_loop).parameters
    compressed = {"compress_prob": 1.0} | ({"warmup_steps": 0} if ramps else {})
    return [{}, compressed, {"direct_prob": 1.0, "alike": True}]


def cross_entropy(logits: Tensor, rows: Tensor) -> Tensor:
    """The mean cross-entropy of each next bit of rows [B, T], in float64."""
    return -logits.double()[:, :-1].log_softmax(-1).gather(-1, rows[:, 1:, None].long()).mean()


def names(types: list[torch.dtype]) -> str:
    """The types in a list, once each, in words."""
    return ", ".join(sorted(set(map(str, types)))) or "nothing"


def autocast_state() -> tuple[bool, torch.dtype, bool]:
    """Whether autocast is on, its type, and whether it keeps what it casts."""
    return torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()
