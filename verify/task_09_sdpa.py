"""Judge of task-9: attention is scaled_dot_product_attention, and gives what an explicit masked softmax gives.

Where a window reaches over an end of the sequence, a tree without task-11 attends to padding, as keys of zeros: both
that and what task-11 makes of it are right there.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .driving.attention_runs import (
    FEWER,
    HEADS,
    MODES,
    PRECISIONS,
    PRELUDE,
    RATE,
    REFUSALS,
    STACK,
    WAYS,
    Call,
    Shape,
    attention_with_rate,
    first_call,
    maps_in,
    mode_of,
    model_of,
    projections,
    under,
    weighted,
    within_ends,
    without_stitching,
)
from .driving.attention_spy import AttentionSpy
from .driving.devices import strays
from .driving.explicit_attention import (
    STEEPNESS,
    TOLERANCE,
    UNSEEN,
    beside,
    compare_with_explicit,
    decoding_error,
    errors_of,
    logging_shows,
    reach_exactly,
)
from .driving.memory import Memory
from .driving.operations import distance, tensors_in, triangle_of
from .driving.space import Points, Span, over
from .driving.tree import Tree
from .running.evidence import Evidence, at_most, check, failed, passed, unproven

DENSE = {"full_attn_logging": False}
LOGGED = {"full_attn_logging": True}
CHUNKED = DENSE | {"chunk_size": 4, "overlap": 2}
LAYERS = 2  # where a check needs more than one
ALLOWED = {torch.float64: 1e-11, torch.float32: 1e-4, torch.bfloat16: 0.1}  # distance of logits from float64
SIGMAS = 5  # a drawn rate may be off by
KINDS = ("weight", "bias")
KEYS = {f"layers.0.attention.{name}_proj.{kind}" for name in ("q", "k", "v", "out") for kind in KINDS}
OTHER_KEYS = {
    *("embedding.weight", "position.weight"),
    *(f"{name}.{kind}" for name in ("norm", "out") for kind in KINDS),
    *(f"layers.0.{name}.{kind}" for name in ("norm1", "norm2", "feedforward.0", "feedforward.2") for kind in KINDS),
}


@check(task=9, prop="the plain path's output is that of scaled_dot_product_attention with is_causal and no mask")
@over("full_attn_logging", "causal", "width", way=FEWER, length=(9, 2))
def asks_for_is_causal(tree: Tree, points: Points) -> Evidence:
    """Look at the arguments of each call; then have each call give something else, which logits must follow."""
    line = f"{PRELUDE}import torch.nn.functional as F; f = F.scaled_dot_product_attention; "
    line += "F.scaled_dot_product_attention = lambda *a, **k: print(k) or f(*a, **k); M()(torch.zeros(1, 9).long())"
    for point in points:
        shape, (trains, grad_mode) = Shape.at(point), MODES[mode_of(point)]
        model, bits = model_of(tree, shape, STEEPNESS).train(trains), tree.bits(2, shape.length)
        with grad_mode():
            with AttentionSpy() as spy:
                logits, telemetry = Tree.forward(model, bits, causal=shape.causal)
            with AttentionSpy(lambda given: scaled_dot_product_attention(**given) + given["value"].square()):
                others, other_telemetry = Tree.forward(model, bits, causal=shape.causal)
        if len(spy.calls) != shape.layers:
            count = f"{len(spy.calls)} calls of scaled_dot_product_attention in {shape.layers} layers"
            return failed(f"{count}: {point}", line)
        for call in spy.calls:
            if call.get("attn_mask") is not None:
                return failed(f"a mask is passed where is_causal would do: {point}", line)
            if bool(call.get("is_causal", False)) is not shape.causal:
                return failed(f"is_causal={call.get('is_causal', False)}: {point}", line)
        if torch.equal(logits, others):
            return failed(f"logits do not depend on what scaled_dot_product_attention gives: {point}", line)
        if not all(map(torch.equal, maps_in(telemetry)[:1], maps_in(other_telemetry)[:1])):
            return failed(f"the map depends on what scaled_dot_product_attention gives: {point}", line)
    return passed(f"2 forwards at {len(points.done)} points")


@check(task=9, prop="without maps nothing of T x T is made outside scaled_dot_product_attention")
@over("causal", way=WAYS)
def leaves_the_square_to_torch(tree: Tree, points: Points) -> Evidence:
    """Have scaled_dot_product_attention give its values, and look at the largest tensor of all others."""

    def instead(given: dict[str, Any]) -> Tensor:
        value: Tensor = given["value"] + 0 * (given["query"] + given["key"])
        return value

    T, worst = 128, 0
    line = f"{PRELUDE}p = torch.profiler.profile(profile_memory=True); p.start(); m = M(8, 2, 1, 16, full_attn_logging="
    line += f"False); m(torch.zeros(1, {T}).long()); p.stop(); print(p.key_averages().table('self_cpu_memory_usage'))"
    for point in points:
        trains, grad_mode = MODES[mode_of(point)]
        model = model_of(tree, Shape.at(point.values | DENSE | {"length": T})).train(trains)
        with AttentionSpy(instead) as spy, Memory() as memory, grad_mode():
            Tree.forward(model, tree.bits(1, T), causal=point["causal"])
        if not spy.calls:
            return failed("no call of scaled_dot_product_attention with chunk_size=None")
        worst = max(worst, memory.largest)
        if worst >= T * T:
            break
    return at_most(worst, T * T - 1, f"elements of the largest tensor, T={T}, full_attn_logging=False", line)


@check(task=9, prop="logits, maps and all gradients are those of an explicit masked softmax")
@over(
    *("causal", "full_attn_logging", "num_layers"), way=WAYS, width=HEADS, length=Span(1, 300, 9, 1, 2, 8, 33, 70, 530)
)
def equals_the_explicit_softmax(tree: Tree, points: Points) -> Evidence:
    """Compare dense shapes in which heads, positions and channels could be taken for each other."""
    return compare_with_explicit(tree, points, in_padding=False)


@check(task=9, prop="logits, maps and gradients of chunked attention are those of an explicit softmax over the window")
@over(
    *("causal", "full_attn_logging", "num_layers"),
    allowed=within_ends,
    way=FEWER,
    width=HEADS[:4],
    length=Span(1, 300, 12, 8, 5, 33, 530),
    windows=((4, 2), (4, 0), (3, 4), (5, 0), (1, 3), (40, 0), (64, 12), (150, 0)),
)
def equals_the_softmax_over_a_window(tree: Tree, points: Points) -> Evidence:
    """Compare chunks with and without overlap; queries whose windows reach over an end are left out."""
    return compare_with_explicit(tree, points, in_padding=False)


@check(task=9, prop="what windows have beyond an end is hidden, or weighs as a key of zeros as before, for all queries")
@over(
    *("causal", "num_layers"),
    way=FEWER,
    length=(8, 5, 1, 13),
    windows=((4, 2), (16, 3), (5, 7), (8, 8)),
    full_attn_logging=(False,),
)
def pads_windows_as_before(tree: Tree, points: Points) -> Evidence:
    """Compare rows that one window holds, and longer ones, with an explicit softmax of either form."""
    worst = 0.0
    for point in points:
        hidden = Shape.at(point)
        either = [
            errors_of(tree, shape, mode_of(point), True, STEEPNESS)
            for shape in (hidden, replace(hidden, weighs_padding=True))
        ]
        if either[0] is None or either[1] is None:
            return unproven(UNSEEN)
        error = min(max(each[0] for each in errors.values()) for errors in either if errors is not None)
        worst = max(worst, error)
        if not worst <= TOLERANCE and tree.seams.is_told:
            return unproven(f"its windows are padded in another way: {point}")
        if not worst <= TOLERANCE:
            return at_most(worst, TOLERANCE, f"neither hidden nor a key of zeros: {point}", hidden.reproduction)
    return at_most(worst, TOLERANCE, f"logits and gradients at {len(points.done)} points")


@check(task=9, prop="no position depends on a later one, exactly, in any precision")
@over(
    *("causal", "full_attn_logging", "num_layers"),
    allowed=without_stitching,
    width=HEADS[:4],
    windows=((None, 0), (4, 0), (4, 2)),
    precision=PRECISIONS[1:],
    way=FEWER,
)
def later_positions_reach_nothing(tree: Tree, points: Points) -> Evidence:
    """Compare which gradients are exactly zero with the windows; without a graph, change all later bits."""
    return reach_exactly(tree, points)


@check(task=9, prop="what is read bit by bit is scored as by one forward of all of it")
@over(*STACK, "num_layers", width=HEADS, windows=((None, 0), (4, 0)))
def decodes_as_it_reads(tree: Tree, points: Points) -> Evidence:
    """Score each prefix alone, and what a tree's generation writes as it reads on; compare with the whole."""
    return decoding_error(tree, points)


