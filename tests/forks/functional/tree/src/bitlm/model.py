from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bitlm import attention, stats
from bitlm.config import ModelConfig
from bitlm.runs import unsqueeze


class Block(nn.Module):
    """Pre-norm. Holds weights; what is done with them is in attention.py."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.ln_attn = nn.LayerNorm(cfg.d_model)
        self.qkv = nn.Linear(cfg.d_model, 3 * cfg.d_model)
        self.mix = nn.Linear(cfg.d_model, cfg.d_model)
        self.ln_ff = nn.LayerNorm(cfg.d_model)
        self.up = nn.Linear(cfg.d_model, cfg.ff_mult * cfg.d_model)
        self.down = nn.Linear(cfg.ff_mult * cfg.d_model, cfg.d_model)

    def forward(self, x: Tensor, causal: bool) -> tuple[Tensor, Tensor | None]:
        cfg = self.cfg
        q, k, v = (attention.split_heads(part, cfg.nhead) for part in self.qkv(self.ln_attn(x)).chunk(3, dim=-1))
        common = {"causal": causal, "drop": cfg.dropout, "training": self.training, "keep_map": cfg.keep_maps}
        if cfg.window is None:
            seen, weights = attention.dense(q, k, v, **common)
        else:
            seen, weights = attention.windowed(q, k, v, size=cfg.window, lookback=cfg.lookback, **common)
        x = x + F.dropout(self.mix(attention.join_heads(seen)), cfg.dropout, self.training)
        x = x + F.dropout(self.down(F.gelu(self.up(self.ln_ff(x)))), cfg.dropout, self.training)
        return x, weights


class BitLM(nn.Module):
    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.bit = nn.Embedding(2, cfg.d_model)
        self.place = nn.Parameter(0.02 * torch.randn(cfg.max_seq_len, cfg.d_model))
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.num_layers))
        self.ln = nn.LayerNorm(cfg.d_model)
        self.head = nn.Linear(cfg.d_model, 2)

    def forward(self, bits: Tensor, causal: bool = True) -> tuple[Tensor, dict[str, Any]]:
        """Bits [B, T] -> logits of the bit after each [B, T, 2], and what we know about them."""
        T = bits.size(1)
        if T > self.cfg.max_seq_len:
            raise ValueError(f"{T} bits, but the model was built for {self.cfg.max_seq_len}")
        x = self.bit(bits) + self.place[:T]
        maps: list[Tensor] = []
        for block in self.blocks:
            if self.cfg.checkpointing and self.training:
                x, weights = checkpoint(block, x, causal, use_reentrant=False)
            else:
                x, weights = block(x, causal)
            if weights is not None:
                maps.append(weights)
        logits = self.head(self.ln(x))
        return logits, stats.describe(logits, maps)

    def forward_compressed(self, streams: list[Tensor], causal: bool = True) -> tuple[Tensor, dict[str, Any]]:
        return self(torch.stack([unsqueeze(stream) for stream in streams]), causal)
