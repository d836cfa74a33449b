"""An encoder and a decoder: a sentence is read whole, and another one written word by word."""

import torch
from torch import nn
from torch.nn import functional as F

PAD = 0


class Attention(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.ask, self.offer, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, x, memory, mask=None, causal=False):
        q, k, v = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in (self.ask(x), *self.offer(memory).chunk(2, -1))
        )
        rate = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate, is_causal=causal)
        return self.out(found.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, width, heads, dropout, reads_memory):
        super().__init__()
        self.own = Attention(width, heads, dropout)
        self.cross = Attention(width, heads, dropout) if reads_memory else None
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 if reads_memory else 2))

    def forward(self, x, mask=None, memory=None):
        y = self.norms[0](x)
        x = x + self.own(y, y, None if self.cross else mask, causal=self.cross is not None)
        if self.cross is not None:
            x = x + self.cross(self.norms[1](x), memory, mask)
        return x + self.feed(self.norms[-1](x))


class Translator(nn.Module):
    def __init__(self, words=32, width=32, heads=4, layers=2, longest=64, dropout=0.1):
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(longest, width)
        self.encoder = nn.ModuleList(Layer(width, heads, dropout, False) for _ in range(layers))
        self.decoder = nn.ModuleList(Layer(width, heads, dropout, True) for _ in range(layers))
        self.head = nn.Linear(width, words)

    def embedded(self, tokens):
        return self.words(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))

    def forward(self, source, target):
        mask = (source != PAD)[:, None, None, :]
        memory = self.embedded(source)
        for layer in self.encoder:
            memory = layer(memory, mask)
        x = self.embedded(target)
        for layer in self.decoder:
            x = layer(x, mask, memory)
        return self.head(x)
