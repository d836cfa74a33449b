"""K/C/S: negentropy, Lempel-Ziv complexity and symbiosis of what a model predicts."""

from __future__ import annotations

import math
from typing import Any, Dict, List

import torch
from torch import Tensor


def negentropy(logits: Tensor) -> Tensor:
    p = torch.softmax(logits.float(), dim=-1).clamp_min(1e-9)
    entropy = -(p * p.log()).sum(-1) / math.log(2)
    return 1.0 - entropy.mean(dim=1)


def lz_complexity(bits: Tensor) -> Tensor:
    """Number of LZ78 phrases, relative to T / log2 T. One value per row."""
    scores = []
    for row in bits.tolist():
        seen, phrase = set(), ""
        for bit in row:
            phrase += str(bit)
            if phrase not in seen:
                seen.add(phrase)
                phrase = ""
        bound = max(1.0, len(row) / max(1.0, math.log2(max(2, len(row)))))
        scores.append(min(1.0, (len(seen) + bool(phrase)) / bound))
    return torch.tensor(scores, device=bits.device)


def map_entropy(maps: List[Tensor]) -> Tensor:
    per_layer = [-(m * (m + 1e-9).log()).sum(-1).mean(dim=(1, 2)) for m in maps]
    return torch.stack(per_layer).mean(0)


@torch.no_grad()
def summarize(logits: Tensor, maps: List[Tensor]) -> Dict[str, Any]:
    k = negentropy(logits)
    c = lz_complexity(logits.argmax(-1))
    s = 1.0 - (k - c).abs()
    telemetry: Dict[str, Any] = {
        "negentropy": k,
        "lz_complexity": c,
        "symbiosis": s,
        "attention_maps": maps,
    }
    if maps:
        telemetry["attention_entropy"] = map_entropy(maps)
    return telemetry
