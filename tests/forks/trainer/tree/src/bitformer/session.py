"""The model behind the HTTP server: one at a time, one request at a time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Dict, Optional

import torch
from torch import Tensor

from .codec import text_to_bits
from .config import ModelConfig, TrainConfig
from .growth import grow
from .guard import SafetyGate
from .network import BitTransformerLM
from .optim import build_optimizer
from .trainer import ROWS_PER_STEP, bit_loss


class NoModel(RuntimeError):
    pass


def text_rows(text: str, length: int) -> Tensor:
    bits = torch.tensor(text_to_bits(text))
    if bits.numel() < length:
        raise ValueError(f"the text has {bits.numel()} bits, one row needs {length}")
    return bits[: bits.numel() // length * length].view(-1, length)


class ModelManager:
    def __init__(self, folder: str = "snapshots", max_loss: float = 2.0) -> None:
        self.folder = Path(folder)
        self.gate = SafetyGate(max_loss)
        self.model: Optional[BitTransformerLM] = None
        self.rows: Optional[Tensor] = None
        self.cfg = TrainConfig()
        self.steps = 0
        self._lock = threading.RLock()

    # -- requests -------------------------------------------------------------

    def init(
        self,
        rows: Tensor,
        model: Optional[Dict[str, Any]] = None,
        train: Optional[Dict[str, Any]] = None,
    ) -> Dict[str, Any]:
        """Start from scratch: a new model, to be trained on rows as `train` says."""
        with self._lock:
            self.cfg = TrainConfig(**(train or {}))
            self.rows = rows
            self._install(BitTransformerLM(ModelConfig(**(model or {}))))
            self.steps = 0
            self.gate.reopen()
            return self.status()

    def train_step(self, batch: Tensor) -> Dict[str, float]:
        with self._lock:
            model = self._require()
            model.train()
            logits, _ = model(batch, causal=self.cfg.causal)
            loss = bit_loss(logits, batch)
            self.gate.check(loss.item())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), self.cfg.grad_clip)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.steps += 1
            return {"step": self.steps, "loss": loss.item(), "lr": self._lr()}

    def train(self) -> Dict[str, float]:
        """The whole plan: cfg.epochs over the rows, extra steps included."""
        with self._lock:
            self._require()
            if self.rows is None:
                raise NoModel("no rows to train on")
            last: Dict[str, float] = {}
            for _ in range(self.cfg.epochs):
                batches = list(self.rows.split(ROWS_PER_STEP))
                batches += batches[-1:] * self.cfg.extra_steps
                for batch in batches:
                    last = self.train_step(batch)
            return last

    def scale_up(self, what: str) -> Dict[str, Any]:
        with self._lock:
            self._install(grow(self._require(), what))
            return self.status()

    def save(self, name: str) -> str:
        with self._lock:
            model = self._require()
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{Path(name).name}.pt"
            torch.save(
                {
                    "model_cfg": model.cfg.to_dict(),
                    "train_cfg": self.cfg.to_dict(),
                    "weights": model.state_dict(),
                    "moments": self.optimizer.state_dict()["state"],
                    "gate": self.gate.state_dict(),
                    "steps": self.steps,
                },
                path,
            )
            return str(path)

    def download(self, name: str, rows: Tensor) -> Dict[str, Any]:
        """Fetch a snapshot and go on from it, on these rows."""
        with self._lock:
            snap = torch.load(
                self.folder / f"{Path(name).name}.pt",
                map_location="cpu",
                weights_only=True,
            )
            model = BitTransformerLM(ModelConfig(**snap["model_cfg"]))
            model.load_state_dict(snap["weights"])
            self.cfg = TrainConfig(**snap["train_cfg"])
            self.rows = rows
            self._install(model)
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict(
                {"state": snap["moments"], "param_groups": groups}
            )
            self.gate.load_state_dict(snap["gate"])
            self.steps = snap["steps"]
            return self.status()

    def predict(self, bits: Tensor) -> Dict[str, Any]:
        with self._lock:
            model = self._require().eval()
            with torch.no_grad():
                logits, telemetry = model(bits)
            probs = logits[:, -1].softmax(-1)
            return {
                "bit": probs.argmax(-1).tolist(),
                "probability": probs.max(-1).values.tolist(),
                "complexity": telemetry["lz_complexity"].tolist(),
            }

    def status(self) -> Dict[str, Any]:
        with self._lock:
            if self.model is None:
                return {"ready": False}
            return {
                "ready": True,
                "steps": self.steps,
                "lr": self._lr(),
                "halted": self.gate.closed,
                "model": self.model.cfg.to_dict(),
                "train": self.cfg.to_dict(),
            }

    # -- internals ------------------------------------------------------------

    def _install(self, model: BitTransformerLM) -> None:
        self.model = model
        self.optimizer, self.schedule = build_optimizer(
            model, self.cfg.lr, self.cfg.weight_decay, total_steps=100
        )

    def _require(self) -> BitTransformerLM:
        if self.model is None:
            raise NoModel("call /init or /download first")
        return self.model

    def _lr(self) -> float:
        return self.schedule.get_last_lr()[0]
