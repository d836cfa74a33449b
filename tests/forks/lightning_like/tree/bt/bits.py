"""Bits and streams of bits.

A byte becomes 9 bits: b7 .. b0 and their parity (even).
A stream is the first bit, then 8 bits a run length; a run above 255 is split by an empty run
of the other bit.
"""
import torch

IGNORE = -100


def text_to_bits(text):
    return [bit for byte in text.encode('utf-8') for bit in _code(byte)]


def _code(byte):
    data = [byte >> i & 1 for i in reversed(range(8))]
    return data + [sum(data) & 1]


def bits_to_text(bits):
    bits = list(map(int, bits))
    if len(bits) % 9:
        raise ValueError('expected a multiple of 9 bits, got %d' % len(bits))
    chars = bytearray()
    while bits:
        word, bits = bits[:9], bits[9:]
        if sum(word) & 1:
            raise ValueError('parity error after %d bytes' % len(chars))
        chars.append(sum(bit << i for i, bit in enumerate(reversed(word[:8]))))
    return chars.decode('utf-8')


def to_rows(bits, length):
    """Full rows only."""
    count = len(bits) // length
    if count < 1:
        raise ValueError('text is too short for rows of %d bits' % length)
    return torch.tensor(bits[:count * length]).view(count, length)


def compress_bits(row):
    values, counts = torch.unique_consecutive(row, return_counts=True)
    lengths = []
    for count in counts.tolist():
        while count > 255:
            lengths += [255, 0]
            count -= 255
        lengths.append(count)
    tail = [length >> i & 1 for length in lengths for i in reversed(range(8))]
    return torch.tensor([int(values[0])] + tail)


def decompress_bits(stream):
    bit, rest = int(stream[0]), stream[1:].view(-1, 8)
    weights = 2**torch.arange(7, -1, -1, device=rest.device)
    out = []
    for length in (rest * weights).sum(1).tolist():
        out += [bit] * length
        bit = 1 - bit
    return torch.tensor(out, device=stream.device)


def pad_batch(rows, length, targets=None):
    """Rows of any length -> inputs [B, L] padded with 0, targets [B, L] padded with IGNORE."""
    rows = [row[:length] for row in rows]
    targets = rows if targets is None else [target[:length] for target in targets]
    longest = max(len(row) for row in rows)
    inputs = torch.zeros(len(rows), longest, dtype=torch.long)
    wanted = torch.full_like(inputs, IGNORE)
    for i, (row, target) in enumerate(zip(rows, targets)):
        inputs[i, :len(row)] = row
        wanted[i, :len(target)] = target
    return inputs, wanted
