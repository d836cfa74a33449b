"""Optimizer and learning-rate schedule."""

from __future__ import annotations

from typing import Tuple

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR


def build_optimizer(
    model: nn.Module, lr: float, weight_decay: float, total_steps: int
) -> Tuple[AdamW, OneCycleLR]:
    """AdamW without decay on vectors, and one cycle over `total_steps` updates."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = AdamW(groups, lr=lr, betas=(0.9, 0.95))
    schedule = OneCycleLR(optimizer, max_lr=lr, total_steps=total_steps)
    return optimizer, schedule
