"""Judge of task-9: attention is scaled_dot_product_attention, and gives what an explicit masked softmax gives.

Where a window reaches over an end of the sequence, a tree without task-11 attends to padding: there
nothing is compared.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .evidence import Evidence, at_most, check, failed, passed, unproven
from .explicit_attention import (
    PRELUDE,
    AttentionSpy,
    Shape,
    attentions,
    explicit_attention,
    projections,
)
from .operations import NAN, Operations, distance, reach, tensors_in
from .tree import Tree

DENSE = {"full_attn_logging": False}
LOGGED = {"full_attn_logging": True}
STACKS: tuple[dict[str, Any], ...] = (
    {},
    {"use_checkpoint": True},
    {"reversible": True},
    {"use_act": True},
    {"reversible": True, "use_act": True},
)
LAYERS = 2  # where a check needs more than one
TOLERANCE = 1e-11
ALLOWED = {torch.float32: 1e-4, torch.bfloat16: 0.1}  # distance of logits from float64
STEEPNESS = 3.0  # times the initial weights: attention that is far from uniform
RATE = 0.3  # of dropout
SIGMAS = 5  # a drawn rate may be off by
KINDS = ("weight", "bias")
KEYS = {f"layers.0.attention.{name}_proj.{kind}" for name in ("q", "k", "v", "out") for kind in KINDS}
OTHER_KEYS = {
    *("embedding.weight", "position.weight"),
    *(f"{name}.{kind}" for name in ("norm", "out") for kind in KINDS),
    *(f"layers.0.{name}.{kind}" for name in ("norm1", "norm2", "feedforward.0", "feedforward.2") for kind in KINDS),
}


def model_of(tree: Tree, shape: Shape, steepness: float = 1.0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A model without dropout, its initial weights scaled."""
    model = tree.model(dtype=dtype, **shape.config)
    for weight in model.parameters():
        weight.data.mul_(steepness if weight.dim() > 1 else 1.0)
    for module in attentions(model):  # a rate that is no nn.Dropout's
        for name in [name for name, value in vars(module).items() if "drop" in name and isinstance(value, float)]:
            setattr(module, name, 0.0)
    return model


def results(model: nn.Module, shape: Shape) -> dict[str, Tensor]:
    """Logits of the queries with whole windows; of a model that trains, the gradients of a weighted sum of them too."""
    model.zero_grad(set_to_none=True)
    with torch.set_grad_enabled(model.training):
        logits = model(Tree.bits(shape.rows, shape.length), causal=shape.causal)[0][:, shape.whole]
    if model.training:
        torch.autograd.backward(weighted(logits))
    grads = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {"logits": logits.detach(), **grads}


def weighted(logits: Tensor) -> Tensor:
    """A sum to which no two logits add alike."""
    return logits.flatten() @ torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype)


def worst_error(tree: Tree, shapes: Sequence[Shape]) -> Evidence:
    """The largest distance of logits and gradients from the oracle's, trained and evaluated."""
    worst, where = 0.0, ""
    for shape in shapes:
        model = model_of(tree, shape, STEEPNESS)
        for training in (True, False):
            model.train(training)
            try:
                found = results(model, shape)
            except (IndexError, RuntimeError, ValueError) as raised:
                return failed(f"{shape}: {type(raised).__name__}: {raised}", shape.reproduction)
            with explicit_attention(model, shape) as maps:
                right = results(model, shape)
            if not maps:
                return unproven("no module of a forward has projections for q, k, v and the output")
            names = ["logits", *(name for name, _ in model.named_parameters() if training)]
            errors = {
                name: distance(found[name], right[name]) if name in found and name in right else NAN for name in names
            }
            name = max(errors, key=lambda each: errors[each])
            if errors[name] > worst:
                worst, where = errors[name], f"{name}; {'training' if training else 'evaluation'}; {shape}"
            if not worst <= TOLERANCE:
                return at_most(worst, TOLERANCE, f"not those of an explicit softmax: {where}", shape.reproduction)
    return at_most(worst, TOLERANCE, f"logits and gradients of {len(shapes)} shapes; worst {where or 'none'}")


