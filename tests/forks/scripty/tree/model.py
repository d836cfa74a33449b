# the model. attention with everything folded to (batch * heads, time, dim), bmm style
import math

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bits import unsqueeze


def causal_mask(t, like):
	"""0 where a query may look, -inf where it may not"""
	i = torch.arange(t, device=like.device)
	mask = torch.zeros(t, t, dtype=like.dtype, device=like.device)
	mask[i[:, None] < i[None, :]] = float("-inf")
	return mask


class Attention(nn.Module):
	def __init__(self, d_model, nhead, chunk_size=None, overlap=0, full_attn_logging=True, p=0.1):
		super().__init__()
		assert d_model % nhead == 0
		self.nhead = nhead
		self.chunk_size = chunk_size
		self.overlap = overlap
		self.full_attn_logging = full_attn_logging
		self.scale = 1 / math.sqrt(d_model // nhead)
		self.wq = nn.Linear(d_model, d_model, bias=False)
		self.wk = nn.Linear(d_model, d_model, bias=False)
		self.wv = nn.Linear(d_model, d_model, bias=False)
		self.wo = nn.Linear(d_model, d_model)
		self.softmax = nn.Softmax(dim=2)
		self.drop = nn.Dropout(p)

	def fold(self, x):
		b, t, c = x.shape
		x = x.view(b, t, self.nhead, c // self.nhead)
		return x.permute(0, 2, 1, 3).reshape(b * self.nhead, t, c // self.nhead)

	def unfold(self, x):
		n, t, d = x.shape
		x = x.view(n // self.nhead, self.nhead, t, d)
		return x.permute(0, 2, 1, 3).reshape(n // self.nhead, t, self.nhead * d)

	def attend(self, q, k, v, mask):
		if mask is None:
			sim = torch.bmm(q, k.transpose(1, 2)) * self.scale
		else:
			sim = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=self.scale)
		w = self.softmax(sim)
		return torch.bmm(self.drop(w), v), w

	def forward(self, x, causal=True):
		q, k, v = self.fold(self.wq(x)), self.fold(self.wk(x)), self.fold(self.wv(x))
		if self.chunk_size:
			y, w = self.windows(q, k, v, causal)
		else:
			t = x.shape[1]
			y, w = self.attend(q, k, v, causal_mask(t, q) if causal else None)
		y = self.wo(self.unfold(y))
		if w is None or not self.full_attn_logging:
			return y, None
		t = x.shape[1]
		return y, w.detach().view(-1, self.nhead, t, t)

	def windows(self, q, k, v, causal):
		# keys and values get `overlap` zeros in front, so that all windows look alike
		n, t, d = q.shape
		front = k.new_zeros(n, self.overlap, d)
		k = torch.cat([front, k], 1)
		v = torch.cat([front, v], 1)
		big = q.new_zeros(n, t, t) if self.full_attn_logging else None
		outs = []
		lo = 0
		while lo < t:
			hi = min(lo + self.chunk_size, t)
			width = hi - lo + self.overlap
			mask = None
			if causal:
				mask = causal_mask(width, q)[self.overlap:]
			y, w = self.attend(q[:, lo:hi], k[:, lo:lo + width], v[:, lo:lo + width], mask)
			outs.append(y)
			if big is not None:
				# column by column, the window starts `overlap` to the left of its queries
				for j in range(width):
					big[:, lo:hi, lo - self.overlap + j] = w[:, :, j].detach()
			lo = hi
		return torch.cat(outs, 1), big


class Layer(nn.Module):
	def __init__(self, d_model, nhead, ff, **attn):
		super().__init__()
		self.attn = Attention(d_model, nhead, **attn)
		self.ln1 = nn.LayerNorm(d_model)
		self.ln2 = nn.LayerNorm(d_model)
		self.mlp = nn.Sequential(nn.Linear(d_model, ff), nn.SiLU(), nn.Linear(ff, d_model))

	def forward(self, x, causal):
		y, w = self.attn(self.ln1(x), causal)
		x = x + y
		return x + self.mlp(self.ln2(x)), w


def lz78(row):
	seen, cur, n = set(), (), 0
	for bit in row:
		cur += (bit,)
		if cur not in seen:
			seen.add(cur)
			cur, n = (), n + 1
	return (n + bool(cur)) * math.log2(max(len(row), 2)) / max(len(row), 1)


def telemetry(logits, maps):
	"""K, C, S as in the paper draft, one number per row"""
	p = logits.detach().float().softmax(-1)
	K = 1 + (p * torch.log2(p + 1e-9)).sum(-1).mean(1)
	C = torch.tensor([lz78(r) for r in p.argmax(-1).tolist()]).clamp(max=1).to(K.device)
	info = {"K": K, "C": C, "S": 1 - (K - C).abs(), "maps": maps}
	if maps:
		info["sharpness"] = torch.stack([m.max(-1)[0].mean() for m in maps]).mean()
	return info


class BitTransformerLM(nn.Module):
	def __init__(self, d_model=128, nhead=8, layers=4, ff=512, max_seq_len=1152, chunk_size=None, overlap=0,
			full_attn_logging=True, dropout=0.1, recompute=False):
		super().__init__()
		self.cfg = dict(d_model=d_model, nhead=nhead, layers=layers, ff=ff, max_seq_len=max_seq_len,
			chunk_size=chunk_size, overlap=overlap, full_attn_logging=full_attn_logging,
			dropout=dropout, recompute=recompute)
		self.recompute = recompute
		self.emb = nn.Embedding(2, d_model)
		self.pos = nn.Embedding(max_seq_len, d_model)
		self.layers = nn.ModuleList()
		for _ in range(layers):
			self.layers.append(Layer(d_model, nhead, ff, chunk_size=chunk_size, overlap=overlap,
				full_attn_logging=full_attn_logging, p=dropout))
		self.ln = nn.LayerNorm(d_model)
		self.head = nn.Linear(d_model, 2)

	def forward(self, bits, causal=True):
		x = self.emb(bits) + self.pos.weight[:bits.shape[1]]
		maps = []
		for layer in self.layers:
			if self.recompute and self.training:
				x, w = checkpoint(layer, x, causal, use_reentrant=False)
			else:
				x, w = layer(x, causal)
			if w is not None:
				maps.append(w)
		logits = self.head(self.ln(x))
		return logits, telemetry(logits, maps)

	def forward_compressed(self, codes, causal=True):
		rows = torch.stack([unsqueeze(c) for c in codes]).to(self.head.weight.device)
		return self(rows, causal)
