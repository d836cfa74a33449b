"""Judge of task-10: each causal mask is built once, and nobody can tell from the results that it is kept."""

import copy
import gc
import io
import pickle
import random
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from .driving.attention_runs import (
    MODES,
    PRECISIONS,
    PRELUDE,
    REFUSALS,
    STACK,
    Shape,
    first_call,
    maps_in,
    under,
    weighted,
    within_ends,
)
from .driving.explicit_attention import compare_with_explicit
from .driving.memory import bytes_that_large_ones_leave, living
from .driving.operations import (
    Operations,
    distance,
    fresh_modules,
    mask_functions,
    mask_user,
    run_on,
    tensors_in,
    triangle_of,
)
from .driving.space import Points, over
from .driving.tree import Tree
from .driving.world import changed, surroundings
from .running.evidence import Evidence, at_most, check, failed, passed, unproven

LENGTHS = (6, 8, 12)  # 6 and 8 are also how many keys the windows below have
DENSE: dict[str, Any] = {"full_attn_logging": True}
CHUNKED = DENSE | {"chunk_size": 4, "overlap": 2}
WIDE = DENSE | {"chunk_size": 4, "overlap": 4}
FLOAT64, FLOAT32, AUTOCAST, BFLOAT16 = ((torch.float64, None, 1.0, torch.float32), *PRECISIONS[1:2], *PRECISIONS[3:5])
# What one forward may look like: configuration, causal, precision.
KINDS: tuple[tuple[dict[str, Any], bool, tuple[torch.dtype, torch.dtype | None, float, torch.dtype]], ...] = (
    (DENSE, True, FLOAT64),
    (DENSE, False, FLOAT64),
    (DENSE, True, BFLOAT16),
    (CHUNKED, True, FLOAT64),
    (CHUNKED, False, FLOAT64),
    (WIDE, True, FLOAT64),
    (DENSE | {"chunk_size": 6, "overlap": 2}, True, FLOAT64),  # as wide
    (DENSE | {"nhead": 4}, True, FLOAT64),
    (CHUNKED, True, BFLOAT16),
    (CHUNKED | {"d_model": 32}, True, FLOAT32),
    (CHUNKED | {"use_act": True}, True, AUTOCAST),
    (DENSE | {"reversible": True}, True, FLOAT32),
)
Visit = tuple[int, int, int, str]  # index into KINDS, length, rows, mode
MANY_LENGTHS = (1040, 5, 300, 64, 17)
TRACED = "on fake tensors"
STEPS: dict[str, tuple[bool, Any]] = MODES | {TRACED: (False, lambda: FakeTensorMode(allow_non_fake_inputs=True))}
KEPT = 128  # masks that a bounded cache may hold


@check(task=10, prop="at most one triangle is built a length and device, over any number of forwards")
@over(*STACK, windows=((None, 0), (4, 2), (6, 0)), mode=tuple(MODES), full_attn_logging=(True,))
def builds_each_mask_once(tree: Tree, points: Points) -> Evidence:
    """Train and evaluate with lengths in mixed order: dense, chunked, with recompute in the backward."""
    worst, where = 0, ""
    line = PRELUDE + "p = torch.profiler.profile(); p.start(); m = M(8, 2, 2, 16); "
    line += "[m(torch.zeros(1, 8, dtype=torch.long)) for _ in range(3)]; p.stop(); print(p.key_averages())"
    for turn, point in enumerate(points):
        with fresh_modules(tree), Operations() as operations:
            model, lengths = tree.model(num_layers=2, **point.config), (LENGTHS + LENGTHS)[turn % 3 :][:2]
            for mode, length in (("trained", lengths[0]), *((point["mode"], length) for length in lengths)):
                with MODES[mode][1]():
                    logits = Tree.forward(model.train(MODES[mode][0]), tree.bits(1, length))[0]
                if logits.requires_grad:
                    torch.autograd.backward(logits.sum())
        for mask, copies in Counter(operations.copies).items():
            if copies > 1:  # one may be part of building it
                return at_most(copies, 1, f"copies of the triangle that is kept; {point}: {mask}", line)
        twice = tree.seams.is_told and point["windows"][0] is not None  # a mask of windows may be kept by length
        for mask, births in Counter(operations.births).items():
            if births - twice > worst:
                worst, where = births - twice, f"{point}: {mask}"
    with fresh_modules(tree), Operations() as operations, torch.no_grad():
        model = tree.model(d_model=4, nhead=1, max_seq_len=max(MANY_LENGTHS))
        for length in 3 * MANY_LENGTHS:
            model(tree.bits(1, length))
    for mask, births in Counter(operations.births).items():
        if births > worst:
            worst, where = births, f"lengths of {MANY_LENGTHS} in turn: {mask}"
    return at_most(worst, 1, f"triangles built of one kind; most often {where or 'none'}", line)


