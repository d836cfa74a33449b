"""Values of telemetry: absent, no numbers, or equal. In child processes only."""

import math
from typing import Any

import torch
from torch import Tensor


def holds_nan(value: Any) -> bool:
    """Whether a NaN is anywhere in a value."""
    if isinstance(value, Tensor):
        return bool(value.isnan().any())
    if isinstance(value, dict | list | tuple):
        return any(map(holds_nan, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and math.isnan(value)


def is_absent(value: Any) -> bool:
    """Whether a value says that there is none."""
    return value is None or (isinstance(value, dict | list | tuple) and all(map(is_absent, value)))


def is_same(value: Any, other: Any) -> bool:
    """Whether two values of telemetry are equal."""
    if isinstance(value, Tensor):
        return isinstance(other, Tensor) and torch.equal(value, other)
    if isinstance(value, list | tuple):
        return isinstance(other, list | tuple) and len(value) == len(other) and all(map(is_same, value, other))
    return bool(value == other)
