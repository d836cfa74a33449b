"""Judge of task-12: chunked models take T x T attention maps only where they are asked to."""

import copy
import importlib
import inspect
import random
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .evidence import Evidence, at_most, check, failed, passed, unproven
from .operations import Operations, distance, tensors_in
from .spies import Ledger
from .training_runs import run_command
from .tree import Tree

LAYERS = 2
Asked = dict[str, bool | None]
LEFT_OUT: Asked = {}
NONE: Asked = {"full_attn_logging": None}
ON: Asked = {"full_attn_logging": True}
OFF: Asked = {"full_attn_logging": False}
STACKS: tuple[dict[str, bool], ...] = (
    {},
    {"use_checkpoint": True},
    {"reversible": True},
    {"use_act": True},
    {"reversible": True, "use_act": True},
)
RECOMPUTED = STACKS[:3]
LENGTHS = (64, 128, 192)  # evenly spaced, all multiples of the chunk
BEND = 1e-6  # of the growth from one of these lengths to the next, relative to it
RATE = 0.3  # of dropout
TOLERANCE = 1e-12  # of a map
RANK = 4  # of a map [B, H, T, T]
ROUNDING = 1e-5  # of the sum of a row, in float32
PRELUDE = "from bit_transformer.model import BitTransformerLM as M; import torch; "


def wanted(chunk: int | None, asked: Asked) -> bool:
    """The truth table: whether a model takes maps."""
    explicit = asked.get("full_attn_logging")
    return chunk is None if explicit is None else explicit


def maps_in(telemetry: dict[str, Any]) -> list[Tensor]:
    return list(tensors_in(telemetry.get("attention_maps")))


def small_model(tree: Tree, chunk: int | None, **config: Any) -> nn.Module:
    return tree.model(**{"num_layers": LAYERS, "chunk_size": chunk} | config)


def misses_the_table(model: nn.Module, chunk: int | None, asked: Asked, layers: int = LAYERS) -> str:
    """How many maps a forward of 8 bits gives, if these are not one a layer, or none, as the table says."""
    T, expected = 8, layers if wanted(chunk, asked) else 0
    try:
        maps = maps_in(model(Tree.bits(1, T))[1])
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as raised:
        return f"{type(raised).__name__}: {raised}: chunk_size={chunk}, {spoken(asked)}"
    if len(maps) != expected:
        return f"{len(maps)} maps of {layers} layers, expected {expected}: chunk_size={chunk}, {spoken(asked)}"
    for each in maps:
        sees_the_future = each.triu(1).any()
        if each.shape[-2:] != (T, T) or sees_the_future or distance(each.sum(-1), torch.ones(())) > ROUNDING:
            return f"a map is no causal softmax over {T} positions: chunk_size={chunk}, {spoken(asked)}"
    return ""


def spoken(asked: Asked) -> str:
    return f"full_attn_logging={asked['full_attn_logging']}" if asked else "full_attn_logging left out"


def line_of(chunk: int | None, asked: Asked, config: dict[str, Any] | None = None) -> str:
    """One line that prints how many maps a model takes."""
    given = {"chunk_size": chunk} | (config or {}) | asked
    arguments = ", ".join(f"{name}={value}" for name, value in given.items())
    return f"{PRELUDE}print(len(M(8, 2, 2, 16, {arguments})(torch.zeros(1, 8).long())[1]['attention_maps'] or ()))"


@check(
    task=12, prop="None and no value mean maps where chunk_size is None, and none where it is set; True and False win"
)
def follows_the_truth_table(tree: Tree) -> Evidence:
    """Count the maps of each stack, trained and evaluated; chunks may be longer than the sequence."""
    count = 0
    cases = [*product(STACKS[:1], (None, 4, 1, 16), (LEFT_OUT, NONE, ON, OFF))]
    cases += product(STACKS[1:], (None, 4), (LEFT_OUT, ON))
    for stack, chunk, asked in cases:
        model = small_model(tree, chunk, **stack, **asked)
        for training in (True, False):
            with torch.set_grad_enabled(training):
                problem = misses_the_table(model.train(training), chunk, asked)
            if problem:
                return failed(f"{problem}; {stack}", line_of(chunk, asked, stack))
            count += 1
    return passed(f"{count} forwards")


