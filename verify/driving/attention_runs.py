"""Runs of a tree's model and of its attention, at the points of a space. In child processes only."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .operations import tensors_in
from .space import Point
from .tree import Tree, with_dropout

PRELUDE = "from bit_transformer.model import BitTransformerLM as M; import torch; "
RATE = 0.3  # of dropout
REFUSALS = (IndexError, NotImplementedError, RuntimeError, ValueError)  # by which torch refuses shapes and types
# How a forward is run: whether the model trains, and the grad mode.
MODES: dict[str, tuple[bool, Callable[[], Any]]] = {
    "trained": (True, torch.enable_grad),
    "evaluated": (False, torch.no_grad),
    "evaluated with a graph": (False, torch.enable_grad),
    "under inference_mode": (False, torch.inference_mode),
}
STACK = ("reversible", "use_act", "use_checkpoint")
RANK = 4  # of a map [B, H, T, T]
# Which stack, and how it is run, as one axis: what a backward recomputes shows in training only.
WAYS = (
    "trained",
    *(f"{stack}, trained" for stack in (*STACK, "reversible use_act", "use_checkpoint use_act")),
    *("evaluated", "under inference_mode", "use_act, under inference_mode", "reversible use_act, evaluated"),
    *("reversible, evaluated with a graph", "use_checkpoint, evaluated with a graph"),
)
FEWER = (*WAYS[:2], WAYS[4], *WAYS[6:8])
HEADS = ((8, 2), (32, 2), (6, 6), (9, 3), (96, 1))  # d_model and nhead: D = 4, 16, 1, 3, 96
# Parameters, what autocast casts to, steepness, the caller's default dtype.
PRECISIONS = (
    (torch.float64, None, 30.0, torch.float32),  # scores of thousands
    (torch.float32, None, 1.0, torch.float64),
    (torch.float32, None, 1.0, torch.float32),
    (torch.float32, torch.bfloat16, 1.0, torch.float32),
    (torch.bfloat16, None, 1.0, torch.float32),
    (torch.float64, None, 1.0, torch.bfloat16),
)


@contextmanager
def under(precision: tuple[torch.dtype, torch.dtype | None, float, torch.dtype]) -> Iterator[None]:
    """Run a block under the autocast and the default dtype of one of PRECISIONS."""
    _, cast, _, default = precision
    torch.set_default_dtype(default)
    try:
        with torch.autocast("cpu", cast, enabled=cast is not None):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


@dataclass(frozen=True, slots=True)
class Shape:
    """One forward of a model."""

    length: int
    causal: bool = True
    chunk: int | None = None
    overlap: int = 0
    width: int = 8
    heads: int = 2
    layers: int = 2
    rows: int = 2
    more: dict[str, Any] = field(default_factory=dict)
    weighs_padding: bool = False  # whether what is not there, beyond an end, is a key of zeros, and not hidden

    @classmethod
    def at(cls, values: Point | dict[str, Any]) -> "Shape":
        """The forward at a point, or at the values of one; what is no axis is as it is by default."""
        values = values.values if isinstance(values, Point) else values
        length, chunk, overlap = values.get("sizes", (values.get("length", 9), *values.get("windows", (None, 0))))
        width, heads = values.get("width", (8, 2))
        others = ("reversible", "use_act", "use_checkpoint", "full_attn_logging")
        more = {name: values[name] for name in others if name in values}
        if "way" in values:
            more |= {name: name in values["way"] for name in STACK}
        causal, layers, rows = values.get("causal", True), values.get("num_layers", 2), values.get("rows", 2)
        return cls(length, causal, chunk, overlap, width, heads, layers, rows, more)

    @property
    def config(self) -> dict[str, Any]:
        own = {"d_model": self.width, "nhead": self.heads, "num_layers": self.layers, "dim_feedforward": 2 * self.width}
        own |= {"max_seq_len": max(64, self.length)}
        return own | {"chunk_size": self.chunk, "overlap": self.overlap} | self.more

    @property
    def seen(self) -> Tensor:
        """Which keys each query sees: [T, T]."""
        query, key = torch.arange(self.length)[:, None], torch.arange(self.length)
        chunk = self.chunk or self.length
        begin = query // chunk * chunk
        return (key >= begin - self.overlap) & (key <= (query if self.causal else begin + chunk - 1))

    @property
    def padding(self) -> Tensor:
        """How many keys of each query's window are beyond an end: [T]."""
        chunk, overlap = self.chunk or self.length, self.overlap if self.chunk else 0
        begin = torch.arange(self.length) // chunk * chunk
        behind = (begin + chunk - self.length).clamp_min(0) * (not self.causal)
        return (overlap - begin).clamp_min(0) + behind

    @property
    def reached(self) -> Tensor:
        """Which positions each position depends on, through all layers: [T, T]."""
        reached: Tensor = torch.linalg.matrix_power(self.seen.double(), self.layers) > 0
        return reached

    @property
    def whole(self) -> Tensor:
        """Which queries have windows without padding: [T]."""
        chunk = self.chunk or self.length
        begin = torch.arange(self.length) // chunk * chunk
        overlap = self.overlap if self.chunk else 0
        return (begin >= overlap) & (begin + chunk <= (self.length + chunk if self.causal else self.length))

    @property
    def reproduction(self) -> str:
        """One line that shows logits, maps and gradients."""
        arguments = ", ".join(f"{name}={value}" for name, value in self.config.items())
        return (
            f"{PRELUDE}torch.set_printoptions(precision=2, linewidth=200); m = M({arguments}).double().eval(); "
            f"y, t = m(torch.randint(0, 2, ({self.rows}, {self.length})), causal={self.causal}); "
            "y.square().sum().backward(); print(y, m.embedding.weight.grad, t['attention_maps'])"
        )