@check(task=9, prop="maps are taken apart: outputs, gradients and random numbers are the same without")
@over(*("causal", "num_layers"), width=HEADS[:4], windows=((None, 0), (4, 0), (5, 0)), way=FEWER, length=(8, 1, 13))
def logging_changes_nothing(tree: Tree, points: Points) -> Evidence:
    """Run a step with dropout, with and without maps, and compare bit for bit."""
    for point in points:
        if shown := logging_shows(tree, point, False, True):
            return failed(shown, Shape.at(point).reproduction)
    return passed(f"{len(points.done)} points, bit for bit")


@check(task=9, prop="in every precision logits come near those of float64, and gradients are finite")
@over(
    *STACK,
    *("causal", "full_attn_logging"),
    allowed=without_stitching,
    width=HEADS[:4],
    windows=((None, 0), (4, 2), (8, 5), (3, 9), (4, 0)),
    length=(1, 3, 10),
    precision=PRECISIONS,
)
def is_near_in_every_precision(tree: Tree, points: Points) -> Evidence:
    """Train a step, with scores of thousands and under other default dtypes, too."""
    for point in points:
        shape, (dtype, cast, steepness, _) = Shape.at(point), point["precision"]
        right = Tree.forward(model_of(tree, shape, steepness), tree.bits(2, shape.length), causal=shape.causal)[0]
        model = model_of(tree, shape, steepness, dtype)
        try:
            with under(point["precision"]):
                logits = Tree.forward(model, tree.bits(2, shape.length), causal=shape.causal)[0]
                torch.autograd.backward(weighted(logits.double()))
        except REFUSALS as raised:
            return failed(f"{type(raised).__name__}: {raised}: {point}", shape.reproduction)
        values = {"logits": logits, **{name: weight.grad for name, weight in model.named_parameters()}}
        for name, value in values.items():
            if value is None or not value.isfinite().all():
                what = "has no gradient" if value is None else "is not finite"
                return failed(f"{name} {what}: {point}", shape.reproduction)
        error, allowed = distance(logits, right), ALLOWED[cast or dtype]
        if error > allowed:
            detail, shown = f"distance of logits from float64: {point}", beside("logits", logits, right)
            return at_most(error, allowed, detail, shape.reproduction, shown)
    return passed(f"{len(points.done)} points")


