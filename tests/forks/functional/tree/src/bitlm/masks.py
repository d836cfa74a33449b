"""Who may look where. True means yes."""

from __future__ import annotations

import torch
from torch import Tensor


def causal_keep(length: int, device: torch.device) -> Tensor:
    """[length, length]: a query sees itself and what came before."""
    at = torch.arange(length, device=device)
    return at[:, None] >= at[None, :]


def window_keep(size: int, lookback: int, device: torch.device) -> Tensor:
    """[size, lookback + size]: the same, for queries whose window starts `lookback` keys earlier."""
    keys = torch.arange(lookback + size, device=device)
    queries = keys[lookback:]
    return keys[None, :] <= queries[:, None]
