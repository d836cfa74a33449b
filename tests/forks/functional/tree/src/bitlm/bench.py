"""What the server works on: a dict with a model in it, and functions that change the dict.

Keys: model, rows, train (TrainConfig), opt (optim.State), gate, step. Callers hold `lock` themselves.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitlm import gate as gates
from bitlm.bits import bits_to_text, cut_rows, text_to_bits
from bitlm.config import ModelConfig, TrainConfig, plain
from bitlm.grow import GROW
from bitlm.loop import bit_loss, mean_loss, micro_batches
from bitlm.model import BitLM
from bitlm.optim import begin, current_lr, optimise

SCHEDULE_STEPS = 100

Bench = dict[str, Any]


def new_bench(limit: float = 2.0) -> Bench:
    return {"model": None, "rows": None, "opt": None, "step": 0, "gate": gates.Gate(limit), "lock": threading.RLock()}


def init(bench: Bench, text: str, model: ModelConfig, train: TrainConfig) -> dict[str, Any]:
    torch.manual_seed(train.seed)
    bench["rows"] = cut_rows(text_to_bits(text), model.max_seq_len)
    bench["train"] = train
    bench["gate"] = gates.reopen(bench["gate"])
    bench["step"] = 0
    install(bench, BitLM(model))
    return look(bench)


def install(bench: Bench, model: BitLM) -> None:
    """Put a model in, with an optimizer of its own."""
    train: TrainConfig = bench["train"]
    bench["model"] = model
    bench["opt"] = begin(
        model, SCHEDULE_STEPS, lr=train.lr, weight_decay=train.weight_decay, clip=train.clip
    )


def train_step(bench: Bench, bits: Tensor) -> dict[str, float]:
    model: BitLM = bench["model"]
    model.train()
    loss = bit_loss(model(bits)[0], bits)
    bench["gate"] = gates.judge(bench["gate"], loss.item())
    if bench["gate"].shut:
        raise gates.Withheld(f"training is stopped: the loss was {loss.item():.3f}, the limit is {bench['gate'].limit}")
    norm = optimise(model, loss, bench["opt"])
    bench["step"] += 1
    return {"step": bench["step"], "loss": loss.item(), "norm": norm, "lr": current_lr(bench["opt"])}


def train(bench: Bench) -> list[dict[str, float]]:
    """All of the plan: every epoch, extra steps too."""
    cfg: TrainConfig = bench["train"]
    done = []
    for _ in range(cfg.epochs):
        for bits in micro_batches(bench["rows"], cfg.extra_steps):
            done.append(train_step(bench, bits))
    return done


def scale_up(bench: Bench, what: str) -> dict[str, Any]:
    if what not in GROW:
        raise ValueError(f"can grow {', '.join(GROW)}, not {what!r}")
    install(bench, GROW[what](bench["model"]))
    return look(bench)


def save(bench: Bench, path: Path) -> None:
    torch.save(
        {
            "model_config": plain(bench["model"].cfg),
            "train_config": plain(bench["train"]),
            "weights": bench["model"].state_dict(),
            "moments": bench["opt"]["optimizer"].state_dict()["state"],
            "gate": gates.to_state(bench["gate"]),
            "step": bench["step"],
        },
        path,
    )


def download(bench: Bench, path: Path, text: str, epochs: int | None = None) -> dict[str, Any]:
    """Go on from a saved model, on this text."""
    saved = torch.load(path, weights_only=True)
    model = BitLM(ModelConfig(**saved["model_config"]))
    model.load_state_dict(saved["weights"])
    cfg = TrainConfig(**saved["train_config"])
    bench["train"] = cfg if epochs is None else replace(cfg, epochs=epochs)
    bench["rows"] = cut_rows(text_to_bits(text), model.cfg.max_seq_len)
    bench["gate"] = gates.from_state(saved["gate"])
    bench["step"] = saved["step"]
    install(bench, model)
    adamw = bench["opt"]["optimizer"]
    adamw.load_state_dict({"state": saved["moments"], "param_groups": adamw.state_dict()["param_groups"]})
    return look(bench)


def validate(bench: Bench, text: str) -> float:
    return mean_loss(bench["model"], cut_rows(text_to_bits(text), bench["model"].cfg.max_seq_len))


@torch.no_grad()
def infer(bench: Bench, prompt: str, count: int = 9) -> dict[str, Any]:
    """The likeliest next bits, one after the other."""
    bits = text_to_bits(prompt)
    for _ in range(count):
        window = torch.tensor([bits[-bench["model"].cfg.max_seq_len :]])
        logits, info = gates.safe_forward(bench["model"], window, c_floor=0.0, s_floor=0.0)
        bits.append(int(logits[0, -1].argmax()))
    new = bits[-count:]
    try:
        text = bits_to_text(new)
    except ValueError:
        text = None
    return {"bits": new, "text": text, "symbiosis": info["symbiosis"].item()}


def look(bench: Bench) -> dict[str, Any]:
    if bench["model"] is None:
        return {"ready": False}
    return {
        "ready": True,
        "step": bench["step"],
        "model": plain(bench["model"].cfg),
        "train": plain(bench["train"]),
        "lr": current_lr(bench["opt"]),
        "shut": bench["gate"].shut,
    }
