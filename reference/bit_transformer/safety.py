"""Safety: a gate that stops a training run, and inference with a human in the loop."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .model import BitTransformerLM


class SafetyError(RuntimeError):
    """A model's telemetry, or its validation loss, is out of the bounds that were set."""


class SafetyGate:
    """Stops training once the validation loss exceeds a threshold in nats a bit.

    A gate that has tripped stays so until it is reset.
    """

    def __init__(self, threshold: float = 2.0, decay: float = 0.9, burn_in_steps: int = 10) -> None:
        self.threshold = threshold
        self.decay = decay
        self.burn_in_steps = burn_in_steps
        self.ema_val: float | None = None
        self.steps = 0
        self.tripped = False

    def allows(self, val_loss: float) -> bool:
        """Whether training may go on, given the latest validation loss."""
        self.ema_val = ema(self.ema_val, val_loss, self.decay)
        self.steps += 1
        if self.steps > self.burn_in_steps and not self.ema_val <= self.threshold:  # not a number trips too
            self.tripped = True
        return not self.tripped

    def reset(self) -> None:
        """Let training go on: a human has looked."""
        self.tripped = False
        self.ema_val, self.steps = None, 0

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the gate."""
        return {"tripped": self.tripped, "ema_val": self.ema_val, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what state_dict returned."""
        self.tripped = state["tripped"]
        self.ema_val, self.steps = state.get("ema_val"), state.get("steps", 0)


def ema(average: float | None, value: float, decay: float = 0.9) -> float:
    """The exponential moving average after another value; None is that of no values yet."""
    return value if average is None else decay * average + (1 - decay) * value


def hil_safe_inference(
    model: "BitTransformerLM", bits: Tensor, c_floor: float = 0.3, s_floor: float = 0.5, strict: bool = True
) -> tuple[Tensor | None, dict[str, Any]]:
    """Score bits [B, T] in evaluation mode: logits [B, T, 2] and the telemetry.

    Where the complexity or the symbiosis of a row is under its floor, a human has to decide: strict
    raises SafetyError, otherwise the logits are None.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits, telemetry = model(bits)
    finally:
        model.train(was_training)
    complexity = telemetry["lz_complexity"].min().item()
    symbiosis = telemetry["symbiosis"].min().item()
    if complexity >= c_floor and symbiosis >= s_floor:
        return logits, telemetry
    if strict:
        found = f"complexity {complexity:.3f} (floor {c_floor}), symbiosis {symbiosis:.3f} (floor {s_floor})"
        raise SafetyError(f"output withheld until a human has looked: {found}")
    return None, telemetry
