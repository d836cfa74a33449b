"""Masks and maps of attention: those that are built again, those that a flag would do for, those that are kept."""

from typing import Any

import torch
from torch import Tensor, nn

from ..driving.torch_spies import Spies
from .lines import Lines
from .seen import MOST_UPDATES, Seen

HIDDEN = -1e4  # what is added to a score that is not to be seen, at most
MATRIX = 2  # dimensions
MASK = 3  # its place after queries, keys and values
SHORTEST = 64  # positions from which on a mask, or a map, costs something


class Attention:
    """Watches triangles, softmax and torch's own attention, and adds what there was to `seen`."""

    def __init__(self, lines: Lines, spies: Spies, seen: Seen) -> None:
        self._lines, self._seen = lines, seen
        self._known: set[tuple[str, tuple[int, ...]]] = set()
        for owner in (torch, Tensor):
            for name in ("triu", "tril"):
                spies.on(owner, name, "triangle", after=self._note_triangle)
            spies.on(owner, "softmax", "softmax", after=self._note_map)
        spies.on(nn.functional, "softmax", "softmax", after=self._note_map)
        spies.on(nn.functional, "scaled_dot_product_attention", "attention", after=self._note_attention)

    def _note_triangle(self, out: Tensor, *_: Any, **__: Any) -> None:
        if _is_square(out) and len(self._seen.masks) < MOST_UPDATES:
            self._seen.masks.setdefault((self._lines.here(), out.shape[-1]), set()).add(self._seen.made)

    def _note_map(self, out: Tensor, *_: Any, **__: Any) -> None:
        if out.dim() > MATRIX and out.requires_grad and _is_square(out):
            self._seen.maps_kept[self._lines.here()] += 1

    def _note_attention(self, _: Tensor, *given: Any, attn_mask: Tensor | None = None, **__: Any) -> None:
        self._seen.attends = True
        attn_mask = given[MASK] if len(given) > MASK else attn_mask
        if attn_mask is None or not _is_square(attn_mask):
            return
        where = (self._lines.here(), tuple(attn_mask.shape))
        if where not in self._known:
            self._known.add(where)
            if _is_causal(attn_mask.detach()):
                self._seen.dense_masks[where[0]] += 1


def _is_square(tensor: Tensor) -> bool:
    return tensor.dim() > 1 and tensor.shape[-1] == tensor.shape[-2] >= SHORTEST


def _is_causal(mask: Tensor) -> bool:
    """Whether a mask lets each position see itself and those before it, and does no more."""
    triangle = torch.ones(mask.shape[-2:], dtype=torch.bool, device=mask.device).tril()
    if mask.dtype == torch.bool:
        return bool((mask == triangle).all())
    return bool(((mask == 0) == triangle).all() and (mask.masked_fill(triangle, HIDDEN) <= HIDDEN).all())
