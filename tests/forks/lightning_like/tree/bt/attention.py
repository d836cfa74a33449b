"""Self-attention with heads folded into the batch, so that everything is a bmm."""
import torch
import torch.nn as nn
import torch.nn.functional as F


def causal_bias(like, queries, keys):
    """What to add to scores: 0 where the key is not later than the query, -inf where it is.

    The last key belongs to the last query.
    """
    return torch.full((queries, keys), float('-inf'), dtype=like.dtype, device=like.device).triu(1 + keys - queries)


class SelfAttention(nn.Module):

    def __init__(self, dim, heads, dropout=0.1, chunk_size=None, overlap=0, full_attn_logging=True):
        super().__init__()
        assert dim % heads == 0, 'heads must divide dim'
        self.heads = heads
        self.scale = (dim // heads)**-0.5
        self.chunk_size = chunk_size
        self.overlap = overlap
        self.full_attn_logging = full_attn_logging
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        self.softmax = nn.Softmax(dim=-1)
        self.attn_drop = nn.Dropout(dropout)

    def forward(self, x, causal=True):
        """x [B, T, C] -> [B, T, C], and the attention map [B, H, T, T] or None."""
        B, T, C = x.shape
        q, k, v = self._fold(self.query(x)), self._fold(self.key(x)), self._fold(self.value(x))
        if self.chunk_size:
            context, attn = self._local(q, k, v, causal)
        else:
            context, attn = self._global(q, k, v, causal)
        context = context.view(B, self.heads, T, -1).transpose(1, 2).reshape(B, T, C)
        if attn is not None:
            attn = attn.view(B, self.heads, T, T)
        return self.output(context), attn

    def _fold(self, x):
        B, T, C = x.shape
        return x.view(B, T, self.heads, -1).transpose(1, 2).reshape(B * self.heads, T, -1)

    def _weights(self, q, k, causal):
        if causal:
            bias = causal_bias(q, q.size(1), k.size(1))
        else:
            bias = q.new_zeros(1)
        return self.softmax(torch.baddbmm(bias, q, k.transpose(1, 2), alpha=self.scale))

    def _global(self, q, k, v, causal):
        weights = self._weights(q, k, causal)
        context = torch.bmm(self.attn_drop(weights), v)
        return context, weights.detach() if self.full_attn_logging else None

    def _local(self, q, k, v, causal):
        T, size, overlap = q.size(1), self.chunk_size, self.overlap
        missing = -T % size
        q, k, v = (F.pad(t, (0, 0, 0, missing)) for t in (q, k, v))
        keys, values = [], []
        for s in range(0, T, size):
            first = max(s - overlap, 0)
            lack = overlap - (s - first)  # all windows get one width, the early ones by padding
            keys.append(F.pad(k[:, first:s + size], (0, 0, lack, 0)))
            values.append(F.pad(v[:, first:s + size], (0, 0, lack, 0)))
        windows = len(keys)
        weights = self._weights(torch.cat(q.split(size, dim=1)), torch.cat(keys), causal)  # [N*B*H, size, W]
        context = torch.bmm(self.attn_drop(weights), torch.cat(values))
        context = torch.cat(context.chunk(windows), dim=1)[:, :T]
        if not self.full_attn_logging:
            return context, None
        return context, self._canvas(weights.detach().chunk(windows), T)

    def _canvas(self, parts, T):
        canvas = parts[0].new_zeros(parts[0].size(0), T, T)
        for i, part in enumerate(parts):
            s = i * self.chunk_size
            end = min(s + self.chunk_size, T)
            # index_copy_ takes no negative columns; only padding lies left of 0, so it may go anywhere
            columns = torch.arange(s - self.overlap, end, device=part.device).remainder(T)
            canvas[:, s:end].index_copy_(2, columns, part[:, :end - s, :len(columns)])
        return canvas
