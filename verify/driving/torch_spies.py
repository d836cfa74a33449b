"""Spies on what a training loop asks of torch: they tell that something happens, and change nothing of it."""

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

Tell = Callable[..., object]
BACKWARDS: tuple[tuple[Any, str], ...] = ((Tensor, "backward"), (torch.autograd, "backward"))
CLIPS: tuple[tuple[Any, str], ...] = tuple(
    (module, name)
    for module in (nn.utils, nn.utils.clip_grad)
    for name in ("clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_")
    if hasattr(module, name)
)
ZEROS: tuple[tuple[Any, str], ...] = ((Optimizer, "zero_grad"), (nn.Module, "zero_grad"))


class Spies:
    """Functions that tell of their calls; while one of a kind runs, others of that kind are its own doing."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()

    def on(self, owner: Any, name: str, kind: str, before: Tell | None = None, after: Tell | None = None) -> None:
        """Have a function told of before it runs, with its arguments, and after it has, with its result and these."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def spied(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling():
                return original(*args, **kwargs)
            is_own = self.running[kind] > 0
            if before is not None and not is_own:
                before(*args, **kwargs)
            self.running[kind] += 1
            try:
                result = original(*args, **kwargs)
            finally:
                self.running[kind] -= 1
            if after is not None and not is_own:
                after(result, *args, **kwargs)
            return result

        setattr(owner, name, spied)

    @contextmanager
    def inside(self, kind: str) -> Iterator[None]:
        """While one of a kind runs."""
        self.running[kind] += 1
        try:
            yield
        finally:
            self.running[kind] -= 1


def schedulers() -> Iterator[type[LRScheduler]]:
    """Every kind of scheduler that there is so far."""
    yield LRScheduler
    yield from subclasses(LRScheduler)


def subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    """Every class below this one."""
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)
