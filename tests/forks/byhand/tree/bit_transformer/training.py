"""Training loop and its command line.

    python -m bit_transformer.training corpus.txt --batch_size 16 --accum_steps 2
"""

import argparse
import itertools
import logging
import random
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from .bit_io import rows_from_bits, text_to_bits
from .compilation import compile_if_supported
from .compression import compress_bits, pad_streams
from .model import BitTransformerLM
from .optimization import configure_optimizer

logger = logging.getLogger(__name__)

IGNORE_INDEX = -100
MAX_GRAD_NORM = 1.0


class MicroBatch(NamedTuple):
    """One forward's worth: bits to read (or streams of them), and the bits to be predicted."""

    inputs: Any
    targets: Tensor
    compressed: bool = False

    @property
    def scored(self) -> int:
        return int((self.targets[:, 1:] != IGNORE_INDEX).sum())


def train_loop(
    model: BitTransformerLM,
    data: Tensor,
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
    compile_policy: str = "strict",
    log: bool = False,
    forward_kwargs: Optional[Dict[str, Any]] = None,
    optimizer: Optional[torch.optim.Optimizer] = None,
    scheduler: Optional[torch.optim.lr_scheduler.LRScheduler] = None,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    on_update: Optional[Callable[[float], None]] = None,
) -> List[Dict[str, float]]:
    """Train ``model`` on rows of bits.

    Args:
        data: ``[num_rows, T]`` bits.
        extra_steps: how often the last batch of each epoch is repeated.
        compress_prob: share of batches that enter as run-length streams and are expanded.
        direct_prob: share of batches whose run-length streams are themselves the text.
        accum_steps: batches per optimizer update; an epoch's last update may have fewer.
        optimizer, scheduler: continue with these instead of fresh ones.
        on_update: called with the loss of every update.

    Returns:
        One dictionary of metrics per epoch.
    """
    if accum_steps < 1:
        raise ValueError("accum_steps must be positive")
    device = model.lm_head.weight.device
    loader = DataLoader(
        data,
        batch_size=batch_size,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    if optimizer is None:
        batches_per_epoch = max(1, len(data) // batch_size)
        total_steps = epochs * max(1, batches_per_epoch // accum_steps)
        optimizer, scheduler = configure_optimizer(
            model, lr=lr, weight_decay=weight_decay, total_steps=total_steps
        )
    if compile_model:
        model = compile_if_supported(model, compile_policy)
    scaler = torch.amp.GradScaler(device.type, enabled=amp)
    forward_kwargs = forward_kwargs or {}
    history = []
    model.train()
    for epoch in range(epochs):
        losses: List[float] = []
        for group in grouped(with_repeats(loader, extra_steps), accum_steps):
            micro_batches = [make_micro_batch(rows, model.max_seq_len, compress_prob, direct_prob) for rows in group]
            scored = sum(micro.scored for micro in micro_batches)
            group_loss = 0.0
            for micro in micro_batches:
                share = micro.scored / max(scored, 1)
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
                    loss = compute_loss(model, micro, device, forward_kwargs)
                    scaler.scale(loss * share).backward()
                group_loss += loss.item() * share
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            if scheduler is not None and scheduler.last_epoch < getattr(scheduler, "total_steps", float("inf")):
                scheduler.step()
            losses.append(group_loss)
            if on_update is not None:
                on_update(group_loss)
        record = {"epoch": epoch, "loss": sum(losses) / len(losses), "lr": optimizer.param_groups[0]["lr"]}
        history.append(record)
        if log:
            logger.info("epoch %(epoch)d loss %(loss).4f lr %(lr).2e", record)
    return history


def grouped(batches: Iterable[Tensor], size: int) -> Iterator[List[Tensor]]:
    """Lists of ``size`` batches; the last one holds what is left."""
    iterator = iter(batches)
    while True:
        group = list(itertools.islice(iterator, size))
        if not group:
            return
        yield group


def with_repeats(batches: Iterable[Tensor], times: int) -> Iterator[Tensor]:
    last = None
    for last in batches:
        yield last
    if last is not None:
        yield from itertools.repeat(last, times)


def make_micro_batch(rows: Tensor, max_len: int, compress_prob: float, direct_prob: float) -> MicroBatch:
    """Decide how a batch enters the model."""
    if random.random() < direct_prob:
        streams = [compress_bits(row) for row in rows]
        inputs, targets = pad_streams(streams, max_len, IGNORE_INDEX)
        return MicroBatch(inputs, targets)
    if random.random() < compress_prob:
        return MicroBatch([compress_bits(row) for row in rows], rows, compressed=True)
    return MicroBatch(rows, rows)


def compute_loss(model: BitTransformerLM, micro: MicroBatch, device: torch.device, forward_kwargs: Dict) -> Tensor:
    if micro.compressed:
        logits, _ = model.forward_compressed(micro.inputs, **forward_kwargs)
    else:
        logits, _ = model(micro.inputs.to(device), **forward_kwargs)
    return next_bit_loss(logits, micro.targets.to(device))


def next_bit_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each bit given its prefix, averaged over scored positions."""
    return F.cross_entropy(
        logits[:, :-1, :].reshape(-1, 2), targets[:, 1:].reshape(-1), ignore_index=IGNORE_INDEX
    )


@torch.no_grad()
def evaluate(model: BitTransformerLM, data: Tensor, batch_size: int = 8) -> float:
    """Mean loss in nats per bit, in eval mode."""
    training = model.training
    device = model.lm_head.weight.device
    model.eval()
    total = 0.0
    for batch in data.split(batch_size):
        batch = batch.to(device)
        total += next_bit_loss(model(batch)[0], batch).item() * len(batch)
    model.train(training)
    return total / len(data)


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train BitTransformerLM on a text file.")
    parser.add_argument("text", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--d_model", type=int, default=128)
    parser.add_argument("--nhead", type=int, default=8)
    parser.add_argument("--max_seq_len", type=int, default=1152)
    parser.add_argument("--chunk_size", type=int)
    parser.add_argument("--overlap", type=int, default=0)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--no_attn_logging", dest="full_attn_logging", action="store_false")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--extra_steps", type=int, default=0)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--accum_steps", type=int, default=1, help="batches per optimizer update")
    parser.add_argument("--amp", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--compile_policy", choices=["strict", "table"], default="strict")
    parser.add_argument("--compress_prob", type=float, default=0.5)
    parser.add_argument("--direct_prob", type=float, default=0.0)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1234)
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    model = BitTransformerLM(
        d_model=args.d_model,
        nhead=args.nhead,
        num_layers=args.layers,
        dim_feedforward=4 * args.d_model,
        max_seq_len=args.max_seq_len,
        use_checkpoint=args.checkpointing,
        chunk_size=args.chunk_size,
        overlap=args.overlap,
        full_attn_logging=args.full_attn_logging,
    )
    rows = rows_from_bits(text_to_bits(args.text.read_text(encoding="utf-8")), args.max_seq_len)
    train_loop(
        model,
        rows,
        epochs=args.epochs,
        extra_steps=args.extra_steps,
        compress_prob=args.compress_prob,
        direct_prob=args.direct_prob,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        accum_steps=args.accum_steps,
        amp=args.amp,
        compile_model=args.compile,
        compile_policy=args.compile_policy,
        log=True,
        lr=args.lr,
    )
    if args.output:
        torch.save({"config": model.config, "model": model.state_dict()}, args.output)


if __name__ == "__main__":
    main()
