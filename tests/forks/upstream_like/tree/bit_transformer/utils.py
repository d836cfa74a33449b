import math
import os
from typing import Any, Dict

import torch
from torch import nn


def cosine_ramp(step: int, start: float, end: float, total_steps: int) -> float:
    """Cosine ramp from ``start`` to ``end`` over ``total_steps``, then flat."""
    if total_steps <= 0 or step >= total_steps:
        return end
    cos_inner = math.pi * step / total_steps
    return start + (end - start) * 0.5 * (1.0 - math.cos(cos_inner))


def set_dropout(model: nn.Module, p: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = p


def save_model(model: nn.Module, path: str) -> None:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    state: Dict[str, Any] = {"params": model.params, "state_dict": model.state_dict()}
    torch.save(state, path)


def load_model(path: str) -> nn.Module:
    from .model import BitTransformerLM

    state = torch.load(path, map_location="cpu", weights_only=True)
    model = BitTransformerLM(**state["params"])
    model.load_state_dict(state["state_dict"])
    return model
