"""Attention masks, built once and shared.

All masks here are boolean and follow SDPA's convention: ``True`` may be attended to.
Nobody should write to a mask that was handed out. If it happens anyway the entry is
thrown away on its next use and built afresh.
"""

from collections import OrderedDict
from typing import Callable, Tuple

import torch


class MaskCache:
    """Least-recently-used store of masks.

    It lives at module level and not on a model: state dicts, pickles and deep copies
    never see it.
    """

    def __init__(self, capacity: int = 48) -> None:
        self.capacity = capacity
        self._entries: "OrderedDict[Tuple, Tuple[torch.Tensor, int]]" = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        self._entries.clear()

    def causal(self, length: int, device) -> torch.Tensor:
        """Lower triangle ``[length, length]``."""
        return self._lookup(("causal", length), device, lambda dev: _lower(length, length, 0, dev))

    def window(self, chunk: int, overlap: int, device) -> torch.Tensor:
        """``[chunk, overlap + chunk]``: a chunk's queries against its keys and those before."""
        return self._lookup(
            ("window", chunk, overlap),
            device,
            lambda dev: _lower(chunk, overlap + chunk, overlap, dev),
        )

    def _lookup(self, kind: Tuple, device, build: Callable) -> torch.Tensor:
        if torch.compiler.is_compiling():
            return build(device)  # folded into the graph, nothing to share
        device = _canonical(device)
        key = kind + (device,)
        held = self._entries.pop(key, None)
        if held is None or held[0]._version != held[1]:
            # Without this, a mask first wanted during inference could never be saved for backward.
            with torch.inference_mode(False):
                mask = build(device)
            if type(mask) is not torch.Tensor:
                return mask  # a fake or functional tensor belongs to whoever is tracing
            held = (mask, mask._version)
        self._entries[key] = held
        while len(self._entries) > self.capacity:
            self._entries.popitem(last=False)
        return held[0]


def _lower(rows: int, cols: int, diagonal: int, device) -> torch.Tensor:
    return torch.ones(rows, cols, dtype=torch.bool, device=device).tril(diagonal)


def _canonical(device) -> torch.device:
    """``cuda`` and ``cuda:0`` are one place."""
    device = torch.device(device)
    if device.index is None and device.type not in ("cpu", "meta"):
        device = torch.empty(0, device=device).device
    return device


MASKS = MaskCache()
