import math
import sys
from typing import Any, Dict, List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from .compression import decompress_bits
from .telemetry import collect

try:
    # dynamo has been nothing but trouble on newer interpreters
    if torch.__version__ >= "2.0" and sys.version_info < (3, 11):
        compile_fn = torch.compile
    else:
        raise RuntimeError("torch.compile not usable here")
except Exception:

    def compile_fn(fn=None, **kwargs):
        return fn if fn is not None else (lambda inner: inner)


_MASK_CACHE: Dict[Tuple[int, torch.device], torch.Tensor] = {}


def get_tri_mask(seq_len: int, device: torch.device) -> torch.Tensor:
    """Upper triangle (True = not visible), kept between calls."""
    key = (seq_len, device)
    if key not in _MASK_CACHE:
        if len(_MASK_CACHE) > 50:
            _MASK_CACHE.clear()
        _MASK_CACHE[key] = torch.triu(
            torch.ones(seq_len, seq_len, device=device, dtype=torch.bool), diagonal=1
        )
    return _MASK_CACHE[key]


class PositionalEncoding(nn.Module):
    def __init__(self, d_model: int, max_len: int = 1024) -> None:
        super().__init__()
        pos = torch.arange(max_len).unsqueeze(1)
        div = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        pe = torch.zeros(max_len, d_model)
        pe[:, 0::2] = torch.sin(pos * div)
        pe[:, 1::2] = torch.cos(pos * div)
        self.register_buffer("pe", pe)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.pe[: x.size(1)]


