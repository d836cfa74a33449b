"""Judge of task-11: in chunked attention each query sees its window, in the map and in the output.

The oracle is dense attention over every position, restricted to the window and divided by what is left
there: a softmax over a subset. No chunked code and no mask of the tree takes part in it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from operator import itemgetter
from typing import Any

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from .evidence import Evidence, Verdict, at_most, check, failed, passed, unproven
from .operations import NAN, Operations, distance, reach, tensors_in
from .tree import Tree

CHUNKS = (1, 2, 3, 4, 5, 6, 8, 9, 13, 16, 30)
OVERLAPS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 17)
LENGTHS = range(1, 27)  # with the two above: 3,146 shapes
# (T, chunk, overlap): padding left, right, on both sides, nowhere; windows longer than the sequence; no overlap.
SHAPES = (
    (1, 4, 2),
    (5, 8, 3),
    (7, 3, 0),
    (8, 4, 4),
    (9, 4, 6),
    (10, 4, 2),
    (12, 1, 3),
    (13, 5, 7),
    (6, 2, 9),
    (8, 4, 0),
    (3, 1, 0),
)
LAYERS = 2  # where a check needs more than one
LONGEST = 64  # bits of any shape below
TOLERANCE = 1e-12  # an entry; so rows sum to 1 within T times as much
ALLOWED = {False: 1e-4, True: 0.1}  # distance from float64: of float32, of bfloat16
GROWTH = 2.5  # of memory as T doubles: 2 where it is linear, 4 where something is T x T


@dataclass(frozen=True, slots=True)
class Shape:
    """One chunked forward."""

    length: int
    chunk: int
    overlap: int
    causal: bool = True
    rows: int = 1
    heads: int = 2

    @property
    def window(self) -> Tensor:
        """Which keys each query sees: [T, T]."""
        return longest_window(self.chunk, self.overlap, self.causal)[: self.length, : self.length]

    @property
    def reproduction(self) -> str:
        """One line that prints the map."""
        return (
            "from bit_transformer.model import BitTransformerLM as M; import torch; "
            "torch.set_printoptions(precision=2, linewidth=200); "
            f"m = M(8, {self.heads}, 1, 16, chunk_size={self.chunk}, overlap={self.overlap}, "
            f"full_attn_logging=True); print(m(torch.randint(0, 2, ({self.rows}, {self.length})), "
            f"causal={self.causal})[1]['attention_maps'][0][0, 0])"
        )


@cache
def longest_window(chunk: int, overlap: int, causal: bool) -> Tensor:
    query, key = torch.arange(LONGEST)[:, None], torch.arange(LONGEST)
    begin = query // chunk * chunk
    last = query if causal else begin + chunk - 1
    return (key >= begin - overlap) & (key <= last)


@dataclass(slots=True)
class Maps:
    """The maps of a tree's chunked models, and what they should be; models and dense maps are kept."""

    tree: Tree
    models: dict[tuple[int, int | None, int], nn.Module] = field(default_factory=dict)
    dense: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)

    def found(self, shape: Shape) -> Tensor:
        """The tree's map [B, H, T, T]."""
        return self._map(shape, shape.chunk, shape.overlap, shape.causal)

    def expected(self, shape: Shape) -> Tensor:
        """The dense map over all positions, restricted to the window and normalised again."""
        key = (shape.length, shape.rows, shape.heads)
        if key not in self.dense:
            self.dense[key] = self._map(shape, None, 0, causal=False)
        seen = self.dense[key] * shape.window
        return seen / seen.sum(-1, keepdim=True)

    def _map(self, shape: Shape, chunk: int | None, overlap: int, causal: bool) -> Tensor:
        key = (shape.heads, chunk, overlap)
        if key not in self.models:
            config: dict[str, Any] = {
                "nhead": shape.heads,
                "chunk_size": chunk,
                "overlap": overlap,
                "full_attn_logging": True,
            }
            self.models[key] = self.tree.model(**config).eval()
        with torch.inference_mode():
            _, telemetry = self.models[key](self.tree.bits(shape.rows, shape.length), causal=shape.causal and causal)
        attention_map: Tensor = telemetry["attention_maps"][0]
        return attention_map

    def compare(self, shape: Shape) -> tuple[float, str]:
        """The largest error of a shape's map, and what is wrong with the map, if anything is."""
        try:
            found = self.found(shape)
        except (IndexError, RuntimeError, ValueError) as raised:
            return NAN, f"{type(raised).__name__}: {raised}"
        expected = self.expected(shape)
        if found.shape != expected.shape:
            return NAN, f"the map is {list(found.shape)}"
        error = distance(found, expected)
        if not torch.equal(found != 0, shape.window.expand_as(found)):
            return error, "the map's support is not the window"
        return error, "" if error <= TOLERANCE else "the map is not the softmax over the window"


