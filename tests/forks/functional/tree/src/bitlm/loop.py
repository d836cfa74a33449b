"""Train on rows of bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bitlm.config import TrainConfig
from bitlm.model import BitLM
from bitlm.optim import begin, current_lr, optimise
from bitlm.runs import side_by_side, squeeze

BATCH = 8
SKIP = -1

Record = dict[str, float]


def bit_loss(logits: Tensor, bits: Tensor) -> Tensor:
    """Nats a bit, each predicted from those before it. Where bits is SKIP nothing is asked."""
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), bits[:, 1:], ignore_index=SKIP)


def choose_form(cfg: TrainConfig) -> str:
    roll = torch.rand(2).tolist()
    if roll[0] < cfg.direct_prob:
        return "direct"
    return "squeezed" if roll[1] < cfg.compress_prob else "plain"


def loss_of(model: BitLM, bits: Tensor, form: str) -> Tensor:
    if form == "plain":
        return bit_loss(model(bits)[0], bits)
    streams = [squeeze(row) for row in bits]
    if form == "squeezed":
        return bit_loss(model.forward_compressed(streams)[0], bits)
    rows, real = side_by_side(streams, model.cfg.max_seq_len)
    return bit_loss(model(rows)[0], torch.where(real, rows, SKIP))


def micro_batches(rows: Tensor, again: int) -> Iterator[Tensor]:
    """The rows in eights, then the last lot `again` times more."""
    lots = rows.split(BATCH)
    yield from lots
    for _ in range(again):
        yield lots[-1]


def fit(
    model: BitLM, rows: Tensor, cfg: TrainConfig, *, tell: Callable[[Record], Any] | None = None
) -> list[Record]:
    """Train, and return a record of every update."""
    device = model.head.weight.device
    total = cfg.epochs * max(1, len(rows) // BATCH)
    state = begin(model, total, lr=cfg.lr, weight_decay=cfg.weight_decay, clip=cfg.clip)
    records: list[Record] = []
    model.train()
    for epoch in range(cfg.epochs):
        for bits in micro_batches(rows, cfg.extra_steps):
            bits = bits.to(device)
            loss = loss_of(model, bits, choose_form(cfg))
            norm = optimise(model, loss, state)
            records.append({"epoch": epoch, "loss": loss.item(), "norm": norm, "lr": current_lr(state)})
            if tell is not None:
                tell(records[-1])
    return records


@torch.no_grad()
def mean_loss(model: BitLM, rows: Tensor) -> float:
    was = model.training
    model.eval()
    total = sum(bit_loss(model(part)[0], part).item() * len(part) for part in rows.split(BATCH))
    model.train(was)
    return total / len(rows)