def without_stitching(values: dict[str, Any]) -> bool:
    """Whether a tree without task-11 has its maps, or none, at a point of which some values may not be chosen yet."""
    return not values.get("windows", (None, 0))[1] or values.get("full_attn_logging", False) is False


def within_ends(values: dict[str, Any]) -> bool:
    """Whether it also has queries without padding in their window, and in those of all that they see."""
    if not without_stitching(values) or (values.get("windows", (None, 0))[1] and values.get("num_layers", 1) > 1):
        return False
    return not {"length", "windows", "causal"} <= values.keys() or bool(Shape.at(values).whole.any())


def mode_of(point: Point) -> str:
    """How the model is run at a point: one of MODES."""
    mode: str = point.values.get("mode") or point["way"].split(", ")[-1]
    return mode


def model_of(tree: Tree, shape: Shape, steepness: float = 1.0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A model without dropout, its initial weights scaled."""
    is_needed = {"full_attn_logging": shape.more.get("full_attn_logging") is True}  # or no map can be looked at
    asked = {name: value for name, value in shape.config.items() if tree.model_takes(name) or is_needed.get(name)}
    model = tree.model(dtype=dtype, **asked)
    for weight in model.parameters():
        weight.data.mul_(steepness if weight.dim() > 1 else 1.0)
    return with_dropout(model, 0.0)


def weighted(logits: Tensor) -> Tensor:
    """A sum to which no two logits add alike."""
    return logits.flatten() @ torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype)


def maps_in(telemetry: Any) -> list[Tensor]:
    """The maps [B, H, T, T] of the layers, whatever they are called; a tensor of five dimensions is a stack of them."""
    named = isinstance(telemetry, dict) and "attention_maps" in telemetry
    held = tensors_in(telemetry["attention_maps"] if named else telemetry)
    found = [each for each in held if named or (each.dim() >= RANK and each.shape[-1] == each.shape[-2])]
    return [each for maps in found for each in (maps if maps.dim() > RANK else [maps])]


@dataclass(slots=True)
class Step:
    """What one forward gave, and its backward where there was a graph."""

    logits: Tensor
    maps: list[Tensor]
    state: Tensor  # of the random generator, after the forward
    grads: dict[str, Tensor]


def step(model: nn.Module, shape: Shape, mode: str, queries: Tensor | None = None) -> Step:
    """Run a forward of a model as the mode says; gradients are those of a weighted sum of some queries' logits."""
    trains, grad_mode = MODES[mode]
    model.train(trains).zero_grad(set_to_none=True)
    torch.manual_seed(1)
    with grad_mode():
        logits, telemetry = Tree.forward(model, Tree.bits(shape.rows, shape.length), causal=shape.causal)
    state = torch.get_rng_state()
    logits = logits if queries is None else logits[:, queries]
    if logits.requires_grad:
        torch.autograd.backward(weighted(logits))
    grads = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return Step(logits.detach(), maps_in(telemetry), state, grads)


def projections(module: nn.Module) -> tuple[list[nn.Linear], nn.Linear] | None:
    """The linear layers that give q, k and v, in this order or in one, and the last; None if it is no attention."""
    named = [(name, child) for name, child in module.named_children() if isinstance(child, nn.Linear)]
    linears = [child for _, child in sorted(named, key=role)]
    if len(linears) not in {2, 4}:
        return None
    *inner, out = linears
    makes_three = sum(linear.out_features for linear in inner) == 3 * out.in_features
    return (inner, out) if makes_three and out.in_features == out.out_features else None


def role(named: tuple[str, nn.Module]) -> int:
    """The place of a projection by its name: that of q, of k, of v, or last."""
    return next((place for place, letter in enumerate("qkv") if letter in named[0]), 3)


def attentions(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if projections(module)]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an attention module."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def again(self, x: Tensor) -> Any:
        """What the module gives for another input, all else equal."""
        args = [x if isinstance(arg, Tensor) else arg for arg in self.args]
        return self.module(*args, **{name: x if isinstance(arg, Tensor) else arg for name, arg in self.kwargs.items()})


def first_call(model: nn.Module, shape: Shape) -> Call | None:
    """How a forward calls the first attention module; None if there is none that we know."""
    calls: list[Call] = []
    hooks = [
        module.register_forward_pre_hook(lambda *call: calls.append(Call(*call)), with_kwargs=True)
        for module in attentions(model)
    ]
    Tree.forward(model, Tree.bits(shape.rows, shape.length), causal=shape.causal)
    for hook in hooks:
        hook.remove()
    return calls[0] if calls else None


def attention_with_rate(attention: nn.Module, shape: Shape) -> nn.Module:
    """An attention module like this one whose dropout has the rate RATE."""
    values = {"d_model": shape.width, "nhead": shape.heads, "dropout": RATE}
    values |= {"chunk_size": shape.chunk, "overlap": shape.overlap} | shape.more
    parameters = inspect.signature(type(attention)).parameters
    required = {name for name, each in parameters.items() if each.default is each.empty}
    if "dropout" in parameters and required <= {*values}:
        return type(attention)(**{name: value for name, value in values.items() if name in parameters})
    return with_dropout(attention, RATE)
