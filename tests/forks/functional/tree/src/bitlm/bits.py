"""Text <-> bits. A byte is eight bits, high one first, and a ninth that makes the count of ones even."""

from __future__ import annotations

import torch
from torch import Tensor

CODE = 9


def encode_byte(value: int) -> list[int]:
    bits = [int(c) for c in format(value, "08b")]
    return [*bits, sum(bits) % 2]


_TABLE = [encode_byte(value) for value in range(256)]


def text_to_bits(text: str) -> list[int]:
    out: list[int] = []
    for value in text.encode("utf-8"):
        out += _TABLE[value]
    return out


def bits_to_text(bits: list[int] | Tensor) -> str:
    if isinstance(bits, Tensor):
        bits = bits.tolist()
    if len(bits) % CODE:
        raise ValueError(f"{len(bits)} bits are not a whole number of {CODE}-bit codewords")
    data = bytearray()
    for at in range(0, len(bits), CODE):
        word = bits[at : at + CODE]
        if sum(word) % 2:
            raise ValueError(f"parity is off in the codeword at bit {at}")
        data.append(int("".join(str(bit) for bit in word[:8]), 2))
    return data.decode("utf-8")


def cut_rows(bits: list[int], length: int) -> Tensor:
    """[N, length]; what does not fill a row is left out."""
    whole = len(bits) - len(bits) % length
    if not whole:
        raise ValueError(f"need at least {length} bits for one row, have {len(bits)}")
    return torch.tensor(bits[:whole]).reshape(-1, length)