@check(task=12, prop="an attention module of its own follows the table, as far as it takes None")
def attention_alone_follows_the_table(tree: Tree) -> Evidence:
    """Build attention by itself, where it has the model's names; if its default is no None, the model resolves."""
    kind = getattr(tree.module("model"), "SelfAttention", None)
    parameters = inspect.signature(kind).parameters if kind is not None else {}
    if kind is None or not {"d_model", "nhead", "chunk_size", "full_attn_logging"} <= {*parameters}:
        return passed("the tree has no SelfAttention(d_model, nhead, chunk_size, full_attn_logging)")
    resolves = parameters["full_attn_logging"].default is None
    cases = [LEFT_OUT, NONE, ON, OFF] if resolves else [ON, OFF]
    line = "from bit_transformer.model import SelfAttention as S; import torch; "
    for chunk, asked in product((None, 4, 16), cases):
        out = kind(d_model=8, nhead=2, chunk_size=chunk, **asked)(torch.randn(1, 8, 8))
        maps = [each for each in tensors_in(out) if each.dim() == RANK and each.shape[-2:] == (8, 8)]
        if len(maps) != wanted(chunk, asked):
            given = "".join(f", {name}={value}" for name, value in asked.items())
            line += f"print(S(8, 2, chunk_size={chunk}{given})(torch.randn(1, 8, 8))[1])"
            return failed(f"SelfAttention gives {len(maps)} maps: chunk_size={chunk}, {spoken(asked)}", line)
    return passed(f"{3 * len(cases)} modules" + ("" if resolves else "; None is resolved before them"))


@check(task=12, prop="outputs, gradients and random numbers are the same with maps and without")
def logging_changes_nothing(tree: Tree) -> Evidence:
    """Train a step with dropout under each value, and compare bit for bit."""
    kinds = [*product(STACKS, ((None, 0), (4, 0))), (STACKS[0], (4, 2))]
    for stack, (chunk, overlap) in kinds:
        silent, drawn = training_step(small_model(tree, chunk, overlap=overlap, **stack, **OFF))
        for asked in (LEFT_OUT, ON):
            line = f"a training step of M(8, 2, 2, 16, chunk_size={chunk}, overlap={overlap}, **{stack | asked})"
            tensors, others_drawn = training_step(small_model(tree, chunk, overlap=overlap, **stack, **asked))
            if drawn != others_drawn or not torch.equal(tensors[0], silent[0]):
                return failed(f"{spoken(asked)} shifts the random stream", line)
            if len(tensors) != len(silent) or not all(map(torch.equal, tensors, silent)):
                return failed(f"{spoken(asked)} gives other logits or gradients than False", line)
    return passed(f"{len(kinds)} kinds of model, bit for bit")


