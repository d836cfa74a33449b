"""What others spend on a byte of the same text: those that know nothing beforehand, and those given the training text.

A model that was trained has read its text. So it stands beside a ladder that was given the same text: counts of
bytes after the last 2 to 6, with the back-off of Witten and Bell (1991, "The zero-frequency problem"), which see
the rows that the model sees and remember nothing from one to the next; and compressors, which do remember, and
are charged for the rows alone.

All figures are bits a byte. The package pyppmd, where it is installed, adds PPMd of order 8.
"""

from collections.abc import Callable

import numpy as np

ORDERS = range(2, 7)  # of byte counts
PPMD_ORDER, PPMD_MEMORY = 8, 1 << 28
LABELS = {
    "gzip_9": "gzip -9",
    "bz2_9": "bzip2 -9",
    "xz_9e": "xz -9e",
    "ppmd_8": "PPMd, order 8",
    **{f"counts_{order}": f"byte counts, order {order}" for order in ORDERS},
}


def alone(data: bytes) -> dict[str, float]:
    """What compressors spend that know nothing beforehand. Raises ValueError on no bytes."""
    if not data:
        raise ValueError("expected bytes to compress, got none")
    return {name: 8 * size(data) / len(data) for name, size in compressors().items()}


def given_train(data: bytes, train: bytes, row_bytes: int) -> dict[str, float]:
    """What those spend that were given the training text, on rows of so many bytes. Raises ValueError on no bytes."""
    if not data or not train:
        raise ValueError(f"expected bytes to compress and to learn from, got {len(data)} and {len(train)}")
    return {
        **{name: 8 * (size(train + data) - size(train)) / len(data) for name, size in compressors().items()},
        **count_ladder(data, train, row_bytes),
    }


def compressors() -> dict[str, Callable[[bytes], int]]:
    """By name, what makes of bytes how many they are when compressed.

    gzip is that of zlib, which may differ from the command of that name by a few bytes; it sees 32 kB back.
    """
    import bz2  # noqa: PLC0415 - a Python may have been built without some of these
    import gzip  # noqa: PLC0415
    import lzma  # noqa: PLC0415

    found: dict[str, Callable[[bytes], int]] = {
        "gzip_9": lambda data: len(gzip.compress(data, 9, mtime=0)),
        "bz2_9": lambda data: len(bz2.compress(data, 9)),
        "xz_9e": lambda data: len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
    }
    try:
        import pyppmd  # noqa: PLC0415 - it is no dependency
    except ImportError:
        return found
    return {**found, "ppmd_8": lambda data: len(pyppmd.compress(data, max_order=PPMD_ORDER, mem_size=PPMD_MEMORY))}


def count_ladder(data: bytes, train: bytes, row_bytes: int) -> dict[str, float]:
    """What frozen counts of a training text spend on rows of so many bytes, by the longest context that they know.

    Of n bytes that followed a context, u of them different, a byte that did so c times has the probability
    (c + u * q) / (n + u), where q is its probability after the context that is one byte shorter; before all contexts
    each byte has 1/256. A context ends at the row's beginning.
    """
    text, followed = as_numbers(train), as_numbers(data)
    place = np.arange(len(followed)) % row_bytes
    probability = np.full(len(followed), 1 / 256)
    found = {}
    for order in range(max(ORDERS) + 1):
        keys, counts = np.unique(blocks(text, order), return_counts=True)  # a context, and what followed it
        contexts, begin, different = np.unique(keys >> 8, return_index=True, return_counts=True)
        totals = np.add.reduceat(counts, begin) if len(counts) else counts
        wanted = np.zeros(len(followed), np.int64)
        wanted[order:] = blocks(followed, order)
        c = looked_up(wanted, keys, counts)
        n, u = (looked_up(wanted >> 8, contexts, values) for values in (totals, different))
        known = (place >= order) & (n > 0)
        probability = np.where(known, (c + u * probability) / np.maximum(n + u, 1), probability)
        if order in ORDERS:
            found[f"counts_{order}"] = float(-np.log2(probability).mean())
    return found


def as_numbers(data: bytes) -> np.ndarray:
    """Bytes as whole numbers [n] of 64 bits."""
    return np.frombuffer(data, np.uint8).astype(np.int64)


def blocks(values: np.ndarray, order: int) -> np.ndarray:
    """Each byte that has `order` bytes before it, below these, in one number: [n - order]."""
    count = max(len(values) - order, 0)
    found = np.zeros(count, np.int64)
    for place in range(order + 1):
        found = found << 8 | values[place : place + count]
    return found


def looked_up(wanted: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The value of each wanted number [n] by sorted keys; 0 where it is none of them."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def entropy(data: bytes) -> float:
    """The entropy of single bytes by the frequencies of just these, which nobody knows beforehand; 0 of none."""
    counts = np.unique(np.frombuffer(data, np.uint8), return_counts=True)[1]
    return float((counts * np.log2(len(data) / counts)).sum() / max(len(data), 1))
