"""Data-parallel training, started by torchrun.

On one process, started without it, the functions do nothing that matters.

    torchrun --nproc_per_node 4 train.py
"""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def init_distributed() -> torch.device:
    """Join the process group that torchrun announces, if any; return the device of this process."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


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


def wrap_model(model: nn.Module, device: torch.device) -> nn.Module:
    """Move the model to the device, and average its gradients over all processes.

    Only `forward` of a wrapped model takes part: train it on raw bits, with compress_prob=0.
    """
    model = model.to(device)
    if get_world_size() == 1:
        return model
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def all_reduce_mean(values: Tensor) -> Tensor:
    """The mean of the values over all processes; the argument stays as it is."""
    values = values.detach().clone()
    if _is_distributed():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