class LoggingSelfAttention(nn.Module):
    """Attention that can hand out its map. Chunked when chunk_size is given."""

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
        assert d_model % nhead == 0, "d_model must be divisible by nhead"
        self.nhead = nhead
        self.d_head = d_model // nhead
        self.chunk_size = chunk_size
        self.overlap = overlap
        self.full_attn_logging = full_attn_logging
        self.in_proj = nn.Linear(d_model, 3 * d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.attn_dropout = nn.Dropout(dropout)

    def forward(
        self, x: torch.Tensor, causal: bool = True, chunked: bool = True
    ) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        B, T, C = x.shape
        q, k, v = self.in_proj(x).chunk(3, dim=-1)
        q = q.view(B, T, self.nhead, self.d_head).transpose(1, 2)
        k = k.view(B, T, self.nhead, self.d_head).transpose(1, 2)
        v = v.view(B, T, self.nhead, self.d_head).transpose(1, 2)
        if self.chunk_size is not None and chunked:
            out, weights = self._chunked_attn(q, k, v)
        else:
            mask = get_tri_mask(T, x.device) if causal else None
            out, weights = self._attn(q, k, v, mask)
            if not self.full_attn_logging:
                weights = None
        out = out.transpose(1, 2).reshape(B, T, C)
        return self.out_proj(out), weights

    def _attn(self, q, k, v, mask):
        scores = torch.matmul(q, k.transpose(-2, -1))
        scores = scores / math.sqrt(self.d_head)
        if mask is not None:
            scores = scores.masked_fill(mask, float("-inf"))
        weights = F.softmax(scores, dim=-1)
        out = torch.matmul(self.attn_dropout(weights), v)
        return out, weights.detach()

    def _chunked_attn(self, q, k, v):
        """Causal only. The queries s..end look at start..end."""
        B, H, T, _ = q.shape
        full = None
        if self.full_attn_logging:
            full = torch.zeros(B, H, T, T, device=q.device, dtype=q.dtype)
        outputs = []
        for s in range(0, T, self.chunk_size):
            start = max(0, s - self.overlap)
            end = min(s + self.chunk_size, T)
            mask = get_tri_mask(end - start, q.device)[s - start :]
            out, weights = self._attn(
                q[:, :, s:end], k[:, :, start:end], v[:, :, start:end], mask
            )
            outputs.append(out)
            if full is not None:
                full[:, :, s:end, start:end] = weights[..., : end - start]
        return torch.cat(outputs, dim=2), full


class LoggingTransformerLayer(nn.Module):
    def __init__(self, d_model, nhead, dim_feedforward, dropout=0.1, **attn_kwargs):
        super().__init__()
        self.self_attn = LoggingSelfAttention(d_model, nhead, dropout, **attn_kwargs)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.dropout = nn.Dropout(dropout)

    def attn_branch(self, x, causal, chunked):
        out, weights = self.self_attn(self.norm1(x), causal, chunked)
        return self.dropout(out), weights

    def ff_branch(self, x):
        return self.dropout(self.linear2(F.relu(self.linear1(self.norm2(x)))))

    def forward(self, x, causal=True, chunked=True):
        out, weights = self.attn_branch(x, causal, chunked)
        x = x + out
        return x + self.ff_branch(x), weights

    def couple(self, x1, x2, causal=True, chunked=True):
        """RevNet coupling of two streams."""
        out, weights = self.attn_branch(x2, causal, chunked)
        y1 = x1 + out
        return y1, x2 + self.ff_branch(y1), weights


class BitTransformerLM(nn.Module):
    """Transformer language model on {0, 1}.

    Args:
        reversible: two coupled streams instead of one residual stream.
        use_autocast: bfloat16 autocast in every forward, training or not.
        use_act: mix the layers' states by halting probabilities.
        chunk_size: chunked attention (causal mode only).
        full_attn_logging: keep the full T x T maps. ``None`` means: only without chunks.
        full_bits_train: dense attention while training, even if chunk_size is given.
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
        use_autocast: bool = False,
        use_act: bool = False,
        act_threshold: float = 0.9,
        chunk_size: Optional[int] = None,
        overlap: int = 0,
        full_bits_train: bool = False,
        full_attn_logging: Optional[bool] = None,
    ) -> None:
        super().__init__()
        self.params: Dict[str, Any] = {
            k: v for k, v in locals().items() if k not in ("self", "__class__")
        }
        if full_attn_logging is None:
            full_attn_logging = chunk_size is None
        self.max_seq_len = max_seq_len
        self.lambdas = {"K": lambda_K, "C": lambda_C, "S": lambda_S}
        self.reversible = reversible
        self.use_checkpoint = use_checkpoint
        self.use_autocast = use_autocast
        self.use_act = use_act
        self.act_threshold = act_threshold
        self.full_bits_train = full_bits_train
        self.embedding = nn.Embedding(2, d_model)
        self.pos_enc = PositionalEncoding(d_model, max_len=max_seq_len)
        self.layers = nn.ModuleList(
            [
                LoggingTransformerLayer(
                    d_model=d_model,
                    nhead=nhead,
                    dim_feedforward=dim_feedforward,
                    chunk_size=chunk_size,
                    overlap=overlap,
                    full_attn_logging=full_attn_logging,
                )
                for _ in range(num_layers)
            ]
        )
        if use_act:
            self.halt_projs = nn.ModuleList(
                [nn.Linear(d_model, 1) for _ in range(num_layers)]
            )
        self.norm = nn.LayerNorm(d_model)
        self.out_head = nn.Linear(d_model, 2)

    def forward(
        self, bit_seq: torch.Tensor, causal: bool = True
    ) -> Tuple[torch.Tensor, Dict[str, Any]]:
        """Logits (B, T, 2) and telemetry. causal=False is diffusion mode, without chunks."""
        if bit_seq.size(1) > self.max_seq_len:
            raise ValueError("sequence longer than max_seq_len")
        with torch.autocast(
            device_type=bit_seq.device.type,
            dtype=torch.bfloat16,
            enabled=self.use_autocast or torch.is_autocast_enabled(bit_seq.device.type),
        ):
            x = self.pos_enc(self.embedding(bit_seq))
            x, maps, halt_probs = self._run(x, causal)
            logits = self.out_head(self.norm(x))
        # autocast leaves them in bfloat16, which is too coarse for a loss
        logits = logits.to(self.out_head.weight.dtype)
        tele = collect(logits, maps, self.lambdas)
        tele["halt_probs"] = halt_probs
        return logits, tele

    def forward_compressed(
        self, compressed: List[torch.Tensor], causal: bool = True
    ) -> Tuple[torch.Tensor, Dict[str, Any]]:
        """Rows that went through compress_bits. All of one length when decompressed."""
        rows = [decompress_bits(c).long() for c in compressed]
        return self.forward(torch.stack(rows), causal=causal)

    def _run(self, x: torch.Tensor, causal: bool):
        chunked = causal and not (self.training and self.full_bits_train)
        x1, x2 = x, x
        maps: List[torch.Tensor] = []
        halt_probs: List[torch.Tensor] = []
        mixed, spent = torch.zeros_like(x), x.new_zeros(x.shape[:2] + (1,))
        for i, layer in enumerate(self.layers):
            if self.reversible:
                x1, x2, weights = self._call(layer.couple, x1, x2, causal, chunked)
                x = (x1 + x2) / 2
            else:
                x, weights = self._call(layer, x, causal, chunked)
            if weights is not None:
                maps.append(weights)
            if self.use_act:
                p = torch.sigmoid(self.halt_projs[i](x))
                last = i == len(self.layers) - 1
                stop = (spent + p >= self.act_threshold) | last
                w = torch.where(stop, 1 - spent, p)
                mixed, spent = mixed + w * x, spent + w
                halt_probs.append(p.detach())
        return (mixed if self.use_act else x), maps, halt_probs

    def _call(self, fn, *args):
        if self.use_checkpoint and self.training and torch.is_grad_enabled():
            return checkpoint(fn, *args, use_reentrant=False)
        return fn(*args)


def infer_long_sequence(
    model: BitTransformerLM, bits: torch.Tensor, ctx_bits: int = 512, overlap: int = 64
) -> torch.Tensor:
    """Most likely next bits of a 1-D sequence of any length, window by window."""
    model.eval()
    preds: List[torch.Tensor] = []
    pos = 0
    with torch.no_grad():
        while pos < bits.numel():
            left = max(0, pos - overlap)
            stop = min(left + ctx_bits, bits.numel())
            logits, _ = model(bits[left:stop].unsqueeze(0))
            preds.append(logits[0, pos - left :].argmax(-1))
            pos = stop
    return torch.cat(preds)
