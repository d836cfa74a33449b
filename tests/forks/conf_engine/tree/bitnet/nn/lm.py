"""The model."""
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..data.codec import from_runs
from ..signals import signals
from .blocks import Block
from .embedding import BitEmbedding


class BitTransformerLM(nn.Module):
    def __init__(
        self,
        width=128,
        heads=8,
        depth=4,
        hidden=512,
        max_len=1152,
        chunk=None,
        lookback=0,
        keep_maps=None,
        dropout=0.1,
        checkpointing=False,
    ):
        super().__init__()
        self.conf = dict(
            width=width,
            heads=heads,
            depth=depth,
            hidden=hidden,
            max_len=max_len,
            chunk=chunk,
            lookback=lookback,
            keep_maps=keep_maps,
            dropout=dropout,
            checkpointing=checkpointing,
        )
        attention = {name: self.conf[name] for name in ("chunk", "lookback", "keep_maps", "dropout")}
        self.embed = BitEmbedding(width, max_len)
        self.blocks = nn.ModuleList(Block(width, heads, hidden, **attention) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2)

    def forward(self, bits, causal=True):
        if bits.size(1) > self.conf["max_len"]:
            raise ValueError(f"{bits.size(1)} bits, the model takes {self.conf['max_len']}")
        x, maps = self.embed(bits), []
        for block in self.blocks:
            if self.conf["checkpointing"] and self.training:
                x, w = checkpoint(block, x, causal, use_reentrant=False)
            else:
                x, w = block(x, causal)
            if w is not None:
                maps.append(w)
        logits = self.head(self.norm(x))
        return logits, signals(logits, maps)

    def forward_compressed(self, runs, causal=True):
        rows = torch.stack([from_runs(run) for run in runs])
        return self(rows.to(self.head.weight.device), causal)
