"""K (negentropy), C (LZ complexity) and S (symbiosis) of a batch of predictions."""

import math
from typing import Dict, List, Optional

import torch
from torch import Tensor


@torch.no_grad()
def measure(logits: Tensor, hidden: Tensor, attn_maps: List[Tensor], config: Dict) -> Dict:
    """Collect telemetry. Everything is detached; per-row values have shape ``[B]``."""
    k = negentropy(logits)
    c = _complexity(logits.argmax(dim=-1))
    s = torch.sqrt(k * c)
    norm = config["lambda_K"] + config["lambda_C"] + config["lambda_S"]
    score = (config["lambda_K"] * k + config["lambda_C"] * c + config["lambda_S"] * s) / max(norm, 1e-12)
    return {
        "activations": hidden.detach(),
        "attention_maps": attn_maps,
        "attention_entropy": map_entropy(attn_maps),
        "negentropy": k,
        "lz_complexity": c,
        "symbiosis": s,
        "kcs_score": score,
    }


def negentropy(logits: Tensor) -> Tensor:
    logp = logits.float().log_softmax(dim=-1)
    entropy = -(logp.exp() * logp).sum(dim=-1)
    return (1.0 - entropy.mean(dim=-1) / math.log(2.0)).clamp(0.0, 1.0)


def lz_complexity(bits: Tensor) -> Tensor:
    """LZ76 phrase count, normalised by n / log2(n)."""
    values = []
    for row in bits.tolist():
        text = "".join("1" if b else "0" for b in row)
        n, start, phrases = len(text), 0, 0
        while start < n:
            size = 1
            while start + size <= n and text[start : start + size] in text[: start + size - 1]:
                size += 1
            phrases += 1
            start += size
        values.append(min(1.0, phrases * math.log2(max(n, 2)) / n))
    return torch.tensor(values, device=bits.device)


_complexity = torch.compiler.disable(lz_complexity)  # a Python loop over bits; do not trace it


def map_entropy(attn_maps: List[Tensor]) -> Optional[Tensor]:
    """Mean entropy of the attention rows, or ``None`` when no maps were logged."""
    if not attn_maps:
        return None
    per_layer = [torch.special.entr(m.float()).sum(-1).mean(dim=(1, 2)) for m in attn_maps]
    return torch.stack(per_layer).mean(dim=0)
