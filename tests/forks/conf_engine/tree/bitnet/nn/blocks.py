"""A block: norms, attention, feed-forward."""
from torch import nn

from .attention import SelfAttention


def feed_forward(width, hidden):
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class Block(nn.Module):
    def __init__(self, width, heads, hidden, **attention):
        super().__init__()
        self.pre, self.post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, **attention)
        self.mlp = feed_forward(width, hidden)

    def forward(self, x, causal=True):
        y, w = self.attention(self.pre(x), causal)
        x = x + y
        return x + self.mlp(self.post(x)), w
