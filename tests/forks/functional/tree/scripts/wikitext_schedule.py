"""Train on a long text in rounds, growing the model whenever a round no longer helps.

    python scripts/wikitext_schedule.py wiki.train.txt --rounds 12
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch
from torch import Tensor

from bitlm.bits import cut_rows, text_to_bits
from bitlm.config import ModelConfig, TrainConfig
from bitlm.grow import GROW
from bitlm.loop import fit, mean_loss
from bitlm.model import BitLM


def rows_of(path: Path, length: int) -> Tensor:
    bits: list[int] = []
    with open(path, encoding="utf-8", newline="") as file:
        for line in file:
            bits += text_to_bits(line)
    return cut_rows(bits, length)


def hold_out(rows: Tensor, every: float = 0.1) -> tuple[Tensor, Tensor]:
    last = max(1, round(every * len(rows)))
    return rows[:-last], rows[-last:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=1, help="a round")
    parser.add_argument("--enough", type=float, default=0.002, help="gain in nats that a round has to bring")
    parser.add_argument("--max-params", type=int, default=20_000_000)
    parser.add_argument("--save", type=Path)
    args = parser.parse_args()

    torch.manual_seed(0)
    model = BitLM(ModelConfig())
    turns = itertools.cycle(GROW)
    train, held = hold_out(rows_of(args.text, model.cfg.max_seq_len))
    best = float("inf")
    for number in range(args.rounds):
        fit(model, train, TrainConfig(epochs=args.epochs))
        loss = mean_loss(model, held)
        print(f"round {number}: {loss:.4f} nats a bit, {sum(p.numel() for p in model.parameters()):,} parameters")
        if best - loss < args.enough and sum(p.numel() for p in model.parameters()) < args.max_params:
            model = GROW[next(turns)](model)
            train, held = hold_out(rows_of(args.text, model.cfg.max_seq_len))
        best = min(best, loss)
    if args.save:
        torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()
