# text <-> bits (9 per byte, last one is parity) and run lengths
import torch


def text_to_bits(s):
    out = []
    for byte in s.encode("utf8"):
        b = [int(c) for c in format(byte, "08b")]
        out.extend(b + [sum(b) & 1])
    return out


def bits_to_text(bits):
    bits = [int(b) for b in bits]
    assert len(bits) % 9 == 0, "not whole bytes"
    chars = bytearray()
    for i in range(0, len(bits), 9):
        w = bits[i:i + 9]
        assert sum(w) % 2 == 0, f"parity, byte {i // 9}"
        chars.append(int("".join(map(str, w[:8])), 2))
    return chars.decode("utf8", "replace")


def squeeze(row):
    """run lengths of a row, first the value it starts with"""
    cuts = (row[1:] != row[:-1]).nonzero().flatten() + 1
    ends = torch.cat([cuts, torch.tensor([len(row)], device=row.device)])
    starts = torch.cat([torch.zeros(1, dtype=torch.long, device=row.device), cuts])
    return int(row[0]), (ends - starts).tolist()


def unsqueeze(code):
    value, runs = code
    out = []
    for n in runs:
        out += [value] * n
        value = 1 - value
    return torch.tensor(out)
