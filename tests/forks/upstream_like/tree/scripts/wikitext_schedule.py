"""Train on WikiText-2 in rounds; double the model when the validation loss stalls.

The text is converted once to <cache>.bits, one byte a bit, and memory mapped from there.
"""

import argparse
from pathlib import Path
from typing import List

import numpy as np
import torch
from torch.utils.data import Dataset

from bit_transformer import (
    BitTransformerLM,
    SafetyGate,
    expand_model,
    save_model,
    text_to_bits,
)
from bit_transformer.training import _next_bit_loss, train_loop as basic_train


def lines_to_memmap(lines: List[str], path: Path, max_len: int) -> np.memmap:
    """One line a row, cut at max_len, zeros behind it."""
    rows = np.memmap(path, dtype=np.uint8, mode="w+", shape=(len(lines), max_len))
    for i, line in enumerate(lines):
        bits = text_to_bits(line)[:max_len]
        rows[i, : len(bits)] = bits
    rows.flush()
    return rows


class BitRowDataset(Dataset):
    def __init__(self, path: Path, max_len: int) -> None:
        self.rows = np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, max_len)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, idx: int) -> torch.Tensor:
        return torch.from_numpy(np.array(self.rows[idx], dtype=np.int64))


def load_split(text: Path, max_len: int) -> BitRowDataset:
    cache = text.with_suffix(f".{max_len}.bits")
    if not cache.exists():
        lines = [ln for ln in text.read_text(encoding="utf-8").splitlines() if ln.strip()]
        lines_to_memmap(lines, cache, max_len)
    return BitRowDataset(cache, max_len)


@torch.no_grad()
def validate(model: BitTransformerLM, data: Dataset, gate: SafetyGate, limit: int = 64):
    """Mean loss, and what the gate says about it."""
    model.eval()
    losses, bad = [], False
    for i in range(min(limit, len(data))):
        row = data[i].unsqueeze(0)
        logits, tele = model(row)
        losses.append(_next_bit_loss(logits, row).item())
        bad = gate.should_trigger(
            tele["lz_complexity_logits"].item(), tele["symbiosis_score"].item()
        )
    return sum(losses) / len(losses), bad


def main(argv=None) -> float:
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", type=Path, default=Path("wiki.train.tokens"))
    parser.add_argument("--valid", type=Path, default=Path("wiki.valid.tokens"))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--accum-steps", type=int, default=1)
    parser.add_argument("--max-len", type=int, default=576)
    parser.add_argument("--d-model", type=int, default=64)
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", default="weights/wikitext.pt")
    args = parser.parse_args(argv)

    torch.manual_seed(0)
    train_rows = load_split(args.train, args.max_len)
    valid_rows = load_split(args.valid, args.max_len)
    model = BitTransformerLM(
        d_model=args.d_model,
        nhead=4,
        num_layers=2,
        dim_feedforward=4 * args.d_model,
        max_seq_len=args.max_len,
        chunk_size=128,
        overlap=16,
    )
    gate = SafetyGate(c_floor=0.01, s_floor=0.1, burn_in=50)
    best = float("inf")
    for rnd in range(args.rounds):
        basic_train(
            model,
            train_rows,
            epochs=args.epochs,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
            accum_steps=args.accum_steps,
            amp=args.amp,
            compile_model=args.compile,
            log=True,
        )
        val, bad = validate(model, valid_rows, gate)
        print(f"round {rnd}: validation {val:.4f}")
        if bad:
            print("safety gate triggered, stopping")
            break
        if val > best - 1e-3 and rnd + 1 < args.rounds:
            model = expand_model(model, num_layers=2 * len(model.layers))
        best = min(best, val)
    save_model(model, args.out)
    return best


if __name__ == "__main__":
    main()
