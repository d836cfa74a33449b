"""Judge of task-12: chunked models take T x T attention maps only where they are asked to."""

import copy
import importlib
import inspect
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .driving import pictures
from .driving.attention_runs import MODES, PRELUDE, RANK, STACK, Shape, maps_in
from .driving.explicit_attention import logging_shows
from .driving.memory import Memory
from .driving.operations import distance, tensors_in
from .driving.outputs import outputs
from .driving.seams import MissingSeam, function_of
from .driving.space import Points, Span, over
from .driving.spies import Ledger
from .driving.training_runs import run_command
from .driving.tree import Tree
from .driving.world import changed, surroundings
from .running.evidence import Evidence, at_most, check, failed, passed, unproven

LAYERS = 2
Asked = dict[str, bool | None]
LEFT_OUT: Asked = {}
NONE: Asked = {"full_attn_logging": None}
ON: Asked = {"full_attn_logging": True}
OFF: Asked = {"full_attn_logging": False}
LENGTHS = (64, 128, 192)  # evenly spaced, all multiples of the chunk
BEND = 0.05  # of the growth from one of these lengths to the next, relative to it
TOLERANCE = 1e-12  # of a map
ROUNDING = {
    torch.bfloat16: 0.1,
    torch.float32: 1e-5,
    torch.float64: 1e-5,
}  # of the sum of a row, by the type of its map


def wanted(chunk: int | None, asked: Asked) -> bool:
    """The truth table: whether a model takes maps."""
    explicit = asked.get("full_attn_logging")
    return chunk is None if explicit is None else explicit


def small_model(tree: Tree, chunk: int | None, **config: Any) -> nn.Module:
    return tree.model(**{"num_layers": LAYERS, "chunk_size": chunk} | config)


def misses_the_table(
    model: nn.Module, chunk: int | None, asked: Asked, layers: int = LAYERS, rows: int = 1, length: int = 8
) -> str:
    """How many maps a forward gives, if these are not one a layer, or none, as the table says."""
    expected = layers if wanted(chunk, asked) else 0
    try:
        maps = maps_in(Tree.forward(model, Tree.bits(rows, length))[1])
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as raised:
        return f"{type(raised).__name__}: {raised}: chunk_size={chunk}, {spoken(asked)}"
    if len(maps) != expected:
        return f"{len(maps)} maps of {layers} layers, expected {expected}: chunk_size={chunk}, {spoken(asked)}"
    for each in maps:
        sees_the_future = each.triu(1).any()
        if (
            each.shape[-2:] != (length, length)
            or sees_the_future
            or distance(each.sum(-1), torch.ones(())) > ROUNDING[each.dtype]
        ):
            return f"a map is no causal softmax over {length} positions: chunk_size={chunk}, {spoken(asked)}"
        if len(each) != rows:
            return f"a map is of {len(each)} rows, not {rows}: chunk_size={chunk}, {spoken(asked)}"
        if each.requires_grad:
            return f"a map holds the graph that made it: chunk_size={chunk}, {spoken(asked)}"
    return ""


def spoken(asked: Asked) -> str:
    return f"full_attn_logging={asked['full_attn_logging']}" if asked else "full_attn_logging left out"


def line_of(chunk: int | None, asked: Asked, config: dict[str, Any] | None = None) -> str:
    """One line that prints how many maps a model takes."""
    given = {"chunk_size": chunk} | (config or {}) | asked
    arguments = ", ".join(f"{name}={value}" for name, value in given.items())
    return f"{PRELUDE}print(len(M(8, 2, 2, 16, {arguments})(torch.zeros(1, 8).long())[1]['attention_maps'] or ()))"


def reaches_back(values: dict[str, Any]) -> bool:
    """Whether a tree without task-11 can write its map: to the left of the first positions, columns wrap round."""
    return bool(values.get("windows", (None, 0))[1] < values.get("length", LENGTHS[0]))


@check(
    task=12, prop="None and no value mean maps where chunk_size is None, and none where it is set; True and False win"
)
@over(
    *(*STACK, "width"),
    mode=tuple(MODES),
    chunk=Span(1, 130, None, 4, 1, 16, 12, 64, 1100, 2000),  # of rows of 1100 at most
    asked=(LEFT_OUT, NONE, ON, OFF),
    rows=(1, 3),
    length=Span(1, 300, 8, 1, 70, 1100),
    autocast=(False, True),
)
def follows_the_truth_table(tree: Tree, points: Points) -> Evidence:
    """Count the maps of each stack, however it is run; chunks may be longer than the sequence."""
    for point in points:
        chunk, asked, (trains, grad_mode) = point["chunk"], point["asked"], MODES[point["mode"]]
        dtype = torch.float32 if point["autocast"] else torch.float64
        model = small_model(tree, chunk, dtype=dtype, max_seq_len=1100, **point.config, **asked).train(trains)
        with grad_mode(), torch.autocast("cpu", torch.bfloat16, enabled=point["autocast"]):
            problem = misses_the_table(model, chunk, asked, rows=point["rows"], length=point["length"])
        if problem:
            return failed(f"{problem}: {point}", line_of(chunk, asked, point.config))
    return passed(f"{len(points.done)} forwards")


