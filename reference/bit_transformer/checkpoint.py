"""Checkpoints: a model with its configuration, and what training needs to go on."""

import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .model import BitTransformerLM
from .quantization import quantize_dynamic


def save_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    **extra: Any,
) -> None:
    """Write a checkpoint that is whole or absent: a file of this name is replaced at the very end.

    extra may hold numbers, strings, tensors, and lists and dicts of these.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "config": model.config,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict() if optimizer is not None else None,
        "scheduler": scheduler.state_dict() if scheduler is not None else None,
        "extra": extra,
    }
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def load_checkpoint(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint: the rebuilt "model", the "optimizer" and "scheduler" states, and the "extra".

    Raises FileNotFoundError where there is no such file, and ValueError where it is damaged or no
    checkpoint. No code that a file may carry is run.
    """
    with Path(path).open("rb") as file:
        try:
            content = torch.load(file, map_location=device, weights_only=True)
            dtype = content["model"]["embedding.weight"].dtype
            model = BitTransformerLM(**content["config"]).to(device, dtype)
            if any(tensor.dtype == torch.int8 for tensor in content["model"].values()):
                model = quantize_dynamic(model)
            model.load_state_dict(content["model"])
        except (RuntimeError, OSError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is damaged or no checkpoint of a BitTransformerLM: {error}") from error
    return {**content, "model": model}
