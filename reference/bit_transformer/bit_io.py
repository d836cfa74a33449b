"""Text as bits: UTF-8 bytes, most significant bit first, each followed by one even-parity bit."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample.txt"  # a text that comes with the code
BITS_PER_BYTE = 9  # 8 of data, 1 of parity


def codeword(byte: int) -> tuple[int, ...]:
    """The 9 bits of a byte: 8 of data, and the one that makes the number of ones even."""
    return (*(byte >> shift & 1 for shift in range(7, -1, -1)), byte.bit_count() & 1)


CODEWORDS = tuple(codeword(byte) for byte in range(256))
BYTES = {bits: byte for byte, bits in enumerate(CODEWORDS)}


def text_to_bits(text: str) -> list[int]:
    """Encode text as bits, 9 a UTF-8 byte."""
    return [bit for byte in text.encode("utf-8") for bit in CODEWORDS[byte]]


def bits_to_text(bits: Sequence[int] | Tensor) -> str:
    """Decode what text_to_bits encoded.

    Raises ValueError where the bits are not whole codewords, where a codeword fails its parity (the
    message names the byte), and, as UnicodeDecodeError, where the bytes are not UTF-8.
    """
    bits = bits.tolist() if isinstance(bits, Tensor) else list(bits)
    if len(bits) % BITS_PER_BYTE:
        raise ValueError(f"expected whole codewords of {BITS_PER_BYTE} bits, got {len(bits)} bits")
    decoded = bytearray()
    for start in range(0, len(bits), BITS_PER_BYTE):
        word = tuple(bits[start : start + BITS_PER_BYTE])
        if word not in BYTES:
            raise ValueError(f"byte {start // BITS_PER_BYTE} is no codeword of even parity: {word}")
        decoded.append(BYTES[word])
    return decoded.decode("utf-8")


def bits_to_rows(bits: Sequence[int], length: int) -> Tensor:
    """Cut bits into whole rows: a LongTensor [rows, length].

    The tail that fills no row is dropped. Raises ValueError where not one row fits.
    """
    if length < 1:
        raise ValueError(f"a row must have at least 1 bit, got length={length}")
    rows = len(bits) // length
    if rows == 0:
        raise ValueError(f"{len(bits)} bits do not fill one row of {length}: give more text or shorter rows")
    return torch.tensor(bits[: rows * length], dtype=torch.long).view(rows, length)
