"""BitTransformerLM: a causal transformer language model over raw bits.

Shapes: B batch, T sequence length in bits, C model width, H heads, D = C / H,
N windows, W = overlap + chunk_size keys in a window.
"""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import scale
from .compression import decompress_rows
from .contexts import Contexts
from .reversible import halting_weights, run_reversible
from .telemetry import collect_telemetry

TRI_MASKS_KEPT = 32
_tri_masks: OrderedDict[tuple[int, torch.device, object], tuple[Tensor, int]] = OrderedDict()


def get_tri_mask(seq_len: int, device: torch.device | str) -> Tensor:
    """Return the causal mask [seq_len, seq_len] of a device, True where the future is hidden.

    Each mask is built once; the least recently used goes when there are more than TRI_MASKS_KEPT.
    The mask is shared: one that was written to in place is dropped and built again.
    """
    probe = torch.empty(0, device=device)  # its device has an index: "cuda" and "cuda:0" are one
    key = (seq_len, probe.device, getattr(probe, "fake_mode", None))  # a fake tensor belongs to one trace
    mask, version = _tri_masks.pop(key, (None, None))
    if mask is None or mask._version != version:
        with torch.inference_mode(False):  # an inference tensor could not be saved for a backward
            mask = torch.triu(torch.ones(seq_len, seq_len, dtype=torch.bool, device=device), diagonal=1)
    _tri_masks[key] = (mask, mask._version)
    if len(_tri_masks) > TRI_MASKS_KEPT:
        _tri_masks.popitem(last=False)
    return mask


def window_padding(T: int, chunk_size: int, overlap: int, device: torch.device | str) -> Tensor:
    """Return where a window's keys are padding and no position of the sequence: [1, N, 1, W]."""
    starts = torch.arange(0, T, chunk_size, device=device) - overlap
    positions = starts[:, None] + torch.arange(overlap + chunk_size, device=device)
    return ((positions < 0) | (positions >= T))[None, :, None]  # fast kernels take masks of four dimensions


class SelfAttention(nn.Module):
    """Multi-head self-attention, dense or in chunks.

    With a chunk_size, the queries of a chunk see the keys of their own chunk and the
    `overlap` keys to its left, so that memory grows with T and not with T * T.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dropout: float = 0.1,
        chunk_size: int | None = None,
        overlap: int = 0,
        full_attn_logging: bool | None = None,
    ) -> None:
        super().__init__()
        if d_model % nhead:
            raise ValueError(f"d_model must be a multiple of nhead, got {d_model} and {nhead}")
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
        if overlap < 0:
            raise ValueError(f"overlap must not be negative, got {overlap}")
        self.nhead = nhead
        self.chunk_size = chunk_size
        self.overlap = overlap
        self.full_attn_logging = chunk_size is None if full_attn_logging is None else full_attn_logging
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, causal: bool = True) -> tuple[Tensor, Tensor | None]:
        """Attend over x [B, T, C]; return the output [B, T, C] and the map [B, H, T, T], if logged."""
        q, k, v = (
            projection(x).unflatten(-1, (self.nhead, -1)).transpose(1, 2)  # [B, H, T, D]
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        attend = self._dense if self.chunk_size is None else self._chunked
        out, attn_map = attend(q, k, v, causal)
        return self.out_proj(out.transpose(1, 2).flatten(2)), attn_map

    def _dense(self, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor | None]:
        B, H, T, D = q.shape
        if self.full_attn_logging:
            with torch.no_grad():
                scores = q @ k.transpose(-2, -1) / math.sqrt(D)  # [B, H, T, T]
                if causal:
                    future = get_tri_mask(T, q.device)
                    scores = scores.masked_fill(future, float("-inf"))
                weights = torch.softmax(scores, dim=-1)
        dropout_p = self.dropout.p if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=dropout_p)
        return out, weights.detach() if self.full_attn_logging else None

    def _chunked(self, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor | None]:
        B, H, T, D = q.shape
        chunk, overlap = self.chunk_size, self.overlap
        width, tail = overlap + chunk, -T % chunk
        # Windows have four dimensions, B and H in one: fast kernels take no more.
        q = F.pad(q, (0, 0, 0, tail)).unflatten(2, (-1, chunk)).flatten(0, 1)  # [B * H, N, chunk, D]
        k = F.pad(k, (0, 0, overlap, tail)).flatten(0, 1).unfold(1, width, chunk)  # [B * H, N, D, W]
        v = F.pad(v, (0, 0, overlap, tail)).flatten(0, 1).unfold(1, width, chunk)
        hidden = torch.zeros(chunk, width, dtype=torch.bool, device=q.device)
        if causal:
            future = get_tri_mask(width, q.device)
            hidden = future[overlap:]
        hidden = hidden | window_padding(T, chunk, overlap, hidden.device)
        if self.full_attn_logging:
            with torch.no_grad():
                scores = q @ k / math.sqrt(D)  # [B * H, N, chunk, W]
                scores = scores.masked_fill(hidden, float("-inf"))
                weights = torch.softmax(scores, dim=-1)
        dropout_p = self.dropout.p if self.training else 0.0
        out = F.scaled_dot_product_attention(
            q, k.transpose(-2, -1), v.transpose(-2, -1), attn_mask=~hidden, dropout_p=dropout_p
        )
        out = out.unflatten(0, (B, H)).flatten(2, 3)[:, :, :T]
        return out, self._stitch(weights.detach().unflatten(0, (B, H)), T) if self.full_attn_logging else None

    def _stitch(self, weights: Tensor, T: int) -> Tensor:
        """Lay the windows' weights [B, H, N, chunk, W] on one map [B, H, T, T]."""
        B, H = weights.shape[:2]
        canvas = weights.new_zeros(B, H, T, T)
        for n, s in enumerate(range(0, T, self.chunk_size)):
            start = max(s - self.overlap, 0)
            end = min(s + self.chunk_size, T)
            columns = torch.arange(start, end, device=weights.device)
            origin = max(self.overlap - s, 0)
            canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, origin : origin + end - start]
        return canvas


