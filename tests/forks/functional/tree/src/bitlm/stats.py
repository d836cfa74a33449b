"""K, C and S of a prediction: how sure, how complex, how much the two agree. All in [0, 1], one a row."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def describe(logits: Tensor, maps: list[Tensor]) -> dict[str, Any]:
    p = logits.float().softmax(-1)
    K = 1 - torch.special.entr(p).sum(-1).mean(1) / math.log(2)
    C = torch.tensor([phrases(row) for row in logits.argmax(-1).tolist()], device=logits.device)
    S = (1 - (K - C).abs()) * (K + C) / 2
    return {"negentropy": K, "lz_complexity": C, "symbiosis": S, "attention": maps, "focus": focus(maps)}


def phrases(bits: list[int]) -> float:
    """Lempel-Ziv 78 phrases, over a rough bound on how many there can be."""
    seen: set[tuple[int, ...]] = set()
    word: tuple[int, ...] = ()
    for bit in bits:
        word += (bit,)
        if word not in seen:
            seen.add(word)
            word = ()
    bound = len(bits) / max(1.0, math.log2(len(bits)) - 2)
    return min(1.0, (len(seen) + bool(word)) / bound)


def focus(maps: list[Tensor]) -> Tensor | None:
    """Largest weight of a query, on average; None if no map was kept."""
    if not maps:
        return None
    return torch.stack([m.amax(-1).mean((1, 2)) for m in maps]).mean(0)
