"""The safety gate: a value that is judged and replaced, never changed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bitlm.model import BitLM


class Withheld(RuntimeError):
    """Somebody has to look before this goes on."""


@dataclass(frozen=True)
class Gate:
    limit: float = 2.0
    shut: bool = False


def judge(gate: Gate, val_loss: float) -> Gate:
    """The gate after a validation loss; once shut it stays shut."""
    if val_loss <= gate.limit:
        return gate
    return replace(gate, shut=True)


def reopen(gate: Gate) -> Gate:
    return replace(gate, shut=False)


def to_state(gate: Gate) -> dict[str, Any]:
    return asdict(gate)


def from_state(state: dict[str, Any]) -> Gate:
    return Gate(**state)


@torch.no_grad()
def safe_forward(model: BitLM, bits: Tensor, c_floor: float, s_floor: float) -> tuple[Tensor, dict[str, Any]]:
    """Evaluate; raise Withheld if complexity or symbiosis of any row is too low."""
    was = model.training
    model.eval()
    logits, info = model(bits)
    model.train(was)
    low = [name for name, floor in (("lz_complexity", c_floor), ("symbiosis", s_floor)) if info[name].min() < floor]
    if low:
        raise Withheld(f"{' and '.join(low)} under the floor")
    return logits, info
