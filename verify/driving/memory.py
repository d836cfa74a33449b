"""How much memory tensors take while something runs, and afterwards. In child processes only."""

import gc
import weakref
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode

from .attention_runs import Shape, first_call
from .operations import id_of, tensors_in
from .tree import Tree

LARGE = 1500  # bits of a row whose mask takes some megabytes


class Memory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the storages that operations make until they are gone."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0  # bytes that were alive at one time
        self.largest = 0  # elements of the largest tensor that was made
        self._alive: dict[int, int] = {}  # bytes of each storage
        self._now = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation."""
        taken = {each.untyped_storage()._cdata for each in tensors_in((args, kwargs))}
        out = func(*args, **kwargs or {})
        for tensor in tensors_in(out):
            storage = tensor.untyped_storage()
            if storage._cdata not in taken:
                self.largest = max(self.largest, tensor.numel())
                self._enter(storage)
        return out

    def _enter(self, storage: UntypedStorage) -> None:
        if storage._cdata in self._alive:
            return
        self._alive[storage._cdata] = storage.nbytes()
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._leave, storage._cdata)

    def _leave(self, number: int) -> None:
        self._now -= self._alive.pop(number, 0)


def bytes_that_large_ones_leave(tree: Tree, config: dict[str, Any]) -> tuple[int, int, str]:
    """The bytes of tensors that are left after forwards of many large lengths, how many there may be, and of what."""
    before, count = living(), 70
    model = tree.model(dtype=torch.float32, d_model=4, nhead=1, max_seq_len=LARGE + count, **config)
    call = first_call(model, Shape(9, rows=1))
    assert call is not None  # as it was before
    x = torch.randn(1, LARGE + count, 4)
    with torch.no_grad():
        for length in range(LARGE, LARGE + count):
            call.again(x[:, :length])
    del model, call, x
    gc.collect()
    left = [thing for thing in gc.get_objects() if type(thing) is Tensor and id_of(thing) not in before]
    size = sum({id_of(each): each.untyped_storage().nbytes() for each in left}.values())
    return size, 1 << 27, f"bytes that are left after forwards of {count} lengths from {LARGE} bits"


def living() -> dict[int, tuple[Any, ...]]:
    """The tensors in memory by their storage: dtype and rank."""
    # type() rather than isinstance(): that would ask lazy objects of other libraries for their class.
    tensors = [thing for thing in gc.get_objects() if type(thing) is Tensor and not thing.is_meta]
    return {id_of(each): (each.dtype, each.dim()) for each in tensors}
