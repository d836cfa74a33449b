"""Train on a text corpus such as WikiText-2, and let the model grow while it learns.

    python -m data.wikitext_schedule --data wiki.train.txt --rounds 12 --out model.pt

Once the validation loss stops falling, the model doubles its length, then its width, then its layers,
in turn, up to the limits that are given.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bit_transformer.bit_io import bits_to_rows, text_to_bits
from bit_transformer.checkpoint import save_checkpoint
from bit_transformer.model import BitTransformerLM
from bit_transformer.training import next_bit_loss, train_loop


def load_rows(path: Path, max_seq_len: int) -> Tensor:
    """The rows [rows, max_seq_len] of a text file's bits; the tail that fills no row is dropped."""
    bits: list[int] = []
    with path.open(encoding="utf-8", newline="") as lines:
        for line in lines:
            bits.extend(text_to_bits(line))
    return bits_to_rows(bits, max_seq_len)


def split_rows(rows: Tensor, share: float = 0.1) -> tuple[Tensor, Tensor]:
    """The rows to train on, and the last `share` of them, one at least, to validate on."""
    if len(rows) < 2:
        raise ValueError("the text fills 1 row, expected 2: one to train on, one to validate on; give more text")
    held_out = max(1, int(share * len(rows)))
    return rows[:-held_out], rows[-held_out:]


@torch.no_grad()
def evaluate(model: BitTransformerLM, rows: Tensor) -> float:
    """The mean loss in nats a bit on rows [rows, T]."""
    model.eval()
    losses = [next_bit_loss(model(batch)[0], batch) * len(batch) for batch in rows.split(8)]
    return (torch.stack(losses).sum() / len(rows)).item()


def grow(model: BitTransformerLM, turn: int, limits: dict[str, int]) -> BitTransformerLM:
    """Double the dimension whose turn it is, or the next that its limit lets grow; else the same model."""
    doubles = {
        "max_seq_len": model.double_length,
        "d_model": model.double_width,
        "num_layers": model.double_layers,
    }
    names = list(doubles)
    for name in names[turn % len(names) :] + names[: turn % len(names)]:
        if 2 * model.config[name] <= limits[name]:
            print(f"grow: {name} {model.config[name]} -> {2 * model.config[name]}")
            return doubles[name]()
    return model


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m data.wikitext_schedule`."""
    parser = argparse.ArgumentParser(prog="data.wikitext_schedule", description="Train on text, and grow.")
    parser.add_argument("--data", type=Path, required=True, help="text file to train on")
    parser.add_argument("--out", type=Path, help="where to write the checkpoint")
    parser.add_argument("--rounds", type=int, default=12, help="how often to train, validate, and maybe grow")
    parser.add_argument("--epochs", type=int, default=1, help="epochs a round")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--d_model", type=int, default=64)
    parser.add_argument("--nhead", type=int, default=8)
    parser.add_argument("--max_seq_len", type=int, default=576, help="bits a row at first; 9 a byte")
    parser.add_argument("--most_layers", type=int, default=8)
    parser.add_argument("--most_width", type=int, default=256)
    parser.add_argument("--most_bits", type=int, default=1152, help="bits a row at most")
    parser.add_argument("--min_gain", type=float, default=0.002, help="a round that gains less nats a bit is a plateau")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train round by round, and save what was learned."""
    args = build_parser().parse_args(argv)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    limits = {"max_seq_len": args.most_bits, "d_model": args.most_width, "num_layers": args.most_layers}
    model = BitTransformerLM(
        d_model=args.d_model,
        nhead=args.nhead,
        num_layers=args.layers,
        dim_feedforward=4 * args.d_model,
        max_seq_len=args.max_seq_len,
    )
    rows, held_out = split_rows(load_rows(args.data, model.max_seq_len))
    best, turn = float("inf"), 0
    for round_ in range(args.rounds):
        record = train_loop(model, rows, epochs=args.epochs, lr=args.lr)[-1]
        val_loss = evaluate(model, held_out)
        print(f"round {round_}: loss {record['loss']:.4f}, validation {val_loss:.4f}")
        if val_loss > best - args.min_gain and round_ + 1 < args.rounds:
            model, turn = grow(model, turn, limits), turn + 1
            if model.max_seq_len != rows.shape[1]:
                rows, held_out = split_rows(load_rows(args.data, model.max_seq_len))
        best = min(best, val_loss)
    if args.out is not None:
        save_checkpoint(args.out, model)


if __name__ == "__main__":
    main()
