"""Every option there is, once. The command line, the bench and the scripts all speak in these."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

C = TypeVar("C")


@dataclass(frozen=True)
class ModelConfig:
    d_model: int = 64
    nhead: int = 4
    num_layers: int = 2
    ff_mult: int = 4
    max_seq_len: int = 576
    dropout: float = 0.1
    window: int | None = None
    lookback: int = 0
    keep_maps: bool = True
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.d_model % self.nhead:
            raise ValueError(f"{self.nhead} heads do not divide a width of {self.d_model}")
        if self.window is not None and self.window < 1:
            raise ValueError("a window holds at least one bit")
        if self.lookback < 0:
            raise ValueError("lookback cannot be negative")


@dataclass(frozen=True)
class TrainConfig:
    epochs: int = 1
    extra_steps: int = 0
    lr: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    compress_prob: float = 0.5
    direct_prob: float = 0.0
    seed: int = 0


def pick(kind: type[C], source: dict[str, Any]) -> C:
    """The config of a kind that a bigger dict (a parsed command line, a request) holds."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in source.items() if name in known})


def plain(config: Any) -> dict[str, Any]:
    return asdict(config)