@check(task=12, prop="an attention module of its own follows the table, as far as it takes None")
def attention_alone_follows_the_table(tree: Tree) -> Evidence:
    """Build attention by itself, where it has the model's names; if its default is no None, the model resolves."""
    kind = getattr(tree.model_module, "SelfAttention", None)
    if kind is not None and kind.forward is torch.nn.Module.forward:
        kind = None  # a method of it is called
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
@over(
    *STACK,
    *("causal", "num_layers", "width"),
    allowed=reaches_back,
    windows=((4, 2), (None, 0), (4, 0), (5, 3), (16, 0)),
    mode=tuple(MODES),
    length=Span(1, 200, 12, 1, 7),
)
def logging_changes_nothing(tree: Tree, points: Points) -> Evidence:
    """Run a step with dropout under each value, and compare bit for bit."""
    for point in points:
        before = surroundings()
        problem = logging_shows(tree, point, False, None, True)
        if setting := changed(before):
            problem = problem or f"a forward leaves {setting} changed: {point}"
        if problem:
            return failed(problem, Shape.at(point).reproduction)
    return passed(f"{len(points.done)} points, bit for bit")


@check(task=12, prop="without maps nothing of T x T is made, and memory grows linearly in T")
@over(*STACK, "causal", mode=tuple(MODES), windows=((8, 4), (8, 0)), asked=(LEFT_OUT, OFF))
def memory_is_linear(tree: Tree, points: Points) -> Evidence:
    """Measure the most bytes of tensors that are alive at one time at evenly spaced T: they lie on a line."""
    worst, where, bent = 0.0, "", (list[int](), list[int]())
    for point in points:
        config = point.config | {"max_seq_len": LENGTHS[-1]}
        trains, grad_mode = MODES[point["mode"]]
        model = tree.model(**config | {"d_model": 4, "nhead": 1} | point["asked"]).train(trains)
        peaks = []
        for length in (LENGTHS[0], *LENGTHS):  # the first makes what is made once, and kept
            with Memory() as memory, grad_mode():
                logits = Tree.forward(model, tree.bits(1, length), causal=point["causal"])[0]
                if logits.requires_grad:
                    torch.autograd.backward(logits.sum())
            del logits
            model.zero_grad(set_to_none=True)
            peaks.append(memory.peak)
            if memory.largest >= length * length:
                detail = f"elements of the largest tensor, T={length}: {point}"
                return at_most(memory.largest, length * length - 1, detail, line_of(8, point["asked"]))
        steps = [after - before for before, after in pairwise(peaks[1:])]
        bend = abs(steps[1] - steps[0]) / max(steps)
        if bend > worst:
            worst, where = bend, f"; worst {peaks[1:]}: {point}"
            bent = peaks[1:], [peaks[1], peaks[2], 2 * peaks[2] - peaks[1]]
    shown = pictures.curves(f"peak of live bytes at T={LENGTHS}", *bent, x="length", y="bytes")
    return at_most(worst, BEND, f"bend of the peak of live bytes over T={LENGTHS}{where}", line_of(8, {}), shown)


@check(task=12, prop="telemetry without maps is what it is with them, or explicitly absent, and never NaN")
@over(
    *STACK,
    "causal",
    allowed=reaches_back,
    mode=tuple(MODES),
    windows=((4, 0), (4, 2), (16, 0)),
    rows=(2, 1),
    length=(8, 1),
)
def absence_is_explicit(tree: Tree, points: Points) -> Evidence:
    """Compare each value of a chunked forward with that of the same forward with maps."""
    for point in points:
        shape, (trains, grad_mode) = Shape.at(point), MODES[point["mode"]]
        bits = tree.bits(shape.rows, shape.length)
        with grad_mode():
            with_maps, without = (
                Tree.forward(tree.model(**shape.config | asked).train(trains), bits, causal=shape.causal)[1]
                for asked in (ON, LEFT_OUT)
            )
        for name in {*with_maps, *without}:
            value, logged = without.get(name), with_maps.get(name)
            problem = "" if is_absent(value) else flaw(value, logged)
            if problem:
                line = f"{PRELUDE}print(M(8, 2, 2, 16, chunk_size=4)(torch.zeros(1, 8).long())[1][{name!r}])"
                return failed(f"telemetry[{name!r}] {problem}: {point}", line)
    return passed(f"{len(points.done)} points")


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
            manager = None
            seen.append(tree.part("safety", "hil_safe_inference")(model, bits, c_floor=0.0, s_floor=0.0)[1])
            compress = tree.part("compression", "compress_bits")
            seen.append(model.forward_compressed([compress(row) for row in bits])[1])
            manager = manager_of(tree)
            if manager is not None:
                manager.init(bits, d_model=8, nhead=2, num_layers=LAYERS, dim_feedforward=16, chunk_size=4, **asked)
                record = manager.train_step(bits)
                if any(each.isnan().any() for each in map(torch.as_tensor, flat(record))):
                    return failed(f"the manager's record holds a NaN: {record}", line)
                seen.append(Tree.forward(manager.model, bits)[1])
                if problem := manager_forgets(tree, manager, bits, asked):
                    return failed(f"a manager that grew, saved and came back: {problem}", line)
            for telemetry in seen:
                if len(maps_in(telemetry)) != LAYERS * wanted(4, asked):
                    return failed(f"{len(maps_in(telemetry))} maps of {LAYERS} layers: {spoken(asked)}", line)
            seen.clear()
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as raised:
        if manager is not None and tree.seams.is_told:  # of another tree it is not known how it is to be asked
            raise MissingSeam("manager", f"{type(raised).__name__}: {raised}", function_of("manager")) from raised
        return failed(f"{type(raised).__name__}: {raised}; {spoken(asked)}", line)
    return passed("safe inference and compressed input" + (", the manager" if manager is not None else ""))


