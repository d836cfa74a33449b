"""Attention as an explicit masked softmax, and a spy on torch's own. In child processes only.

The explicit one stands in for a tree's attention modules: from a module's input and its four projections
it computes softmax(q k^T / sqrt(D)) v over the keys that a query sees. All else of the model is the tree's,
so that logits, maps and the gradient of every parameter can be compared.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .operations import tensors_in

ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
PRELUDE = "from bit_transformer.model import BitTransformerLM as M; import torch; "


class AttentionSpy(TorchFunctionMode):
    """Notes the arguments of each scaled_dot_product_attention; `instead` may compute something else."""

    def __init__(self, instead: Callable[[dict[str, Any]], Tensor] | None = None) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []
        self._instead = instead

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch."""
        if str(getattr(func, "__name__", "")).partition(".")[0] != "scaled_dot_product_attention":
            return func(*args, **kwargs or {})
        given = dict(zip(ARGUMENTS, args, strict=False)) | (kwargs or {})
        self.calls.append(given)
        return self._instead(given) if self._instead else func(*args, **kwargs or {})


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

    @property
    def config(self) -> dict[str, Any]:
        own = {"d_model": self.width, "nhead": self.heads, "num_layers": self.layers, "dim_feedforward": 2 * self.width}
        return own | {"chunk_size": self.chunk, "overlap": self.overlap} | self.more

    @property
    def seen(self) -> Tensor:
        """Which keys each query sees: [T, T]."""
        query, key = torch.arange(self.length)[:, None], torch.arange(self.length)
        chunk = self.chunk or self.length
        begin = query // chunk * chunk
        return (key >= begin - self.overlap) & (key <= (query if self.causal else begin + chunk - 1))

    @property
    def whole(self) -> Tensor:
        """Which queries have windows without padding: [T]."""
        chunk = self.chunk or self.length
        begin = torch.arange(self.length) // chunk * chunk
        overlap = self.overlap if self.chunk else 0
        return (begin >= overlap) & (begin + chunk <= (self.length + chunk if self.causal else self.length))

    @property
    def reproduction(self) -> str:
        """One line that shows logits and gradients."""
        arguments = ", ".join(f"{name}={value}" for name, value in self.config.items())
        return (
            f"{PRELUDE}m = M({arguments}).double().eval(); y = m(torch.randint(0, 2, ({self.rows}, {self.length})), "
            f"causal={self.causal})[0]; y.square().sum().backward(); print(y, m.embedding.weight.grad)"
        )


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


def attend(module: nn.Module, x: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """The output [B, T, C] and the map [B, H, T, T] of an attention module, by an explicit softmax."""
    inner, out = projections(module) or ([], nn.Identity())
    q, k, v = (
        part.view(*x.shape[:2], shape.heads, -1).transpose(1, 2)  # [B, H, T, D]
        for part in torch.cat([projection(x) for projection in inner], -1).chunk(3, -1)
    )
    scores = torch.einsum("bhtd,bhsd->bhts", q, k) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~shape.seen, float("-inf")).softmax(-1)
    return out(torch.einsum("bhts,bhsd->bhtd", weights, v).transpose(1, 2).flatten(2)), weights.detach()


@contextmanager
def explicit_attention(model: nn.Module, shape: Shape, replaces: bool = True) -> Iterator[list[Tensor]]:
    """Have an explicit softmax give the attention modules' outputs, or only watch them; yields its maps."""
    maps: list[Tensor] = []

    def stand_in(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        with torch.set_grad_enabled(torch.is_grad_enabled() and replaces):
            right, weights = attend(module, next(tensors_in((args, kwargs))), shape)
        maps.append(weights)
        if not replaces:
            return None
        return (right, *out[1:]) if isinstance(out, tuple) else right

    hooks = [module.register_forward_hook(stand_in, with_kwargs=True) for module in attentions(model)]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()
