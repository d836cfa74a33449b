"""Grow a model without changing what it computes (Chen et al. 2016, Net2Net, arXiv:1511.05641).

Each function returns a new model of the same dtype, device and training flag, and leaves the old one
as it is. What it computes is the same up to rounding in evaluation; dropout draws other masks.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .model import BitTransformerLM

TABLES = ("embedding.weight", "position.weight")  # a row of channels an entry


def double_width(model: "BitTransformerLM") -> "BitTransformerLM":
    """A model of twice the d_model and dim_feedforward, with the same heads: logits are the same.

    Each channel stands twice, side by side, and what reads channels halves its weights. Dropout,
    which falls on the two copies apart, is what tells them apart in training.
    """
    state = {name: _widen(name, tensor) for name, tensor in model.state_dict().items()}
    config = {"d_model": 2 * model.config["d_model"], "dim_feedforward": 2 * model.config["dim_feedforward"]}
    wide = _rebuild(model, config)
    wide.load_state_dict(state)
    return wide


def double_layers(model: "BitTransformerLM") -> "BitTransformerLM":
    """A model of twice the layers: logits are the same, reversible or not, halting or not.

    The new layers lie on top. They copy the old ones, but for the output projections of both
    branches, which are zero: such a layer adds nothing to the stream, or to either stream of a
    reversible stack. Halting only spreads the weight of the old last state over its equals above it.
    """
    depth = model.config["num_layers"]
    deep = _rebuild(model, {"num_layers": 2 * depth})
    deep.load_state_dict(model.state_dict(), strict=False)
    for old, new in zip(deep.layers[:depth], deep.layers[depth:], strict=True):
        new.load_state_dict(old.state_dict())
        for projection in (new.attention.out_proj, new.feedforward[-1]):
            torch.nn.init.zeros_(projection.weight)
            torch.nn.init.zeros_(projection.bias)
    return deep


def double_length(model: "BitTransformerLM") -> "BitTransformerLM":
    """A model of twice the max_seq_len: logits of what fitted before are the same.

    The new half of the position table starts as a copy of the old.
    """
    long = _rebuild(model, {"max_seq_len": 2 * model.config["max_seq_len"]})
    state = model.state_dict()
    state["position.weight"] = state["position.weight"].repeat(2, 1)
    long.load_state_dict(state)
    return long


def expand_model(model: "BitTransformerLM", **new_config: Any) -> "BitTransformerLM":
    """A model whose configuration differs by new_config, with the weights that both have copied.

    Of a tensor that changes shape, the part that both shapes share is copied; the rest keeps its
    fresh initial values. The function is not preserved: for that, double what shall grow.
    """
    expanded = _rebuild(model, new_config)
    state, old_state = expanded.state_dict(), model.state_dict()
    for name in state.keys() & old_state.keys():
        shared = tuple(slice(min(sizes)) for sizes in zip(state[name].shape, old_state[name].shape, strict=True))
        state[name][shared] = old_state[name][shared]
    expanded.load_state_dict(state)
    return expanded


def _rebuild(model: "BitTransformerLM", changes: dict[str, Any]) -> "BitTransformerLM":
    like = next(model.parameters())
    rebuilt = type(model)(**{**model.config, **changes})
    return rebuilt.to(device=like.device, dtype=like.dtype).train(model.training)


def _widen(name: str, tensor: Tensor) -> Tensor:
    """The weights or biases of the module `name`, for twice the channels in and out."""
    if name == "contexts.tables":
        return tensor
    reads_channels = tensor.dim() == 2 and name not in (*TABLES, "contexts.embed.weight")
    scores_channels = name.startswith(("out.", "halt.", "contexts.weigh."))
    if reads_channels:
        tensor = tensor.repeat_interleave(2, dim=1) / 2
    if "q_proj" in name:
        tensor = tensor / 2**0.5  # q @ k doubles, while sqrt(D) grows by sqrt(2) only
    if name in TABLES:
        return tensor.repeat_interleave(2, dim=1)
    return tensor if scores_channels else tensor.repeat_interleave(2, dim=0)