def manager_forgets(tree: Tree, manager: Any, bits: Tensor, asked: Asked) -> str:
    """What is wrong with the maps of a manager's model that grew and came back, without its chunks."""
    if hasattr(manager, "scale_up"):
        manager.scale_up("layers")
    if hasattr(manager, "save") and hasattr(manager, "download"):
        manager.save("grown")
        manager.download("grown", bits)
    model = tree.part("scale", "expand_model")(manager.model, chunk_size=None)
    return misses_the_table(model, None, asked, len(getattr(model, "layers", ())) or LAYERS)


def manager_of(tree: Tree) -> Any:
    """The dashboard's manager of a tree that has one."""
    tree.seams.part("model").load()
    for name in ("dashboard.manager", "bit_transformer.dashboard_app"):
        try:
            return importlib.import_module(name).ModelManager()
        except ModuleNotFoundError:
            continue
    return None


@check(task=12, prop="scaling up and checkpoints keep the value that was asked for, not what it came to")
def growth_keeps_what_was_asked(tree: Tree) -> Evidence:
    """Grow or reload a model of each value, then give it chunks, or take them away, and back: the table holds."""
    expand = tree.part("scale", "expand_model")
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
@over(*STACK, mode=tuple(MODES), chunk=(None, 4, 16))
def maps_are_of_this_forward(tree: Tree, points: Points) -> Evidence:
    """Run sequences of several lengths, and compare maps with those of a model that never ran; then without maps."""
    line = f"{PRELUDE}m = M(8, 2, 2, 16, chunk_size=4, full_attn_logging=True); a = m(torch.zeros(1, 8).long())[1]; "
    line += "m(torch.ones(1, 8).long()); print(a['attention_maps'][0])"
    for point in points:
        chunk, stack = point["chunk"], point.config
        model = small_model(tree, chunk, full_attn_logging=True, **stack)
        kept: list[tuple[list[Tensor], list[Tensor]]] = []
        for seed, length in enumerate((8, 8, 12)):
            bits = tree.bits(1, length, seed)
            fresh = Tree.forward(small_model(tree, chunk, full_attn_logging=True, **stack), bits)[1]
            with MODES[point["mode"]][1]():
                found = maps_in(Tree.forward(model.train(seed % 2 == 0), bits)[1])
            if not found:
                return unproven(f"no maps to compare with full_attn_logging=True: {point}")
            kept.append((found, [each.clone() for each in maps_in(fresh)]))
            for maps, right in kept:
                if [each.shape for each in maps] != [each.shape for each in right]:
                    return failed(f"maps of another forward's shape: {point}", line)
                if max(map(distance, maps, right)) > TOLERANCE:
                    shown = pictures.maps("the maps, beside a fresh model's", torch.stack(maps), torch.stack(right))
                    return failed(f"maps are not of this forward, or changed after it: {point}", line, picture=shown)
        if maps_in(Tree.forward(small_model(tree, 4, **stack, **OFF), bits)[1]):  # beside one that has run
            return failed(f"a model without maps gives those of another: {stack}", line_of(4, OFF, stack))
    return passed(f"{len(points.done)} kinds of model, 3 forwards each")


@check(task=12, prop="the command line takes no maps with --chunk_size, unless --full_attn_logging is given")
def command_line_follows_the_table(tree: Tree) -> Evidence:
    """Train from the command line, and count the maps of each forward."""
    counts: list[int] = []
    kind = tree.kind

    def count(module: nn.Module, _: Any, out: Any) -> None:
        if isinstance(module, kind):
            counts.append(len(maps_in(outputs(out)[1])))

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
        trained = tree.part("checkpoint", "load_checkpoint")("trained.pt")["model"]
        other = 4 if chunk is None else None
        if problem := misses_the_table(tree.part("scale", "expand_model")(trained, chunk_size=other), other, asked, 1):
            return failed(f"the checkpoint that it wrote, with another chunk_size: {problem}", line)
        forwards += len(counts)
    return passed(f"{len(runs)} runs, {forwards} forwards")
