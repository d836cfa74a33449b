"""All knobs in one place. The command line is generated from these classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Optional


@dataclass
class ModelConfig:
    d_model: int = 128
    n_heads: int = 8
    n_layers: int = 4
    d_ff: int = 512
    max_len: int = 1152
    dropout: float = 0.1
    # windowed attention: queries come in chunks, each sees `overlap` keys to its left
    chunk_size: Optional[int] = None
    overlap: int = 0
    full_attn_logging: bool = True
    checkpoint_blocks: bool = False

    def __post_init__(self) -> None:
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model={self.d_model} is not divisible by n_heads={self.n_heads}"
            )
        if self.chunk_size is not None and self.chunk_size <= 0:
            raise ValueError("chunk_size must be positive")

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)


@dataclass
class TrainConfig:
    epochs: int = 1
    extra_steps: int = 0
    lr: float = 1e-3
    weight_decay: float = 0.01
    compress_prob: float = 0.5
    grad_clip: float = 1.0
    causal: bool = True
    seed: int = 0

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)
