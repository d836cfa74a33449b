"""Checkpoints: a model with its configuration, and what training needs to go on.

A checkpoint is one safetensors file. Its metadata holds all that is no tensor as JSON, the version of
this layout, and a SHA-256 over both, so that a file is whole or is refused, and runs no code.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .model import BitTransformerLM
from .quantization import int8_form

VERSION = 1


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
    content = {
        "config": model.config,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict() if optimizer is not None else None,
        "scheduler": scheduler.state_dict() if scheduler is not None else None,
        "extra": extra,
    }
    write_content(path, content)


def load_checkpoint(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint: the rebuilt "model", the "optimizer" and "scheduler" states, and the "extra".

    Raises FileNotFoundError where there is no such file, and ValueError where it is damaged or no
    checkpoint. No code that a file may carry is run.
    """
    content = read_content(path, device)
    try:
        dtype = content["model"]["embedding.weight"].dtype
        model = BitTransformerLM(**content["config"]).to(device, dtype)
        if any(tensor.dtype == torch.int8 for tensor in content["model"].values()):
            model = int8_form(model)
        model.load_state_dict(content["model"])
    except (RuntimeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged or no checkpoint of a BitTransformerLM: {error}") from error
    return {**content, "model": model}


def write_content(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write numbers, strings, tensors, and lists and dicts of these; the file is whole or absent.

    Raises TypeError on anything else, and OSError where the disk does not take it.
    """
    tensors: dict[str, Tensor] = {}
    described = {"version": VERSION, "content": describe(content, "", tensors)}
    # One entry, as safetensors lays several in an order of its own: equal content is to make equal files.
    metadata = {"checkpoint": json.dumps({**described, "sha256": digest(described, tensors)})}
    write_whole(path, save(tensors, metadata))


def write_whole(path: str | os.PathLike[str], raw: bytes) -> None:
    """Write a file that is whole or absent, and replaces one of its name at the very end.

    Raises OSError, which names the file, where the disk does not take it.
    """
    path, part = Path(path), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        Path(part).chmod(0o644)
        Path(part).replace(path)
    except BaseException as error:
        if part is not None:
            Path(part).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"{path} cannot be written: {error.strerror or error}") from error
        raise


def read_content(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what write_content wrote, its tensors on a device.

    Raises FileNotFoundError where there is no such file, and ValueError where it is damaged or foreign.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        described = json.loads(metadata["checkpoint"])
        if described["version"] > VERSION:
            raise ValueError(f"its version is {described['version']}, and this code reads {VERSION}: use a newer one")
        if described.pop("sha256") != digest(described, tensors):
            raise ValueError("its checksum is another than its content's")
        content = restore(described["content"], {name: tensor.to(device) for name, tensor in tensors.items()})
        if not isinstance(content, dict):
            raise TypeError(f"expected a dict, found {type(content).__name__}")
        return content
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged or no checkpoint of a BitTransformerLM: {error}") from error


def describe(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON can hold it, its tensors put aside under their names."""
    if isinstance(value, Tensor):
        name = name.lstrip(".")
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, Mapping):  # in pairs, as keys may be numbers
        return {"dict": [[key, describe(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [describe(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint holds numbers, strings and tensors, got {type(value).__name__} as {name!r}")


def restore(described: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that describe described."""
    if not isinstance(described, dict):
        return described
    ((kind, held),) = described.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "dict":
        return {key: restore(item, tensors) for key, item in held}
    return (list if kind == "list" else tuple)(restore(item, tensors) for item in held)


def digest(described: Any, tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of a description and of the bytes of its tensors, in order of name."""
    found = hashlib.sha256(json.dumps(described).encode())
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}\n".encode())
        found.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()
