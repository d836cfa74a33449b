"""What a mask's text needs."""

from __future__ import annotations

from ..reading.frames import Reading
from ..reading.masks import Built, device_of
from .spelling import spelled, spellings

_MASKED = ("masked_fill", "where", "add", "sub", "mul")


def device_text(reading: Reading, built: Built) -> str | None:
    """The device that a mask is built on, or else that of what it masks."""
    device = device_of(built.value)
    if device is not None:
        made = spelled(device["of"], reading, built.node) if device.op == "device" else None
        return spelled(device, reading, built.node) or (f"{made}.device" if made else None)
    for value in reading.values.values():
        if value.op in _MASKED and built.value.key in {each.key for each in value.items}:
            others = [each for each in value.items if each.op != "const" and each.key != built.value.key]
            owner = next((text for each in others for text in spellings(each, reading, built.node)), None)
            if owner is not None:
                return f"{owner}.device"
    return None
