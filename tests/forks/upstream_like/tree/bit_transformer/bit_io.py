from typing import Iterable, List


def bytes_to_bits(data: bytes) -> List[int]:
    result: List[int] = []
    for b in data:
        result.extend([(b >> i) & 1 for i in range(7, -1, -1)])
    return result


def text_to_bits(text: str) -> List[int]:
    """Every byte of the text as 8 bits and one parity bit."""
    out: List[int] = []
    for b in text.encode("utf-8"):
        bits = bytes_to_bits(bytes([b]))
        out.extend(bits + [sum(bits) % 2])
    return out


def bits_to_text(bits: Iterable[int]) -> str:
    bits = list(bits)
    if len(bits) % 9:
        raise ValueError("bit stream is no whole number of 9-bit groups")
    data = []
    for i in range(0, len(bits), 9):
        payload, parity = bits[i : i + 8], bits[i + 8]
        if sum(payload) % 2 != parity:
            raise ValueError(f"parity check failed at byte {i // 9}")
        value = 0
        for bit in payload:
            value = (value << 1) | int(bit)
        data.append(value)
    return bytes(data).decode("utf-8", errors="replace")
