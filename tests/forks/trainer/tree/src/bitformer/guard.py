"""Stops a run that goes wrong before it wastes the night."""

from __future__ import annotations

from typing import Any, Dict


class TrainingHalted(RuntimeError):
    pass


class SafetyGate:
    """Closes when the validation loss is above `max_loss` (nats per bit).

    Stays closed until somebody calls `reopen`.
    """

    def __init__(self, max_loss: float = 2.0) -> None:
        self.max_loss = max_loss
        self.closed = False

    def check(self, val_loss: float) -> None:
        """Raise TrainingHalted if training must not go on."""
        if not (val_loss <= self.max_loss):  # NaN ends up here as well
            self.closed = True
        if self.closed:
            raise TrainingHalted(
                f"validation loss {val_loss:.4f}, allowed are {self.max_loss:.4f}"
            )

    def reopen(self) -> None:
        self.closed = False

    def state_dict(self) -> Dict[str, Any]:
        return {"closed": self.closed}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        self.closed = bool(state["closed"])
