"""Optimizer construction."""

from typing import Tuple

import torch.nn as nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR


def configure_optimizer(
    model: nn.Module, *, lr: float = 1e-3, weight_decay: float = 0.01, total_steps: int
) -> Tuple[AdamW, OneCycleLR]:
    """AdamW without decay on norms, biases and embeddings, under a one-cycle schedule."""
    decay, no_decay = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.dim() < 2 or "embedding" in name:
            no_decay.append(parameter)
        else:
            decay.append(parameter)
    optimizer = AdamW(
        [
            {"params": decay, "weight_decay": weight_decay},
            {"params": no_decay, "weight_decay": 0.0},
        ],
        lr=lr,
    )
    scheduler = OneCycleLR(optimizer, max_lr=lr, total_steps=total_steps)
    return optimizer, scheduler


def adjust_learning_rate(optimizer: Optimizer, factor: float) -> float:
    """Multiply every group's rate; returns the new rate of the first group."""
    for group in optimizer.param_groups:
        group["lr"] *= factor
    return optimizer.param_groups[0]["lr"]
