"""The caller's world, which a call leaves as it was, and what a call holds in memory. In child processes only."""

import gc
import math
import multiprocessing
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from .outputs import with_logits

SDPA = ("flash_sdp_enabled", "mem_efficient_sdp_enabled", "math_sdp_enabled", "cudnn_sdp_enabled")
FILES = "the files that are here"
FEEDER = "QueueFeeder"  # of a queue that is closed: it ends when it has nothing more to write
SCALAR = 64  # elements: what is smaller is a figure of a record, and no batch, nor what a model made of one


def settings() -> dict[str, Any]:
    """What holds for the whole process, by name; without the random streams."""
    gc.collect()  # what has been let go, is not left
    mask = os.umask(0o077)
    os.umask(mask)
    kernels = {name: getattr(torch.backends.cuda, name)() for name in SDPA if hasattr(torch.backends.cuda, name)}
    return kernels | {
        "oneDNN": torch.backends.mkldnn.enabled,
        "the default dtype": torch.get_default_dtype(),
        "the default device": str(torch.get_default_device()),
        "the precision of matrix products": torch.get_float32_matmul_precision(),
        "determinism": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "the settings of cuDNN": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "the flush of denormal numbers": float(torch.tensor(1e-42) * 1.0) == 0,
        "torch's number of threads": torch.get_num_threads(),
        "the sharing of tensors": torch.multiprocessing.get_sharing_strategy(),  # type: ignore[no-untyped-call]
        "whether gradients are made": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autograd's search for anomalies": torch.is_anomaly_enabled(),
        "autocast": (
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.is_autocast_cache_enabled(),
        ),
        "the filters of warnings": list(warnings.filters),
        "numpy's answer to errors": np.geterr(),
        "how processes are started": multiprocessing.get_start_method(allow_none=True),
        "the environment": dict(os.environ),
        "the folder": os.getcwd(),
        "the mask of file modes": mask,
        "the answer to signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "the collection of garbage": (gc.isenabled(), gc.get_threshold()),
        "the limit of recursion": sys.getrecursionlimit(),
        "the threads that run": sorted(thread.name for thread in threading.enumerate() if FEEDER not in thread.name),
        "the processes that run": len(multiprocessing.active_children()),
        FILES: sorted(str(path) for path in Path.cwd().rglob("*")),
    }


def streams() -> dict[str, object]:
    """Where the global random streams are."""
    _, keys, place, *_ = np.random.get_state()
    return {"random": random.getstate(), "numpy": (list(keys), place), "torch": torch.get_rng_state().tolist()}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of what is no longer what it was."""
    return [name for name, value in before.items() if after[name] != value]


def surroundings() -> dict[str, Any]:
    """The settings of the process, and where Python's own random stream is, from which no model draws."""
    return settings() | {"Python's random stream": random.getstate()}


def changed(before: dict[str, Any]) -> str:
    """The first of the surroundings that is not what it was; empty if all are."""
    return next(iter(differences(before, surroundings())), "")


def draw_from_every_stream() -> None:
    """Move on the global random streams."""
    random.getrandbits(32)
    np.random.random()
    torch.randint(2, ())


@contextmanager
def noisy_models(is_noisy: bool = True) -> Iterator[None]:
    """Have each forward of a module draw from every global stream."""
    with register_module_forward_pre_hook(lambda *_: draw_from_every_stream()) if is_noisy else nullcontext():
        yield


@contextmanager
def spoilt_forward(model_kind: type[nn.Module], at: int) -> Iterator[None]:
    """Have a model of this class give logits that are no numbers, at one of its forwards."""
    count = 0

    def spoil(module: nn.Module, _: Any, out: Any) -> Any:
        nonlocal count
        if not isinstance(module, model_kind):
            return None
        count += 1
        return with_logits(out, lambda logits: logits * math.nan) if count == at + 1 else None

    with register_module_forward_hook(spoil):
        yield


def held_tensors() -> tuple[int, int]:
    """How many pieces of memory the tensors hold that are alive, gradients apart, and how many hold on to a graph."""
    tensors = [each for each in gc.get_objects() if issubclass(type(each), Tensor)]  # some ask for their class noisily
    own = {id(each.grad) for each in tensors if each.is_leaf and each.grad is not None}  # as many as parameters
    large = {each.untyped_storage().data_ptr() for each in tensors if each.numel() > SCALAR and id(each) not in own}
    return len(large), sum(each.grad_fn is not None for each in tensors)


@contextmanager
def started_processes() -> Iterator[list[str]]:
    """The names of the processes that multiprocessing starts meanwhile."""
    started: list[str] = []
    start = BaseProcess.start

    def spied(process: BaseProcess) -> None:
        started.append(process.name)
        start(process)

    BaseProcess.start = spied  # type: ignore[method-assign,assignment]
    try:
        yield started
    finally:
        BaseProcess.start = start  # type: ignore[method-assign]