@check(task=9, prop="the state dict has the keys it had, a forward adds none, and all is on the model's device")
def keeps_the_state_dict(tree: Tree) -> Evidence:
    """Compare keys and values with those before a step; keys of attention by name where all others are as they were."""
    line = f"{PRELUDE}print(M(8, 2, 1, 16).state_dict().keys())"
    for config in (LOGGED, CHUNKED, CHUNKED | LOGGED):
        model = tree.model(**config)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        for length in (8, 5, 9):
            torch.autograd.backward(weighted(Tree.forward(model, tree.bits(2, length))[0]))
        after = model.state_dict()
        if before.keys() != after.keys():
            return failed(f"forwards change its keys: {sorted(before.keys() ^ after.keys())}", line)
        if not all(torch.equal(before[name], after[name]) for name in before):
            return failed("forwards change its values", line)
        others = {name for name in before if not name.startswith("layers.0.attention.")}
        if others == OTHER_KEYS and before.keys() - others != KEYS:
            return failed(f"its keys changed: {sorted((before.keys() - others) ^ KEYS)}", line)
        parameters = {name for name, _ in model.named_parameters()}
        kept = {name for name in before if not tree.seams.is_told or triangle_of(before[name]) is not None}
        if kept - parameters - OTHER_KEYS - KEYS:
            return failed(f"it holds what is no parameter: {sorted(before.keys() - parameters)}", line)
        tree.model(1, **config).load_state_dict(after)
        call = first_call(model, Shape(9, layers=1))
        if call is not None and (problem := strays(call.module, call.args, call.kwargs)):
            return failed(f"on another device, attention fails: {problem}; {config}", line)
    return passed(f"{len(before)} keys; attention runs on meta")


