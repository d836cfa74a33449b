"""Attributes that a process sets of itself (Linux)."""

import sys

PARENT_DEATH_SIGNAL, DUMPABLE, SUBREAPER, NO_NEW_PRIVILEGES = 1, 4, 36, 38


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process, where there is such a thing."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - most commands do without

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
