"""Text to bits and back, and run lengths."""
import torch

WORD = 9


def to_bits(text):
    for byte in text.encode("utf-8"):
        bits = [byte >> n & 1 for n in range(7, -1, -1)]
        yield from bits
        yield sum(bits) % 2


def to_text(bits):
    raw = bytearray()
    for start in range(0, len(bits), WORD):
        *data, parity = map(int, bits[start : start + WORD])
        if sum(data) % 2 != parity:
            raise ValueError(f"parity of byte {start // WORD}")
        raw.append(int("".join(map(str, data)), 2))
    return raw.decode("utf-8", errors="replace")


def to_runs(row):
    values, lengths = torch.unique_consecutive(row, return_counts=True)
    return int(values[0]), lengths


def from_runs(run):
    first, lengths = run
    values = (torch.arange(len(lengths), device=lengths.device) + first) % 2
    return values.repeat_interleave(lengths)
