"""Attention as functions. Shapes: B batch, H heads, T bits, D head width, N windows, S window, W keys a window."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bitlm.masks import causal_keep, window_keep


def split_heads(x: Tensor, heads: int) -> Tensor:
    B, T, C = x.shape
    return x.reshape(B, T, heads, C // heads).permute(0, 2, 1, 3)


def join_heads(x: Tensor) -> Tensor:
    return x.permute(0, 2, 1, 3).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, drop: float, training: bool) -> tuple[Tensor, Tensor]:
    """Softmax attention over the last two dimensions; also returns the weights, before dropout."""
    scores = torch.einsum("...qd,...kd->...qk", q * q.size(-1) ** -0.5, k)
    if keep is not None:
        scores = torch.where(keep, scores, float("-inf"))
    weights = F.softmax(scores, dim=-1)
    dropped = F.dropout(weights, drop, training)
    return torch.einsum("...qk,...kd->...qd", dropped, v), weights


def dense(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, drop: float, training: bool, keep_map: bool
) -> tuple[Tensor, Tensor | None]:
    keep = causal_keep(q.size(-2), q.device) if causal else None
    out, weights = attend(q, k, v, keep, drop, training)
    return out, weights.detach() if keep_map else None


def windowed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    size: int,
    lookback: int,
    causal: bool,
    drop: float,
    training: bool,
    keep_map: bool,
) -> tuple[Tensor, Tensor | None]:
    """Each window of `size` queries sees its own keys and `lookback` more to the left."""
    B, H, T, D = q.shape
    tail = -T % size
    starts = torch.arange(0, T, size, device=q.device)
    take = starts[:, None] + torch.arange(lookback + size, device=q.device)  # [N, W], of the padded keys
    q = F.pad(q, (0, 0, 0, tail)).reshape(B, H, -1, size, D)
    k = F.pad(k, (0, 0, lookback, tail))[:, :, take]  # [B, H, N, W, D]
    v = F.pad(v, (0, 0, lookback, tail))[:, :, take]
    keep = window_keep(size, lookback, q.device) if causal else None
    out, weights = attend(q, k, v, keep, drop, training)
    out = out.flatten(2, 3)[:, :, :T]
    if not keep_map:
        return out, None
    return out, lay_out(weights.detach(), T, size, lookback)


def lay_out(weights: Tensor, T: int, size: int, lookback: int) -> Tensor:
    """The windows' weights [B, H, N, S, W] on one map [B, H, T, T]."""
    B, H, N = weights.shape[:3]
    whole = torch.zeros(B, H, T, T, dtype=weights.dtype, device=weights.device)
    for n in range(N):
        first, last = n * size, min((n + 1) * size, T)
        rows = torch.arange(first, last, device=weights.device)[:, None]
        cols = torch.arange(first - lookback, last, device=weights.device)[None, :]
        whole[:, :, rows, cols] = weights[:, :, n, : last - first, : cols.numel()]
    return whole
