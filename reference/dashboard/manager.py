"""One model, trained and asked on request: what the dashboard and the MCP server share."""

import math
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from bit_transformer.checkpoint import load_checkpoint, read_content, save_checkpoint
from bit_transformer.model import BitTransformerLM
from bit_transformer.optimization import configure_optimizer
from bit_transformer.safety import SafetyError, SafetyGate, hil_safe_inference
from bit_transformer.scale import double_layers, double_length, double_width
from bit_transformer.training import next_bit_loss, planned_updates, with_extra_steps

DOUBLE: dict[str, Callable[[BitTransformerLM], BitTransformerLM]] = {
    "width": double_width,
    "layers": double_layers,
    "length": double_length,
}
SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")  # none that leads elsewhere
DEVICES = re.compile(r"(con|prn|aux|nul|(com|lpt)\d)(\..*)?", re.IGNORECASE)  # which Windows takes for no file
LONGEST_NAME = 100


class NotReadyError(RuntimeError):
    """There is no model yet, or no data to train it on."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What a run does: `rows` in micro-batches, `epochs` times, the last of an epoch extra_steps times more."""

    rows: int
    batch_size: int = 8
    epochs: int = 1
    extra_steps: int = 0
    lr: float = 1e-3
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        for name, least in {"rows": 1, "batch_size": 1, "epochs": 1, "extra_steps": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    @property
    def updates(self) -> int:
        """The optimizer updates that carry the plan out."""
        return planned_updates(self.epochs, math.ceil(self.rows / self.batch_size), extra_steps=self.extra_steps)


class ModelManager:
    """Holds a model with its optimizer, schedule, data and safety gate; its methods take turns.

    status alone waits for none. A request that cannot be met leaves all as it was; a run that ends early
    keeps the updates that it made. Snapshots are files in one folder. loss_threshold is the gate's, in
    nats a bit; an answer whose complexity or symbiosis is under its floor is withheld.
    """

    def __init__(
        self,
        snapshots: Path | str = "snapshots",
        loss_threshold: float = 2.0,
        c_floor: float = 0.0,
        s_floor: float = 0.0,
    ) -> None:
        self.snapshots = Path(snapshots)
        self.c_floor = c_floor
        self.s_floor = s_floor
        self.gate = SafetyGate(loss_threshold)
        self.model: BitTransformerLM | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
        self.data: Tensor | None = None
        self.validation: Tensor | None = None
        self.plan: TrainingPlan | None = None
        self.step = 0
        self.history: deque[dict[str, float]] = deque(maxlen=1000)
        self._lock = RLock()
        self._seen: dict[str, Any] = {"ready": False}

    def init(
        self, data: Tensor, *, validation: Tensor | None = None, plan: dict[str, Any] | None = None, **config: Any
    ) -> dict[str, Any]:
        """Make a model of this configuration, to be trained on rows of bits [rows, T]; return the status.

        `plan` holds fields of TrainingPlan. The gate judges by the loss on the validation rows, or,
        without any, by the loss of each micro-batch before the model learns from it.
        """
        with self._replacing():
            plan = TrainingPlan(**{**(plan or {}), "rows": len(data)})
            self.model = BitTransformerLM(**config)
            if self.model.contexts is not None:
                self.model.contexts.count(data)
            self.data, self.validation, self.plan = data, validation, plan
            self.optimizer, self.scheduler = configure_optimizer(
                self.model, lr=plan.lr, weight_decay=plan.weight_decay, total_steps=plan.updates
            )
            self.step = 0
            self.history.clear()
            self.gate.reset()
            return self.status()

    def train_step(self, bits: Tensor) -> dict[str, float]:
        """Make one update on a micro-batch [rows, T]; return the record of it.

        Raises SafetyError, and makes no update, once the gate has tripped.
        """
        with self.turn():
            model = self._ready_model()
            model.train()
            logits, telemetry = model(bits)
            loss = next_bit_loss(logits, bits)
            val_loss = loss.item() if self.validation is None else self.evaluate(self.validation)
            if not self.gate.allows(val_loss):
                raise SafetyError(f"training stopped: validation loss {val_loss:.4f} over {self.gate.threshold}")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            lr = self.scheduler.get_last_lr()[0]
            self.optimizer.step()
            if self.scheduler.last_epoch + 1 < self.plan.updates:  # the plan ends at the floor, and stays there
                self.scheduler.step()
            self.optimizer.zero_grad()
            self.step += 1
            scores = {name: telemetry[name].mean().item() for name in ("negentropy", "lz_complexity", "symbiosis")}
            self.history.append({"step": self.step, "loss": loss.item(), "val_loss": val_loss, "lr": lr, **scores})
            self.status()  # what others see as long as this goes on
            return self.history[-1]

    def train(self, *, goes_on: Callable[[Tensor], bool] = lambda _: True) -> list[dict[str, float]]:
        """Carry the plan out on the data, while goes_on(micro-batch) says so; return the records of its updates."""
        with self._lock:
            self._ready_model()
            if self.data is None:
                raise NotReadyError("no data to train on: give some with init or download")
            records = []
            for _ in range(self.plan.epochs):
                batches = self.data[torch.randperm(len(self.data))].split(self.plan.batch_size)
                batches = takewhile(goes_on, with_extra_steps(batches, self.plan.extra_steps))
                records += [self.train_step(batch) for batch in batches]
            return records

    def scale_up(self, dimension: str, *, plan: dict[str, Any] | None = None) -> dict[str, Any]:
        """Double the model's "width", "layers" or "length", to train on by the plan, changed where given."""
        if dimension not in DOUBLE:
            raise ValueError(f"dimension must be one of {', '.join(DOUBLE)}, got {dimension!r}")
        with self._replacing():
            model = self._ready_model()
            plan = replace(self.plan, **{**(plan or {}), "rows": self.plan.rows})
            self.model, self.plan = DOUBLE[dimension](model), plan
            self.optimizer, self.scheduler = configure_optimizer(
                self.model, lr=plan.lr, weight_decay=plan.weight_decay, total_steps=plan.updates
            )
            return self.status()

    def save(self, name: str) -> Path:
        """Write a snapshot; return its file."""
        with self._lock:
            path, model = self._snapshot(name), self._ready_model()
            state = {"plan": asdict(self.plan), "step": self.step, "gate": self.gate.state_dict()}
            save_checkpoint(path, model, self.optimizer, **state)
            return path

    def download(self, name: str, data: Tensor | None = None, *, plan: dict[str, Any] | None = None) -> dict[str, Any]:
        """Go on from a snapshot, by its plan where `plan` does not change it; return the status.

        The optimizer keeps the moments that it had. Without data the model answers, and trains on
        what train_step is given. Raises FileNotFoundError where there is no such snapshot.
        """
        with self._replacing():
            snapshot = load_checkpoint(self.snapshot_file(name))
            extra = snapshot["extra"]
            changes = {**(plan or {}), "rows": extra["plan"]["rows"] if data is None else len(data)}
            plan = TrainingPlan(**{**extra["plan"], **changes})
            self.model, self.data, self.validation, self.plan = snapshot["model"], data, None, plan
            self.optimizer, self.scheduler = configure_optimizer(
                self.model, lr=plan.lr, weight_decay=plan.weight_decay, total_steps=plan.updates
            )
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": snapshot["optimizer"]["state"], "param_groups": groups})
            self.step = extra["step"]
            self.history.clear()
            self.gate.load_state_dict(extra["gate"])
            return self.status()

    def evaluate(self, rows: Tensor) -> float:
        """The mean loss in nats a bit on rows [rows, T], by micro-batches of the plan's size."""
        with self._lock:
            model = self._ready_model()
            was_training = model.training
            model.eval()
            with torch.no_grad():
                batches = rows.split(self.plan.batch_size)
                total = sum(next_bit_loss(model(batch)[0], batch).item() * len(batch) for batch in batches)
            model.train(was_training)
            return total / len(rows)

    def infer(self, bits: Tensor) -> dict[str, Any]:
        """Predict the bit after each row [rows, T]: the bits, their probabilities, and the K/C/S scores.

        Raises SafetyError where a score is under its floor.
        """
        with self._lock:
            logits, telemetry = hil_safe_inference(self._ready_model(), bits, self.c_floor, self.s_floor)
            probability, bit = logits[:, -1].softmax(-1).max(-1)
            scores = {name: telemetry[name].tolist() for name in ("negentropy", "lz_complexity", "symbiosis")}
            return {"next_bit": bit.tolist(), "probability": probability.tolist(), **scores}

    def status(self) -> dict[str, Any]:
        """What there is, as values that JSON can hold; during another request, what its last update left."""
        if self._lock.acquire(blocking=False):
            try:
                self._seen = self._look()
            finally:
                self._lock.release()
        return self._seen

    @property
    def config(self) -> dict[str, Any]:
        """The model's configuration."""
        return self._ready_model().config

    def snapshot_file(self, name: str) -> Path:
        """The file of a snapshot. Raises FileNotFoundError where there is none."""
        path = self._snapshot(name)
        if not path.exists():
            raise FileNotFoundError(f"there is no snapshot {name!r}")
        return path

    def snapshot_settings(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The configuration of the model in a snapshot, and the plan, without making the model."""
        content = read_content(self.snapshot_file(name))
        return dict(content["config"]), dict(content["extra"]["plan"])

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A turn, in which no other request comes between."""
        with self._lock:
            try:
                yield
            except BaseException:
                if self.optimizer is not None:  # half a backward pass is no gradient to go on from
                    self.optimizer.zero_grad()
                raise

    @contextmanager
    def _replacing(self) -> Iterator[None]:
        """A turn that replaces all, or, where anything is raised, nothing."""
        with self._lock:
            before, gate = {**vars(self), "history": self.history.copy()}, self.gate.state_dict()
            try:
                yield
            except BaseException:
                vars(self).update(before)
                self.gate.load_state_dict(gate)
                raise

    def _look(self) -> dict[str, Any]:
        with self._lock:
            if self.model is None:
                return {"ready": False}
            return {
                "ready": True,
                "step": self.step,
                "config": dict(self.model.config),
                "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
                "plan": asdict(self.plan),
                "lr": self.scheduler.get_last_lr()[0],
                "stopped": self.gate.tripped,
                "last": self.history[-1] if self.history else None,
            }

    def _ready_model(self) -> BitTransformerLM:
        if self.model is None:
            raise NotReadyError("there is no model yet: call init or download first")
        return self.model

    def _snapshot(self, name: str) -> Path:
        # Names come over the network: none may lead out of the folder, nor to what is no plain file.
        if len(name) > LONGEST_NAME or not SNAPSHOT_NAME.fullmatch(name) or DEVICES.fullmatch(name):
            raise ValueError(
                f"a snapshot's name is made of up to {LONGEST_NAME} ASCII letters, digits, '_', '-' and single '.' "
                f"between them, and is no device of Windows, got {name[:60]!r}"
            )
        path = self.snapshots / f"{name}.pt"
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return path
        if not stat.S_ISREG(mode):
            raise ValueError(f"snapshot {name!r} is a link, a folder or a pipe, and no file of its own")
        return path
