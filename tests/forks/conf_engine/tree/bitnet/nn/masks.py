"""Triangles of attention, built once a size and place.

Boolean, ``True`` hides. Nobody gets to write into the store: what was changed is built again.
"""
from collections import OrderedDict

import torch

_STORE = OrderedDict()
_MOST = 32


def hidden_keys(queries, keys, device):
    """What ``queries`` rows may not see of ``keys`` columns, the last of which is the last query."""
    device = torch.device(device)
    if device.index is None and device.type not in ("cpu", "meta"):
        device = torch.empty(0, device=device).device
    key = (queries, keys, device)
    entry = _STORE.get(key)
    if entry is None or entry[0]._version != entry[1]:
        with torch.inference_mode(False):
            mask = torch.ones(queries, keys, dtype=torch.bool, device=device).triu(1 + keys - queries)
        entry = _STORE[key] = (mask, mask._version)
        while len(_STORE) > _MOST:
            _STORE.popitem(last=False)
    return entry[0]
