"""Text <-> bits, and the run-length coding that some batches go through.

A character's UTF-8 bytes are written most significant bit first, and every byte gets
a ninth bit so that the number of ones is even.
"""

from __future__ import annotations

from typing import List, Sequence

import torch

WORD = 9


def encode_byte(value: int) -> List[int]:
    bits = [(value >> i) & 1 for i in reversed(range(8))]
    bits.append(sum(bits) % 2)
    return bits


def text_to_bits(text: str) -> List[int]:
    out: List[int] = []
    for value in text.encode("utf-8"):
        out += encode_byte(value)
    return out


def bits_to_text(bits: Sequence[int], errors: str = "replace") -> str:
    data = bytearray()
    for i in range(0, len(bits) - WORD + 1, WORD):
        *word, parity = (int(b) for b in bits[i : i + WORD])
        if sum(word) % 2 != parity:
            raise ValueError(f"parity error in byte {i // WORD}")
        data.append(int("".join(map(str, word)), 2))
    return data.decode("utf-8", errors=errors)


def rle_encode(row: torch.Tensor) -> torch.Tensor:
    """(T,) bits -> (1 + runs,): the first value, then the lengths of the runs."""
    values, counts = torch.unique_consecutive(row, return_counts=True)
    return torch.cat([values[:1].long(), counts])


def rle_decode(code: torch.Tensor) -> torch.Tensor:
    counts = code[1:]
    flips = torch.arange(counts.numel(), device=code.device)
    return ((flips + code[0]) % 2).repeat_interleave(counts)
