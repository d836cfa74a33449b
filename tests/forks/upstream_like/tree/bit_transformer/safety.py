from typing import Any, Dict, Optional, Tuple

import torch


class SafetyGate:
    """Watches complexity (C) and symbiosis (S) of what the model says.

    Both are averaged with an exponential moving average. The first ``burn_in`` readings never
    trigger. After that the gate triggers as soon as an average is not above its floor, which
    includes an average that is NaN.
    """

    def __init__(
        self,
        *,
        c_floor: float = 0.3,
        s_floor: float = 0.5,
        decay: float = 0.9,
        burn_in: int = 10,
    ) -> None:
        self.c_floor = c_floor
        self.s_floor = s_floor
        self.decay = decay
        self.burn_in = burn_in
        self.step = 0
        self.c_avg: Optional[float] = None
        self.s_avg: Optional[float] = None

    def _ema(self, avg: Optional[float], val: float) -> float:
        if avg is None:
            return val
        return self.decay * avg + (1.0 - self.decay) * val

    def should_trigger(self, c_val: float, s_val: float) -> bool:
        self.step += 1
        self.c_avg = self._ema(self.c_avg, float(c_val))
        self.s_avg = self._ema(self.s_avg, float(s_val))
        if self.step <= self.burn_in:
            return False
        healthy = self.c_avg > self.c_floor and self.s_avg > self.s_floor
        return not healthy

    def state_dict(self) -> Dict[str, Any]:
        return {"step": self.step, "c_avg": self.c_avg, "s_avg": self.s_avg}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        self.step = state["step"]
        self.c_avg = state["c_avg"]
        self.s_avg = state["s_avg"]


def hil_safe_inference(
    model: torch.nn.Module,
    bit_seq: torch.Tensor,
    c_floor: float = 0.3,
    s_floor: float = 0.5,
    *,
    causal: bool = True,
    strict: bool = True,
    gate: Optional[SafetyGate] = None,
) -> Tuple[torch.Tensor, Dict[str, Any]]:
    """Forward pass in eval mode; raises if the telemetry is below the floors.

    With a gate, the gate's averages decide and the floors given here are not used.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits, tele = model(bit_seq, causal=causal)
    model.train(was_training)
    c_val = float(tele["lz_complexity_logits"].mean())
    s_val = float(tele["symbiosis_score"].mean())
    if gate is not None:
        bad = gate.should_trigger(c_val, s_val)
    else:
        bad = not (c_val > c_floor and s_val > s_floor)
    if bad and strict:
        raise RuntimeError(f"human review needed: C={c_val:.3f} S={s_val:.3f}")
    return logits, tele