@check(task=10, prop="outputs, maps and gradients are those of a fresh process, whatever ran before")
def history_leaves_no_trace(tree: Tree) -> Evidence:
    """Draw sequences of forwards - dense, chunked, not causal, other dtypes - and compare bit for bit."""
    alone: dict[Visit, list[Tensor]] = {}
    faults: list[tuple[list[Visit], str]] = []

    def expected(visit: Visit) -> list[Tensor]:
        if visit not in alone:
            with fresh_modules(tree):
                alone[visit] = step(tree, visit)
        return alone[visit]

    stream = random.Random(10)  # noqa: S311 - no secret
    for _ in range(10):
        visits, lengths = list[Visit](), stream.sample(LENGTHS, 2)
        with fresh_modules(tree):
            _, before = tree.model_module, surroundings()  # what its import changes is no forward's doing
            for _ in range(stream.randint(8, 14)):
                mode = stream.choice(("trained", *MODES))
                visits.append((stream.randrange(len(KINDS)), stream.choice(lengths), stream.randint(1, 2), mode))
                try:
                    problem = (
                        "" if equal(step(tree, visits[-1]), expected(visits[-1])) else "differs from the same alone"
                    )
                except REFUSALS as raised:
                    problem = f"raised {raised!r}"
                if setting := changed(before):
                    problem = problem or f"leaves {setting} changed"
                if problem:
                    faults.append((visits, problem))
                    break
    if not faults:
        return passed(f"10 sequences of {len(KINDS)} kinds x {len(LENGTHS)} lengths, bit for bit")
    visits, problem = min(faults, key=lambda fault: len(fault[0]))
    line = (
        PRELUDE
        + "[print(M(**{'nhead': 2, 'd_model': 8} | config).to(precision[0])(torch.zeros(B, T).long(), causal)[0]) "
    )
    line += f"for (config, causal, precision), T, B in {[(KINDS[kind], *sizes) for kind, *sizes, _ in visits]}]"
    return failed(f"the last of these {problem}: {spoken(visits)}", line)


def step(tree: Tree, visit: Visit) -> list[Tensor]:
    """Logits and maps of one forward, and the gradients of a weighted sum of the logits, where there is a graph."""
    kind, length, rows, mode = visit
    config, causal, precision = KINDS[kind]
    causal, (trains, grad_mode) = causal or not tree.looks_ahead["chunk_size" in config], STEPS[mode]
    model = tree.model(dtype=precision[0], **{k: v for k, v in config.items() if tree.model_takes(k)}).train(trains)
    with under(precision), grad_mode():
        logits, telemetry = Tree.forward(model, tree.bits(rows, length), causal=causal)
    outputs = [logits.detach(), *maps_in(telemetry)]
    if logits.requires_grad:
        grads = torch.autograd.grad(weighted(logits), list(model.parameters()), allow_unused=True)
        outputs += [grad for grad in grads if grad is not None]
    return outputs


def equal(tensors: list[Tensor], others: list[Tensor]) -> bool:
    return len(tensors) == len(others) and all(map(torch.equal, tensors, others))


def spoken(visits: list[Visit]) -> str:
    return "; ".join(f"{KINDS[kind]} of {rows} x {length} bits, {mode}" for kind, length, rows, mode in visits)