def training_step(model: nn.Module) -> tuple[list[Tensor], Any]:
    """The random state of torch after a forward of 12 bits, the logits and the gradients; and Python's random state."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = RATE
    torch.manual_seed(1)
    random.seed(1)
    logits, _ = model(Tree.bits(2, 12))
    states = torch.get_rng_state(), random.getstate()
    logits.square().sum().backward()
    grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
    return [states[0], logits.detach(), *grads], states[1]


@check(task=12, prop="without maps nothing of T x T is made, and memory grows linearly in T")
def memory_is_linear(tree: Tree) -> Evidence:
    """Count the elements of all fresh tensors of training steps at evenly spaced T: their sums lie on a line."""
    worst, where = 0.0, ""
    for stack, asked, overlap in (*((stack, LEFT_OUT, 4) for stack in RECOMPUTED), (STACKS[-1], OFF, 0)):
        config: dict[str, Any] = {"chunk_size": 8, "overlap": overlap, "max_seq_len": LENGTHS[-1]}
        model = tree.model(**config | {"d_model": 4, "nhead": 1} | stack | asked)
        model(tree.bits(1, LENGTHS[0]))  # what is made once, and kept
        sums = []
        for length in LENGTHS:
            with Operations() as operations:
                model(tree.bits(1, length))[0].sum().backward()
            model.zero_grad(set_to_none=True)
            sums.append(sum(operations.fresh))
            if operations.largest >= length * length:
                detail = f"elements of the largest tensor, T={length}, overlap={overlap}, {spoken(asked)}, {stack}"
                return at_most(operations.largest, length * length - 1, detail, line_of(8, asked, stack))
        steps = [after - before for before, after in pairwise(sums)]
        bend = max(abs(after - before) for before, after in pairwise(steps)) / max(steps)
        if bend > worst:
            worst, where = bend, f"; worst overlap={overlap}, {spoken(asked)}, {stack}: {sums}"
    detail = f"bend of the elements that a training step makes over T={LENGTHS}{where}"
    return at_most(worst, BEND, detail, line_of(8, {}))


@check(task=12, prop="telemetry without maps is what it is with them, or explicitly absent, and never NaN")
def absence_is_explicit(tree: Tree) -> Evidence:
    """Compare each value of a chunked forward with that of the same forward with maps."""
    for stack, chunk in [*product(STACKS, (4,)), (STACKS[0], 16)]:
        for training in (True, False):
            bits = tree.bits(2, 8)
            with_maps, without = (
                small_model(tree, chunk, **stack, **asked).train(training)(bits)[1] for asked in (ON, LEFT_OUT)
            )
            for name in {*with_maps, *without}:
                value, logged = without.get(name), with_maps.get(name)
                problem = "" if is_absent(value) else flaw(value, logged)
                if problem:
                    line = f"{PRELUDE}print(M(8, 2, 2, 16, chunk_size={chunk})(torch.zeros(1, 8).long())[1][{name!r}])"
                    return failed(f"telemetry[{name!r}] {problem}: chunk_size={chunk}, {stack}", line)
    return passed(f"{len(STACKS) + 1} kinds of model, trained and evaluated")


def is_absent(value: Any) -> bool:
    return value is None or (isinstance(value, list | tuple | dict) and all(map(is_absent, value)))


def flaw(value: Any, logged: Any) -> str:
    """What is wrong with a value that is there without maps, given that with maps."""
    found, expected = ([*map(torch.as_tensor, flat(each))] for each in (value, logged))
    if any(each.is_floating_point() and each.isnan().any() for each in found):
        return "holds a NaN"
    if len(found) != len(expected) or not all(map(torch.equal, found, expected)):
        return "has a value, which is not the one that it has with maps"
    return ""


def flat(value: Any) -> list[Any]:
    """The tensors and numbers in nested lists, tuples and dictionaries."""
    if isinstance(value, dict):
        return flat([value[name] for name in sorted(value)])
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in flat(item)]
    return [value] if isinstance(value, Tensor | bool | int | float) else []


@check(task=12, prop="what reads telemetry accepts that there are no maps")
def readers_accept_absence(tree: Tree) -> Evidence:
    """Run inference that asks for safety, compressed input, and the dashboard's manager on chunked models."""
    line = "hil_safe_inference, forward_compressed, ModelManager.train_step with chunk_size=4"
    bits, seen = tree.bits(2, 8), []
    try:
        for asked in (LEFT_OUT, ON, OFF):
            model: Any = small_model(tree, 4, **asked)
            seen.append(tree.module("safety").hil_safe_inference(model, bits, c_floor=0.0, s_floor=0.0)[1])
            compress = tree.module("compression").compress_bits
            seen.append(model.forward_compressed([compress(row) for row in bits])[1])
            manager = manager_of(tree)
            if manager is not None:
                manager.init(bits, d_model=8, nhead=2, num_layers=LAYERS, dim_feedforward=16, chunk_size=4, **asked)
                record = manager.train_step(bits)
                if any(each.isnan().any() for each in map(torch.as_tensor, flat(record))):
                    return failed(f"the manager's record holds a NaN: {record}", line)
                seen.append(manager.model(bits)[1])
            for telemetry in seen:
                if len(maps_in(telemetry)) != LAYERS * wanted(4, asked):
                    return failed(f"{len(maps_in(telemetry))} maps of {LAYERS} layers: {spoken(asked)}", line)
            seen.clear()
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as raised:
        return failed(f"{type(raised).__name__}: {raised}; {spoken(asked)}", line)
    return passed("safe inference and compressed input" + (", the manager" if manager is not None else ""))


def manager_of(tree: Tree) -> Any:
    """The dashboard's manager of a tree that has one."""
    tree.module("model")
    for name in ("dashboard.manager", "bit_transformer.dashboard_app"):
        try:
            return importlib.import_module(name).ModelManager()
        except ModuleNotFoundError:
            continue
    return None


@check(task=12, prop="scaling up and checkpoints keep the value that was asked for, not what it came to")
def growth_keeps_what_was_asked(tree: Tree) -> Evidence:
    """Grow or reload a model of each value, then give it chunks, or take them away, and back: the table holds."""
    expand = tree.module("scale").expand_model
    ways: dict[str, Callable[[Any], nn.Module]] = {
        "double_width": lambda model: model.double_width(),
        "double_layers": lambda model: model.double_layers(),
        "double_length": lambda model: model.double_length(),
        "expand_model": lambda model: expand(model, dim_feedforward=24),
        "a checkpoint": lambda model: reloaded(tree, model),
        "deepcopy": copy.deepcopy,
    }
    for (name, way), (chunk, other), asked in product(ways.items(), ((None, 4), (4, None)), (LEFT_OUT, ON, OFF)):
        line = (
            f"{name} of M(8, 2, 2, 16, chunk_size={chunk}, {spoken(asked)}), then expand_model(.., chunk_size={other})"
        )
        grown = way(small_model(tree, chunk, **asked))
        changed = expand(grown, chunk_size=other)
        layers = 2 * LAYERS if name == "double_layers" else LAYERS
        for stage, model, has in (("", grown, chunk), (" and another chunk_size", changed, other)):
            if problem := misses_the_table(model, has, asked, layers):
                return failed(f"after {name}{stage}: {problem}", line)
            config = getattr(model, "config", None)
            if isinstance(config, dict) and config.get("full_attn_logging") is not asked.get("full_attn_logging"):
                return failed(f"after {name}{stage}: {config['full_attn_logging']} is kept, not {spoken(asked)}", line)
    return passed(f"{len(ways)} ways, 6 models each, then with another chunk_size")


