"""The model manager and a small web dashboard (WSGI, no framework needed).

    python -m bit_transformer.dashboard_app --port 5000
"""

import argparse
import json
import math
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Optional
from wsgiref.simple_server import make_server

import torch
from torch import Tensor

from .bit_io import rows_from_bits, text_to_bits
from .model import BitTransformerLM
from .optimization import configure_optimizer
from .safety import SafetyGate, SafetyViolation, hil_safe_inference
from .training import evaluate, next_bit_loss, train_loop


@dataclass(frozen=True)
class Plan:
    """What a training request asks for."""

    rows: int
    batch_size: int = 8
    epochs: int = 1
    extra_steps: int = 0
    accum_steps: int = 1
    lr: float = 1e-3

    def updates(self) -> int:
        micro = math.ceil(self.rows / self.batch_size) + self.extra_steps
        return self.epochs * math.ceil(micro / self.accum_steps)


class ModelManager:
    """One model and everything that belongs to its training. All methods are thread-safe."""

    def __init__(self, snapshot_dir: Path = Path("snapshots"), max_val_loss: float = 1.5) -> None:
        self.snapshot_dir = Path(snapshot_dir)
        self.lock = threading.RLock()
        self.gate = SafetyGate(max_val_loss)
        self.model: Optional[BitTransformerLM] = None
        self.data: Optional[Tensor] = None
        self.plan: Optional[Plan] = None
        self.optimizer = None
        self.scheduler = None
        self.updates = 0

    def init(self, text: str, plan: Optional[Dict[str, Any]] = None, **config: Any) -> Dict[str, Any]:
        """Build a model of this configuration to be trained on ``text``."""
        with self.lock:
            self.model = BitTransformerLM(**config)
            self.data = rows_from_bits(text_to_bits(text), self.model.max_seq_len)
            self.plan = Plan(rows=len(self.data), **(plan or {}))
            self.optimizer, self.scheduler = configure_optimizer(
                self.model, lr=self.plan.lr, total_steps=self.plan.updates()
            )
            self.gate.reset()
            self.updates = 0
            return self.status()

    def train_step(self, text: str) -> Dict[str, float]:
        """One update on a piece of text, unless the gate says no."""
        with self.lock:
            model = self._require_model()
            model.train()
            bits = text_to_bits(text)
            batch = rows_from_bits(bits, min(len(bits), model.max_seq_len))
            logits, telemetry = model(batch)
            loss = next_bit_loss(logits, batch)
            if self.gate.should_stop(loss.item()):
                raise SafetyViolation("the gate is closed at a loss of %.3f" % loss.item())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.scheduler.last_epoch < self.scheduler.total_steps - 1:
                self.scheduler.step()
            self.updates += 1
            return {
                "update": self.updates,
                "loss": loss.item(),
                "lr": self.scheduler.get_last_lr()[0],
                "symbiosis": telemetry["symbiosis"].mean().item(),
            }

    def train(self) -> List[Dict[str, float]]:
        """Carry out the plan."""
        with self.lock:
            model, plan = self._require_model(), self.plan
            if self.gate.should_stop(evaluate(model, self.data, plan.batch_size)):
                raise SafetyViolation("the gate is closed at a loss of %.3f" % self.gate.last)
            history = train_loop(
                model,
                self.data,
                epochs=plan.epochs,
                extra_steps=plan.extra_steps,
                batch_size=plan.batch_size,
                accum_steps=plan.accum_steps,
                optimizer=self.optimizer,
                scheduler=self.scheduler,
            )
            self.updates += plan.updates()
            return history

    def scale_up(self, dimension: str, plan: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Double ``length``, ``layers`` or ``width``."""
        if dimension not in ("length", "layers", "width"):
            raise ValueError("cannot scale %r" % dimension)
        with self.lock:
            self.model = getattr(self._require_model(), "double_" + dimension)()
            self.plan = replace(self.plan, **(plan or {}))
            self.optimizer, self.scheduler = configure_optimizer(
                self.model, lr=self.plan.lr, total_steps=self.plan.updates()
            )
            return self.status()

    def save(self, name: str) -> str:
        with self.lock:
            self.snapshot_dir.mkdir(parents=True, exist_ok=True)
            path = self._path(name)
            torch.save(
                {
                    "config": self._require_model().config,
                    "plan": asdict(self.plan),
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "scheduler": self.scheduler.state_dict(),
                    "gate": self.gate.state_dict(),
                    "updates": self.updates,
                },
                path,
            )
            return str(path)

    def download(self, name: str, text: str, plan: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Continue from a snapshot, on new text and perhaps by another plan."""
        with self.lock:
            snapshot = torch.load(self._path(name), weights_only=True)
            self.model = BitTransformerLM(**snapshot["config"])
            self.model.load_state_dict(snapshot["model"])
            self.data = rows_from_bits(text_to_bits(text), self.model.max_seq_len)
            self.plan = Plan(**{**snapshot["plan"], **(plan or {}), "rows": len(self.data)})
            self.optimizer, self.scheduler = configure_optimizer(
                self.model, lr=self.plan.lr, total_steps=self.plan.updates()
            )
            self.optimizer.load_state_dict(snapshot["optimizer"])
            self.scheduler.load_state_dict(snapshot["scheduler"])
            self.gate.load_state_dict(snapshot["gate"])
            self.updates = snapshot["updates"]
            return self.status()

    def infer(self, text: str) -> Dict[str, Any]:
        """The probability that the bit after ``text`` is a one."""
        with self.lock:
            bits = torch.tensor([text_to_bits(text)[-self._require_model().max_seq_len :]])
            logits, telemetry = hil_safe_inference(self.model, bits, c_floor=0.0, s_floor=0.0)
            return {
                "p_one": logits[0, -1].softmax(-1)[1].item(),
                "symbiosis": telemetry["symbiosis"].item(),
            }

    def status(self) -> Dict[str, Any]:
        with self.lock:
            if self.model is None:
                return {"ready": False}
            return {
                "ready": True,
                "updates": self.updates,
                "config": self.model.config,
                "plan": asdict(self.plan),
                "lr": self.scheduler.get_last_lr()[0],
                "gate_closed": self.gate.tripped,
            }

    def _require_model(self) -> BitTransformerLM:
        if self.model is None:
            raise RuntimeError("no model yet, call init first")
        return self.model

    def _path(self, name: str) -> Path:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError("bad snapshot name")
        return self.snapshot_dir / (name + ".pt")


ACTIONS = ("init", "train_step", "train", "scale_up", "save", "download", "infer", "status")


def make_app(manager: ModelManager):
    """``POST /<action>`` with a JSON object of arguments."""

    def app(environ, start_response):
        action = environ["PATH_INFO"].strip("/") or "status"
        try:
            if action not in ACTIONS:
                raise LookupError("no such action: " + action)
            size = int(environ.get("CONTENT_LENGTH") or 0)
            arguments = json.loads(environ["wsgi.input"].read(size) or b"{}")
            status, content = "200 OK", getattr(manager, action)(**arguments)
        except (LookupError, TypeError, ValueError, RuntimeError, OSError) as error:
            status, content = "400 Bad Request", {"error": str(error)}
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(content).encode()]

    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)
    args = parser.parse_args()
    with make_server(args.host, args.port, make_app(ModelManager())) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
