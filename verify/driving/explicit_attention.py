"""Attention as an explicit masked softmax, and how far off a tree is from it. In child processes only.

The explicit one stands in for a tree's attention modules: from a module's input and its four projections
it computes softmax(q k^T / sqrt(D)) v over the keys that a query sees. All else of the model is the tree's,
so that logits, maps and the gradient of every parameter can be compared.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..running.evidence import Evidence, Picture, at_most, failed, passed, unproven
from .attention_runs import (
    MODES,
    RATE,
    REFUSALS,
    Shape,
    attentions,
    first_call,
    mode_of,
    model_of,
    projections,
    step,
    under,
)
from .operations import NAN, distance, reach, tensors_in
from .pictures import curves, if_possible, maps
from .seams import MissingSeam
from .space import Point, Points
from .tree import Tree, with_dropout
from .world import changed, surroundings

UNSEEN = "no module of a forward has projections for q, k, v and the output"
STEEPNESS = 3.0  # times the initial weights: attention that is far from uniform
LONGEST = 128  # bits of a row whose weights are shown
TOLERANCE = 1e-11  # of logits, maps and gradients in float64


def attend(module: nn.Module, x: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """The output [B, T, C] and the map [B, H, T, T] of an attention module, by an explicit softmax."""
    inner, out = projections(module) or ([], nn.Identity())
    q, k, v = (
        part.view(*x.shape[:2], shape.heads, -1).transpose(1, 2)  # [B, H, T, D]
        for part in torch.cat([projection(x) for projection in inner], -1).chunk(3, -1)
    )
    scores = torch.einsum("bhtd,bhsd->bhts", q, k) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(~shape.seen, float("-inf"))
    if shape.weighs_padding:
        beyond = torch.arange(int(shape.padding.max())) < shape.padding[:, None]
        zeros = torch.zeros_like(scores[..., :1]).expand(*scores.shape[:3], len(beyond.T))
        scores = torch.cat([scores, zeros.masked_fill(~beyond, float("-inf"))], -1)
    weights = scores.softmax(-1)[..., : len(shape.seen)]
    return out(torch.einsum("bhts,bhsd->bhtd", weights, v).transpose(1, 2).flatten(2)), weights.detach()


@contextmanager
def explicit_attention(model: nn.Module, shape: Shape) -> Iterator[list[Tensor]]:
    """Have an explicit softmax give the attention modules' outputs; yields its maps."""
    maps: list[Tensor] = []

    def stand_in(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        right, weights = attend(module, next(tensors_in((args, kwargs))), shape)
        maps.append(weights)
        return (right, *out[1:]) if isinstance(out, tuple) else right

    with ExitStack() as hooks:
        for module in attentions(model):
            hooks.enter_context(module.register_forward_hook(stand_in, with_kwargs=True))
        yield maps


def compare_with_explicit(tree: Tree, points: Points, in_padding: bool) -> Evidence:
    """The largest distance of logits, maps and gradients from those of an explicit softmax.

    `in_padding` says whether queries are compared whose windows reach over an end of the sequence, too.
    """
    worst, where = 0.0, ""
    for point in points:
        shape, before, steepness = Shape.at(point), surroundings(), point.values.get("steepness", STEEPNESS)
        try:
            errors = errors_of(tree, shape, mode_of(point), in_padding, steepness)
        except REFUSALS as raised:
            return failed(f"{type(raised).__name__}: {raised}: {point}", shape.reproduction)
        if errors is None:
            return unproven(UNSEEN)
        if setting := changed(before):
            return failed(f"a forward leaves {setting} changed: {point}", shape.reproduction)
        name = max(errors, key=lambda each: errors[each][0])
        if (error := errors[name][0] * STEEPNESS / steepness) > worst:  # what rounding comes to grows with the weights
            worst, where = error, f"{name}; {point}"
        if not worst <= TOLERANCE:
            shown = beside(name, *errors[name][1:]) if name.startswith("map") else None
            shown = shown or weights_shown(model_of(tree, shape, steepness), shape, in_padding)
            shown = shown or beside(name, *errors[name][1:])
            return at_most(worst, TOLERANCE, f"not that of an explicit softmax: {where}", shape.reproduction, shown)
    return at_most(worst, TOLERANCE, f"logits, maps and gradients at {len(points.done)} points; worst {where}")


def beside(name: str, found: Tensor | None = None, wanted: Tensor | None = None) -> Picture | None:
    """Two tensors that have one name, if there are two."""
    if found is None or wanted is None:
        return None
    return maps(name, found, wanted) if name.startswith("map") else curves(name, found, wanted, x="entry", y="value")


@if_possible
def weights_shown(model: nn.Module, shape: Shape, in_padding: bool) -> Picture | None:
    """How the first attention weighs values, seen by giving it one value at a time, beside an explicit softmax."""
    call = first_call(model, shape)
    if call is None or shape.length > LONGEST:
        return None
    (inner, out), found, told = projections(call.module) or ([], nn.Identity()), list[Tensor](), list[Tensor]()
    size = shape.width // shape.heads

    def one_value(_m: nn.Module, _i: Any, values: Tensor) -> Tensor:
        told.append(values)
        given = torch.cat([values[..., : -shape.width], torch.zeros_like(values[..., -shape.width :])], -1)
        given[:, len(found), -shape.width :: size] = 1
        return given

    x = next(tensors_in((call.args, call.kwargs)))
    wanted = attend(call.module, x, shape)[1]  # [B, H, T, T]
    hooks = [inner[-1].register_forward_hook(one_value)]
    hooks.append(out.register_forward_pre_hook(lambda _, args: found.append(args[0][..., ::size])))
    with torch.no_grad():
        for _ in range(shape.length):
            call.again(x)
    for hook in hooks:
        hook.remove()
    if not len(told) == len(found) == shape.length or found[0].shape != (len(x), shape.length, shape.heads):
        return None
    weights = torch.stack(found, -1).transpose(1, 2)
    if not in_padding:
        weights[:, :, ~shape.whole] = wanted[:, :, ~shape.whole]  # which nobody compares
    return maps("how the first attention weighs values, beside a softmax", weights, wanted)


def errors_of(
    tree: Tree, shape: Shape, mode: str, in_padding: bool, steepness: float
) -> dict[str, tuple[float, Tensor, Tensor] | tuple[float]] | None:
    """By name, how far what a step gives is from what it gives with explicit attention, and both; None without any."""
    model, queries = model_of(tree, shape, steepness), torch.ones_like(shape.whole) if in_padding else shape.whole
    if not MODES[mode][0]:
        with_dropout(model, RATE)  # which an evaluation does not have
    found = step(model, shape, mode, queries)
    with explicit_attention(model, shape) as explicit:
        right = step(model, shape, mode, queries)
    if not explicit:
        return None
    errors: dict[str, tuple[float, Tensor, Tensor] | tuple[float]] = {}
    errors["logits"] = distance(found.logits, right.logits), found.logits, right.logits
    for name, _ in model.named_parameters() if right.grads else ():
        own, wanted = found.grads.get(name), right.grads.get(name)
        errors[name] = (NAN,) if own is None or wanted is None else (distance(own, wanted), own, wanted)
    if shape.more.get("full_attn_logging") and len(found.maps) != shape.layers:
        errors["the number of maps"] = (NAN,)
    for n, pair in enumerate(zip(found.maps, explicit, strict=False)):
        own, wanted = (each[:, :, queries] for each in pair)
        errors[f"map of layer {n}"] = map_error(own, wanted), own, wanted
    if not MODES[mode][0] and not torch.equal(found.state, seeded()):
        errors["random numbers drawn in evaluation"] = (NAN,)
    return errors


def map_error(found: Tensor, wanted: Tensor) -> float:
    """The largest distance of two maps; NAN if they have other shapes, or what one hides the other does not."""
    alike = found.shape == wanted.shape and torch.equal(found != 0, wanted != 0)
    return distance(found, wanted) if alike else NAN


def seeded() -> Tensor:
    """The random state at which a step begins."""
    return torch.Generator().manual_seed(1).get_state()


def reach_exactly(tree: Tree, points: Points) -> Evidence:
    """Compare which gradients are exactly zero with the windows; without a graph, change all later bits."""
    for point in points:
        shape, dtype, (trains, grad_mode) = Shape.at(point), point["precision"][0], MODES[mode_of(point)]
        model, bits, found = model_of(tree, shape, dtype=dtype).train(trains), tree.bits(1, shape.length), shape.reached
        try:
            with under(point["precision"]), grad_mode():
                if torch.is_grad_enabled():
                    found = reach(model, bits, shape.causal)
                elif moved := first_moved(model, bits, shape):
                    return failed(f"logits[{moved - 1}] depends on later bits: {point}", shape.reproduction)
        except REFUSALS as raised:
            return failed(f"{type(raised).__name__}: {raised}: {point}", shape.reproduction)
        # What underflows in bfloat16 is no fault: there, nothing has to depend on what it may.
        wrong = found != shape.reached if dtype is torch.float64 else found & ~shape.reached
        if wrong.any():
            t, s = wrong.nonzero()[0].tolist()
            depends = "does not depend" if shape.reached[t, s] else "depends"
            shown = maps("which positions (key) each one (query) depends on", found, shape.reached)
            return failed(f"logits[{t}] {depends} on position {s}: {point}", shape.reproduction, picture=shown)
    return passed(f"{len(points.done)} points")


def first_moved(model: nn.Module, bits: Tensor, shape: Shape) -> int:
    """The shortest prefix of bits [1, T] of which some logit moves as all bits behind it change; 0 if none does."""
    logits = Tree.forward(model, bits, causal=shape.causal)[0]
    for end in range(1, shape.length):
        if not shape.reached[:end, end:].any():
            others = torch.cat([bits[:, :end], 1 - bits[:, end:]], 1)
            if not torch.equal(Tree.forward(model, others, causal=shape.causal)[0][:, :end], logits[:, :end]):
                return end
    return 0


def decoding_error(tree: Tree, points: Points) -> Evidence:
    """How far the logits of prefixes, and those by which a tree's generation goes on, are from those of the whole."""
    worst = 0.0
    for point in points:
        shape = Shape.at(point.values | {"length": 18, "full_attn_logging": False})
        model = model_of(tree, shape, STEEPNESS).eval()
        try:
            bits, scored = generated(tree, model)
            with torch.no_grad():
                whole = Tree.forward(model, bits)[0][0]  # [T, 2]
                prefixes = [Tree.forward(model, bits[:, :end])[0][0, -1] for end in range(1, bits.shape[1] + 1)]
        except REFUSALS as raised:
            return failed(f"{type(raised).__name__}: {raised}: {point}", shape.reproduction)
        nearest = [min(whole, key=partial(distance, own)) for own in scored]
        pairs = [*zip(prefixes, whole, strict=True), *zip(scored, nearest, strict=True)]
        errors = [distance(*pair) for pair in pairs]
        worst = max(worst, *errors)
        if not worst <= TOLERANCE:
            what = "a prefix" if max(errors) in errors[: len(prefixes)] else "generation"
            found, wanted = torch.stack([torch.stack(pair) for pair in pairs], 1)[..., 0]
            shown = curves("logits of prefixes, then of generation", found, wanted, x="position", y="logit of 0")
            what = f"logits of {what} are not those of the whole: {point}"
            return at_most(worst, TOLERANCE, what, shape.reproduction, shown)
    return at_most(worst, TOLERANCE, f"logits of prefixes and of generation at {len(points.done)} points")


def generated(tree: Tree, model: nn.Module) -> tuple[Tensor, list[Tensor]]:
    """Bits [1, 18] that a tree's generation wrote, and the logits [2] by which it did; random bits without one."""
    try:
        generate = tree.part("generation", "generate_bits")
    except MissingSeam:  # a tree need not write by itself
        return tree.bits(1, 18), []
    scored: list[Tensor] = []
    heads = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 2]  # noqa: PLR2004 - bits
    hooks = [head.register_forward_hook(lambda _m, _i, out: scored.append(out.flatten(0, -2)[-1])) for head in heads]
    bits = generate(model, [0] * 9, 1)
    for hook in hooks:
        hook.remove()
    return torch.tensor([bits]), scored


def logging_shows(tree: Tree, point: Point, *asked: Any) -> str:
    """What of a step with dropout is not bit for bit the same for each value of full_attn_logging; empty if all is."""
    steps = []
    for value in asked:
        shape = Shape.at(point.values | {"full_attn_logging": value})
        steps.append(step(with_dropout(model_of(tree, shape), RATE), shape, mode_of(point)))
    first = steps[0]
    for value, other in zip(asked[1:], steps[1:], strict=True):
        same = {
            "random numbers": torch.equal(first.state, other.state),
            "logits": torch.equal(first.logits, other.logits),
            "gradients": first.grads.keys() == other.grads.keys()
            and all(torch.equal(grad, other.grads[name]) for name, grad in first.grads.items()),
        }
        if parts := [name for name, alike in same.items() if not alike]:
            return f"{parts[0]} with full_attn_logging={value} are not those with {asked[0]}: {point}"
        if any(each.requires_grad for each in other.maps):
            return f"a map holds the graph that made it: {point}"
    return ""
