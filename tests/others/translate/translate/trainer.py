"""The trainer: groups of micro-batches, each word of a group counts alike."""

from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from .pairs import PAD, padded


@dataclass
class Plan:
    epochs: int = 2
    batch_size: int = 8
    group: int = 3
    rate: float = 1e-3
    clip: float = 1.0
    bf16: bool = True
    compiled: bool = False


def scored(model, source, target, reduction="mean"):
    """The loss of the words of a micro-batch."""
    logits = model(source, target[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD, reduction=reduction)


class Trainer:
    def __init__(self, model, data, plan):
        self.model, self.plan = model, plan
        self.loader = DataLoader(data, plan.batch_size, shuffle=True, collate_fn=padded)
        self.optimizer = torch.optim.AdamW(model.parameters(), plan.rate)
        total = plan.epochs * -(-len(self.loader) // plan.group)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, plan.rate, total)

    def fit(self):
        for _ in range(self.plan.epochs):
            batches = iter(self.loader)
            while group := list(islice(batches, self.plan.group)):
                self.update(group)

    def update(self, group):
        self.optimizer.zero_grad()
        words = sum(int((target[:, 1:] != PAD).sum()) for _, target in group)
        for source, target in group:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.plan.bf16):
                loss = scored(self.model, source, target, "sum") / words
            loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip)
        self.optimizer.step()
        self.schedule.step()