class TransformerLayer(nn.Module):
    """One pre-norm layer; its two branches are apart, so that a reversible stack can call each."""

    def __init__(self, attention: SelfAttention, d_model: int, dim_feedforward: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.attention = attention
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.feedforward = nn.Sequential(
            nn.Linear(d_model, dim_feedforward),
            nn.GELU(),
            nn.Linear(dim_feedforward, d_model),
        )
        self.dropout = nn.Dropout(dropout)

    def attend(self, x: Tensor, causal: bool) -> tuple[Tensor, Tensor | None]:
        """The attention branch of x [B, T, C], without its residual, and the map, if logged."""
        out, attn_map = self.attention(self.norm1(x), causal)
        return self.dropout(out), attn_map

    def feed(self, x: Tensor) -> Tensor:
        """The feed-forward branch of x [B, T, C], without its residual."""
        return self.dropout(self.feedforward(self.norm2(x)))

    def forward(self, x: Tensor, causal: bool = True) -> tuple[Tensor, Tensor | None]:
        """Both branches with their residuals: [B, T, C] and the map, if logged."""
        out, attn_map = self.attend(x, causal)
        x = x + out
        return x + self.feed(x), attn_map


class BitTransformerLM(nn.Module):
    """A transformer language model whose vocabulary is {0, 1}.

    lambda_K, lambda_C and lambda_S weigh the K/C/S telemetry (negentropy, LZ complexity,
    symbiosis). `reversible` recomputes activations in the backward pass, `use_checkpoint` does so
    layer by layer where the stack is not reversible, `use_act` halts each position once its
    halting probabilities reach `act_threshold` (Graves 2016, arXiv:1603.08983). `context_orders`, if
    any, weighs in what followed the last bytes in the training text (contexts.py).
    """

    def __init__(
        self,
        d_model: int = 128,
        nhead: int = 8,
        num_layers: int = 4,
        dim_feedforward: int = 512,
        max_seq_len: int = 1024,
        lambda_K: float = 1.0,
        lambda_C: float = 1.0,
        lambda_S: float = 1.0,
        reversible: bool = False,
        use_checkpoint: bool = True,
        use_act: bool = False,
        act_threshold: float = 0.9,
        chunk_size: int | None = None,
        overlap: int = 0,
        full_attn_logging: bool | None = None,
        context_orders: int = 0,
        context_slots: int = 1 << 20,
    ) -> None:
        super().__init__()
        self.config = {
            "d_model": d_model,
            "nhead": nhead,
            "num_layers": num_layers,
            "dim_feedforward": dim_feedforward,
            "max_seq_len": max_seq_len,
            "lambda_K": lambda_K,
            "lambda_C": lambda_C,
            "lambda_S": lambda_S,
            "reversible": reversible,
            "use_checkpoint": use_checkpoint,
            "use_act": use_act,
            "act_threshold": act_threshold,
            "chunk_size": chunk_size,
            "overlap": overlap,
            "full_attn_logging": full_attn_logging,
            "context_orders": context_orders,
            "context_slots": context_slots,
        }
        self.max_seq_len = max_seq_len
        self.reversible = reversible
        self.use_checkpoint = use_checkpoint
        self.act_threshold = act_threshold
        self.embedding = nn.Embedding(2, d_model)
        self.position = nn.Embedding(max_seq_len, d_model)
        self.layers = nn.ModuleList(
            TransformerLayer(
                SelfAttention(d_model, nhead, 0.1, chunk_size, overlap, full_attn_logging),
                d_model,
                dim_feedforward,
            )
            for _ in range(num_layers)
        )
        self.halt = nn.Linear(d_model, 1) if use_act else None
        self.norm = nn.LayerNorm(d_model)
        self.out = nn.Linear(d_model, 2)
        self.contexts = Contexts(d_model, context_orders, context_slots) if context_orders else None

    def forward(self, bits: Tensor, causal: bool = True) -> tuple[Tensor, dict]:
        """Score the next bit after each of bits [B, T]: logits [B, T, 2] and the telemetry."""
        B, T = bits.shape
        if T > self.max_seq_len:
            raise ValueError(f"sequence of {T} bits is longer than max_seq_len={self.max_seq_len}")
        evidence = None if self.contexts is None else self.contexts.evidence(bits)
        x = self._enter(bits, torch.arange(T, device=bits.device), evidence)
        x, attn_maps = self._run_layers(x, causal)
        logits = self._score(x, evidence)
        return logits, collect_telemetry(logits, x, attn_maps, self.config)

    def forward_compressed(self, compressed: list[Tensor], causal: bool = True) -> tuple[Tensor, dict]:
        """`forward` of rows that were run-length encoded by compress_bits; they must be of one length."""
        return self(decompress_rows(compressed), causal=causal)

    def _enter(self, bits: Tensor, places: Tensor, evidence: Tensor | None) -> Tensor:
        """The stream [B, T, C] as bits [B, T] at places [T] begin it, with what their contexts say."""
        x = self.embedding(bits) + self.position(places)
        return x if evidence is None else x + self.contexts.entered(evidence)

    def _score(self, x: Tensor, evidence: Tensor | None) -> Tensor:
        """The logits [B, T, 2] of the stream [B, T, C] at its end."""
        state = self.norm(x)
        logits = self.out(state)
        return logits if evidence is None else logits + self.contexts.odds(state, evidence)

    def _run_layers(self, x: Tensor, causal: bool) -> tuple[Tensor, list[Tensor]]:
        if self.reversible:
            return run_reversible(self.layers, x, causal, self.halt, self.act_threshold)
        attn_maps, states, probabilities = [], [], []
        for layer in self.layers:
            if self.use_checkpoint and self.training and torch.is_grad_enabled():
                x, attn_map = checkpoint(layer, x, causal, use_reentrant=False)
            else:
                x, attn_map = layer(x, causal)
            if attn_map is not None:
                attn_maps.append(attn_map)
            if self.halt is not None:
                states.append(x)
                probabilities.append(torch.sigmoid(self.halt(x)))
        if self.halt is not None:
            weights = halting_weights(torch.stack(probabilities), self.act_threshold)  # [L, B, T, 1]
            x = (weights * torch.stack(states)).sum(0)
        return x, attn_maps

    def double_width(self) -> "BitTransformerLM":
        """A model of twice the width that computes the same function."""
        return scale.double_width(self)

    def double_layers(self) -> "BitTransformerLM":
        """A model of twice the layers that computes the same function."""
        return scale.double_layers(self)

    def double_length(self) -> "BitTransformerLM":
        """A model of twice the max_seq_len that computes the same function on what fitted before."""
        return scale.double_length(self)
