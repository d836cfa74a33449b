"""Bits and positions as vectors."""
import torch
from torch import nn


class BitEmbedding(nn.Module):
    def __init__(self, width, max_len):
        super().__init__()
        self.bit = nn.Embedding(2, width)
        self.place = nn.Embedding(max_len, width)

    def forward(self, bits):
        return self.bit(bits) + self.place(torch.arange(bits.size(1), device=bits.device))
