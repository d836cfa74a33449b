"""bitlm train | serve"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from bitlm.bits import cut_rows, text_to_bits
from bitlm.config import ModelConfig, TrainConfig, pick, plain
from bitlm.loop import fit
from bitlm.model import BitLM
from bitlm.server import serve


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bitlm")
    commands = parser.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="train a model on text files")
    train.add_argument("--text", type=Path, nargs="+", required=True)
    train.add_argument("--save", type=Path)
    model = train.add_argument_group("model")
    model.add_argument("--d-model", type=int, default=ModelConfig.d_model)
    model.add_argument("--nhead", type=int, default=ModelConfig.nhead)
    model.add_argument("--num-layers", type=int, default=ModelConfig.num_layers)
    model.add_argument("--max-seq-len", type=int, default=ModelConfig.max_seq_len)
    model.add_argument("--dropout", type=float, default=ModelConfig.dropout)
    model.add_argument("--window", type=int)
    model.add_argument("--lookback", type=int, default=ModelConfig.lookback)
    model.add_argument("--keep-maps", action=argparse.BooleanOptionalAction, default=ModelConfig.keep_maps)
    model.add_argument("--checkpointing", action="store_true")
    run = train.add_argument_group("training")
    run.add_argument("--epochs", type=int, default=TrainConfig.epochs)
    run.add_argument("--extra-steps", type=int, default=TrainConfig.extra_steps)
    run.add_argument("--lr", type=float, default=TrainConfig.lr)
    run.add_argument("--weight-decay", type=float, default=TrainConfig.weight_decay)
    run.add_argument("--clip", type=float, default=TrainConfig.clip)
    run.add_argument("--compress-prob", type=float, default=TrainConfig.compress_prob)
    run.add_argument("--direct-prob", type=float, default=TrainConfig.direct_prob)
    run.add_argument("--seed", type=int, default=TrainConfig.seed)

    web = commands.add_parser("serve", help="train and ask over HTTP")
    web.add_argument("--host", default="127.0.0.1")
    web.add_argument("--port", type=int, default=8043)
    return parser


def run_training(args: argparse.Namespace) -> None:
    options = vars(args)
    model_cfg, train_cfg = pick(ModelConfig, options), pick(TrainConfig, options)
    torch.manual_seed(train_cfg.seed)
    text = "".join(path.read_text(encoding="utf-8") for path in args.text)
    rows = cut_rows(text_to_bits(text), model_cfg.max_seq_len)
    model = BitLM(model_cfg)
    fit(model, rows, train_cfg, tell=lambda r: print("epoch {epoch}  loss {loss:.4f}  lr {lr:.2e}".format(**r)))
    if args.save:
        torch.save({"config": plain(model_cfg), "weights": model.state_dict()}, args.save)


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    if args.command == "train":
        run_training(args)
    else:
        serve(args.host, args.port)


if __name__ == "__main__":
    main()
