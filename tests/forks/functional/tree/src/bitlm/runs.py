"""Run-length streams: the first bit, then each run's length as a 7-bit varint, low group first."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def squeeze(row: Tensor) -> Tensor:
    """Bits [T] -> a shorter (with luck) stream of bits."""
    stream = [int(row[0])]
    for length in torch.unique_consecutive(row, return_counts=True)[1].tolist():
        while True:
            length, low = length >> 7, length & 127
            stream.append(1 if length else 0)
            stream += [low >> shift & 1 for shift in range(6, -1, -1)]
            if not length:
                break
    return torch.tensor(stream, device=row.device)


def unsqueeze(stream: Tensor) -> Tensor:
    """What `squeeze` was given."""
    bit, *code = stream.tolist()
    out: list[int] = []
    length = shift = 0
    for at in range(0, len(code), 8):
        more, *low = code[at : at + 8]
        length += int("".join(map(str, low)), 2) << shift
        shift += 7
        if not more:
            out += [bit] * length
            bit, length, shift = 1 - bit, 0, 0
    return torch.tensor(out, device=stream.device)


def side_by_side(streams: list[Tensor], longest: int) -> tuple[Tensor, Tensor]:
    """Streams of any length as rows [B, L], and where a row is real [B, L]."""
    cut = [stream[:longest] for stream in streams]
    sizes = torch.tensor([stream.numel() for stream in cut], device=cut[0].device)
    rows = pad_sequence(cut, batch_first=True)
    real = torch.arange(rows.size(1), device=rows.device)[None, :] < sizes[:, None]
    return rows, real
