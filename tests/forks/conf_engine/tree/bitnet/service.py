"""One model for the server: made, trained, grown, stored and taken up again."""
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock

import torch
import torch.nn.functional as F

from . import optim
from .data.codec import to_bits
from .nn import BitTransformerLM
from .safety import Gate


@dataclass(frozen=True)
class Plan:
    rows: int
    epochs: int = 1
    extra_steps: int = 0
    batch: int = 8
    lr: float = 1e-3
    weight_decay: float = 0.01


class Service:
    def __init__(self, folder="models", limit=2.0):
        self.folder = Path(folder)
        self.gate = Gate(limit)
        self.model = self.rows = self.plan = self.optimizer = self.schedule = None
        self.updates = 0
        self.lock = Lock()

    @contextmanager
    def busy(self):
        if not self.lock.acquire(timeout=30):
            raise TimeoutError("another request is at work")
        try:
            yield self
        finally:
            self.lock.release()

    def _take(self, model, plan):
        """A model to be trained by a plan, with a fresh optimizer."""
        self.model, self.plan = model, plan
        self.optimizer, self.schedule = optim.make(model, plan.lr, plan.weight_decay)

    def create(self, text, model=None, plan=None):
        with self.busy():
            made = BitTransformerLM(**(model or {}))
            self.rows = self._rows(text, made.conf["max_len"])
            self._take(made, Plan(len(self.rows), **(plan or {})))
            self.updates = 0
            self.gate.tripped = False

    def grow(self, name, plan=None):
        """Twice the "depth" or "max_len"; the weights that were there stay."""
        with self.busy():
            conf = {**self.model.conf, name: 2 * self.model.conf[name]}
            grown = BitTransformerLM(**conf)
            state = grown.state_dict()
            for key, old in self.model.state_dict().items():
                state[key][: len(old)] = old
            grown.load_state_dict(state)
            self._take(grown, replace(self.plan, **(plan or {})))

    def load(self, name, text, plan=None):
        with self.busy():
            stored = torch.load(self.folder / f"{Path(name).name}.pt")
            model = BitTransformerLM(**stored["model"])
            model.load_state_dict(stored["weights"])
            self.rows = self._rows(text, model.conf["max_len"])
            self._take(model, Plan(**{**stored["plan"], **(plan or {}), "rows": len(self.rows)}))
            self.updates = stored["updates"]
            self.gate.restore(stored["gate"])

    def save(self, name):
        with self.busy():
            self.folder.mkdir(parents=True, exist_ok=True)
            stored = {
                "model": self.model.conf,
                "weights": self.model.state_dict(),
                "plan": asdict(self.plan),
                "updates": self.updates,
                "gate": self.gate.state(),
            }
            torch.save(stored, self.folder / f"{Path(name).name}.pt")

    def train(self):
        """Carry the plan out on the rows; the losses of its updates."""
        with self.busy():
            losses = []
            for _ in range(self.plan.epochs):
                batches = self.rows.split(self.plan.batch)
                for batch in (*batches, *[batches[-1]] * self.plan.extra_steps):
                    losses.append(self._update(batch))
            return losses

    def _update(self, batch):
        self.model.train()
        logits, _ = self.model(batch)
        loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), batch[:, 1:])
        self.gate.check(loss.item())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.updates += 1
        return loss.item()

    @staticmethod
    def _rows(text, length):
        bits = torch.tensor(list(to_bits(text)))
        count = len(bits) // length
        if not count:
            raise ValueError(f"{len(bits)} bits fill no row of {length}")
        return bits[: count * length].view(count, length)

    def status(self):
        if self.model is None:
            return {"ready": False}
        return {
            "ready": True,
            "updates": self.updates,
            "lr": self.schedule.get_last_lr()[0],
            "stopped": self.gate.tripped,
            "plan": asdict(self.plan),
        }
