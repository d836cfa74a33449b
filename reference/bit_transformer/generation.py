"""Text from a model, bit by bit: the 8 data bits of a byte are drawn, the ninth is their parity."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from .bit_io import BITS_PER_BYTE, BYTES, text_to_bits
from .decoding import Reader, can_keep


def generate(
    model: nn.Module,
    prompt: str,
    bytes_: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> str:
    """Go on from a prompt by so many bytes; return the prompt and what follows it.

    Bytes that are not UTF-8 become U+FFFD. Else as generate_bits.
    """
    bits = generate_bits(model, text_to_bits(prompt), bytes_, temperature, generator)
    words = (bits[start : start + BITS_PER_BYTE] for start in range(0, len(bits), BITS_PER_BYTE))
    return bytes(BYTES[tuple(word)] for word in words).decode("utf-8", errors="replace")


def generate_bits(
    model: nn.Module,
    bits: Sequence[int],
    bytes_: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> list[int]:
    """Go on from whole codewords by `bytes_` more; return all bits.

    The model reads as many bits to the left as fit into max_seq_len and begin at a codeword. Logits are
    divided by the temperature; at 0 the likelier bit is taken. With nothing to read, which is only
    before the very first bit, both bits are as likely. The generator is one of the CPU, whatever the
    model's device. The model runs in evaluation mode. It reads a bit at a time once it has read the
    prompt, and anew where codewords left on the left, as all places in the sequence are others then.

    Raises ValueError on bits that are no codewords, a negative number of bytes, a temperature that is
    negative or not finite, a model too short for a codeword, and logits that are not finite.
    """
    max_seq_len = model.max_seq_len
    bits = list(bits)
    check_request(bits, bytes_, temperature, max_seq_len)
    with evaluation_mode(model), torch.no_grad():
        score = Reader(model) if can_keep(model) else partial(score_anew, model)
        for _ in range(bytes_):
            start = len(bits)
            for _ in range(BITS_PER_BYTE - 1):
                # Whole codewords leave on the left: a place in the sequence keeps its place in the byte.
                dropped = math.ceil(max(len(bits) - max_seq_len, 0) / BITS_PER_BYTE) * BITS_PER_BYTE
                context = bits[dropped:]
                odds = log_odds(score(context)) if context else 0.0
                bits.append(draw_bit(odds, temperature, generator))
            bits.append(sum(bits[start:]) & 1)
    return bits


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; after it, each module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def check_request(bits: list[int], bytes_: int, temperature: float, max_seq_len: int) -> None:
    """Raise ValueError, with the mend, on what generate_bits does not take."""
    if len(bits) % BITS_PER_BYTE:
        raise ValueError(f"expected whole codewords of {BITS_PER_BYTE} bits, got {len(bits)} bits")
    for start in range(0, len(bits), BITS_PER_BYTE):
        if tuple(bits[start : start + BITS_PER_BYTE]) not in BYTES:
            raise ValueError(f"byte {start // BITS_PER_BYTE} is no codeword of even parity: use text_to_bits")
    if bytes_ < 0:
        raise ValueError(f"the number of bytes must be 0 or more, got {bytes_}")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be 0 or more, and finite, got {temperature}")
    if max_seq_len < BITS_PER_BYTE:
        raise ValueError(f"the model reads {max_seq_len} bits, a codeword has {BITS_PER_BYTE}: take a longer model")


def score_anew(model: nn.Module, context: Sequence[int]) -> Tensor:
    """The logits [2] of the bit after a context, by a forward over all of it."""
    device = next(model.parameters()).device
    return model(torch.tensor([context], device=device))[0][0, -1]


def log_odds(logits: Tensor) -> float:
    """How much more likely, in nats, a one is than a zero by logits [2]."""
    zero, one = logits.tolist()
    if not math.isfinite(one - zero):
        raise ValueError(f"the model's logits are not finite: {zero} and {one}; train it with a lower learning rate")
    return one - zero


def draw_bit(odds: float, temperature: float, generator: torch.Generator | None) -> int:
    """A bit by its log odds."""
    if temperature == 0:
        return int(odds > 0)
    probability = torch.sigmoid(torch.tensor(odds / temperature, dtype=torch.float64))
    return int(torch.rand((), dtype=torch.float64, generator=generator) < probability)
