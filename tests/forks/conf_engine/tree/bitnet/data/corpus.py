"""A text file as rows of bits."""
from itertools import chain

import torch

from .codec import to_bits


class Corpus:
    """Rows of ``length`` bits; what is left at the end fills no row and is not used."""

    def __init__(self, path, length):
        self.path, self.length = path, length

    def rows(self):
        with open(self.path, encoding="utf-8", newline="") as lines:
            bits = list(chain.from_iterable(to_bits(line) for line in lines))
        count = len(bits) // self.length
        if not count:
            raise ValueError(f"{self.path}: {len(bits)} bits fill no row of {self.length}")
        return torch.tensor(bits[: count * self.length]).reshape(count, self.length)

    def split(self, held_out):
        rows = self.rows()
        kept = max(1, int(len(rows) * held_out))
        return rows[:-kept], rows[-kept:]