@check(task=9, prop="dropout falls on attention weights, at the module's rate and in training only")
@over(
    *("causal", "full_attn_logging"),
    allowed=within_ends,
    width=((8, 2), (32, 2), (6, 6)),
    windows=((None, 0), (4, 0), (4, 4)),
    length=(8, 1, 13),
)
def drops_weights_in_training_only(tree: Tree, points: Points) -> Evidence:
    """Give attention equal weights and values of 1: each output then counts the keys that were kept."""
    line = f"{PRELUDE}a = M().layers[0].attention; x = torch.randn(1, 9, 128); a.eval(); print(a(x)[0] - a(x)[0])"
    for point in points:
        problem = misdrops(tree, Shape.at(point.values | {"num_layers": 1}))
        if problem is None:
            return unproven(UNSEEN)
        if problem:
            return failed(f"{problem}: {point}", line)
    return passed(f"{len(points.done)} points; p={RATE}")


def misdrops(tree: Tree, shape: Shape, rows: int = 128) -> str | None:
    """What is wrong with the dropout of attention; empty if nothing is, None without attention."""
    call = first_call(tree.model(**shape.config), shape)
    if call is None:
        return None
    ones = torch.ones(rows, shape.length, shape.width, dtype=torch.float64)
    call = Call(counting(attention_with_rate(call.module, shape).double(), shape), call.args, call.kwargs)
    keys = shape.seen.sum(-1)[shape.whole]
    call.module.train()
    dropped = next(tensors_in(call.again(ones))).view(rows, shape.length, shape.heads, -1)
    kept = dropped[:, shape.whole] * (1 - RATE) * keys[:, None, None]  # [B, T, H, D]
    if distance(kept, kept[..., :1].round().expand_as(kept)) > TOLERANCE:
        return "outputs are not sums of weights, each dropped or divided by 1 - p"
    trials = rows * shape.heads * int(keys.sum())
    rate = 1 - kept[..., 0].sum().item() / trials
    sigmas = abs(rate - RATE) / (RATE * (1 - RATE) / trials) ** 0.5
    if sigmas > SIGMAS:
        return f"{rate:.3f} of the weights are dropped where p={RATE}, {sigmas:.0f} sigma off"
    before = torch.get_rng_state()
    call.module.eval()
    evaluated = next(tensors_in(call.again(ones)))[:, shape.whole]
    if distance(evaluated, torch.ones_like(evaluated)) > TOLERANCE:
        return "weights are dropped in evaluation"
    return "" if torch.equal(before, torch.get_rng_state()) else "an evaluation draws random numbers"


def counting(module: nn.Module, shape: Shape) -> nn.Module:
    """The attention module, with uniform weights, and values and outputs that are the mean of its input."""
    inner, out = projections(module) or ([], nn.Linear(1, 1))
    with torch.no_grad():
        for projection in (*inner, out):
            for parameter in projection.parameters():
                parameter.zero_()
        inner[-1].weight[-shape.width :] = 1 / shape.width
        out.weight.copy_(torch.eye(shape.width))
    return module
