"""Train a BitTransformerLM.

python -m bit_transformer.training --data corpus.txt --layers 4 --d_model 128 --epochs 3

As a command it hands runs that are kept to runs.py, which is made of this module; as a module it knows of none.
"""

import argparse
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .bit_io import SAMPLE, bits_to_rows, text_to_bits
from .checkpoint import save_checkpoint
from .compression import compress_bits, pad_rows
from .model import BitTransformerLM
from .optimization import configure_optimizer

IGNORED = -100  # the target of a position that is padding


def train_loop(
    model: BitTransformerLM,
    data: Tensor,
    *,
    epochs: int = 1,
    extra_steps: int = 0,
    compress_prob: float = 0.5,
    direct_prob: float = 0.0,
    log: bool = False,
    forward_kwargs: dict[str, Any] | None = None,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
) -> list[dict[str, float]]:
    """Train on rows of bits [rows, T] and return one record of metrics an epoch.

    Each epoch sees every row, then its last micro-batch `extra_steps` times more. A micro-batch is
    run-length encoded on its way into the model with probability compress_prob, and is itself the
    run-length stream with probability direct_prob.
    """
    device = next(model.parameters()).device
    steps_per_epoch = max(1, len(data) // 8)
    total_updates = epochs * steps_per_epoch
    optimizer, scheduler = configure_optimizer(model, lr=lr, weight_decay=weight_decay, total_steps=total_updates)
    history = []
    model.train()
    for epoch in range(epochs):
        losses, accuracies = [], []
        for batch in with_extra_steps(data.split(8), extra_steps):
            batch = batch.to(device)
            form = draw_form(compress_prob, direct_prob)
            logits, targets = predict(model, batch, form, forward_kwargs or {})
            loss = next_bit_loss(logits, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if scheduler.last_epoch < total_updates:
                scheduler.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
            accuracies.append(next_bit_accuracy(logits.detach(), targets))
        history.append(
            {
                "epoch": epoch,
                "loss": torch.stack(losses).mean().item(),
                "accuracy": torch.stack(accuracies).mean().item(),
                "lr": scheduler.get_last_lr()[0],
            }
        )
        if log:
            print("epoch {epoch}: loss {loss:.4f}, accuracy {accuracy:.3f}, lr {lr:.2e}".format(**history[-1]))
    return history


def with_extra_steps(batches: Iterable[Tensor], extra_steps: int) -> Iterator[Tensor]:
    """Yield the micro-batches of an epoch, then the last one `extra_steps` times more."""
    batch = None
    for batch in batches:
        yield batch
    if batch is not None:
        for _ in range(extra_steps):
            yield batch


def draw_form(compress_prob: float, direct_prob: float) -> str:
    """Draw the form in which a micro-batch enters the model: direct, compressed or raw."""
    if random.random() < direct_prob:
        return "direct"
    return "compressed" if random.random() < compress_prob else "raw"


def predict(model: BitTransformerLM, batch: Tensor, form: str, forward_kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Run a micro-batch [rows, T] in its form: logits [rows, L, 2] and their bits [rows, L]."""
    if form == "raw":
        return model(batch, **forward_kwargs)[0], batch
    compressed = [compress_bits(row) for row in batch]
    if form == "compressed":
        return model.forward_compressed(compressed, **forward_kwargs)[0], batch
    rows, is_padding = pad_rows(compressed, model.max_seq_len)
    rows, is_padding = rows.to(batch.device), is_padding.to(batch.device)
    return model(rows, **forward_kwargs)[0], rows.masked_fill(is_padding, IGNORED)


def next_bit_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of each bit given those before it."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORED)


def next_bit_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """The share of next bits whose larger logit is theirs."""
    known = targets[:, 1:] != IGNORED
    return (logits[:, :-1].argmax(-1) == targets[:, 1:])[known].float().mean()


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m bit_transformer.training`."""
    parser = argparse.ArgumentParser(
        prog="bit_transformer.training",
        description="Train a BitTransformerLM.",
        epilog="Presets, and the flags of runs that are kept: python -m bit_transformer.runs --help",
    )
    parser.add_argument("--data", type=Path, action="append", help="text file to train on; can be given again")
    parser.add_argument("--out", type=Path, help="where to write the checkpoint; without a suffix, the folder of a run")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--d_model", type=int, default=128)
    parser.add_argument("--nhead", type=int, default=8)
    parser.add_argument("--max_seq_len", type=int, default=1152, help="bits a row; 9 a byte")
    parser.add_argument("--chunk_size", type=int, help="chunked attention with chunks of so many bits")
    parser.add_argument("--overlap", type=int, default=0, help="bits to its left that a chunk sees too")
    parser.add_argument("--causal", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--act", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--reversible", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--full_attn_logging", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--extra_steps", type=int, default=0, help="repeats of an epoch's last micro-batch")
    parser.add_argument("--compress_prob", type=float, default=0.5)
    parser.add_argument("--direct_prob", type=float, default=0.0)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight_decay", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train on text, and save what was learned."""
    args = build_parser().parse_args(argv)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    model = BitTransformerLM(
        d_model=args.d_model,
        nhead=args.nhead,
        num_layers=args.layers,
        dim_feedforward=4 * args.d_model,
        max_seq_len=args.max_seq_len,
        reversible=args.reversible,
        use_checkpoint=args.checkpointing,
        use_act=args.act,
        chunk_size=args.chunk_size,
        overlap=args.overlap,
        full_attn_logging=args.full_attn_logging,
    )
    text = "".join(path.read_text(encoding="utf-8") for path in args.data or [SAMPLE])
    data = bits_to_rows(text_to_bits(text), args.max_seq_len)
    train_loop(
        model,
        data,
        epochs=args.epochs,
        extra_steps=args.extra_steps,
        compress_prob=args.compress_prob,
        direct_prob=args.direct_prob,
        log=True,
        forward_kwargs={"causal": args.causal},
        lr=args.lr,
        weight_decay=args.weight_decay,
    )
    if args.out is not None:
        save_checkpoint(args.out, model)


if __name__ == "__main__":
    known, of_runs = build_parser().parse_known_args()
    if of_runs or (known.out is not None and not known.out.suffix):  # a flag that only runs have, or a folder
        try:
            from .runs import main as start_run
        except ImportError as error:
            build_parser().error(f"a run needs every patch (bitpatch apply --all) and bitpatch[train]: {error}")
        sys.exit(start_run())
    main()
