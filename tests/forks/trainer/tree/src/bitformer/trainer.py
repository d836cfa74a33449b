"""The training loop, as a class whose steps can be overridden one by one."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field
from typing import Iterator, List, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from .codec import rle_encode
from .config import TrainConfig
from .guard import SafetyGate
from .network import BitTransformerLM
from .optim import build_optimizer

log = logging.getLogger("bitformer")

ROWS_PER_STEP = 8


@dataclass
class EpochStats:
    epoch: int
    loss: float
    accuracy: float
    lr: float
    val_loss: Optional[float] = None


@dataclass
class Meter:
    losses: List[Tensor] = field(default_factory=list)
    hits: List[Tensor] = field(default_factory=list)

    def add(self, loss: Tensor, hit: Tensor) -> None:
        self.losses.append(loss.detach())
        self.hits.append(hit)

    def mean(self) -> tuple[float, float]:
        return (
            torch.stack(self.losses).mean().item(),
            torch.stack(self.hits).mean().item(),
        )


def bit_loss(logits: Tensor, bits: Tensor) -> Tensor:
    """Cross-entropy in nats of every bit but the first, given what is before it."""
    return F.cross_entropy(logits[:, :-1].reshape(-1, 2), bits[:, 1:].reshape(-1))


class Trainer:
    """Trains `model` on `rows` (N, T) for cfg.epochs.

    >>> Trainer(model, rows, TrainConfig(epochs=3)).run()
    """

    def __init__(
        self,
        model: BitTransformerLM,
        rows: Tensor,
        cfg: TrainConfig,
        *,
        val_rows: Optional[Tensor] = None,
        gate: Optional[SafetyGate] = None,
    ) -> None:
        self.model = model
        self.rows = rows
        self.cfg = cfg
        self.val_rows = val_rows
        self.gate = gate
        self.history: List[EpochStats] = []
        self.update_losses: List[float] = []
        self.total_steps = cfg.epochs * max(1, len(rows) // ROWS_PER_STEP)
        self.optimizer, self.schedule = build_optimizer(
            model, cfg.lr, cfg.weight_decay, self.total_steps
        )

    # -- public ---------------------------------------------------------------

    def run(self) -> List[EpochStats]:
        for epoch in range(self.cfg.epochs):
            stats = self._run_epoch(epoch)
            self._validate(stats)
            self.history.append(stats)
            log.info(
                "epoch %d  loss %.4f  acc %.3f  lr %.2e",
                stats.epoch,
                stats.loss,
                stats.accuracy,
                stats.lr,
            )
        return self.history

    @torch.no_grad()
    def evaluate(self, rows: Tensor) -> float:
        self.model.eval()
        total = 0.0
        for batch in rows.split(ROWS_PER_STEP):
            batch = batch.to(self.model.device)
            logits, _ = self.model(batch, causal=self.cfg.causal)
            total += bit_loss(logits, batch).item() * len(batch)
        return total / len(rows)

    # -- one epoch ------------------------------------------------------------

    def _run_epoch(self, epoch: int) -> EpochStats:
        self.model.train()
        meter = Meter()
        for batch in self._micro_batches():
            self._train_on(batch, meter)
        loss, accuracy = meter.mean()
        return EpochStats(epoch, loss, accuracy, self.schedule.get_last_lr()[0])

    def _micro_batches(self) -> Iterator[Tensor]:
        """The rows of an epoch, and its last batch again, cfg.extra_steps times."""
        batch = None
        for start in range(0, len(self.rows), ROWS_PER_STEP):
            batch = self.rows[start : start + ROWS_PER_STEP].to(self.model.device)
            yield batch
        if batch is None:
            return
        for _ in range(self.cfg.extra_steps):
            yield batch

    def _validate(self, stats: EpochStats) -> None:
        if self.val_rows is None:
            return
        stats.val_loss = self.evaluate(self.val_rows)
        if self.gate is not None:
            self.gate.check(stats.val_loss)

    # -- one update -----------------------------------------------------------

    def _train_on(self, batch: Tensor, meter: Meter) -> None:
        logits = self._predict(batch)
        loss = bit_loss(logits, batch)
        self._backward(loss)
        self._apply_gradients()
        hit = logits.detach()[:, :-1].argmax(-1).eq(batch[:, 1:]).float().mean()
        meter.add(loss, hit)
        self.update_losses.append(loss.item())

    def _predict(self, batch: Tensor) -> Tensor:
        if self._compress_this_one():
            codes = [rle_encode(row) for row in batch]
            logits, _ = self.model.forward_compressed(codes, causal=self.cfg.causal)
        else:
            logits, _ = self.model(batch, causal=self.cfg.causal)
        return logits

    def _compress_this_one(self) -> bool:
        return random.random() < self.cfg.compress_prob

    def _backward(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()

    def _apply_gradients(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.cfg.grad_clip)
        self.optimizer.step()
        # extra steps are not part of the cycle
        if self.schedule.last_epoch < self.total_steps:
            self.schedule.step()
