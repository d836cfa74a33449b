"""Tensors that are not on the device of what they belong to, seen on `meta`. In child processes only."""

import copy
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .operations import tensors_in

# Operations of a GPU that take tensors of the CPU beside its own: indices, and copies from one to the other.
BETWEEN = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_to_copy"}
BETWEEN |= {"aten::copy_", "aten::_unsafe_index", "aten::_unsafe_index_put"}


MIXED = re.compile("expected device|same device|at least two devices|device mismatch", re.IGNORECASE)  # what torch says


class DeviceWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the first operation that a GPU would refuse, as it mixes tensors of the CPU with those of `meta`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.mixed = ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation."""
        name = func._schema.name
        inputs = list(tensors_in((args, kwargs)))
        beside = any(not each.is_meta and each.dim() for each in inputs)
        if beside and name not in BETWEEN and any(each.is_meta for each in inputs):
            self.mixed = self.mixed or name
        return func(*args, **kwargs or {})


def strays(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], graph: bool = True) -> str:
    """What is not on the device of its inputs when a copy of a module runs on `meta`; empty if all is.

    What depends on values does not run there, though it is right on every other device: it is looked at until then.
    """
    moved = copy.deepcopy(module).to("meta")
    args, kwargs = on_meta(args), on_meta(kwargs)
    try:
        with torch.set_grad_enabled(graph), DeviceWatch() as watch:
            outputs = list(tensors_in(moved(*args, **kwargs)))
            if graph:
                torch.autograd.backward(outputs[0].sum())
    except (NotImplementedError, RuntimeError) as raised:
        if not watch.mixed:
            return f"{type(raised).__name__}: {raised}" if MIXED.search(str(raised)) else ""
    if watch.mixed:
        return f"{watch.mixed} takes a tensor of the CPU beside one of the device"
    return "" if all(each.is_meta for each in outputs) else "an output is on the CPU"


def on_meta(value: Any) -> Any:
    """The same with each tensor on `meta`."""
    if isinstance(value, Tensor):
        return value.detach().to("meta")
    if isinstance(value, dict):
        return {name: on_meta(item) for name, item in value.items()}
    return tuple(map(on_meta, value)) if isinstance(value, tuple | list) else value
