"""How much memory tensors take while something runs. In child processes only."""

import weakref
from typing import Any

from torch import UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode

from .operations import tensors_in


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
