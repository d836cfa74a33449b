"""Multi-head attention over bits, full or in windows.

Heads stay in their own axis behind the time axis, (B, T, H, D), because that is what
the projections give us for free; einsum does the bookkeeping.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig


class Attended(NamedTuple):
    out: Tensor  # (B, T, H, D)
    weights: Optional[Tensor]  # (B, H, T, T)


def causal_bias(size: int, like: Tensor) -> Tensor:
    """Additive mask: 0 on and below the diagonal, -inf above."""
    return torch.full(
        (size, size), float("-inf"), dtype=like.dtype, device=like.device
    ).triu(1)


class MultiHeadAttention(nn.Module):
    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.n_heads = cfg.n_heads
        self.head_dim = cfg.d_model // cfg.n_heads
        self.scale = self.head_dim**-0.5
        self.chunk_size = cfg.chunk_size
        self.overlap = cfg.overlap
        self.full_attn_logging = cfg.full_attn_logging
        self.qkv = nn.Linear(cfg.d_model, 3 * cfg.d_model)
        self.proj = nn.Linear(cfg.d_model, cfg.d_model)
        self.drop = nn.Dropout(cfg.dropout)

    def forward(self, x: Tensor, causal: bool = True) -> tuple[Tensor, Optional[Tensor]]:
        b, t, _ = x.shape
        qkv = self.qkv(x).view(b, t, 3, self.n_heads, self.head_dim)
        q, k, v = qkv.unbind(dim=2)
        if self.chunk_size is None:
            attended = self._full(q, k, v, causal)
        else:
            attended = self._windowed(q, k, v, causal)
        return self.proj(attended.out.reshape(b, t, -1)), attended.weights

    def _full(self, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Attended:
        logits = torch.einsum("bqhd,bkhd->bhqk", q * self.scale, k)
        if causal:
            logits = logits + causal_bias(logits.size(-1), logits)
        weights = logits.softmax(dim=-1)
        out = torch.einsum("bhqk,bkhd->bqhd", self.drop(weights), v)
        if not self.full_attn_logging:
            return Attended(out, None)
        return Attended(out, weights.detach())

    def _windowed(self, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Attended:
        t = q.size(1)
        q = self._chunks(q)  # (B, N, C, H, D)
        k = self._windows(k)  # (B, N, H, D, W)
        v = self._windows(v)
        logits = torch.einsum("bnqhd,bnhdw->bnhqw", q * self.scale, k)
        if causal:
            # the queries of a window are its last C positions
            bias = causal_bias(logits.size(-1), logits)
            logits = logits + bias[self.overlap :]
        weights = logits.softmax(dim=-1)
        out = torch.einsum("bnhqw,bnhdw->bnqhd", self.drop(weights), v)
        out = out.flatten(1, 2)[:, :t]
        if not self.full_attn_logging:
            return Attended(out, None)
        return Attended(out, self._stitch(weights.detach(), t))

    def _chunks(self, x: Tensor) -> Tensor:
        missing = -x.size(1) % self.chunk_size
        x = F.pad(x, (0, 0, 0, 0, 0, missing))
        return x.unflatten(1, (-1, self.chunk_size))

    def _windows(self, x: Tensor) -> Tensor:
        missing = -x.size(1) % self.chunk_size
        x = F.pad(x, (0, 0, 0, 0, self.overlap, missing))
        return x.unfold(1, self.overlap + self.chunk_size, self.chunk_size)

    def _stitch(self, weights: Tensor, t: int) -> Tensor:
        """Put the windows (B, N, H, C, W) back into one (B, H, T, T) map for the plots."""
        b, n, h = weights.shape[:3]
        full = weights.new_zeros(b, h, t, t)
        for i in range(n):
            first = i * self.chunk_size
            last = min(first + self.chunk_size, t)
            rows = torch.arange(first, last, device=full.device)
            cols = torch.arange(first - self.overlap, last, device=full.device)
            window = weights[:, i, :, : len(rows), : len(cols)]
            full[:, :, rows[:, None], cols[None, :]] = window
        return full
