"""Derivatives of a model's loss, by backward and by differences. In child processes only."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from .training_runs import LENGTH
from .tree import Tree


def last_states(model: nn.Module) -> Tensor:
    """What the telemetry holds of the last layer [B, T, C], before a norm hides its scale; or else the logits."""
    logits, telemetry = model(Tree.bits(2, LENGTH))
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