@check(task=9, prop="the plain path calls scaled_dot_product_attention with is_causal, and with no mask")
def asks_for_is_causal(tree: Tree) -> Evidence:
    """Look at the arguments of each call: each stack, with and without maps, trained and evaluated."""
    line = f"{PRELUDE}import torch.nn.functional as F; f = F.scaled_dot_product_attention; "
    line += "F.scaled_dot_product_attention = lambda *a, **k: print(k) or f(*a, **k); M()(torch.zeros(1, 9).long())"
    seen = 0
    for config in [stack | logging for stack in STACKS for logging in (DENSE, LOGGED)]:
        model = tree.model(num_layers=LAYERS, **config)
        for causal, training in ((True, True), (True, False), (False, True), (False, False)):
            with AttentionSpy() as spy:
                model.train(training)(tree.bits(2, 9), causal=causal)
            where = f"{config}, causal={causal}, training={training}"
            if len(spy.calls) != LAYERS:
                return failed(
                    f"{len(spy.calls)} calls of scaled_dot_product_attention in {LAYERS} layers: {where}", line
                )
            for call in spy.calls:
                if call.get("attn_mask") is not None:
                    return failed(f"a mask is passed where is_causal would do: {where}", line)
                if bool(call.get("is_causal", False)) is not causal:
                    return failed(f"is_causal={call.get('is_causal', False)}: {where}", line)
            seen += len(spy.calls)
    return passed(f"{seen} calls")


@check(task=9, prop="the output is what scaled_dot_product_attention gives, and the map is computed apart")
def uses_what_it_asked_for(tree: Tree) -> Evidence:
    """Have scaled_dot_product_attention give something else: logits must follow, the first map must not."""
    line = f"{PRELUDE}import torch.nn.functional as F; m = M().eval(); b = torch.zeros(1, 9).long(); y = m(b)[0]; "
    line += "f = F.scaled_dot_product_attention; F.scaled_dot_product_attention = lambda *a, **k: f(*a, **k) + 1; "
    line += "print(m(b)[0] - y)"
    model, bits = model_of(tree, Shape(9, layers=1, more=LOGGED), STEEPNESS), tree.bits(2, 9)
    logits, telemetry = model(bits)
    with AttentionSpy(lambda given: scaled_dot_product_attention(**given) + given["value"].square()) as spy:
        others, others_telemetry = model(bits)
    if not spy.calls:
        return failed("no call of scaled_dot_product_attention with chunk_size=None", line)
    if torch.equal(logits, others):
        return failed("logits do not depend on what scaled_dot_product_attention gives", line)
    maps, other_maps = telemetry["attention_maps"], others_telemetry["attention_maps"]
    if not len(maps) == len(other_maps) == 1 or not torch.equal(maps[0], other_maps[0]):
        return failed("the map depends on what scaled_dot_product_attention gives", line)
    return passed(f"logits moved by {distance(logits, others):.2g}, the map by nothing")


@check(task=9, prop="without maps nothing of T x T is made outside scaled_dot_product_attention")
def leaves_the_square_to_torch(tree: Tree) -> Evidence:
    """Have scaled_dot_product_attention give its values, and look at the largest tensor of all others."""

    def instead(given: dict[str, Any]) -> Tensor:
        value: Tensor = given["value"] + 0 * (given["query"] + given["key"])
        return value

    T, worst = 128, 0
    for config in [stack | DENSE for stack in STACKS]:
        model = tree.model(max_seq_len=T, **config)
        with AttentionSpy(instead) as spy, Operations() as operations:
            model(tree.bits(1, T))
        if not spy.calls:
            return failed("no call of scaled_dot_product_attention with chunk_size=None")
        worst = max(worst, operations.largest)
    line = f"{PRELUDE}p = torch.profiler.profile(profile_memory=True); p.start(); m = M(8, 2, 1, 16, full_attn_logging="
    line += f"False); m(torch.zeros(1, {T}).long()); p.stop(); print(p.key_averages().table('self_cpu_memory_usage'))"
    return at_most(worst, T * T - 1, f"elements of the largest tensor, T={T}, full_attn_logging=False", line)


