from typing import Tuple

import torch
from torch import nn


def configure_optimizer(
    model: nn.Module,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    total_steps: int = 100,
) -> Tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
    """Return AdamW and a OneCycle schedule for the model."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=total_steps
    )
    return optimizer, scheduler


def adjust_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Scale the learning rate of all groups, return the new one."""
    for group in optimizer.param_groups:
        group["lr"] *= factor
    return optimizer.param_groups[0]["lr"]
