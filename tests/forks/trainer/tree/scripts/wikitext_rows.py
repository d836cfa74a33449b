#!/usr/bin/env python
"""Train on WikiText and double the model whenever it stops getting better.

    python scripts/wikitext_rows.py wiki.train.txt --rounds 6
"""

from __future__ import annotations

import argparse
import itertools
import random
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from bitformer import (
    BitTransformerLM,
    ModelConfig,
    SafetyGate,
    TrainConfig,
    Trainer,
    text_to_bits,
)
from bitformer.growth import grow


def iter_rows(path: Path, length: int) -> Iterator[List[int]]:
    """Yield rows of exactly `length` bits; what is left at the end is thrown away."""
    pending: List[int] = []
    with open(path, encoding="utf-8", newline="") as handle:
        for line in handle:
            pending += text_to_bits(line)
            while len(pending) >= length:
                yield pending[:length]
                pending = pending[length:]


def load_rows(path: Path, length: int) -> Tensor:
    rows = list(iter_rows(path, length))
    if not rows:
        raise ValueError(f"{path} is too short for a row of {length} bits")
    return torch.tensor(rows, dtype=torch.long)


def split(rows: Tensor, part: float = 0.1) -> Tuple[Tensor, Tensor]:
    held_out = max(1, round(len(rows) * part))
    return rows[held_out:], rows[:held_out]


def main(argv: Optional[Sequence[str]] = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--d_model", type=int, default=64)
    parser.add_argument("--n_layers", type=int, default=2)
    parser.add_argument("--max_len", type=int, default=576)
    parser.add_argument("--min_gain", type=float, default=0.002)
    args = parser.parse_args(argv)

    torch.manual_seed(0)
    random.seed(0)
    model = BitTransformerLM(
        ModelConfig(
            d_model=args.d_model,
            n_layers=args.n_layers,
            d_ff=4 * args.d_model,
            max_len=args.max_len,
        )
    )
    gate = SafetyGate()
    turns = itertools.cycle(["length", "width", "layers"])
    best = float("inf")
    rows, val_rows = split(load_rows(args.text, model.cfg.max_len))
    for number in range(args.rounds):
        cfg = TrainConfig(epochs=args.epochs)
        trainer = Trainer(model, rows, cfg, val_rows=val_rows, gate=gate)
        val_loss = trainer.run()[-1].val_loss
        print(f"round {number}: validation {val_loss:.4f}")
        if val_loss > best - args.min_gain and number < args.rounds - 1:
            model = grow(model, next(turns))
            if model.cfg.max_len != rows.shape[1]:
                rows, val_rows = split(load_rows(args.text, model.cfg.max_len))
        best = min(best, val_loss)
    return best


if __name__ == "__main__":
    main()
