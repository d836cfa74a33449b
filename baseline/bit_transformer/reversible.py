"""A reversible stack: the backward pass recomputes activations instead of keeping them.

The residual stream is split in two (Gomez et al. 2017, arXiv:1707.04585): a layer computes

    y1 = x1 + attend(x2)
    y2 = x2 + feed(y1)

and its inputs follow from its outputs, so that only the last layer's outputs are kept. Both streams
start as x, and the result is their mean; with adaptive computation time (Graves 2016,
arXiv:1603.08983) it is the halting-weighted sum of the means after each layer.

Shapes: B batch, T sequence length, C model width, L layers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


def halting_weights(probabilities: Tensor, threshold: float) -> Tensor:
    """The share that each layer's state has in the output, for halting probabilities [L, B, T, 1].

    A layer weighs its probability until their sum reaches the threshold, there what remains to 1,
    and 0 after; the last layer takes what then remains.
    """
    spent, weights = start_halting(probabilities[0]), []
    for depth, probability in enumerate(probabilities, 1):
        stops = reaches_threshold(probability, spent, threshold, is_last=depth == len(probabilities))
        weights.append(halting_weight(probability, spent, stops))
        spent = spent + weights[-1]
    return torch.stack(weights)


def start_halting(like: Tensor) -> Tensor:
    """The weight spent before the first layer: zeros [B, T, 1]."""
    # Autocast leaves the states in float32: sum there too, so that the weights make up 1.
    wide = torch.is_autocast_enabled(like.device.type)
    return torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32) if wide else None)


def reaches_threshold(probability: Tensor, spent: Tensor, threshold: float, is_last: bool) -> Tensor:
    """Whether each position halts at this layer, or has before: a BoolTensor [B, T, 1]."""
    if not 0 < threshold <= 1:
        raise ValueError(f"act_threshold must lie in (0, 1], got {threshold}")
    return (spent + probability >= threshold) | is_last


def halting_weight(probability: Tensor, spent: Tensor, stops: Tensor) -> Tensor:
    """The weight [B, T, 1] of a layer after those that spent theirs; once all is spent, it is 0."""
    return torch.where(stops, 1 - spent, probability)


def run_reversible(
    layers: nn.ModuleList, x: Tensor, causal: bool, halt: nn.Module | None, act_threshold: float
) -> tuple[Tensor, list[Tensor]]:
    """Run x [B, T, C] through layers with `attend` and `feed` branches: the result and the logged maps.

    `halt` scores states [B, T, C] as logits [B, T, 1] of the halting probability; None runs all
    layers in full. Gradients are those of the plain computation, up to the rounding of the inversion.
    """
    attn_maps: list[Tensor] = []
    parameters = [*layers.parameters(), *(halt.parameters() if halt is not None else [])]
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    # A compiler could draw other random numbers in the recompute than in the forward: it stays out.
    apply = torch.compiler.disable(ReversibleStack.apply) if torch.compiler.is_compiling() else ReversibleStack.apply
    y = apply(x, layers, causal, halt, act_threshold, attn_maps, *trained)
    return y, attn_maps


class ReversibleStack(torch.autograd.Function):
    """The stack as one node of the graph, with the trained parameters among its inputs."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        layers: nn.ModuleList,
        causal: bool,
        halt: nn.Module | None,
        act_threshold: float,
        attn_maps: list[Tensor],
        *trained: Tensor,
    ) -> Tensor:
        ctx.layers, ctx.causal, ctx.halt, ctx.trained = layers, causal, halt, trained
        ctx.autocast = autocast_state(x.device)
        ctx.random_states = []
        x1, x2 = x, x
        y, spent, history = torch.zeros_like(x), None, []
        for depth, layer in enumerate(layers, 1):
            before_attend = random_state(x.device)
            update, attn_map = layer.attend(x2, causal)
            x1 = x1 + update
            before_feed = random_state(x.device)
            x2 = x2 + layer.feed(x1)
            ctx.random_states.append((before_attend, before_feed))
            if attn_map is not None:
                attn_maps.append(attn_map)
            if halt is not None:
                mean = (x1 + x2) / 2
                probability = torch.sigmoid(halt(mean))
                spent = start_halting(probability) if spent is None else spent
                stops = reaches_threshold(probability, spent, act_threshold, is_last=depth == len(layers))
                weight = halting_weight(probability, spent, stops)
                y = y + weight * mean
                history.append((spent, stops))
                spent = spent + weight
        # The decisions are kept: recomputed states differ in rounding, which could tip one over.
        kept = [torch.stack(tensors) for tensors in zip(*history, strict=True)]  # spent, stops: [L, B, T, 1]
        ctx.save_for_backward(x1, x2, *kept)
        return y if halt is not None else (x1 + x2) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        y1, y2, *kept = ctx.saved_tensors
        total = {parameter: torch.zeros_like(parameter) for parameter in ctx.trained}
        grad1 = grad2 = grad_y / 2 if ctx.halt is None else torch.zeros_like(grad_y)
        grad_spent = torch.zeros_like(kept[0][0]) if kept else None
        for depth in reversed(range(len(ctx.layers))):
            layer, (before_attend, before_feed) = ctx.layers[depth], ctx.random_states[depth]
            if ctx.halt is not None:
                mean, spent, stops = leaf((y1 + y2) / 2), leaf(kept[0][depth]), kept[1][depth]
                with recomputing(grad_y.device, ctx.autocast):
                    weight = halting_weight(torch.sigmoid(ctx.halt(mean)), spent, stops)
                    outputs = (weight * mean, spent + weight)
                grad_mean, grad_spent = pull_back(outputs, (grad_y, grad_spent), (mean, spent), ctx.halt, total)
                grad1, grad2 = grad1 + grad_mean / 2, grad2 + grad_mean / 2
            y1 = leaf(y1)
            with recomputing(grad_y.device, ctx.autocast, before_feed):
                update = layer.feed(y1)
            grad1 = grad1 + pull_back((update,), (grad2,), (y1,), layer, total)[0]
            x2 = leaf(y2 - update)
            with recomputing(grad_y.device, ctx.autocast, before_attend):
                update, _ = layer.attend(x2, ctx.causal)
            grad2 = grad2 + pull_back((update,), (grad1,), (x2,), layer, total)[0]
            y1, y2 = (y1 - update).detach(), x2.detach()
        return (grad1 + grad2, None, None, None, None, None, *total.values())


