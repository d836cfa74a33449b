"""Attention as a mixin: whoever has ``to_qkv`` and ``to_out`` can attend."""
import torch
from torch import nn

from .masks import hidden_keys


class AttendsMixin:
    """Needs ``heads``, ``chunk``, ``lookback``, ``keep_maps`` and ``drop``."""

    @property
    def keeps(self):
        """Maps cost length squared: in chunks they are kept only if somebody says so."""
        if self.keep_maps is not None:
            return self.keep_maps
        return self.chunk is None

    def split_heads(self, x):
        b, t, _ = x.shape
        return x.reshape(b, t, self.heads, -1).transpose(1, 2)

    def weigh(self, q, k, hide):
        energy = torch.einsum("bhqd,bhkd->bhqk", q, k) * q.size(-1) ** -0.5
        if hide is not None:
            energy = energy.masked_fill(hide, float("-inf"))
        return energy.softmax(-1)

    def full(self, q, k, v, causal):
        t = q.size(-2)
        hide = hidden_keys(t, t, q.device) if causal else None
        w = self.weigh(q, k, hide)
        return torch.einsum("bhqk,bhkd->bhqd", self.drop(w), v), w if self.keeps else None

    def chunked(self, q, k, v, causal):
        b, h, t, _ = q.shape
        canvas = q.new_zeros(b, h, t, t) if self.keeps else None
        pieces = []
        for begin in range(0, t, self.chunk):
            stop = min(begin + self.chunk, t)
            first = begin - self.lookback
            # keys wrap round for the first chunks, and are hidden there
            cols = torch.arange(first, stop, device=q.device)
            hide = hidden_keys(stop - begin, stop - first, q.device) if causal else None
            left = cols < 0
            hide = left.expand(stop - begin, -1) if hide is None else hide | left
            w = self.weigh(q[:, :, begin:stop], k[:, :, cols], hide)
            pieces.append(torch.einsum("bhqk,bhkd->bhqd", self.drop(w), v[:, :, cols]))
            if canvas is not None:
                canvas[:, :, begin:stop, cols] = w.detach()
        return torch.cat(pieces, dim=2), canvas

    def attend(self, x, causal):
        q, k, v = map(self.split_heads, self.to_qkv(x).chunk(3, dim=-1))
        route = self.chunked if self.chunk else self.full
        y, w = route(q, k, v, causal)
        return self.to_out(y.transpose(1, 2).flatten(2)), None if w is None else w.detach()


class SelfAttention(AttendsMixin, nn.Module):
    def __init__(self, width, heads, *, chunk=None, lookback=0, keep_maps=None, dropout=0.1):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is no multiple of {heads} heads")
        for name, value in dict(heads=heads, chunk=chunk, lookback=lookback, keep_maps=keep_maps).items():
            setattr(self, name, value)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x, causal=True):
        return self.attend(x, causal)