def first_fault(maps: Maps, shapes: Iterable[Shape]) -> Evidence:
    """Evidence of the first shape whose map is wrong, or of how near all of them come."""
    count, worst = 0, 0.0
    for shape in shapes:
        error, problem = maps.compare(shape)
        if problem:
            measured = error if error < NAN else None
            return Evidence(Verdict.FAIL, measured, TOLERANCE, f"{shape}: {problem}", shape.reproduction)
        count, worst = count + 1, max(worst, error)
    return at_most(worst, TOLERANCE, f"{count} shapes: support and values")


def grid(causal: bool = True) -> Iterator[Shape]:
    """The covering grid, shortest sequences first."""
    for length in LENGTHS:
        for chunk in CHUNKS:
            for overlap in OVERLAPS:
                yield Shape(length, chunk, overlap, causal)


@check(task=11, prop="the map is the softmax over the window, where the overlap is shorter than a chunk")
def maps_with_short_overlaps(tree: Tree) -> Evidence:
    """Walk the grid's shapes with overlap < chunk."""
    return first_fault(Maps(tree), (shape for shape in grid() if shape.overlap < shape.chunk))


@check(task=11, prop="the map is the softmax over the window, where the overlap is a chunk or longer")
def maps_with_long_overlaps(tree: Tree) -> Evidence:
    """Walk the grid's shapes with overlap >= chunk."""
    return first_fault(Maps(tree), (shape for shape in grid() if shape.overlap >= shape.chunk))


