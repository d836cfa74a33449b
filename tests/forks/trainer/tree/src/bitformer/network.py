"""The network itself."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import MultiHeadAttention
from .codec import rle_decode
from .config import ModelConfig
from .metrics import summarize


class FeedForward(nn.Module):
    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(cfg.d_model, cfg.d_ff)
        self.act = nn.GELU()
        self.down = nn.Linear(cfg.d_ff, cfg.d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))


class Block(nn.Module):
    """Pre-norm block."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.ln_attn = nn.LayerNorm(cfg.d_model)
        self.attn = MultiHeadAttention(cfg)
        self.ln_ff = nn.LayerNorm(cfg.d_model)
        self.ff = FeedForward(cfg)
        self.drop = nn.Dropout(cfg.dropout)

    def forward(self, x: Tensor, causal: bool) -> Tuple[Tensor, Optional[Tensor]]:
        h, weights = self.attn(self.ln_attn(x), causal)
        x = x + self.drop(h)
        x = x + self.drop(self.ff(self.ln_ff(x)))
        return x, weights


class BitTransformerLM(nn.Module):
    """Predicts the next bit at every position: (B, T) -> (B, T, 2), plus telemetry."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.tok = nn.Embedding(2, cfg.d_model)
        self.pos = nn.Parameter(torch.randn(cfg.max_len, cfg.d_model) * 0.02)
        self.blocks = nn.ModuleList([Block(cfg) for _ in range(cfg.n_layers)])
        self.ln_out = nn.LayerNorm(cfg.d_model)
        self.head = nn.Linear(cfg.d_model, 2)

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def forward(
        self, bits: Tensor, causal: bool = True
    ) -> Tuple[Tensor, Dict[str, Any]]:
        t = bits.size(1)
        if t > self.cfg.max_len:
            raise ValueError(f"got {t} bits, the model takes {self.cfg.max_len}")
        x = self.tok(bits) + self.pos[:t]
        maps: List[Tensor] = []
        for block in self.blocks:
            x, weights = self._run_block(block, x, causal)
            if weights is not None:
                maps.append(weights)
        logits = self.head(self.ln_out(x))
        return logits, summarize(logits, maps)

    def forward_compressed(
        self, codes: Sequence[Tensor], causal: bool = True
    ) -> Tuple[Tensor, Dict[str, Any]]:
        rows = torch.stack([rle_decode(code) for code in codes])
        return self.forward(rows, causal)

    def _run_block(
        self, block: Block, x: Tensor, causal: bool
    ) -> Tuple[Tensor, Optional[Tensor]]:
        if self.cfg.checkpoint_blocks and self.training:
            return checkpoint(block, x, causal, use_reentrant=False)
        return block(x, causal)
