"""Dashboard: ModelManager keeps the model, Flask (if there) puts a few routes in front.

With MCP_SERVER_ADDR set, the routes forward to the job server instead.
"""

import json
import os
import threading
import urllib.request
from typing import Any, Dict, List, Optional

import torch
import torch.nn.functional as F

from .bit_io import bits_to_text, text_to_bits
from .model import BitTransformerLM
from .optimization import configure_optimizer
from .safety import SafetyGate, hil_safe_inference
from .scale import expand_model
from .training import train_loop

try:
    from flask import Flask, jsonify, request
except ImportError:
    Flask = None

MCP_SERVER_ADDR = os.getenv("MCP_SERVER_ADDR")


def mcp_post(path: str, data: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
    url = MCP_SERVER_ADDR.rstrip("/") + path
    req = urllib.request.Request(
        url,
        data=json.dumps(data or {}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(req) as resp:
        return json.load(resp)


class ModelManager:
    """Holds the model and its optimizer. All public methods take the lock."""

    def __init__(
        self,
        snapshot_dir: Optional[str] = None,
        *,
        c_floor: float = 0.3,
        s_floor: float = 0.5,
    ) -> None:
        self.snapshot_dir = snapshot_dir or os.getenv("SNAPSHOT_DIR", "snapshots")
        self.c_floor = c_floor
        self.s_floor = s_floor
        self.gate = SafetyGate(c_floor=c_floor, s_floor=s_floor)
        self.model: Optional[BitTransformerLM] = None
        self.optimizer = None
        self.scheduler = None
        self.total_steps = 0
        self.compression = False
        self.causal = True
        self.history: List[Dict[str, float]] = []
        self.lock = threading.RLock()

    def init_model(self, params: Dict[str, Any]) -> None:
        with self.lock:
            self.model = BitTransformerLM(**params)
            self.optimizer, self.scheduler = configure_optimizer(self.model, lr=1e-3)
            self.total_steps = 0
            self.history = []
            self.gate = SafetyGate(c_floor=self.c_floor, s_floor=self.s_floor)

    def set_diffusion(self, flag: bool) -> None:
        with self.lock:
            self.causal = not flag

    def train_step(self, bits: torch.Tensor) -> float:
        """One update on whatever the client sends."""
        with self.lock:
            self._check()
            self.model.train()
            logits, tele = self.model(bits, causal=self.causal)
            pred = logits[:, :-1].reshape(-1, 2)
            loss = F.cross_entropy(pred, bits[:, 1:].reshape(-1))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
            self.total_steps += 1
            self.history.append(
                {
                    "loss": loss.item(),
                    "K": tele["negentropy_logits"].mean().item(),
                    "C": tele["lz_complexity_logits"].mean().item(),
                    "S": tele["symbiosis_score"].mean().item(),
                }
            )
            return loss.item()

    def train_epochs(
        self,
        bits: torch.Tensor,
        *,
        epochs: int = 1,
        batch_size: int = 8,
        accum_steps: int = 1,
        compress_prob: float = 0.5,
        direct_prob: float = 0.0,
    ) -> List[Dict[str, float]]:
        """Train on rows, going on with the optimizer and the schedule that are there."""
        with self.lock:
            self._check()
            metrics = train_loop(
                self.model,
                bits,
                epochs=epochs,
                batch_size=batch_size,
                accum_steps=accum_steps,
                compress_prob=compress_prob if self.compression else 0.0,
                direct_prob=direct_prob,
                forward_kwargs={"causal": self.causal},
                optimizer=self.optimizer,
                scheduler=self.scheduler,
            )
            self.history += [{"loss": m["raw_loss"]} for m in metrics]
            return metrics

    def scale_up(self, width_mult: float = 1.0, layers_mult: float = 2.0) -> None:
        with self.lock:
            self._check()
            params = dict(self.model.params)
            params["d_model"] = int(params["d_model"] * width_mult)
            params["dim_feedforward"] = int(params["dim_feedforward"] * width_mult)
            params["num_layers"] = int(params["num_layers"] * layers_mult)
            self.model = expand_model(self.model, **params)
            self.optimizer, self.scheduler = configure_optimizer(
                self.model, lr=1e-3, total_steps=100
            )

    def infer(self, bits: torch.Tensor) -> Dict[str, Any]:
        with self.lock:
            self._check()
            logits, tele = hil_safe_inference(
                self.model, bits, causal=self.causal, strict=False, gate=self.gate
            )
            predicted = logits[0].argmax(-1).tolist()
            return {
                "predicted": predicted,
                "text": self._try_text(predicted),
                "C": float(tele["lz_complexity_logits"].mean()),
                "S": float(tele["symbiosis_score"].mean()),
            }

    def save(self, name: str = "model") -> str:
        with self.lock:
            self._check()
            os.makedirs(self.snapshot_dir, exist_ok=True)
            path = os.path.join(self.snapshot_dir, os.path.basename(name) + ".pt")
            torch.save(
                {
                    "params": self.model.params,
                    "state_dict": self.model.state_dict(),
                    "gate": self.gate.state_dict(),
                    "total_steps": self.total_steps,
                },
                path,
            )
            return path

    def download(self, name: str = "model") -> None:
        """Go back to a snapshot. The optimizer starts anew."""
        with self.lock:
            path = os.path.join(self.snapshot_dir, os.path.basename(name) + ".pt")
            snap = torch.load(path, map_location="cpu", weights_only=True)
            self.model = BitTransformerLM(**snap["params"])
            self.model.load_state_dict(snap["state_dict"])
            self.optimizer, self.scheduler = configure_optimizer(self.model, lr=1e-3)
            self.gate.load_state_dict(snap["gate"])
            self.total_steps = snap["total_steps"]

    def status(self) -> Dict[str, Any]:
        with self.lock:
            if self.model is None:
                return {"ready": False}
            return {
                "ready": True,
                "steps": self.total_steps,
                "params": self.model.params,
                "lr": self.optimizer.param_groups[0]["lr"],
                "last": self.history[-1] if self.history else None,
            }

    def _check(self) -> None:
        if self.model is None:
            raise RuntimeError("model is not initialised")

    @staticmethod
    def _try_text(bits: List[int]) -> Optional[str]:
        try:
            return bits_to_text(bits)
        except ValueError:
            return None


def text_batch(text: str, max_len: int) -> torch.Tensor:
    return torch.tensor([text_to_bits(text)[:max_len]], dtype=torch.long)


def create_app(manager: Optional[ModelManager] = None):
    if Flask is None:
        raise SystemExit("the dashboard needs Flask: pip install flask")
    app = Flask(__name__)
    mgr = manager or ModelManager()

    @app.post("/init")
    def init():
        params = request.get_json(force=True)
        if MCP_SERVER_ADDR:
            return jsonify(mcp_post("/init", params))
        mgr.init_model(params)
        return jsonify(mgr.status())

    @app.post("/train")
    def train():
        data = request.get_json(force=True)
        if MCP_SERVER_ADDR:
            return jsonify(mcp_post("/train", data))
        rows = torch.tensor(data["bits"], dtype=torch.long)
        return jsonify(mgr.train_epochs(rows, epochs=int(data.get("epochs", 1))))

    @app.post("/scale_up")
    def scale_up():
        mgr.scale_up(**request.get_json(force=True))
        return jsonify(mgr.status())

    @app.post("/infer")
    def infer():
        data = request.get_json(force=True)
        limit = mgr.model.max_seq_len
        return jsonify(mgr.infer(text_batch(data["text"], limit)))

    @app.get("/status")
    def status():
        return jsonify(mgr.status())

    return app


if __name__ == "__main__":
    create_app().run(port=int(os.getenv("PORT", "5000")))