def reloaded(tree: Tree, model: nn.Module) -> nn.Module:
    """The model that comes back from a checkpoint of this one."""
    checkpoint, path = tree.module("checkpoint"), Path("checkpoint.pt")
    checkpoint.save_checkpoint(path, model)
    loaded: nn.Module = checkpoint.load_checkpoint(path)["model"]
    return loaded


@check(task=12, prop="a forward's maps are its own: none is left from one before, and none changes after")
def maps_are_of_this_forward(tree: Tree) -> Evidence:
    """Run sequences of several lengths, and compare maps with those of a model that never ran; then without maps."""
    line = f"{PRELUDE}m = M(8, 2, 2, 16, chunk_size=4, full_attn_logging=True); a = m(torch.zeros(1, 8).long())[1]; "
    line += "m(torch.ones(1, 8).long()); print(a['attention_maps'][0])"
    for chunk, stack in product((None, 4), RECOMPUTED):
        model = small_model(tree, chunk, full_attn_logging=True, **stack)
        kept: list[tuple[list[Tensor], list[Tensor]]] = []
        for seed, length in enumerate((8, 8, 12)):
            bits = tree.bits(1, length, seed)
            fresh = small_model(tree, chunk, full_attn_logging=True, **stack)(bits)[1]
            found = maps_in(model.train(seed % 2 == 0)(bits)[1])
            if not found:
                return unproven(f"no maps to compare with full_attn_logging=True: chunk_size={chunk}, {stack}")
            kept.append((found, [each.clone() for each in maps_in(fresh)]))
            for maps, right in kept:
                if len(maps) != len(right) or any(
                    each.shape != own.shape for each, own in zip(maps, right, strict=True)
                ):
                    return failed(f"maps of another forward's shape: chunk_size={chunk}, {stack}", line)
                if max(map(distance, maps, right)) > TOLERANCE:
                    return failed(
                        f"maps are not of this forward, or changed after it: chunk_size={chunk}, {stack}", line
                    )
        if maps_in(small_model(tree, 4, **stack, **OFF)(bits)[1]):  # beside one that has run
            return failed(f"a model without maps gives those of another: {stack}", line_of(4, OFF, stack))
    return passed(f"{2 * len(RECOMPUTED)} kinds of model, 3 forwards each")


@check(task=12, prop="the command line takes no maps with --chunk_size, unless --full_attn_logging is given")
def command_line_follows_the_table(tree: Tree) -> Evidence:
    """Train from the command line, and count the maps of each forward."""
    counts: list[int] = []
    kind = tree.module("model").BitTransformerLM

    def count(module: nn.Module, _: Any, out: Any) -> None:
        if isinstance(module, kind):
            counts.append(len(maps_in(out[1])))

    torch.nn.modules.module.register_module_forward_hook(count)
    ledger, forwards = Ledger(), 0
    runs = ((None, "", LEFT_OUT), (9, "", LEFT_OUT), (9, "--full_attn_logging", ON), (9, "--no-full_attn_logging", OFF))
    for chunk, flag, asked in runs:
        flags = [*(["--chunk_size", str(chunk)] if chunk else []), *([flag] if flag else []), "--out", "trained.pt"]
        line = f"python -m bit_transformer.training --data FILE {' '.join(flags)}"
        counts.clear()
        if status := run_command(tree, ledger, flags):
            return failed(f"the command line ended with {status}", line)
        if not counts:
            return unproven("no forward of BitTransformerLM was seen")
        if {*counts} != {int(wanted(chunk, asked))}:
            return failed(f"{sorted({*counts})} maps a forward of 1 layer", line)
        trained = tree.module("checkpoint").load_checkpoint("trained.pt")["model"]
        other = 4 if chunk is None else None
        if problem := misses_the_table(tree.module("scale").expand_model(trained, chunk_size=other), other, asked, 1):
            return failed(f"the checkpoint that it wrote, with another chunk_size: {problem}", line)
        forwards += len(counts)
    return passed(f"{len(runs)} runs, {forwards} forwards")
