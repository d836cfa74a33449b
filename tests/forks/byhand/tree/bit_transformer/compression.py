"""Lossless run-length coding of bit rows.

A stream is the first bit, then one 6-bit field per piece of a run. A field of 63
means "63 and the run goes on"; any smaller field ends the run.
"""

from typing import List, Tuple

import torch

FIELD = 6
FULL = (1 << FIELD) - 1


def compress_bits(bits: torch.Tensor) -> torch.Tensor:
    """Compress a 1-D tensor of bits."""
    if bits.dim() != 1:
        raise ValueError("compress_bits wants one row")
    values, counts = torch.unique_consecutive(bits, return_counts=True)
    fields: List[int] = []
    for count in counts.tolist():
        while count >= FULL:
            fields.append(FULL)
            count -= FULL
        fields.append(count)
    stream = [int(values[0])]
    for field in fields:
        stream.extend((field >> (FIELD - 1 - i)) & 1 for i in range(FIELD))
    return torch.tensor(stream, dtype=torch.uint8)


def decompress_bits(stream: torch.Tensor) -> torch.Tensor:
    """Undo :func:`compress_bits`."""
    symbols = stream.tolist()
    value, rest = symbols[0], symbols[1:]
    out: List[int] = []
    for pos in range(0, len(rest), FIELD):
        field = 0
        for bit in rest[pos : pos + FIELD]:
            field = field * 2 + bit
        out.extend([value] * field)
        if field < FULL:
            value = 1 - value
    return torch.tensor(out, dtype=torch.uint8)


def pad_streams(streams: List[torch.Tensor], max_len: int, fill: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """Pad streams to a batch; returns inputs (padded with 0) and targets (padded with ``fill``)."""
    clipped = [s[:max_len].long() for s in streams]
    width = max(s.numel() for s in clipped)
    inputs = torch.zeros(len(clipped), width, dtype=torch.long)
    targets = torch.full((len(clipped), width), fill, dtype=torch.long)
    for i, s in enumerate(clipped):
        inputs[i, : s.numel()] = s
        targets[i, : s.numel()] = s
    return inputs, targets
