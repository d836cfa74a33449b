"""Learning rates that wait for the validation loss."""

from typing import Any

from torch.optim import Optimizer

GAIN = 1e-3  # of the best loss, that an evaluation must win to count as progress


class ProgressivePlateau:
    """Linear warm-up to the optimizer's rates, hold, then halve at each plateau, down to a floor.

    A plateau is `patience` evaluations in a row that do not win a thousandth of the best loss. step()
    follows each update, evaluated() each evaluation once the warm-up is over; state_dict() is all
    that a checkpoint needs.
    """

    def __init__(self, optimizer: Optimizer, warmup: int = 100, patience: int = 3, floor: float = 1e-5) -> None:
        self.optimizer = optimizer
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.warmup, self.patience, self.floor = warmup, patience, floor
        self.updates = self.drops = self.waited = 0
        self.best: float | None = None
        self._set()

    def step(self) -> None:
        """Count an update, and set the rate of the next."""
        self.updates += 1
        self._set()

    def evaluated(self, loss: float) -> bool:
        """Take note of a validation loss; return whether the rate was halved for it."""
        if self.updates < self.warmup:
            return False
        if self.best is None or loss < self.best * (1 - GAIN):
            self.best, self.waited = loss, 0
            return False
        self.waited += 1
        if self.waited < self.patience or self.get_last_lr()[0] <= self.floor:
            return False
        self.drops, self.waited = self.drops + 1, 0
        self._set()
        return True

    def get_last_lr(self) -> list[float]:
        """The rate of the coming update, of each group of parameters."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the schedule."""
        return {"updates": self.updates, "drops": self.drops, "waited": self.waited, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what state_dict returned."""
        self.updates, self.drops, self.waited = state["updates"], state["drops"], state["waited"]
        self.best = state["best"]
        self._set()

    def _set(self) -> None:
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            held = max(peak / 2**self.drops, min(self.floor, peak))
            group["lr"] = held * min(1.0, (self.updates + 1) / max(self.warmup, 1))
