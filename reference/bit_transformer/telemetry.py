"""K/C/S telemetry: how ordered, how complex and how balanced a model's predictions are."""

import math
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def collect_telemetry(
    logits: Tensor, activations: Tensor, attn_maps: list[Tensor], config: dict[str, Any]
) -> dict[str, Any]:
    """Measure a forward's logits [B, T, 2], last activations [B, T, C] and attention maps [B, H, T, T].

    negentropy, lz_complexity, symbiosis and kcs_score are float32 tensors [B] in [0, 1], and
    attention_entropy one in nats, or None where no maps were logged. What cannot be measured (an
    empty row, logits that are not finite) counts as 0. Nothing here is part of the autograd graph.
    """
    K = negentropy(logits)
    # Parsing bits is a loop in Python, which a compiler would trace step by step.
    parse = torch.compiler.disable(lz_complexity) if torch.compiler.is_compiling() else lz_complexity
    C = parse(logits.argmax(-1))
    S = symbiosis(K, C)
    return {
        "activations": activations.detach(),
        "attention_maps": attn_maps,
        "attention_entropy": attention_entropy(attn_maps) if attn_maps else None,
        "negentropy": K,
        "lz_complexity": C,
        "symbiosis": S,
        "kcs_score": kcs_score(K, C, S, config),
    }


def negentropy(logits: Tensor) -> Tensor:
    """K [B]: 1 less the mean entropy in bits of the next-bit distributions; 0 is noise, 1 is certainty."""
    entropy = torch.special.entr(logits.float().softmax(-1)).sum(-1) / math.log(2)  # [B, T]
    return (1 - entropy.mean(1)).nan_to_num(0.0).clamp(0, 1)


def lz_complexity(bits: Tensor) -> Tensor:
    """C [B]: the LZ78 phrases of bits [B, T] over the most that T bits can have, in (0, 1].

    Ziv and Lempel 1978, "Compression of individual sequences via variable-rate coding".
    """
    most = max(1, most_phrases(bits.shape[1]))
    return torch.tensor([count_phrases(row) / most for row in bits.tolist()], device=bits.device)


def count_phrases(bits: list[int]) -> int:
    """The number of phrases that LZ78 parses bits into, the unfinished last one included."""
    children = [0, 0] * (len(bits) + 1)  # of node n at 2n and 2n + 1; the root is 0
    phrases = node = 0
    for bit in bits:
        branch = 2 * node + bit
        node = children[branch]
        if node == 0:
            phrases += 1
            children[branch] = phrases
    return phrases + (node != 0)


def most_phrases(length: int) -> int:
    """The most phrases that LZ78 can parse so many bits into: all short ones before any longer one."""
    phrases, size = 0, 1
    while length >= size << size:
        phrases += 1 << size
        length -= size << size
        size += 1
    return phrases - (-length // size)


def symbiosis(K: Tensor, C: Tensor) -> Tensor:
    """S [B]: the mean of order K and complexity C, less the more they disagree; in [0, 1]."""
    agreement = 1 - (K - C).abs()
    return agreement * (K + C) / 2


def kcs_score(K: Tensor, C: Tensor, S: Tensor, config: dict[str, Any]) -> Tensor:
    """The mean [B] of K, C and S, weighed by lambda_K, lambda_C and lambda_S; 0 where these sum to 0."""
    weights = [config["lambda_K"], config["lambda_C"], config["lambda_S"]]
    if sum(weights) == 0:
        return torch.zeros_like(K)
    return (weights[0] * K + weights[1] * C + weights[2] * S) / sum(weights)


def attention_entropy(attn_maps: list[Tensor]) -> Tensor:
    """The entropy [B] in nats of a query's attention, averaged over layers, heads and queries."""
    entropies = [torch.special.entr(attn_map.float()).sum(-1).mean((1, 2)) for attn_map in attn_maps]
    return torch.stack(entropies).mean(0).nan_to_num(0.0)
