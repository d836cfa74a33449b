"""Judge of task-10: each causal mask is built once, and nobody can tell from the results that it is kept."""

import copy
import gc
import inspect
import io
import pickle
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from .evidence import Evidence, at_most, check, failed, passed, unproven
from .operations import Operations, distance, fresh_modules, id_of, mask_user, reach, run_on, tensors_in, triangle_of
from .tree import Tree

LENGTHS = (6, 8, 12)  # 6 and 8 are also how many keys the windows below have
DENSE: dict[str, Any] = {"full_attn_logging": True}
CHUNKED = DENSE | {"chunk_size": 4, "overlap": 2}
WIDE = DENSE | {"chunk_size": 4, "overlap": 4}
RECOMPUTED = (DENSE | {"use_checkpoint": True}, DENSE | {"reversible": True})
TRAINED = (DENSE, CHUNKED, *RECOMPUTED, CHUNKED | {"reversible": True, "use_act": True})
# What one forward may look like: configuration, causal, dtype.
KINDS: tuple[tuple[dict[str, Any], bool, torch.dtype], ...] = (
    (DENSE, True, torch.float64),
    (DENSE, False, torch.float64),
    (DENSE, True, torch.bfloat16),
    (CHUNKED, True, torch.float64),
    (CHUNKED, False, torch.float64),
    (WIDE, True, torch.float64),
    (DENSE | {"chunk_size": 6, "overlap": 2}, True, torch.float64),  # as wide
    (DENSE | {"nhead": 4}, True, torch.float64),
)
Visit = tuple[int, int, int]  # index into KINDS, length, rows
PRELUDE = "from bit_transformer.model import BitTransformerLM as M; import torch; "
TOLERANCE = 1e-11
KEPT = 128  # masks that a bounded cache may hold


