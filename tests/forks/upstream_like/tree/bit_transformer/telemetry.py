import math
from typing import Dict, List, Optional

import torch


def negentropy_kpi(logits: torch.Tensor) -> torch.Tensor:
    prob = logits.detach().float().softmax(-1)
    ent = -(prob * prob.clamp_min(1e-9).log()).sum(-1).mean(-1)
    return (1 - ent / math.log(2)).clamp(0.0, 1.0)


def lz_complexity(bits: torch.Tensor) -> torch.Tensor:
    """How often the value changes: cheap stand-in for LZ, good enough for the gate."""
    flat = bits.long()
    if flat.shape[1] < 2:
        return torch.zeros(flat.shape[0], device=flat.device)
    changes = (flat[:, 1:] != flat[:, :-1]).float()
    return changes.mean(-1)


def symbiosis_kpi(K: torch.Tensor, C: torch.Tensor) -> torch.Tensor:
    return 1.0 - 0.5 * (K - C).abs()


def attention_entropy(maps: List[torch.Tensor]) -> Optional[torch.Tensor]:
    if not maps:
        return None
    ents = []
    for attn in maps:
        p = attn.float().clamp_min(1e-9)
        ents.append(-(p * p.log()).sum(-1).mean(dim=(1, 2)))
    return torch.stack(ents).mean(0)


def collect(
    logits: torch.Tensor, maps: List[torch.Tensor], lambdas: Dict[str, float]
) -> Dict[str, object]:
    with torch.no_grad():
        K = negentropy_kpi(logits)
        C = lz_complexity(logits.argmax(-1))
        S = symbiosis_kpi(K, C)
        weight = sum(lambdas.values()) or 1.0
        score = (lambdas["K"] * K + lambdas["C"] * C + lambdas["S"] * S) / weight
    return {
        "negentropy_logits": K,
        "lz_complexity_logits": C,
        "symbiosis_score": S,
        "kcs": score,
        "attention_maps": maps,
        "attention_entropy": attention_entropy(maps),
    }
