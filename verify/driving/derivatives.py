"""Derivatives of a model's loss, by backward and by differences. In child processes only."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from ..running.evidence import Evidence, Picture, at_most, failed, unproven
from .outputs import outputs
from .pictures import curves
from .spies import Event, Update
from .training_runs import LENGTH, Run
from .tree import Tree


def last_states(model: nn.Module) -> Tensor:
    """What the telemetry holds of the last layer [B, T, C], before a norm hides its scale; or else the logits."""
    logits, telemetry = Tree.forward(model, Tree.bits(2, LENGTH))
    states: Tensor = telemetry.get("activations", logits)
    return states


def with_halting(model: nn.Module, bias: float) -> nn.Module:
    """The model, with halting so likely: a linear layer of one output has this bias."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.out_features == 1 and module.bias is not None:
            nn.init.constant_(module.bias, bias)
    return model


@contextmanager
def counted_linears() -> Iterator[list[None]]:
    """A list that grows with each call of a linear layer."""
    calls = list[None]()
    with register_module_forward_hook(lambda module, *_: calls.append(None) if isinstance(module, nn.Linear) else None):
        yield calls


def seeded_loss(model: nn.Module) -> Tensor:
    """The mean cross-entropy of a forward whose dropout a seed fixes."""
    bits = Tree.bits(4, LENGTH)
    torch.manual_seed(7)
    logits = Tree.forward(model, bits)[0]
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


def mean_gradient(model: nn.Module, rows: Tensor, **kwargs: Any) -> dict[str, Tensor]:
    """The gradient of the mean cross-entropy of each next bit of rows [B, T]."""
    return scored_gradient(model, [(rows, torch.ones_like(rows[:, 1:], dtype=torch.bool))], **kwargs)


def scored_gradient(model: nn.Module, parts: Sequence[tuple[Tensor, Tensor]], **kwargs: Any) -> dict[str, Tensor]:
    """The gradient of the mean cross-entropy over all next bits of some micro-batches [B, L] that are scored.

    Each backward begins without gradients: one that adds to those that are there wrongly would be as wrong here.
    """
    model.train()
    total, found = sum(int(scored.sum()) for _, scored in parts), dict[str, Tensor]()
    for rows, scored in parts:
        model.zero_grad(set_to_none=True)
        logits = outputs(model(rows, **kwargs))[0].double()  # [B, L, 2]
        losses = -logits[:, :-1].log_softmax(-1).gather(-1, rows[:, 1:, None].long())[..., 0]
        torch.autograd.backward(losses[scored].sum() / total)
        for name, weight in model.named_parameters():
            if weight.grad is not None:
                found[name] = found[name] + weight.grad if name in found else weight.grad
    return found


def as_weighed(model: nn.Module, update: Update, plain: Update) -> dict[str, Tensor]:
    """The gradient of an update whose micro-batches weigh what they do in another one, be that right or not."""
    parts = list[list[dict[str, Tensor]]]()
    for each in (update, plain):
        model.load_state_dict(each.step.weights or {}, strict=False)
        parts.append([mean_gradient(model, rows) for rows in each.micro_batches])
    mine, theirs = parts
    names = [name for name in theirs[0] if name in (plain.step.grads or {})]
    columns = [torch.cat([part[name].flatten() for name in names]) for part in (*theirs, plain.step.grads or {})]
    weights = torch.linalg.lstsq(torch.stack(columns[:-1], 1), columns[-1][:, None].double()).solution.flatten()
    return {name: sum(weight * part[name] for weight, part in zip(weights, mine, strict=True)) for name in mine[0]}


def all_close(cases: list[tuple[Run, Update, Event]], bound: float = math.inf) -> Evidence:
    """Compare the gradients that an event saw with those of the mean loss over all that is scored in its update.

    They are taken at the weights of its step, and clipped to a norm. What differs is told with the first update and
    the first parameter that do.
    """
    worst, reproduce = 0.0, ""
    first: tuple[str, str, Picture | None] | None = None
    allowed = 1e-5 if bound < math.inf else max(limit(run) for run, _, _ in cases)
    for run, update, event in cases:
        if not update.micro_batches:
            return failed("a step without a micro-batch", run.call)
        run.model.load_state_dict(update.step.weights or {}, strict=False)
        scored = [run.scored(rows) for rows in update.micro_batches]
        parts = [(rows, own) for rows, own in zip(update.micro_batches, scored, strict=True) if own is not None]
        if len(parts) < len(scored):
            return unproven(f"what enters the model is neither a row nor the stream of one, padded: {run.call}")
        wanted = scored_gradient(run.model, parts, **run.options.get("forward_kwargs") or {})
        if not any(grad.any() for grad in wanted.values()):
            return unproven("the mean loss of a group has no gradient")
        if missing := wanted.keys() - (event.grads or {}).keys():
            return failed(f"no gradient of {', '.join(sorted(missing))} at a step", run.call)
        share = min(1.0, bound / norm(wanted))
        if bound == math.inf and all(each.kind != "clip" for each in run.events):  # one that is written out still clips
            share = min(1.0, norm(event.grads or {}) / norm(wanted))
        wanted = {name: share * grad for name, grad in wanted.items()}
        gap = distance(event.grads or {}, wanted)
        if not (gap <= worst or math.isnan(worst)):
            worst, reproduce = gap, run.call
        if not (gap <= allowed or first):
            number = next(at for at, each in enumerate(run.updates, start=1) if each.step is update.step)
            name = where(event.grads or {}, wanted, allowed)
            a, b = ((each or {}).get(name, torch.zeros(0)) for each in (event.grads, wanted))
            shown = curves(f"the gradient of {name} in update {number}", a, b, x="weight", y="gradient")
            first = f"; first in update {number}: {name}", run.call, shown
    told, call, shown = first or ("", reproduce, None)
    return at_most(worst, allowed, f"relative error of the worst of {len(cases)} updates{told}", call, shown)


def where(found: dict[str, Tensor], wanted: dict[str, Tensor], allowed: float) -> str:
    """The first parameter, in the order of the model, whose gradient is off by more than a share of the largest."""
    scale = max(value.abs().max().item() for value in wanted.values())
    gaps = ((name, (found.get(name, torch.zeros(())) - grad).abs().max().item()) for name, grad in wanted.items())
    return next((name for name, gap in gaps if not gap <= allowed * scale), "what should have no gradient")


def norm(grads: dict[str, Tensor]) -> float:
    """The norm of all gradients together."""
    return math.hypot(*(grad.norm().item() for grad in grads.values()))


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
