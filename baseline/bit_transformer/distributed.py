"""Training by several processes, started by torchrun.

On one process, started without it, the functions do nothing that matters.

    torchrun --nproc_per_node 4 -m bit_transformer.training task-a --data text.txt --out runs/a

Gradients are averaged by DistributedDataParallel, or, where a model is too large to stand whole beside
its optimizer on each device, by FSDP2 (`fully_shard`), which also deals parameters, gradients and
optimizer state out. Checkpoints are the same files either way.
"""

import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from .compression import decompress_rows

PARALLEL = ("ddp", "fsdp")


def init_distributed(device: str | None = None) -> torch.device:
    """Join the process group that torchrun announces, if any; return the device of this process.

    device is "cpu", "cuda", or, for a process alone, "cuda:1"; without one, that is a GPU where there is
    one. Raises ValueError on another word, and on a GPU that is not there.
    """
    place = place_of(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    return place


def place_of(device: str) -> torch.device:
    """The device that a word means here; of processes that torchrun starts, each has a GPU of its own."""
    if device == "cpu":
        return torch.device(device)
    kind, _, index = device.partition(":")
    if kind != "cuda" or not (index.isdecimal() or device == "cuda"):
        raise ValueError(f"device must be cpu, cuda or cuda:1, got {device!r}")
    if index and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"device must be cpu or cuda under torchrun, which deals the GPUs out, got {device!r}")
    place, count = int(index or os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if place >= count:
        raise ValueError(f"device cuda:{place} is not there: this machine shows {count} GPUs; cpu always is")
    return torch.device("cuda", place)


def shutdown_distributed() -> None:
    """Leave the process group, if there is one."""
    if _is_distributed():
        dist.destroy_process_group()


def get_rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if _is_distributed() else 0


def get_world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if _is_distributed() else 1


def is_main_process() -> bool:
    """Whether this is the process that logs and saves."""
    return get_rank() == 0


class Replica(DistributedDataParallel):
    """A model whose gradients are averaged over all processes; runs of both forms of input take part."""

    def forward_compressed(self, compressed: list[Tensor], **kwargs: Any) -> tuple[Tensor, dict]:
        """`forward` of rows that were run-length encoded."""
        return self(decompress_rows(compressed).to(next(self.parameters()).device), **kwargs)

    @property
    def max_seq_len(self) -> int:
        """The longest row that the model takes, in bits."""
        return self.module.max_seq_len

    def will_sync_module_buffers(self) -> bool:
        """Never: tables of contexts, which are large, are alike in all processes."""
        return False


def wrap_model(model: nn.Module, device: torch.device, parallel: str = "ddp") -> nn.Module:
    """Move the model to the device, and average its gradients over all processes.

    "fsdp" shards it too: layer by layer, or, where a reversible stack calls the layers' branches by
    themselves, as a whole. Raises ValueError on another word.
    """
    if parallel not in PARALLEL:
        raise ValueError(f"parallel must be one of {', '.join(PARALLEL)}, got {parallel!r}")
    model = model.to(device)
    if get_world_size() == 1:
        return model
    if parallel == "ddp":
        return Replica(model, device_ids=[device.index] if device.type == "cuda" else None)
    # Logits are a view, of which FSDP2 warns: to change them in place, which nobody does, would hide them from it.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module", category=UserWarning)
    mesh = init_device_mesh(device.type, (get_world_size(),))
    for layer in () if model.reversible else model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh, reshard_after_forward=False)


def all_reduce_mean(values: Tensor) -> Tensor:
    """The mean of the values over all processes; the argument stays as it is."""
    values = values.detach().clone()
    if _is_distributed():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


@dataclass(frozen=True, slots=True)
class Replicas:
    """The processes that share the rows of each micro-batch, seen from one of them."""

    rank: int = 0
    count: int = 1

    @classmethod
    def here(cls) -> "Replicas":
        """The process group that was joined, or this process alone."""
        return cls(get_rank(), get_world_size())

    def part(self, rows: list[int]) -> list[int]:
        """The rows of this process in a micro-batch; where there is none for it, one that will not count."""
        return rows[self.rank :: self.count] or rows[:1]

    def has_part(self, rows: list[int]) -> bool:
        """Whether a row of a micro-batch is this process's own."""
        return len(rows) > self.rank

    def accumulating(self, model: nn.Module, closes: bool) -> AbstractContextManager[Any]:
        """The context of forward and backward: gradients are exchanged by the last micro-batch of an update only."""
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(closes)
        return model.no_sync() if isinstance(model, DistributedDataParallel) and not closes else nullcontext()

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a value over all processes."""
        return all_reduce_mean(value)

    def agreed(self, value: Any) -> Any:
        """What the first process has found: decisions that rest on it are the same everywhere."""
        values = [value]
        if self.count > 1:
            dist.broadcast_object_list(values, device=_device())
        return values[0]

    def any(self, flag: bool) -> bool:
        """Whether it is so for one process at least."""
        return flag if self.count == 1 else bool(all_reduce_mean(torch.tensor(float(flag), device=_device())) > 0)

    def plain(self, model: nn.Module) -> nn.Module:
        """The model itself, to evaluate."""
        return model.module if isinstance(model, DistributedDataParallel) else model


def gather_state(model: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """The whole state of model and optimizer, by the names of parameters, on the CPU of the first process."""
    return get_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def scatter_state(model: nn.Module, optimizer: Optimizer, model_state: dict[str, Any], state: dict[str, Any]) -> None:
    """Give each process its part of what gather_state returned; every process has read the same file.

    Raises ValueError where a name is missing, of which set_state_dict would say nothing, or is unknown.
    """
    plain = Replicas.here().plain(model)
    trained = {name for name, parameter in plain.named_parameters() if parameter.requires_grad}
    if wrong := (plain.state_dict().keys() ^ model_state.keys()) | (trained ^ state["state"].keys()):
        raise ValueError(f"the model and the state that was kept do not both have {', '.join(sorted(wrong))}")
    options = StateDictOptions(full_state_dict=True)
    set_state_dict(model, optimizer, model_state_dict=model_state, optim_state_dict=state, options=options)
    for group in optimizer.param_groups:  # lists have become of tuples: the next file would tell
        group.update({name: tuple(value) for name, value in group.items() if name == "betas"})


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