@check(task=9, prop="logits and all gradients are those of an explicit masked softmax")
def equals_the_explicit_softmax(tree: Tree) -> Evidence:
    """Compare dense shapes in which heads, positions and channels could be taken for each other."""
    sizes = ((1, 8, 2), (2, 8, 2), (4, 8, 2), (9, 8, 2), (3, 12, 3), (8, 8, 8), (5, 8, 1))
    shapes = [
        Shape(length, causal, width=width, heads=heads, more=DENSE)
        for length, width, heads in sizes
        for causal in (True, False)
    ]
    shapes += [Shape(9, causal, more=LOGGED) for causal in (True, False)]
    return worst_error(tree, shapes)


@check(task=9, prop="logits and all gradients of chunked attention are those of an explicit softmax over the window")
def equals_the_softmax_over_a_window(tree: Tree) -> Evidence:
    """Compare chunks with and without overlap; queries whose windows reach over an end are left out."""
    sizes = ((8, 4, 0), (6, 2, 0), (5, 1, 0), (12, 4, 2), (12, 4, 4), (12, 4, 6), (6, 1, 3), (10, 4, 2), (3, 8, 0))
    shapes = [
        Shape(length, causal, chunk, overlap, layers=1, more=DENSE)
        for length, chunk, overlap in sizes
        for causal in (True, False)
    ]
    shapes += [Shape(12, True, 4, overlap, width=12, heads=3, layers=1, more=LOGGED) for overlap in (0, 2)]
    return worst_error(tree, [shape for shape in shapes if shape.whole.any()])


@check(task=9, prop="each kind of stack has every gradient, and the right one")
def every_stack_is_right(tree: Tree) -> Evidence:
    """Compare a training step of each stack, dense and chunked; without autograd's graph nothing is recomputed."""
    shapes = [
        Shape(8, causal, chunk, more=stack | logging)
        for stack in STACKS[1:]
        for causal, chunk, logging in ((True, None, DENSE), (False, None, LOGGED), (True, 4, DENSE))
    ]
    return worst_error(tree, shapes)


@check(task=9, prop="d logits[t] / d x[s] is exactly 0 for s > t")
def later_positions_reach_nothing(tree: Tree) -> Evidence:
    """Compare which gradients are exactly zero with the triangle, or with the windows of a chunked layer."""
    shapes = [Shape(9, chunk=chunk, overlap=overlap, layers=1) for chunk, overlap in ((None, 0), (4, 0), (4, 2))]
    shapes += [Shape(9, layers=2), Shape(9, layers=2, more={"reversible": True}), Shape(9, causal=False, layers=1)]
    for shape in shapes:
        for training in (True, False):
            wrong = reach(model_of(tree, shape).train(training), tree.bits(1, 9), shape.causal) != shape.seen
            if wrong.any():
                t, s = wrong.nonzero()[0].tolist()
                depends = "does not depend" if shape.seen[t, s] else "depends"
                return failed(f"logits[{t}] {depends} on position {s}: {shape}", shape.reproduction)
    return passed(f"{len(shapes)} shapes of 9 positions")


@check(task=9, prop="maps are the explicit softmax, and taking them changes no output, gradient or random number")
def logging_changes_nothing(tree: Tree) -> Evidence:
    """Train a step with dropout, with and without maps; compare bit for bit, and the maps with the oracle's."""
    worst = 0.0
    for stack, chunk in [(stack, None) for stack in STACKS] + [({}, 4), (STACKS[2], 4)]:
        steps, shape = {}, Shape(8, chunk=chunk, more=stack)
        for logging in (False, True):
            model = tree.model(**shape.config | {"full_attn_logging": logging})
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = RATE
            torch.manual_seed(1)
            with explicit_attention(model, shape, replaces=False) as right:
                logits, telemetry = model(tree.bits(2, 8))
            state = torch.get_rng_state()
            maps, right = telemetry.get("attention_maps") or [], right[:LAYERS]
            torch.autograd.backward(weighted(logits))
            steps[logging] = [logits, state, *(weight.grad for weight in model.parameters() if weight.grad is not None)]
        if len(right) != LAYERS:
            return unproven("no module of a forward has projections for q, k, v and the output")
        if len(maps) != LAYERS or any(each.shape != wanted.shape for each, wanted in zip(maps, right, strict=True)):
            return failed(f"no map [B, H, T, T] of each layer: {shape}", shape.reproduction)
        if len(steps[True]) != len(steps[False]) or not all(map(torch.equal, steps[True], steps[False])):
            return failed(f"logits, gradients or random numbers differ with maps: {shape}", shape.reproduction)
        if any(each.requires_grad for each in maps):
            return failed(f"a map holds the graph that made it: {shape}", shape.reproduction)
        worst = max(worst, *map(distance, maps, right))
        if not worst <= TOLERANCE:
            return at_most(worst, TOLERANCE, f"a map is not the explicit softmax: {shape}", shape.reproduction)
    return at_most(worst, TOLERANCE, "maps; logits, gradients and random state bit for bit")


