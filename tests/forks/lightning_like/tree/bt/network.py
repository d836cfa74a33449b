import torch
import torch.nn as nn
from torch.utils.checkpoint import checkpoint

from .attention import SelfAttention
from .bits import decompress_bits
from .telemetry import telemetry_of


class Layer(nn.Module):

    def __init__(self, dim, heads, hidden, dropout, **attention):
        super().__init__()
        self.attn = SelfAttention(dim, heads, dropout, **attention)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.act = nn.GELU()
        self.drop = nn.Dropout(dropout)

    def forward(self, x, causal):
        y, attn = self.attn(self.norm1(x), causal)
        x = x + self.drop(y)
        x = x + self.drop(self.fc2(self.act(self.fc1(self.norm2(x)))))
        return x, attn


class BitTransformerLM(nn.Module):

    def __init__(self,
                 d_model=128,
                 nhead=8,
                 num_layers=4,
                 dim_feedforward=512,
                 max_seq_len=1152,
                 dropout=0.1,
                 use_checkpoint=False,
                 chunk_size=None,
                 overlap=0,
                 full_attn_logging=True):
        super().__init__()
        self.config = dict(d_model=d_model,
                           nhead=nhead,
                           num_layers=num_layers,
                           dim_feedforward=dim_feedforward,
                           max_seq_len=max_seq_len,
                           dropout=dropout,
                           use_checkpoint=use_checkpoint,
                           chunk_size=chunk_size,
                           overlap=overlap,
                           full_attn_logging=full_attn_logging)
        self.embed = nn.Embedding(2, d_model)
        self.where = nn.Embedding(max_seq_len, d_model)
        attention = dict(chunk_size=chunk_size, overlap=overlap, full_attn_logging=full_attn_logging)
        self.layers = nn.ModuleList(
            [Layer(d_model, nhead, dim_feedforward, dropout, **attention) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(d_model)
        self.unembed = nn.Linear(d_model, 2)

    @property
    def device(self):
        return self.unembed.weight.device

    def forward(self, bits, causal=True):
        length = bits.shape[1]
        if length > self.config['max_seq_len']:
            raise ValueError('%d bits do not fit, max_seq_len is %d' % (length, self.config['max_seq_len']))
        x = self.embed(bits) + self.where.weight[:length]
        maps = []
        for layer in self.layers:
            if self.training and self.config['use_checkpoint']:
                x, attn = checkpoint(layer, x, causal, use_reentrant=False)
            else:
                x, attn = layer(x, causal)
            maps.append(attn)
        logits = self.unembed(self.norm(x))
        maps = [attn for attn in maps if attn is not None]
        return logits, telemetry_of(logits, maps)

    def forward_compressed(self, streams, causal=True):
        rows = [decompress_bits(stream) for stream in streams]
        return self(torch.stack(rows).to(self.device), causal=causal)