@check(task=10, prop="the mask hides the future and nothing else, however large the scores are")
@over(
    *("use_checkpoint", "causal", "full_attn_logging", "width"),
    allowed=within_ends,
    num_layers=(1,),
    windows=((None, 0), (4, 2), (9, 0), (16, 0), (4, 0)),
    length=(9, 12, 5, 1),
    mode=tuple(MODES),
    steepness=(3.0, 30.0),
)
def hides_exactly_the_future(tree: Tree, points: Points) -> Evidence:
    """Compare logits, maps and gradients with those of an explicit softmax, with scores of thousands, too."""
    return compare_with_explicit(tree, points, in_padding=False)


@check(task=10, prop="what is kept is bounded, and keeps no model alive")
def is_bounded(tree: Tree) -> Evidence:
    """Run twice as many lengths as may be kept, dense and in chunks, and count the tensors that are left in memory."""
    lengths, worst = range(4, 4 + 2 * KEPT), 0
    for config in (DENSE, CHUNKED, CHUNKED | {"full_attn_logging": False}):
        line = f"{PRELUDE}m = M(**{{'d_model': 4, 'nhead': 1}} | {config}); "
        line += f"[m(torch.zeros(1, n, dtype=torch.long)) for n in range(4, {lengths.stop})]"
        before = living()
        model = tree.model(dtype=torch.float32, d_model=4, nhead=1, max_seq_len=lengths.stop, **config)
        call = first_call(model, Shape(9, rows=1))
        if call is None:
            return unproven("no module of a forward has projections for q, k, v and the output")
        x = torch.randn(1, lengths.stop, 4)
        for grad in (torch.no_grad, torch.enable_grad):
            with grad():
                for length in lengths[:: 1 if grad is torch.no_grad else 16]:
                    call.again(x[:, :length])
        with Operations() as operations, torch.no_grad():
            for length in 3 * [lengths.stop - 5, lengths.stop - 3]:
                call.again(x[:, :length])
        trace = weakref.ref(model)
        del model, call, x
        gc.collect()
        if trace() is not None:
            return failed("a model is still in memory after its last reference is gone", line)
        if (rebuilt := max(Counter(operations.births).values(), default=0)) > 1:
            return at_most(rebuilt, 1, f"times one mask was built in a row, after {len(lengths)} lengths", line)
        kinds = Counter(kind for storage, kind in living().items() if storage not in before)
        worst = max(worst, *(count for (_, rank), count in Counter(kinds).items() if rank != 2), 0)  # noqa: PLR2004
        if max(Counter(kinds).values(), default=0) > KEPT >= worst:  # masks may be counted in bytes
            return at_most(*bytes_that_large_ones_leave(tree, config), line)
    return at_most(worst, KEPT, f"tensors of a kind that are left after {len(lengths)} lengths", line)


@check(task=10, prop="a model that has run has the state it had, deep-copies, pickles and moves")
def copies_pickles_and_moves(tree: Tree) -> Evidence:
    """Compare state dicts; send a model through each way of copying it, and compare outputs of old and new lengths."""
    reversibly = [DENSE | {"reversible": True}] * tree.model_takes("reversible")
    for config in (DENSE, CHUNKED, WIDE, *reversibly):
        fresh, model = tree.model(num_layers=2, **config), tree.model(num_layers=2, **config)
        for length in (*LENGTHS, 8):
            torch.autograd.backward(Tree.forward(model, tree.bits(1, length))[0].sum())
        before, after = fresh.state_dict(), model.state_dict()
        line = f"M(8, 2, 2, 16, **{config}): state_dict() before and after a forward"
        if before.keys() != after.keys():
            return failed(f"forwards changed its keys: {sorted(before.keys() ^ after.keys())}", line)
        if not equal(*(list(tensors_in(state)) for state in (before, after))):
            return failed("forwards changed its values", line)
        if masks := [key for key, value in after.items() if any(map(triangle_of, tensors_in(value)))]:
            return failed(f"it holds masks: {masks}", line)
        fresh.load_state_dict(after)
        expected = [Tree.forward(model, tree.bits(1, length))[0] for length in (8, 12)]
        for way in (copy.deepcopy, through_pickle, through_torch_save, through_float32, through_meta):
            line = f"{way.__name__}(M(8, 2, 2, 16, **{config})) after a forward  # verify/task_10_mask_cache.py"
            try:
                copied = way(model)
                outputs = [Tree.forward(copied, tree.bits(1, length))[0] for length in (8, 12)]
            except Exception as error:  # whatever a copy raises is the finding
                return failed(f"{way.__name__} raised {error!r}", line)
            tolerance = 1e-5 if way is through_float32 else 0.0
            if (worst := max(map(distance, outputs, expected))) > tolerance:
                return at_most(worst, tolerance, f"outputs differ after {way.__name__}", line)
    return passed("deepcopy, pickle, torch.save, to(float32), to(meta) and back: same outputs")