@check(task=9, prop="no shape and no score gives a NaN, and float32 and bf16 autocast come near float64")
def is_finite_in_every_precision(tree: Tree) -> Evidence:
    """Train a step of short, ragged and wide shapes; in float64 with scores of thousands, too."""
    sizes = ((1, None, 0), (9, None, 0), (1, 4, 2), (3, 8, 5), (7, 3, 9), (10, 4, 2), (8, 4, 0))
    for length, chunk, overlap in sizes:
        shape = Shape(length, length != 1, chunk, overlap, more=DENSE if overlap else LOGGED)
        right = model_of(tree, shape)(tree.bits(2, shape.length), causal=shape.causal)[0]
        for dtype, steepness in ((torch.float64, 30.0), (torch.float32, 1.0), (torch.bfloat16, 1.0)):
            model = model_of(tree, shape, steepness, torch.float64 if dtype is torch.float64 else torch.float32)
            where = f"{dtype}, weights x {steepness:g}: {shape}"
            try:
                with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
                    logits = model(tree.bits(2, shape.length), causal=shape.causal)[0]
                torch.autograd.backward(weighted(logits.double()))
            except (IndexError, RuntimeError, ValueError) as raised:
                return failed(f"{type(raised).__name__}: {raised}; {where}", shape.reproduction)
            values = {"logits": logits, **{name: weight.grad for name, weight in model.named_parameters()}}
            for name, value in values.items():
                if value is None or not value.isfinite().all():
                    return failed(
                        f"{name} {'has no gradient' if value is None else 'is not finite'}; {where}", shape.reproduction
                    )
            if dtype in ALLOWED and distance(logits, right) > ALLOWED[dtype]:
                return at_most(
                    distance(logits, right), ALLOWED[dtype], f"distance from float64; {where}", shape.reproduction
                )
    return passed(f"{len(sizes)} shapes in 3 precisions")


@check(task=9, prop="the state dict has the keys it had, and a forward adds none")
def keeps_the_state_dict(tree: Tree) -> Evidence:
    """Compare keys and values with those before a step; keys of attention by name where all others are as they were."""
    line = f"{PRELUDE}print(M(8, 2, 1, 16).state_dict().keys())"
    for config in (LOGGED, DENSE | {"chunk_size": 4, "overlap": 2}):
        model = tree.model(**config)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        for length in (8, 5, 9):
            torch.autograd.backward(weighted(model(tree.bits(2, length))[0]))
        after = model.state_dict()
        if before.keys() != after.keys():
            return failed(f"forwards change its keys: {sorted(before.keys() ^ after.keys())}", line)
        if not all(torch.equal(before[name], after[name]) for name in before):
            return failed("forwards change its values", line)
        others = {name for name in before if not name.startswith("layers.0.attention.")}
        if others == OTHER_KEYS and before.keys() - others != KEYS:
            return failed(f"its keys changed: {sorted((before.keys() - others) ^ KEYS)}", line)
        parameters = {name for name, _ in model.named_parameters()}
        if before.keys() - parameters - OTHER_KEYS - KEYS:
            return failed(f"it holds what is no parameter: {sorted(before.keys() - parameters)}", line)
        tree.model(1, **config).load_state_dict(after)
    return passed(f"{len(before)} keys")


