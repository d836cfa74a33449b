"""Progressive training on WikiText (or any text file): train, validate, grow on plateaus.

    python wikitext_schedule.py wiki.train.tokens --rounds 10 --output model.pt
"""

import argparse
import logging
from pathlib import Path
from typing import List, Tuple

import torch
from torch import Tensor

from bit_transformer import BitTransformerLM, SafetyGate, text_to_bits
from bit_transformer.bit_io import rows_from_bits
from bit_transformer.training import evaluate
from bit_transformer.training import train_loop as basic_train

logger = logging.getLogger("wikitext_schedule")

GROWTH = ("length", "width", "layers")


def build_dataset(path: Path, max_len: int) -> Tensor:
    """Read the corpus and convert it to rows of ``max_len`` bits."""
    bits: List[int] = []
    with path.open(encoding="utf-8", newline="") as corpus:
        for line in corpus:
            bits.extend(text_to_bits(line))
    logger.info("%s: %d bits", path.name, len(bits))
    return rows_from_bits(bits, max_len)


def train_valid(rows: Tensor, fraction: float = 0.1) -> Tuple[Tensor, Tensor]:
    size = max(1, int(len(rows) * fraction))
    return rows[size:], rows[:size]


def may_grow(model: BitTransformerLM, dimension: str, args: argparse.Namespace) -> bool:
    limits = {
        "length": ("max_seq_len", args.limit_length),
        "width": ("d_model", args.limit_width),
        "layers": ("num_layers", args.limit_layers),
    }
    key, limit = limits[dimension]
    return 2 * model.config[key] <= limit


def run(args: argparse.Namespace) -> BitTransformerLM:
    model = BitTransformerLM(d_model=64, nhead=4, num_layers=2, dim_feedforward=256, max_seq_len=576)
    gate = SafetyGate(args.max_val_loss)
    train_rows, valid_rows = train_valid(build_dataset(args.text, model.max_seq_len))
    best, turn = float("inf"), 0
    for round_no in range(args.rounds):
        basic_train(model, train_rows, epochs=args.epochs, batch_size=args.batch_size, accum_steps=args.accum_steps)
        val_loss = evaluate(model, valid_rows, args.batch_size)
        logger.info("round %d: validation loss %.4f", round_no, val_loss)
        if gate.should_stop(val_loss):
            logger.warning("stopping: validation loss %.4f", val_loss)
            break
        if best - val_loss < args.patience:
            dimension = GROWTH[turn % len(GROWTH)]
            turn += 1
            if may_grow(model, dimension, args):
                model = getattr(model, "double_" + dimension)()
                logger.info("doubled %s", dimension)
                train_rows, valid_rows = train_valid(build_dataset(args.text, model.max_seq_len))
        best = min(best, val_loss)
    return model


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("text", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--accum_steps", type=int, default=1)
    parser.add_argument("--patience", type=float, default=0.002)
    parser.add_argument("--max_val_loss", type=float, default=1.5)
    parser.add_argument("--limit_length", type=int, default=1152)
    parser.add_argument("--limit_width", type=int, default=256)
    parser.add_argument("--limit_layers", type=int, default=8)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    model = run(args)
    if args.output:
        torch.save({"config": model.config, "model": model.state_dict()}, args.output)


if __name__ == "__main__":
    main()
