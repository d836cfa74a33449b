"""Run-length coding of bits, and bits packed in bytes.

A compressed stream is itself made of bits, so that a model over bits can read it: the first bit's
value, then the length of each run in Elias' gamma code. That code writes a length n in 2 * floor(log2
n) + 1 bits: as many zeros as n has binary digits after its first, then those digits. The empty tensor
compresses to itself.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def compress_bits(bits: Tensor) -> Tensor:
    """Run-length encode bits [T]; the stream is a uint8 tensor of zeros and ones."""
    _check_bits(bits)
    if bits.numel() == 0:
        return bits.to(torch.uint8)
    values, lengths = torch.unique_consecutive(bits, return_counts=True)
    sizes = 2 * _floor_log2(lengths) + 1
    starts = sizes.cumsum(0) - sizes
    run = torch.repeat_interleave(sizes)  # the run that each bit of the stream belongs to
    place = sizes[run] - 1 - (torch.arange(len(run), device=bits.device) - starts[run])
    stream = lengths[run] >> place & 1  # a length has no digits in its upper half: those are the zeros
    return torch.cat([values[:1], stream]).to(torch.uint8)


def decompress_bits(compressed: Tensor) -> Tensor:
    """Decode what compress_bits encoded: a uint8 tensor [T].

    Raises ValueError where the stream ends within a run length.
    """
    _check_bits(compressed)
    if compressed.numel() == 0:
        return compressed.to(torch.uint8)
    value, *code = compressed.tolist()
    digits = "".join(map(str, map(int, code)))
    lengths, at = [], 0
    while at < len(digits):
        first = digits.find("1", at)  # the length's first digit, after its zeros
        end = 2 * first - at + 1
        if first < 0 or end > len(digits):
            raise ValueError(f"compressed stream ends within the run length at bit {at + 1}")
        lengths.append(int(digits[first:end], 2))
        at = end
    if not lengths:
        raise ValueError("compressed stream has a first value, but no run length")
    values = (torch.arange(len(lengths)) + int(value)) % 2
    return values.repeat_interleave(torch.tensor(lengths)).to(compressed.device, torch.uint8)


def decompress_rows(compressed: Sequence[Tensor]) -> Tensor:
    """Decode streams to one LongTensor [B, T]; ValueError where their rows differ in length."""
    rows = [decompress_bits(stream) for stream in compressed]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1:
        raise ValueError(f"expected rows of one length, got {lengths or 'no rows'}: pad or cut them first")
    return torch.stack(rows).long()


def pad_rows(rows: Sequence[Tensor], max_len: int) -> tuple[Tensor, Tensor]:
    """Lay rows of any length side by side, cut to max_len and padded with zeros.

    Returns the rows, a LongTensor [B, L], and what of them is padding, a BoolTensor [B, L].
    """
    rows = [row[:max_len] for row in rows]
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.nn.utils.rnn.pad_sequence([row.long() for row in rows], batch_first=True)
    is_padding = torch.arange(padded.shape[1]) >= lengths[:, None]
    return padded, is_padding.to(padded.device)


def pack_bits(bits: Tensor) -> tuple[Tensor, int]:
    """Pack bits [T] in bytes, most significant bit first: a uint8 tensor [ceil(T / 8)], and T."""
    _check_bits(bits)
    bytes_ = torch.nn.functional.pad(bits.to(torch.uint8), (0, -len(bits) % 8)).view(-1, 8)
    return (bytes_ << _places(bits)).sum(1, dtype=torch.uint8), len(bits)


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """The first `count` bits of packed bytes, a uint8 tensor [count]."""
    if not 0 <= count <= 8 * len(packed):
        raise ValueError(f"expected a count of 0 to {8 * len(packed)} bits in {len(packed)} bytes, got {count}")
    return (packed[:, None] >> _places(packed) & 1).flatten()[:count]


def _check_bits(bits: Tensor) -> None:
    if bits.dim() != 1:
        raise ValueError(f"expected a 1-D tensor of bits, got shape {list(bits.shape)}")
    if not ((bits == 0) | (bits == 1)).all():
        raise ValueError("expected bits, got values other than 0 and 1")


def _floor_log2(lengths: Tensor) -> Tensor:
    return torch.frexp(lengths.double()).exponent.long() - 1


def _places(like: Tensor) -> Tensor:
    return torch.arange(7, -1, -1, dtype=torch.uint8, device=like.device)