@check(task=9, prop="dropout falls on attention weights, at the module's rate and in training only")
def drops_weights_in_training_only(tree: Tree) -> Evidence:
    """Give attention equal weights and values of 1: each output then counts the keys that were kept."""
    line = f"{PRELUDE}a = M().layers[0].attention; x = torch.randn(1, 9, 128); a.eval(); print(a(x)[0] - a(x)[0])"
    rows, T = 128, 8
    for shape in (Shape(T), Shape(T, causal=False), Shape(T, chunk=4), Shape(T, chunk=4, more=LOGGED), Shape(1)):
        module, args, kwargs = counting_attention(tree, shape, rows)
        if module is None:
            return unproven("no module of a forward has projections for q, k, v and the output")
        keys = shape.seen.sum(-1)  # [T]
        dropped = next(tensors_in(module.train()(*args, **kwargs))).view(rows, len(keys), 2, -1)  # [B, T, H, D]
        kept = dropped * (1 - RATE) * keys[:, None, None]
        if distance(kept, kept[..., :1].round().expand_as(kept)) > TOLERANCE:
            return failed(f"{shape}: outputs are not sums of weights, each dropped or divided by 1 - p", line)
        trials = rows * 2 * int(keys.sum())
        rate = 1 - kept[..., 0].sum().item() / trials
        sigmas = abs(rate - RATE) / (RATE * (1 - RATE) / trials) ** 0.5
        if sigmas > SIGMAS:
            return failed(
                f"{shape}: {rate:.3f} of the weights are dropped where p={RATE}, {sigmas:.0f} sigma off", line
            )
        before = torch.get_rng_state()
        evaluated = next(tensors_in(module.eval()(*args, **kwargs)))
        if distance(evaluated, torch.ones_like(evaluated)) > TOLERANCE:
            return failed(f"{shape}: weights are dropped in evaluation", line)
        if not torch.equal(before, torch.get_rng_state()):
            return failed(f"{shape}: an evaluation draws random numbers", line)
    return passed(f"5 shapes, {rows} rows; p={RATE}")


def counting_attention(tree: Tree, shape: Shape, rows: int) -> tuple[nn.Module | None, list[Any], dict[str, Any]]:
    """An attention module with uniform weights and values of 1, and the arguments of a call of it."""
    calls: list[tuple[list[Any], dict[str, Any]]] = []
    model = tree.model(**shape.config | {"num_layers": 1})
    found = attentions(model)
    if not found:
        return None, [], {}
    ones = torch.ones(rows, shape.length, shape.width, dtype=torch.float64)

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        moved = [ones if isinstance(arg, Tensor) else arg for arg in args]
        calls.append((moved, {name: ones if isinstance(arg, Tensor) else arg for name, arg in kwargs.items()}))

    found[0].register_forward_pre_hook(note, with_kwargs=True)
    model(tree.bits(1, shape.length), causal=shape.causal)
    if not calls:
        return None, [], {}
    module = with_rate(found[0], shape).double()
    inner, out = projections(module) or ([], nn.Linear(1, 1))
    with torch.no_grad():
        for projection in (*inner, out):
            for parameter in projection.parameters():
                parameter.zero_()
        inner[-1].weight[-shape.width :] = 1 / shape.width
        out.weight.copy_(torch.eye(shape.width))
    return module, *calls[0]


def with_rate(attention: nn.Module, shape: Shape) -> nn.Module:
    """An attention module like this one whose dropout has the rate RATE."""
    values = {"d_model": shape.width, "nhead": shape.heads, "dropout": RATE, "chunk_size": shape.chunk, "overlap": 0}
    values |= shape.more
    parameters = inspect.signature(type(attention)).parameters
    required = {name for name, each in parameters.items() if each.default is each.empty}
    if "dropout" in parameters and required <= {*values}:
        return type(attention)(**{name: value for name, value in values.items() if name in parameters})
    for module in attention.modules():
        if isinstance(module, nn.Dropout):
            module.p = RATE
    return attention
