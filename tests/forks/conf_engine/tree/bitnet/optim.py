"""Optimizer and schedule."""
import torch
from torch.optim.lr_scheduler import OneCycleLR


def groups(model, decay):
    matrices = [p for n, p in model.named_parameters() if p.ndim > 1 and not n.startswith("embed")]
    rest = [p for n, p in model.named_parameters() if p.ndim < 2 or n.startswith("embed")]
    return [{"params": matrices, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


def make(model, lr=1e-3, weight_decay=0.01, updates=100):
    """AdamW and one cycle of ``updates`` updates."""
    optimizer = torch.optim.AdamW(groups(model, weight_decay), lr=lr)
    return optimizer, OneCycleLR(optimizer, max_lr=lr, total_steps=updates)