def through_pickle(model: nn.Module) -> Any:
    return pickle.loads(pickle.dumps(model))  # noqa: S301 - made here


def through_torch_save(model: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def through_float32(model: nn.Module) -> nn.Module:
    copied = copy.deepcopy(model).to(torch.float32)
    copied(Tree.bits(1, 8))
    return copied


def through_meta(model: nn.Module) -> nn.Module:
    """To no memory and back, where masks that no state dict restores are filled with NaN or True."""
    moved = copy.deepcopy(model).to("meta")
    torch.use_deterministic_algorithms(True)  # fills what to_empty allocates
    try:
        moved = moved.to_empty(device="cpu")
    finally:
        torch.use_deterministic_algorithms(False)
    moved.load_state_dict(model.state_dict())
    for old, new in zip(model.buffers(), moved.buffers(), strict=True):
        if old.dtype is not torch.bool and triangle_of(old) is None:
            new.copy_(old)  # positions, say: what no state dict holds of them was lost before any mask was kept
    return moved


@check(task=10, prop="each device has its own mask, and 'cuda' is 'cuda:0'")
def keys_by_device(tree: Tree) -> Evidence:
    """Run the module that uses the mask on meta and CPU, in both orders; ask a cache function for fake devices."""
    for config in (DENSE, CHUNKED):
        with fresh_modules(tree):
            model = tree.model(**config)
            found = mask_user(tree.model(**config), tree.bits(1, 8))
            if found is None:
                continue
            name, args = found
            expected = list(tensors_in(model.get_submodule(name)(*args)))
        for devices in (("cpu", "meta", "cpu"), ("meta", "cpu")):
            line = f"{name} of M(8, 2, 1, 16, **{config}) moved to {' and '.join(devices)}, a forward on each"
            with fresh_modules(tree):
                try:
                    outputs = run_on(devices, tree.model(**config), name, args)
                except RuntimeError as raised:
                    return failed(f"{' and '.join(devices)}: {raised}", line)
            if not all(tensor.is_meta for tensor in outputs["meta"]) or not equal(outputs["cpu"], expected):
                return failed(f"{' and '.join(devices)}: a forward on one changed what the other gives", line)
    return one_mask_a_device(tree)


def one_mask_a_device(tree: Tree) -> Evidence:
    """Ask each function (seq_len, device) that returns a triangle for one device under its two names."""
    names = mask_functions(tree, (DENSE, CHUNKED))
    modes: dict[str, AbstractContextManager[Any]]
    modes = {"cpu": nullcontext(), "meta": nullcontext(), "cuda": FakeTensorMode()}  # no GPU is needed
    split = [(name, kind) for name in names for kind in modes if has_two_names(names[name], kind, modes[kind])]
    if names and {name for name, _ in split} == {*names}:  # one that takes both names may stand before another
        name, kind = split[0]
        line = f"from bit_transformer.model import {name} as f; print(f(23, '{kind}') is f(23, '{kind}:0'))"
        return failed(f"{name} keeps two masks for {kind} and {kind}:0", line)
    for name in names:
        if (second := second_gpu(names[name], modes["cuda"])) is not None:
            line = f"from bit_transformer.model import {name} as f; f(23, 'cuda:0'); print(f(23, 'cuda:1').device)"
            return failed(f"{name} gives a mask on {second} where cuda:1 is asked for", line)
    return passed(f"cpu and meta in both orders; functions (seq_len, device): {', '.join(names) or 'none'}")


def second_gpu(function: Callable[..., Any], mode: AbstractContextManager[Any]) -> torch.device | None:
    """Where a mask for cuda:1 is after one for cuda:0, if not on cuda:1."""
    with mode, suppress(RuntimeError):
        function(23, torch.device("cuda", 0))
        device: torch.device = function(23, torch.device("cuda", 1)).device
        return None if device.index == 1 else device
    return None


def has_two_names(function: Callable[..., Any], kind: str, mode: AbstractContextManager[Any]) -> bool:
    """Whether asking for kind:0 builds what asking for kind again does not: operations as large as a mask."""
    with mode:
        costs = []
        with suppress(RuntimeError):  # a build without CUDA cannot index fake tensors of it
            for device in (torch.device(kind), torch.device(kind), torch.device(kind, 0)):
                with Operations() as operations:
                    function(23, device)
                costs.append(sum(size >= 23 * 23 for size in operations.fresh))
    return costs[2:] not in ([], costs[1:2])


@check(task=10, prop="a mask first built under inference_mode, or of fake tensors, serves training")
def serves_training_after_inference(tree: Tree) -> Evidence:
    """Run a length in inference mode first, or on tensors without data, as a trace does; then train on it."""
    for kind in range(len(KINDS)):
        visit = (kind, 8, 2, "trained")
        with fresh_modules(tree):
            expected = step(tree, visit)
        for first, let in (("under inference_mode", nullcontext()), (TRACED, suppress(Exception))):  # it wants data
            line = f"{first}, then with backward: {spoken([visit])}"
            with fresh_modules(tree):
                try:
                    with let:
                        step(tree, (*visit[:3], first))
                    if not equal(step(tree, visit), expected):
                        return failed(f"a training step differs after one {first}", line)
                except (RuntimeError, AssertionError, TypeError) as error:
                    return failed(f"a training step after one {first} raised {error}", line)
    return passed(f"{len(KINDS)} kinds, bit for bit")


@check(task=10, prop="a caller who writes to a mask spoils no later forward")
def survives_a_caller_that_writes(tree: Tree) -> Evidence:
    """Write to each mask that a forward used, whole and through a view, and run it again."""
    written = 0
    for config in (DENSE, CHUNKED):
        for write in (hide_nothing, hide_through_a_view):
            model, bits = tree.model(**config), tree.bits(2, 8)
            masks: list[Tensor] = []
            with Operations(masks.append):
                expected = Tree.forward(model, bits)[0]
            for turn in range(len(masks)):
                masks.clear()
                with Operations(masks.append):
                    model(bits)
                if turn >= len(masks):  # the others were only made of these
                    break
                with suppress(RuntimeError):  # one that cannot be written to is safe
                    write(masks[turn])
                    written += 1
                if not equal([Tree.forward(model, bits)[0]], [expected]):
                    line = f"M(8, 2, 1, 16, **{config}): {write.__name__} of the mask of masked_fill, then a forward"
                    return failed("a write to a mask in place changed the next forward", line)
    for name, function in mask_functions(tree, (DENSE, CHUNKED)).items():
        hide_nothing(function(7, torch.device("cpu")))
        if not name.startswith("_") and triangle_of(function(7, torch.device("cpu"))) is None:
            line = f"from bit_transformer.model import {name} as f; f(7, 'cpu').zero_(); print(f(7, 'cpu'))"
            return failed(f"{name} returns what a caller wrote to the mask", line)
    return passed(f"{written} writes in place") if written else unproven("no forward took a mask that one can write to")


def hide_nothing(mask: Tensor) -> None:
    mask.fill_(mask[..., -1, 0].item())


def hide_through_a_view(mask: Tensor) -> None:
    mask[..., 1:3, :].copy_(mask[..., :1, :].clone())
