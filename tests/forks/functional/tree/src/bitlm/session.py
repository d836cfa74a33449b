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

Session = dict[str, Any]


def new_session(limit: float = 2.0) -> Session:
    return {"model": None, "rows": None, "opt": None, "step": 0, "gate": gates.Gate(limit), "lock": threading.RLock()}


def init(session: Session, text: str, model: ModelConfig, train: TrainConfig) -> dict[str, Any]:
    torch.manual_seed(train.seed)
    session["rows"] = cut_rows(text_to_bits(text), model.max_seq_len)
    session["train"] = train
    session["gate"] = gates.reopen(session["gate"])
    session["step"] = 0
    install(session, BitLM(model))
    return look(session)


def install(session: Session, model: BitLM) -> None:
    """Put a model in, with an optimizer of its own."""
    train: TrainConfig = session["train"]
    session["model"] = model
    session["opt"] = begin(
        model, SCHEDULE_STEPS, lr=train.lr, weight_decay=train.weight_decay, clip=train.clip
    )


def train_step(session: Session, bits: Tensor) -> dict[str, float]:
    model: BitLM = session["model"]
    model.train()
    loss = bit_loss(model(bits)[0], bits)
    session["gate"] = gates.judge(session["gate"], loss.item())
    if session["gate"].shut:
        raise gates.Withheld(f"training is stopped: the loss was {loss.item():.3f}, the limit is {session['gate'].limit}")
    norm = optimise(model, loss, session["opt"])
    session["step"] += 1
    return {"step": session["step"], "loss": loss.item(), "norm": norm, "lr": current_lr(session["opt"])}


def train(session: Session) -> list[dict[str, float]]:
    """All of the plan: every epoch, extra steps too."""
    cfg: TrainConfig = session["train"]
    done = []
    for _ in range(cfg.epochs):
        for bits in micro_batches(session["rows"], cfg.extra_steps):
            done.append(train_step(session, bits))
    return done


def scale_up(session: Session, what: str) -> dict[str, Any]:
    if what not in GROW:
        raise ValueError(f"can grow {', '.join(GROW)}, not {what!r}")
    install(session, GROW[what](session["model"]))
    return look(session)


def save(session: Session, path: Path) -> None:
    torch.save(
        {
            "model_config": plain(session["model"].cfg),
            "train_config": plain(session["train"]),
            "weights": session["model"].state_dict(),
            "moments": session["opt"]["optimizer"].state_dict()["state"],
            "gate": gates.to_state(session["gate"]),
            "step": session["step"],
        },
        path,
    )


def download(session: Session, path: Path, text: str, epochs: int | None = None) -> dict[str, Any]:
    """Go on from a saved model, on this text."""
    saved = torch.load(path, weights_only=True)
    model = BitLM(ModelConfig(**saved["model_config"]))
    model.load_state_dict(saved["weights"])
    cfg = TrainConfig(**saved["train_config"])
    session["train"] = cfg if epochs is None else replace(cfg, epochs=epochs)
    session["rows"] = cut_rows(text_to_bits(text), model.cfg.max_seq_len)
    session["gate"] = gates.from_state(saved["gate"])
    session["step"] = saved["step"]
    install(session, model)
    adamw = session["opt"]["optimizer"]
    adamw.load_state_dict({"state": saved["moments"], "param_groups": adamw.state_dict()["param_groups"]})
    return look(session)


def validate(session: Session, text: str) -> float:
    return mean_loss(session["model"], cut_rows(text_to_bits(text), session["model"].cfg.max_seq_len))


@torch.no_grad()
def infer(session: Session, prompt: str, count: int = 9) -> dict[str, Any]:
    """The likeliest next bits, one after the other."""
    bits = text_to_bits(prompt)
    for _ in range(count):
        window = torch.tensor([bits[-session["model"].cfg.max_seq_len :]])
        logits, info = gates.safe_forward(session["model"], window, c_floor=0.0, s_floor=0.0)
        bits.append(int(logits[0, -1].argmax()))
    new = bits[-count:]
    try:
        text = bits_to_text(new)
    except ValueError:
        text = None
    return {"bits": new, "text": text, "symbiosis": info["symbiosis"].item()}


def look(session: Session) -> dict[str, Any]:
    if session["model"] is None:
        return {"ready": False}
    return {
        "ready": True,
        "step": session["step"],
        "model": plain(session["model"].cfg),
        "train": plain(session["train"]),
        "lr": current_lr(session["opt"]),
        "shut": session["gate"].shut,
    }