@check(task=10, prop="at most one triangle is built a length and device, over any number of forwards")
def builds_each_mask_once(tree: Tree) -> Evidence:
    """Train and evaluate with lengths in mixed order: dense, chunked, with recompute in the backward."""
    worst, where = 0, ""
    line = PRELUDE + "p = torch.profiler.profile(); p.start(); m = M(8, 2, 2, 16); "
    line += "[m(torch.zeros(1, 8, dtype=torch.long)) for _ in range(3)]; p.stop(); print(p.key_averages())"
    for turn, config in enumerate(TRAINED):
        with fresh_modules(tree), Operations() as operations:
            model = tree.model(num_layers=2, **config)
            for visit, length in enumerate((*LENGTHS[turn % 3 :], *LENGTHS)):
                model.train(visit not in {2, 5})(tree.bits(1, length))[0].sum().backward()
        for mask, copies in Counter(operations.copies).items():
            if copies > 1:  # one may be part of building it
                return at_most(copies, 1, f"copies of the triangle that is kept; {config}: {mask}", line)
        for mask, births in Counter(operations.births).items():
            if births > worst:
                worst, where = births, f"{config}: {mask}"
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

    visits_of = st.tuples(st.integers(0, len(KINDS) - 1), st.sampled_from(LENGTHS), st.integers(1, 2))

    # Without shrinking: each sequence imports the tree's modules anew.
    @settings(max_examples=10, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    @given(st.lists(visits_of, min_size=4, max_size=16))
    def any_sequence(visits: list[Visit]) -> None:
        with fresh_modules(tree):
            for count, visit in enumerate(visits, 1):
                try:
                    problem = "" if equal(step(tree, visit), expected(visit)) else "differs from the same alone"
                except (RuntimeError, IndexError, ValueError) as raised:
                    problem = f"raised {raised!r}"
                if problem:
                    faults.append((visits[:count], problem))
                    return

    any_sequence()
    if not faults:
        return passed(f"10 sequences of {len(KINDS)} kinds x {len(LENGTHS)} lengths, bit for bit")
    visits, problem = min(faults, key=lambda fault: len(fault[0]))
    line = PRELUDE + "[print(M(**{'nhead': 2} | config, d_model=8).to(dtype)(torch.zeros(B, T).long(), causal)[0]) "
    line += f"for (config, causal, dtype), T, B in {[(KINDS[kind], *sizes) for kind, *sizes in visits]}]"
    return failed(f"the last of these {problem}: {spoken(visits)}", line)


def step(tree: Tree, visit: Visit) -> list[Tensor]:
    """Logits, maps and gradients of one training step."""
    kind, length, rows = visit
    config, causal, dtype = KINDS[kind]
    model = tree.model(dtype=dtype, **config)
    return with_gradients(model, *forward(model, tree.bits(rows, length), causal=causal))


def equal(tensors: list[Tensor], others: list[Tensor]) -> bool:
    return len(tensors) == len(others) and all(map(torch.equal, tensors, others))


def spoken(visits: list[Visit]) -> str:
    return "; ".join(f"{KINDS[kind]} of {rows} x {length} bits" for kind, length, rows in visits)


@check(task=10, prop="the mask hides the future and nothing else")
def hides_exactly_the_future(tree: Tree) -> Evidence:
    """Compare with an unmasked model that is given the prefix only, in outputs and gradients."""
    worst = 0.0
    for training, seen in ((True, (12, 9, 5)), (False, (5, 12, 9)), (True, (1, 2, 3))):
        model = tree.model(**DENSE).train(training)
        for length in seen:
            bits = tree.bits(2, length)
            pairs = [with_gradients(model, *each) for each in (forward(model, bits), forward_prefixes(model, bits))]
            worst = max([worst, *(distance(a, b) for a, b in zip(*pairs, strict=True))])
    if not worst <= TOLERANCE:
        line = PRELUDE + "m = M(8, 2, 1, 16).eval(); b = torch.randint(0, 2, (1, 9)); "
        line += "print(m(b)[0][0, 4] - m(b[:, :5], causal=False)[0][0, 4])"
        return at_most(worst, TOLERANCE, "logits, maps or gradients differ from those of unmasked prefixes", line)
    if not (error := steep_error(tree)) <= TOLERANCE:
        return at_most(error, TOLERANCE, "logits or maps differ from those of unmasked prefixes where scores are large")
    model = tree.model(**CHUNKED | {"full_attn_logging": False})
    t, s = torch.arange(12)[:, None], torch.arange(12)
    if not torch.equal(reach(model, tree.bits(1, 12)), (s <= t) & (s >= t // 4 * 4 - 2)):
        return failed("chunked logits depend on other bits than their window's past", "chunk_size=4, overlap=2, T=12")
    return at_most(worst, TOLERANCE, "distance from unmasked prefixes; the support of chunked gradients is exact")


@torch.no_grad()
def steep_error(tree: Tree) -> float:
    """How far weights x 30 put outputs from those of unmasked prefixes: what hides must outweigh any score."""
    dense, one_chunk, bits = tree.model(**DENSE), tree.model(**DENSE | {"chunk_size": 9}), tree.bits(2, 9)
    for weight in (*dense.parameters(), *one_chunk.parameters()):
        weight.mul_(30.0 if weight.dim() > 1 else 1.0)  # scores of hundreds
    expected = forward_prefixes(dense, bits)
    pairs = [pair for model in (dense, one_chunk) for pair in zip(forward(model, bits), expected, strict=True)]
    return max(distance(a, b) for a, b in pairs) / expected[0].abs().max().item()


def forward(model: nn.Module, bits: Tensor, **kwargs: Any) -> list[Tensor]:
    """Logits [B, T, 2], and the maps [B, H, T, T] of its layers."""
    logits, telemetry = model(bits, **kwargs)
    return [logits, *tensors_in(telemetry["attention_maps"])]


def forward_prefixes(model: nn.Module, bits: Tensor) -> list[Tensor]:
    """The same of a model of one layer, row by row from an unmasked forward of the bits up to there."""
    ends = range(1, bits.shape[1] + 1)
    logits, *maps = zip(*(forward(model, bits[:, :end], causal=False) for end in ends), strict=True)
    rows = [[nn.functional.pad(row[..., -1, :], (0, ends[-1] - row.shape[-1])) for row in each] for each in maps]
    return [torch.stack([each[:, -1] for each in logits], 1), *(torch.stack(each, -2) for each in rows)]


def with_gradients(model: nn.Module, logits: Tensor, *maps: Tensor) -> list[Tensor]:
    """Logits [B, T, 2], maps, and the parameters' gradients of a sum to which no two logits add alike."""
    total = logits.flatten() @ torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype)
    grads = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
    return [logits.detach(), *maps, *(grad for grad in grads if grad is not None)]


@check(task=10, prop="the cache is bounded, and keeps no model alive")
def is_bounded(tree: Tree) -> Evidence:
    """Run twice as many lengths as may be kept, and count the triangles that are still in memory."""
    lengths = range(4, 4 + 2 * KEPT)
    model = tree.model(dtype=torch.float32, d_model=4, nhead=1, max_seq_len=lengths.stop, **DENSE)
    with torch.no_grad():
        for length in lengths:
            model(tree.bits(1, length))
        with Operations() as operations:
            for length in 3 * [lengths.stop - 5, lengths.stop - 3]:
                model(tree.bits(1, length))
    trace = weakref.ref(model)
    del model
    gc.collect()
    line = PRELUDE + "m = M(4, 1, 1, 16); "
    line += f"[m(torch.zeros(1, n, dtype=torch.long)) for n in range(4, {lengths.stop})]"
    if trace() is not None:
        return failed("a model is still in memory after its last reference is gone", line)
    if (rebuilt := max(Counter(operations.births).values(), default=0)) > 1:
        return at_most(rebuilt, 1, f"times one mask was built in a row, after {len(lengths)} lengths", line)
    # type() rather than isinstance(): that would ask lazy objects of other libraries for their class.
    tensors = [thing for thing in gc.get_objects() if type(thing) is Tensor]
    kinds = {id_of(tensor): kind for tensor in tensors if (kind := triangle_of(tensor))}
    living = Counter((kind.dtype, kind.above) for kind in kinds.values())
    return at_most(max(living.values(), default=0), KEPT, f"masks in memory after {len(lengths)} lengths", line)


@check(task=10, prop="no mask in the state dict")
def stays_out_of_the_state_dict(tree: Tree) -> Evidence:
    """Compare state dicts before and after forwards, and load them both ways."""
    for config in (*TRAINED, WIDE):
        fresh, model = tree.model(**config), tree.model(**config)
        for length in LENGTHS:
            model(tree.bits(1, length))[0].sum().backward()
        before, after = fresh.state_dict(), model.state_dict()
        line = f"M(8, 2, 1, 16, **{config}): state_dict() before and after a forward"
        if before.keys() != after.keys():
            return failed(f"forwards changed its keys: {sorted(before.keys() ^ after.keys())}", line)
        if not equal(*(list(tensors_in(state)) for state in (before, after))):
            return failed("forwards changed its values", line)
        if masks := [key for key, value in after.items() if any(map(triangle_of, tensors_in(value)))]:
            return failed(f"it holds masks: {masks}", line)
        fresh.load_state_dict(after)
        model.load_state_dict(before)
    return passed(f"{len(TRAINED) + 1} configurations, {len(LENGTHS)} lengths each")


@check(task=10, prop="a model that has run deep-copies, pickles and moves")
def copies_pickles_and_moves(tree: Tree) -> Evidence:
    """Send a model that has run through each way of copying it, and compare outputs of old and new lengths."""
    for config in (DENSE, CHUNKED):
        model = tree.model(num_layers=2, **config)
        model(tree.bits(1, 8))[0].sum().backward()
        expected = [model(tree.bits(1, length))[0] for length in (8, 12)]
        for way in (copy.deepcopy, through_pickle, through_torch_save, through_float32, through_meta):
            line = f"{way.__name__}(M(8, 2, 2, 16, **{config})) after a forward  # verify/task_10_mask_cache.py"
            try:
                copied = way(model)
                outputs = [copied(tree.bits(1, length))[0] for length in (8, 12)]
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
    """To no memory and back, where what no state dict restores is filled with NaN or True."""
    moved = copy.deepcopy(model).to("meta")
    torch.use_deterministic_algorithms(True)  # fills what to_empty allocates
    try:
        moved = moved.to_empty(device="cpu")
    finally:
        torch.use_deterministic_algorithms(False)
    moved.load_state_dict(model.state_dict())
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
    names = list(mask_functions(tree))
    modes: dict[str, AbstractContextManager[Any]]
    modes = {"cpu": nullcontext(), "meta": nullcontext(), "cuda": FakeTensorMode()}  # no GPU is needed
    split = [(name, kind) for name in names for kind in modes if has_two_names(tree, name, kind, modes[kind])]
    if names and {name for name, _ in split} == {*names}:  # one that takes both names may stand before another
        name, kind = split[0]
        line = f"from bit_transformer.model import {name} as f; print(f(23, '{kind}') is f(23, '{kind}:0'))"
        return failed(f"{name} keeps two masks for {kind} and {kind}:0", line)
    for name in names:
        if (second := second_gpu(tree, name, modes["cuda"])) is not None:
            line = f"from bit_transformer.model import {name} as f; f(23, 'cuda:0'); print(f(23, 'cuda:1').device)"
            return failed(f"{name} gives a mask on {second} where cuda:1 is asked for", line)
    return passed(f"cpu and meta in both orders; functions (seq_len, device): {', '.join(names) or 'none'}")


def second_gpu(tree: Tree, name: str, mode: AbstractContextManager[Any]) -> torch.device | None:
    """Where a mask for cuda:1 is after one for cuda:0, if not on cuda:1."""
    function = getattr(tree.module("model"), name)
    with mode, suppress(RuntimeError):
        function(23, torch.device("cuda", 0))
        device: torch.device = function(23, torch.device("cuda", 1)).device
        return None if device.index == 1 else device
    return None


def has_two_names(tree: Tree, name: str, kind: str, mode: AbstractContextManager[Any]) -> bool:
    """Whether asking for kind:0 builds what asking for kind again does not: operations as large as a mask."""
    function = getattr(tree.module("model"), name)
    with mode:
        try:
            costs = []
            for device in (torch.device(kind), torch.device(kind), torch.device(kind, 0)):
                with Operations() as operations:
                    function(23, device)
                costs.append(sum(size >= 23 * 23 for size in operations.fresh))
        except RuntimeError:  # a build without CUDA cannot index fake tensors of it
            return False
    return costs[1] != costs[2]


def mask_functions(tree: Tree) -> Iterator[str]:
    for name, function in list(vars(tree.module("model")).items()):
        if inspect.isclass(function) or not str(getattr(function, "__module__", "")).startswith("bit_transformer"):
            continue
        with suppress(Exception):
            mask = function(7, torch.device("cpu"))
            if isinstance(mask, Tensor) and triangle_of(mask):
                yield name


@check(task=10, prop="a mask first built under inference_mode serves training")
def serves_training_after_inference(tree: Tree) -> Evidence:
    """Run a length in inference mode first, then train on it."""
    for kind in range(len(KINDS)):
        visit = (kind, 8, 2)
        with fresh_modules(tree):
            expected = step(tree, visit)
        with fresh_modules(tree):
            config, causal, dtype = KINDS[kind]
            line = f"under inference_mode, then with backward: {spoken([visit])}"
            try:
                with torch.inference_mode():
                    tree.model(dtype=dtype, **config)(tree.bits(2, 8), causal=causal)
                if not equal(step(tree, visit), expected):
                    return failed("a training step differs after inference_mode", line)
            except RuntimeError as error:
                return failed(f"a training step after inference_mode raised {error}", line)
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
                expected = model(bits)[0]
            for turn in range(len(masks)):
                masks.clear()
                with Operations(masks.append):
                    model(bits)
                with suppress(RuntimeError):  # one that cannot be written to is safe
                    write(masks[turn])
                    written += 1
                if not equal([model(bits)[0]], [expected]):
                    line = f"M(8, 2, 1, 16, **{config}): {write.__name__} of the mask of masked_fill, then a forward"
                    return failed("a write to a mask in place changed the next forward", line)
    for name in mask_functions(tree):
        function = getattr(tree.module("model"), name)
        hide_nothing(function(7, torch.device("cpu")))
        if not name.startswith("_") and triangle_of(function(7, torch.device("cpu"))) is None:
            line = f"from bit_transformer.model import {name} as f; f(7, 'cpu').zero_(); print(f(7, 'cpu'))"
            return failed(f"{name} returns what a caller wrote to the mask", line)
    return passed(f"{written} writes in place") if written else unproven("no forward took a mask that one can write to")


def hide_nothing(mask: Tensor) -> None:
    mask.fill_(mask[..., -1, 0].item())


def hide_through_a_view(mask: Tensor) -> None:
    mask[..., 1:3, :].copy_(mask[..., :1, :].clone())
