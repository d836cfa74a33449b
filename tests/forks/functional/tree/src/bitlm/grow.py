"""Bigger models that start out computing the same thing."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bitlm.model import BitLM


def longer(model: BitLM) -> BitLM:
    new = BitLM(replace(model.cfg, max_seq_len=2 * model.cfg.max_seq_len))
    weights = model.state_dict()
    weights["place"] = torch.cat([weights["place"], weights["place"]])
    return _filled(new, weights, model)


def deeper(model: BitLM) -> BitLM:
    """New blocks go on top, and add nothing at first."""
    old = len(model.blocks)
    new = BitLM(replace(model.cfg, num_layers=2 * old))
    weights = new.state_dict() | model.state_dict()
    for n in range(old, 2 * old):
        for name in ("mix", "down"):
            for part in ("weight", "bias"):
                weights[f"blocks.{n}.{name}.{part}"].zero_()
    return _filled(new, weights, model)


def wider(model: BitLM) -> BitLM:
    """Each channel twice, side by side; what reads channels takes half of each."""
    new = BitLM(replace(model.cfg, d_model=2 * model.cfg.d_model))
    return _filled(new, {name: _widen(name, t, model.cfg.d_model) for name, t in model.state_dict().items()}, model)


def _widen(name: str, t: Tensor, width: int) -> Tensor:
    if name in ("bit.weight", "place"):
        return t.repeat_interleave(2, dim=1)
    if t.ndim == 2:
        t = t.repeat_interleave(2, dim=1) / 2
    if name.startswith("head."):
        return t
    if ".qkv." in name:
        t = torch.cat([t[:width] / 2**0.5, t[width:]])  # twice the products, root two more divisor
    return t.repeat_interleave(2, dim=0)


def _filled(new: BitLM, weights: dict[str, Tensor], old: BitLM) -> BitLM:
    new.load_state_dict(weights)
    return new.to(old.head.weight.device).train(old.training)


GROW = {"length": longer, "layers": deeper, "width": wider}