@check(task=11, prop="the map is the softmax over the window, for shapes nobody chose, rows and heads")
def maps_of_drawn_shapes(tree: Tree) -> Evidence:
    """Draw shapes of up to 64 bits, 3 rows and 4 heads."""
    maps = Maps(tree)
    faults: list[tuple[int, Evidence]] = []
    sizes = (st.integers(1, LONGEST), st.integers(1, 70), st.integers(0, 70))

    # Without shrinking: a hundred more runs cost more than a larger shape does.
    @settings(max_examples=50, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    @given(st.builds(Shape, *sizes, st.booleans(), st.integers(1, 3), st.sampled_from([1, 2, 4])))
    def any_shape(shape: Shape) -> None:
        evidence = first_fault(maps, [shape])
        if evidence.verdict is Verdict.FAIL:
            faults.append((shape.length, evidence))

    any_shape()
    return min(faults, key=itemgetter(0))[1] if faults else passed("50 shapes")


@check(task=11, prop="a window's padding has no weight when it is not causal either")
def open_windows_hold_real_positions(tree: Tree) -> Evidence:
    """Walk every thirteenth shape of the grid with causal=False."""
    return first_fault(Maps(tree), list(grid(causal=False))[::13])


@check(task=11, prop="each layer's output and gradients are those of an unmasked layer which is given the window only")
def outputs_are_those_of_the_window(tree: Tree) -> Evidence:
    """Cut out each query's window, give it to the same layer of a dense model, and compare; evaluate as trained."""
    worst = 0.0
    for shape in [Shape(*sizes, causal, rows=2) for sizes in SHAPES for causal in (True, False)]:
        try:
            error = output_error(tree, shape)
        except (IndexError, RuntimeError, ValueError) as raised:
            return failed(f"{shape}: {type(raised).__name__}: {raised}", shape.reproduction)
        if error is None:
            return unproven("no nn.ModuleList of two layers, each called once in a forward")
        worst = max(worst, error)
        if worst > TOLERANCE:
            return at_most(
                worst, TOLERANCE, f"{shape}: outputs or gradients are not those of the window", shape.reproduction
            )
    return at_most(worst, TOLERANCE, f"{2 * len(SHAPES)} shapes, 2 layers, 2 rows; first chunks as dense")


def output_error(tree: Tree, shape: Shape) -> float | None:
    """The largest error of the layers' outputs and gradients, and of logits without gradients; None without layers."""
    config: dict[str, Any] = {"num_layers": LAYERS, "full_attn_logging": False}
    model = tree.model(chunk_size=shape.chunk, overlap=shape.overlap, **config)
    dense = tree.model(**config)
    bits = tree.bits(shape.rows, shape.length)
    chunked, unmasked = record_layers(model, bits, shape.causal), record_layers(dense, bits, causal=False)
    if not chunked or not unmasked:
        return None
    first = min(shape.chunk, shape.length)
    errors: list[float] = []
    for call, twin in zip(chunked, unmasked, strict=True):
        x = call.x.detach().requires_grad_()
        alone = [twin.rerun(x[:, seen])[:, int(seen[:t].sum())] for t, seen in enumerate(shape.window)]
        found, expected = call.rerun(x), torch.stack(alone, 1)
        errors += map(distance, call.gradients(x, found), twin.gradients(x, expected))
        errors += [distance(found, expected), distance(call.output, expected)]
    with torch.no_grad():
        trained, evaluated = (model.train(mode)(bits, causal=shape.causal)[0] for mode in (True, False))
        errors.append(distance(trained, evaluated))
        errors.append(distance(trained[:, :first], dense(bits[:, :first], causal=shape.causal)[0]))
    return max(errors)


@dataclass(slots=True)
class LayerCall:
    """One call of a layer: what went in and what came out."""

    layer: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor  # [B, T, C]

    @property
    def x(self) -> Tensor:
        """The layer's input [B, T, C]."""
        return next(tensors_in((self.args, self.kwargs)))

    def rerun(self, x: Tensor) -> Tensor:
        """The layer's output for another input, all else equal."""
        args = [x if arg is self.x else arg for arg in self.args]
        kwargs = {name: x if arg is self.x else arg for name, arg in self.kwargs.items()}
        return next(tensors_in(self.layer(*args, **kwargs)))

    def gradients(self, x: Tensor, output: Tensor) -> list[Tensor]:
        """The gradients of a weighted sum of an output, with respect to x and the layer's parameters."""
        weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        leaves = (x, *self.layer.parameters())
        return list(torch.autograd.grad((output * weights).sum(), leaves, allow_unused=True, materialize_grads=True))


def record_layers(model: nn.Module, bits: Tensor, causal: bool) -> list[LayerCall]:
    """Run a model of two layers, and return their calls; an empty list if they cannot be told."""
    calls: list[LayerCall] = []

    def note(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        calls.append(LayerCall(layer, args, kwargs, next(tensors_in(out))))

    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == LAYERS]
    hooks = [layer.register_forward_hook(note, with_kwargs=True) for stack in stacks[:1] for layer in stack]
    model(bits, causal=causal)
    for hook in hooks:
        hook.remove()
    return calls if len(calls) == LAYERS else []


@check(task=11, prop="logits depend on the positions of their window, and on no other")
def nothing_else_reaches_a_position(tree: Tree) -> Evidence:
    """Compare which gradients are exactly zero with the window, and with windows of windows for two layers."""
    for sizes in SHAPES:
        for layers in (1, 2):
            shape = Shape(*sizes)
            model = tree.model(
                num_layers=layers, chunk_size=shape.chunk, overlap=shape.overlap, full_attn_logging=False
            )
            expected = torch.linalg.matrix_power(shape.window.double(), layers) > 0
            wrong = reach(model, tree.bits(1, shape.length)) != expected
            if wrong.any():
                t, s = wrong.nonzero()[0].tolist()
                depends = "does not depend" if expected[t, s] else "depends"
                line = shape.reproduction.replace(", 1, 16,", f", {layers}, 16,")
                return failed(f"{shape}, {layers} layers: logits[{t}] {depends} on position {s}", line)
    return passed(f"{len(SHAPES)} shapes, 1 and 2 layers")


@check(task=11, prop="outputs are the same with and without maps, and without them nothing grows with T x T")
def logging_changes_nothing(tree: Tree) -> Evidence:
    """Compare logits bit for bit, and the largest tensor at T and 2 T - 1, neither a multiple of the chunk."""
    T, worst = 61, 0.0
    for shape in [Shape(T, *sizes, causal) for sizes in ((4, 2), (3, 5), (7, 0)) for causal in (True, False)]:
        on, off = (
            tree.model(chunk_size=shape.chunk, overlap=shape.overlap, max_seq_len=2 * T, full_attn_logging=logged)
            for logged in (True, False)
        )
        largest = []
        for length in (T, 2 * T - 1):
            with Operations() as operations:
                logits = off(tree.bits(1, length), causal=shape.causal)[0]
            largest.append(operations.largest)
            try:
                same = torch.equal(logits, on(tree.bits(1, length), causal=shape.causal)[0])
            except (IndexError, RuntimeError, ValueError) as raised:
                return failed(f"{shape}: {type(raised).__name__}: {raised}", shape.reproduction)
            if not same:
                return failed(f"{shape}: logits differ with and without maps", shape.reproduction)
        worst = max(worst, largest[1] / largest[0])
        if worst > GROWTH:
            return at_most(worst, GROWTH, f"{shape}: growth of the largest tensor from T to 2 T", shape.reproduction)
    return at_most(worst, GROWTH, "growth of the largest tensor from T to 2 T")


@check(task=11, prop="each kind of stack has the same first map, the window in every map, and finite gradients")
def every_stack_has_the_window(tree: Tree) -> Evidence:
    """Train one step with each kind of stack, on shapes with padding."""
    maps = Maps(tree)
    kinds: tuple[dict[str, Any], ...] = (
        {"reversible": True},
        {"use_act": True},
        {"use_checkpoint": True},
        {"reversible": True, "use_act": True},
    )
    worst = 0.0
    for shape in [Shape(*sizes, causal) for sizes in SHAPES for causal in (True, False)]:
        for kind in kinds:
            config = kind | {"chunk_size": shape.chunk, "overlap": shape.overlap, "full_attn_logging": True}
            model = tree.model(num_layers=LAYERS, **config)
            line = shape.reproduction.replace("full_attn_logging", f"**{kind}, full_attn_logging")
            try:
                logits, telemetry = model(tree.bits(1, shape.length), causal=shape.causal)
            except (IndexError, RuntimeError, ValueError) as raised:
                return failed(f"{shape}, {kind}: {raised}", line)
            logits.square().sum().backward()
            logged = list(telemetry["attention_maps"])
            if problem := flaw(logged, shape.window):
                return failed(f"{shape}, {kind}: {problem}", line)
            worst = max(worst, distance(logged[0], maps.expected(shape)))
            if not worst <= TOLERANCE:
                return at_most(worst, TOLERANCE, f"{shape}, {kind}: the first map is not the window's softmax", line)
            grads = {name: parameter.grad for name, parameter in model.named_parameters()}
            broken = [name for name, grad in grads.items() if grad is None or not grad.isfinite().all()]
            if broken:
                return failed(f"{shape}, {kind}: no finite gradient for {broken[0]}", line)
    return at_most(worst, TOLERANCE, f"{2 * len(SHAPES)} shapes x {len(kinds)} stacks")


def flaw(maps: list[Tensor], window: Tensor, tolerance: float = TOLERANCE) -> str:
    """What is wrong with the maps [B, H, T, T] of a model of two layers, if anything is."""
    if len(maps) != LAYERS:
        return f"{len(maps)} maps of {LAYERS} layers"
    for n, each in enumerate(maps):
        if each.shape[-2:] != window.shape or not torch.equal(each != 0, window.expand_as(each)):
            return f"the support of map {n} is not the window"
        if distance(each.sum(-1, dtype=torch.float64), torch.ones(())) > len(window) * tolerance:
            return f"the rows of map {n} do not sum to 1"
    if window.sum() > len(window) and torch.equal(*maps):
        return "two layers have one map"
    return ""


@check(task=11, prop="float32 and bf16 autocast give nearly the same, and the map is taken before dropout")
def other_precisions_and_dropout(tree: Tree) -> Evidence:
    """Compare logits with those of float64, and look at the maps of forwards with and without dropout."""
    errors = {}
    for shape in (Shape(13, 4, 6, rows=2), Shape(9, 4, 2, causal=False, rows=2)):
        config: dict[str, Any] = {
            "num_layers": LAYERS,
            "chunk_size": shape.chunk,
            "overlap": shape.overlap,
            "full_attn_logging": True,
        }
        bits = tree.bits(shape.rows, shape.length)
        exact = tree.model(**config)(bits, causal=shape.causal)[0]
        for dropout, bf16 in ((0.0, False), (0.0, True), (0.4, False)):
            model = tree.model(dtype=torch.float32, **config)
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = dropout
            name = f"{shape}, {'bf16 autocast' if bf16 else 'float32'}, dropout {dropout}"
            try:
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    logits, telemetry = model(bits, causal=shape.causal)
            except (IndexError, RuntimeError, ValueError) as raised:
                return failed(f"{name}: {type(raised).__name__}: {raised}", shape.reproduction)
            allowed = ALLOWED[bf16]
            if problem := flaw(list(telemetry["attention_maps"]), shape.window, allowed):
                return failed(f"{name}: {problem}", shape.reproduction)
            errors[name] = 0.0 if dropout else distance(logits, exact)
            if errors[name] > allowed:
                return at_most(errors[name], allowed, f"{name}: logits are not those of float64", shape.reproduction)
    return passed(f"logits within {max(errors.values()):.1e} of float64, 2 shapes")
