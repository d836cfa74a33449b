"""The tree under test, as a check sees it. Imported in child processes only."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn


class Tree:
    """A BitTransformerLM tree that this process has on its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        sys.path.insert(0, str(path))

    def module(self, name: str) -> ModuleType:
        """Import one of the tree's modules: `model`, `training`, ..."""
        return importlib.import_module(f"bit_transformer.{name}")

    def model(self, seed: int = 0, dtype: torch.dtype = torch.float64, **config: Any) -> nn.Module:
        """A small BitTransformerLM in training mode, without dropout, its weights set by the seed."""
        defaults = {
            "d_model": 8,
            "nhead": 2,
            "num_layers": 1,
            "dim_feedforward": 16,
            "max_seq_len": 64,
            "use_checkpoint": False,
        }
        torch.manual_seed(seed)
        model: nn.Module = self.module("model").BitTransformerLM(**defaults | config)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return model.to(dtype)

    @staticmethod
    def bits(rows: int, length: int, seed: int = 0) -> Tensor:
        """Random bits [rows, length] that the seed fixes."""
        return torch.randint(0, 2, (rows, length), generator=torch.Generator().manual_seed(seed))
