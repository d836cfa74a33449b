"""A run that starts from a smaller model: doubled until it has the run's dimensions, with the same logits."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint import load_checkpoint
from .model import BitTransformerLM
from .scale import double_layers, double_length, double_width

DOUBLE = {"num_layers": double_layers, "d_model": double_width, "max_seq_len": double_length}
FREE = {
    "use_checkpoint",
    "full_attn_logging",
    "lambda_K",
    "lambda_C",
    "lambda_S",
}  # of a configuration, what no logit depends on
GROWN = 1e-9  # logits in float64 that growing may move


def grow_checkpoint(path: str | Path, config: dict[str, Any]) -> nn.Module:
    """The model of a checkpoint, doubled until it has a configuration; what it computes stays the same.

    Logits are compared in float64, before the weights are rounded to float32 again. Raises
    FileNotFoundError where there is no such file, and ValueError where it holds no float model, where
    doubling does not lead to the configuration, and where the logits would move.
    """
    if Path(path).is_dir():
        raise ValueError(f"--grow_from {path} is a folder: name the model.safetensors in it")
    small = load_checkpoint(path)["model"].double().eval()
    if any(tensor.dtype == torch.int8 for tensor in small.state_dict().values()):
        raise ValueError(f"--grow_from {path} is an INT8 model: name the model.safetensors that it was made from")
    source = {name: small.config[name] for name in DOUBLE}
    grown = small
    for name, double in DOUBLE.items():
        while grown.config[name] < config[name]:
            grown = double(grown)
    differing = {name: value for name, value in grown.config.items() if value != config[name] and name not in FREE}
    if differing:
        wanted = {name: config[name] for name in differing}
        raise ValueError(f"--grow_from {path}: doubling {source} leads to {differing}, expected {wanted}")
    bits = torch.randint(0, 2, (2, small.max_seq_len), generator=torch.Generator().manual_seed(0))
    moved = (logits_of(grown, bits) - logits_of(small, bits)).abs().max().item()
    if not moved <= GROWN:
        raise ValueError(f"--grow_from {path}: growing would move the logits by {moved:.1e}, more than {GROWN:.0e}")
    print(f"grown from {source}: logits moved by {moved:.1e}", file=sys.stderr)
    model = BitTransformerLM(**config)
    model.load_state_dict(grown.state_dict())
    return model


@torch.no_grad()
def logits_of(model: nn.Module, bits: Tensor) -> Tensor:
    """The logits [B, T, 2] of bits [B, T]."""
    return model(bits)[0]
