"""The one training loop that everything else calls."""

import math
import random
from typing import Any, Dict, List, Optional

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from .compression import compress_bits, stream_as_bits
from .model import compile_fn
from .optimization import configure_optimizer
from .utils import cosine_ramp


def _next_bit_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    pred = logits[:, :-1].reshape(-1, 2)
    return F.cross_entropy(pred, target[:, 1:].reshape(-1), ignore_index=-100)


def train_loop(
    model,
    data,
    *,
    epochs: int = 1,
    extra_steps: int = 0,
    compress_prob: float = 0.5,
    direct_prob: float = 0.0,
    batch_size: int = 8,
    num_workers: int = 0,
    accum_steps: int = 1,
    amp: bool = False,
    compile_model: bool = False,
    log: bool = False,
    forward_kwargs: Optional[Dict[str, Any]] = None,
    optimizer: Optional[torch.optim.Optimizer] = None,
    scheduler: Optional[torch.optim.lr_scheduler.LRScheduler] = None,
) -> List[Dict[str, float]]:
    """Train on rows of bits.

    Args:
        data: tensor (rows, T) or any map-style dataset of rows.
        extra_steps: the last batch of an epoch once more, so many times.
        compress_prob: share of batches that go through compression, reached by a ramp.
        direct_prob: share of batches that are trained on their compressed stream.
        amp: bfloat16 autocast around forward and loss.
        optimizer, scheduler: of a longer run that this call is a part of.

    Returns:
        one dict of metrics an epoch.
    """
    forward_kwargs = forward_kwargs or {}
    device = next(model.parameters()).device
    loader = DataLoader(
        data,
        batch_size=batch_size,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    updates_per_epoch = math.ceil((len(loader) + extra_steps) / accum_steps)
    total_updates = epochs * updates_per_epoch
    if optimizer is None:
        optimizer, scheduler = configure_optimizer(model, total_steps=total_updates)
    net = compile_fn(model) if compile_model else model

    def apply_update() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        optimizer.zero_grad()

    def batches():
        batch = None
        for batch in loader:
            yield batch
        for _ in range(extra_steps):
            yield batch

    metrics: List[Dict[str, float]] = []
    global_step = 0
    model.train()
    for epoch in range(epochs):
        raw_losses, accs, compressed_seen = [], [], 0
        pending = 0
        for batch in batches():
            batch = batch.long().to(device)
            prob = cosine_ramp(global_step, 0.0, compress_prob, total_updates)
            with torch.autocast(
                device_type=device.type, dtype=torch.bfloat16, enabled=amp
            ):
                if random.random() < direct_prob:
                    streams = [stream_as_bits(compress_bits(row)) for row in batch]
                    streams = [s[: model.max_seq_len] for s in streams]
                    target = pad_sequence(streams, batch_first=True, padding_value=-100)
                    logits, _ = net(target.clamp_min(0), **forward_kwargs)
                elif random.random() < prob:
                    packed = [compress_bits(row) for row in batch]
                    logits, _ = model.forward_compressed(packed, **forward_kwargs)
                    target = batch
                    compressed_seen += 1
                else:
                    logits, _ = net(batch, **forward_kwargs)
                    target = batch
                loss = _next_bit_loss(logits, target)
            (loss / accum_steps).backward()
            global_step += 1
            pending += 1
            if pending == accum_steps:
                apply_update()
                pending = 0

            known = target[:, 1:] != -100
            hits = logits.detach()[:, :-1].argmax(-1) == target[:, 1:]
            raw_losses.append(loss.item())
            accs.append(hits[known].float().mean().item())
        if pending:
            # leftover micro-batches of this epoch
            apply_update()
        metrics.append(
            {
                "epoch": epoch,
                "raw_loss": sum(raw_losses) / len(raw_losses),
                "raw_acc": sum(accs) / len(accs),
                "compressed": compressed_seen,
                "lr": optimizer.param_groups[0]["lr"],
            }
        )
        if log:
            print(f"epoch {epoch}: {metrics[-1]}")
    return metrics
