"""Guards around training and inference."""

import math
from typing import Dict, Optional, Tuple

import torch
from torch import Tensor


class SafetyViolation(RuntimeError):
    """Raised when a run or an answer is outside of its limits."""


class SafetyGate:
    """Watches the validation loss of a run and stops it when the loss is too high.

    Args:
        max_val_loss: limit in nats per bit; ln 2 = 0.69 is a coin toss.
    """

    def __init__(self, max_val_loss: float = 1.5) -> None:
        self.max_val_loss = max_val_loss
        self.tripped = False
        self.last: Optional[float] = None

    def should_stop(self, val_loss: float) -> bool:
        """Feed one validation loss; ``True`` means stop, now and on every later call."""
        self.last = val_loss
        if math.isnan(val_loss) or val_loss > self.max_val_loss:
            self.tripped = True
        return self.tripped

    def reset(self) -> None:
        self.tripped = False
        self.last = None

    def state_dict(self) -> Dict:
        return {"tripped": self.tripped, "last": self.last}

    def load_state_dict(self, state: Dict) -> None:
        self.tripped = state["tripped"]
        self.last = state["last"]


def hil_safe_inference(
    model, bits: Tensor, c_floor: float = 0.3, s_floor: float = 0.5, *, strict: bool = True
) -> Tuple[Tensor, Dict]:
    """Run the model in eval mode and hold back what a human should see first."""
    training = model.training
    model.eval()
    with torch.no_grad():
        logits, telemetry = model(bits)
    model.train(training)
    c = telemetry["lz_complexity"].min().item()
    s = telemetry["symbiosis"].min().item()
    if strict and (c < c_floor or s < s_floor):
        raise SafetyViolation("C=%.3f (floor %.3f), S=%.3f (floor %.3f)" % (c, c_floor, s, s_floor))
    return logits, telemetry
