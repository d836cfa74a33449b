"""The update. Its state is a dict, so that it can be looked at, saved and handed around."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

State = dict[str, Any]


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def begin(model: nn.Module, total: int, *, lr: float = 1e-3, weight_decay: float = 0.01, clip: float = 1.0) -> State:
    """AdamW under one cycle of `total` updates."""
    adamw = torch.optim.AdamW(decay_groups(model, weight_decay), lr=lr)
    return {
        "optimizer": adamw,
        "schedule": OneCycleLR(adamw, lr, total_steps=total),
        "total": total,
        "clip": clip,
        "updates": 0,
    }


def optimise(model: nn.Module, loss: Tensor, state: State) -> float:
    """Learn from one loss. Returns the norm of the gradient, before it was clipped."""
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), state["clip"])
    state["optimizer"].step()
    if state["schedule"].last_epoch < state["total"]:
        state["schedule"].step()
    state["optimizer"].zero_grad(set_to_none=True)
    state["updates"] += 1
    return float(norm)


def current_lr(state: State) -> float:
    return state["optimizer"].param_groups[0]["lr"]