def leaf(tensor: Tensor) -> Tensor:
    """The same values as a leaf that takes gradients."""
    return tensor.detach().requires_grad_()


def pull_back(
    outputs: tuple[Tensor, ...],
    grad_outputs: tuple[Tensor, ...],
    inputs: tuple[Tensor, ...],
    module: nn.Module,
    total: dict[Tensor, Tensor],
) -> tuple[Tensor, ...]:
    """Return the gradients of the inputs, and add those of the module's parameters to the total.

    Through what a frozen module computes without a graph, no gradient passes: that of its inputs is 0.
    """
    passing = [(output, grad) for output, grad in zip(outputs, grad_outputs, strict=True) if output.requires_grad]
    if not passing:
        return tuple(map(torch.zeros_like, inputs))
    # What was frozen since the forward takes no gradient, as in the plain computation.
    trained = [parameter for parameter in module.parameters() if parameter in total and parameter.requires_grad]
    # A branch leaves the other branch's parameters unused.
    passed, grad_passed = zip(*passing, strict=True)
    grads = torch.autograd.grad(passed, (*inputs, *trained), grad_passed, allow_unused=True)
    for parameter, grad in zip(trained, grads[len(inputs) :], strict=True):
        if grad is not None:
            total[parameter] += grad
    given = zip(inputs, grads[: len(inputs)], strict=True)
    return tuple(torch.zeros_like(own) if grad is None else grad for own, grad in given)


def random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The state of the CPU's random generator, and of the device's where that is another."""
    own = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)
    return torch.get_rng_state(), own


def autocast_state(device: torch.device) -> dict[str, Any]:
    """The arguments with which torch.autocast enters the current state again."""
    return {
        "device_type": device.type,
        "enabled": torch.is_autocast_enabled(device.type),
        "dtype": torch.get_autocast_dtype(device.type),
        # Weights that the forward cast, outside any graph, must not be found again by the recompute.
        "cache_enabled": False,
    }


@contextmanager
def recomputing(
    device: torch.device, autocast: dict[str, Any], state: tuple[Tensor, Tensor | None] | None = None
) -> Iterator[None]:
    """Run a block with gradients, under the forward's autocast and from its random state, if given.

    The random generators are left as they were found.
    """
    with (
        torch.enable_grad(),
        torch.autocast(**autocast),
        torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type),
    ):
        if state is not None:
            torch.set_rng_state(state[0])
            if state[1] is not None:
                torch.get_device_module(device).set_rng_state(state[1], device)
        yield
