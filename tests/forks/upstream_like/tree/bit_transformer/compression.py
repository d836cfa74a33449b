"""Run-length codes: pairs of (value, count) as uint8, runs longer than 255 are split."""

import torch


def compress_bits(bits: torch.Tensor) -> torch.Tensor:
    if bits.numel() == 0:
        return bits.to(torch.uint8)
    pairs = []
    values, counts = torch.unique_consecutive(bits, return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist()):
        while count > 255:
            pairs += [value, 255]
            count -= 255
        pairs += [value, count]
    return torch.tensor(pairs, dtype=torch.uint8, device=bits.device)


def decompress_bits(compressed: torch.Tensor) -> torch.Tensor:
    if compressed.numel() % 2:
        raise ValueError("compressed stream must be pairs of value and count")
    pairs = compressed.view(-1, 2)
    return torch.repeat_interleave(pairs[:, 0], pairs[:, 1].long())


def stream_as_bits(compressed: torch.Tensor) -> torch.Tensor:
    """The code itself, as bits that a model can read: 8 a byte, MSB first."""
    shifts = torch.arange(7, -1, -1, device=compressed.device)
    return ((compressed.long().unsqueeze(-1) >> shifts) & 1).flatten()
