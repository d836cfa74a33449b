"""bitformer-train: every field of ModelConfig and TrainConfig is an option."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import random
import typing
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Type

import torch

from .config import ModelConfig, TrainConfig
from .network import BitTransformerLM
from .session import text_rows
from .trainer import Trainer


def add_fields(parser: argparse.ArgumentParser, cls: Type[Any]) -> None:
    hints = typing.get_type_hints(cls)
    group = parser.add_argument_group(cls.__name__)
    for f in dataclasses.fields(cls):
        kind = hints[f.name]
        inner = [t for t in typing.get_args(kind) if t is not type(None)]
        kind = inner[0] if inner else kind
        if kind is bool:
            group.add_argument(
                f"--{f.name}", action=argparse.BooleanOptionalAction, default=f.default
            )
        else:
            group.add_argument(f"--{f.name}", type=kind, default=f.default)


def pick(args: argparse.Namespace, cls: Type[Any]) -> Dict[str, Any]:
    return {f.name: getattr(args, f.name) for f in dataclasses.fields(cls)}


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(prog="bitformer-train")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    add_fields(parser, ModelConfig)
    add_fields(parser, TrainConfig)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    train_cfg = TrainConfig(**pick(args, TrainConfig))
    torch.manual_seed(train_cfg.seed)
    random.seed(train_cfg.seed)
    model = BitTransformerLM(ModelConfig(**pick(args, ModelConfig)))
    rows = text_rows(args.data.read_text(encoding="utf-8"), model.cfg.max_len)
    Trainer(model, rows, train_cfg).run()
    if args.out:
        torch.save({"cfg": model.cfg.to_dict(), "weights": model.state_dict()}, args.out)


if __name__ == "__main__":
    main()
