"""Conversion between text and bits with parity protection."""

from typing import Iterable, List, Sequence

import torch

BITS_PER_SYMBOL = 9


class ParityError(ValueError):
    """A codeword does not have even parity."""


def _byte_to_codeword(byte: int) -> List[int]:
    data = [(byte >> (7 - i)) & 1 for i in range(8)]
    parity = 0
    for bit in data:
        parity ^= bit
    return data + [parity]


def text_to_bits(text: str) -> List[int]:
    """Encode ``text`` as UTF-8, nine bits per byte."""
    bits: List[int] = []
    for byte in text.encode("utf-8"):
        bits.extend(_byte_to_codeword(byte))
    return bits


def bits_to_text(bits: Sequence[int]) -> str:
    """Decode bits produced by :func:`text_to_bits`.

    Raises:
        ParityError: if a codeword was damaged.
        ValueError: if the bits are not whole codewords.
    """
    bits = [int(b) for b in bits]
    if len(bits) % BITS_PER_SYMBOL != 0:
        raise ValueError("bit count %d is not a multiple of 9" % len(bits))
    out = bytearray()
    for pos in range(0, len(bits), BITS_PER_SYMBOL):
        *data, parity = bits[pos : pos + BITS_PER_SYMBOL]
        if sum(data) % 2 != parity:
            raise ParityError("bad parity in symbol %d" % (pos // BITS_PER_SYMBOL))
        value = 0
        for bit in data:
            value = value * 2 + bit
        out.append(value)
    return out.decode("utf-8")


def rows_from_bits(bits: Iterable[int], seq_len: int) -> torch.Tensor:
    """Shape bits into full rows ``[num_rows, seq_len]``, dropping the remainder."""
    flat = torch.tensor(list(bits), dtype=torch.long)
    num_rows = flat.numel() // seq_len
    if num_rows == 0:
        raise ValueError("not enough bits for a single row of %d" % seq_len)
    return flat[: num_rows * seq_len].view(num_rows, seq_len)
