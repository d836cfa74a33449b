"""The model.

Shape names used below: B batch, T time, C channels, H heads, D channels per head.
"""

from typing import Dict, List, Optional, Tuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .compression import decompress_bits
from .masks import MASKS
from .scale import ScalingMixin
from .telemetry import measure


class BitAttention(nn.Module):
    """Causal self-attention, optionally restricted to chunks.

    Args:
        d_model: channels.
        nhead: heads; must divide ``d_model``.
        dropout: probability of dropping an attention weight in training.
        chunk_size: queries per chunk, or ``None`` for dense attention.
        overlap: keys before the chunk that its queries may use.
        full_attn_logging: whether to return the T x T map.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dropout: float = 0.1,
        chunk_size: Optional[int] = None,
        overlap: int = 0,
        full_attn_logging: bool = True,
    ) -> None:
        super().__init__()
        if d_model % nhead != 0:
            raise ValueError("nhead must divide d_model")
        self.nhead = nhead
        self.dropout_p = dropout
        self.chunk_size = chunk_size
        self.overlap = overlap
        self.full_attn_logging = full_attn_logging
        self.to_q = nn.Linear(d_model, d_model)
        self.to_k = nn.Linear(d_model, d_model)
        self.to_v = nn.Linear(d_model, d_model)
        self.proj = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, causal: bool = True) -> Tuple[Tensor, Optional[Tensor]]:
        q, k, v = self._heads(self.to_q(x)), self._heads(self.to_k(x)), self._heads(self.to_v(x))
        if self.chunk_size is None:
            out, attn = self._attend_all(q, k, v, causal)
        else:
            out, attn = self._attend_chunks(q, k, v, causal)
        B, T, C = x.shape
        return self.proj(out.transpose(1, 2).reshape(B, T, C)), attn

    def _heads(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        return x.view(B, T, self.nhead, C // self.nhead).transpose(1, 2)

    def _drop(self) -> float:
        return self.dropout_p if self.training else 0.0

    def _attend_all(self, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tuple[Tensor, Optional[Tensor]]:
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=self._drop(), is_causal=causal)
        if not self.full_attn_logging:
            return out, None
        visible = MASKS.causal(q.size(-2), q.device) if causal else None
        return out, attention_weights(q, k, visible)

    def _attend_chunks(self, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tuple[Tensor, Optional[Tensor]]:
        T, chunk, overlap = q.size(-2), self.chunk_size, self.overlap
        visible = MASKS.window(chunk, overlap, q.device) if causal else None
        # One pad on the left gives every chunk a window of the same width.
        k = F.pad(k, (0, 0, overlap, 0))
        v = F.pad(v, (0, 0, overlap, 0))
        outputs: List[Tensor] = []
        weights: List[Tensor] = []
        for begin in range(0, T, chunk):
            stop = min(begin + chunk, T)
            size = stop - begin
            window = slice(begin, stop + overlap)  # in padded coordinates
            mask = None if visible is None else visible[:size, : overlap + size]
            q_c, k_w, v_w = q[:, :, begin:stop], k[:, :, window], v[:, :, window]
            outputs.append(F.scaled_dot_product_attention(q_c, k_w, v_w, attn_mask=mask, dropout_p=self._drop()))
            if self.full_attn_logging:
                weights.append(attention_weights(q_c, k_w, mask))
        out = torch.cat(outputs, dim=2)
        return out, self._full_map(weights, T) if self.full_attn_logging else None

    def _full_map(self, weights: List[Tensor], T: int) -> Tensor:
        """Place each chunk's weights at its keys' positions."""
        B, H = weights[0].shape[:2]
        full = weights[0].new_zeros((B, H, T, T))
        begin = 0
        for w in weights:
            stop = begin + w.size(-2)
            positions = torch.arange(begin - self.overlap, stop, device=w.device)
            band = full[:, :, begin:stop]
            band[..., positions] = w
            begin = stop
        return full


@torch.no_grad()
def attention_weights(q: Tensor, k: Tensor, visible: Optional[Tensor]) -> Tensor:
    """The weights that SDPA uses and does not return; for logging only."""
    scores = torch.matmul(q, k.mT) * (q.size(-1) ** -0.5)
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    return scores.softmax(dim=-1)


class BitBlock(nn.Module):
    def __init__(self, attention: BitAttention, d_model: int, dim_feedforward: int, dropout: float) -> None:
        super().__init__()
        self.norm_attn = nn.LayerNorm(d_model)
        self.attention = attention
        self.norm_mlp = nn.LayerNorm(d_model)
        self.mlp = nn.Sequential(
            nn.Linear(d_model, dim_feedforward),
            nn.GELU(),
            nn.Linear(dim_feedforward, d_model),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor, causal: bool) -> Tuple[Tensor, Optional[Tensor]]:
        update, attn = self.attention(self.norm_attn(x), causal)
        x = x + update
        return x + self.mlp(self.norm_mlp(x)), attn


class BitTransformerLM(ScalingMixin, nn.Module):
    """Transformer language model over bits.

    ``forward`` returns logits ``[B, T, 2]`` and a telemetry dictionary.
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
        dropout: float = 0.1,
        use_checkpoint: bool = False,
        chunk_size: Optional[int] = None,
        overlap: int = 0,
        full_attn_logging: bool = True,
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
            "dropout": dropout,
            "use_checkpoint": use_checkpoint,
            "chunk_size": chunk_size,
            "overlap": overlap,
            "full_attn_logging": full_attn_logging,
        }
        self.max_seq_len = max_seq_len
        self.use_checkpoint = use_checkpoint
        self.token_embedding = nn.Embedding(2, d_model)
        self.position_embedding = nn.Embedding(max_seq_len, d_model)
        self.blocks = nn.ModuleList()
        for _ in range(num_layers):
            attention = BitAttention(
                d_model,
                nhead,
                dropout=dropout,
                chunk_size=chunk_size,
                overlap=overlap,
                full_attn_logging=full_attn_logging,
            )
            self.blocks.append(BitBlock(attention, d_model, dim_feedforward, dropout))
        self.final_norm = nn.LayerNorm(d_model)
        self.lm_head = nn.Linear(d_model, 2)

    def forward(self, bits: Tensor, causal: bool = True) -> Tuple[Tensor, Dict]:
        T = bits.size(1)
        if T > self.max_seq_len:
            raise ValueError("sequence length %d exceeds max_seq_len %d" % (T, self.max_seq_len))
        positions = torch.arange(T, device=bits.device)
        h = self.token_embedding(bits) + self.position_embedding(positions)
        attn_maps: List[Tensor] = []
        for block in self.blocks:
            if self.use_checkpoint and self.training:
                h, attn = checkpoint(block, h, causal, use_reentrant=False)
            else:
                h, attn = block(h, causal)
            if attn is not None:
                attn_maps.append(attn)
        logits = self.lm_head(self.final_norm(h))
        return logits, measure(logits, h, attn_maps, self.config)

    def forward_compressed(self, streams: List[Tensor], causal: bool = True) -> Tuple[Tensor, Dict]:
        """Forward on rows given as run-length streams (all of one length once expanded)."""
        device = self.lm_head.weight.device
        bits = torch.stack([decompress_bits(s) for s in streams]).long().to(device)
        return self.forward(bits, causal=causal)
