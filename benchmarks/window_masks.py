"""What keeping the masks of windows, or doing without them, would do to a forward and a backward in chunks.

    python benchmarks/window_masks.py

The reference makes the mask of its windows in each call of attention. In one process the model takes turns with
itself, its attention as it is, as it is once more (A/A), with masks that are kept by shape, and with no mask but
`is_causal` where no window needs one: without an overlap, where the length is a multiple of the chunk.
Processor time, on one thread.
"""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import ran_on
from page import table, verdict, write_section
from torch import Tensor
from torch.nn import functional
from trees import ROOT

from bitpatch.verify.benching.interleaving import Ratio, ratio_of, rounds

sys.path.insert(0, str(ROOT / "reference"))
from bit_transformer.model import (
    BitTransformerLM,
    SelfAttention,
    get_tri_mask,
    window_padding,
)
from bit_transformer.training import next_bit_loss

CHUNK, CALLS = 128, 50
LEAST = 1.03  # that a cache of another kind, or a second way to attend, has to gain
SHAPES = [(length, overlap) for length in (1152, 4096) for overlap in (0, 64)]
AS_IS, AGAIN, KEPT, CAUSAL = "as is", "as is (A/A)", "masks kept", "masks kept, or is_causal"


def shown_in_windows(length: int, overlap: int) -> Tensor:
    """What the queries of each window see, as the reference makes it: [1, N, chunk, W]."""
    return ~(get_tri_mask(overlap + CHUNK, "cpu")[overlap:] | window_padding(length, CHUNK, overlap, "cpu"))


def attention(mask_of: Callable[[int, int], Tensor | None]) -> Callable[..., tuple[Tensor, None]]:
    """The reference's attention in chunks, causal and without maps, with masks from elsewhere."""

    def chunked(self: Any, q: Tensor, k: Tensor, v: Tensor, _causal: bool) -> tuple[Tensor, None]:
        rows, heads, length, _ = q.shape
        overlap, tail = self.overlap, -length % CHUNK
        q = functional.pad(q, (0, 0, 0, tail)).unflatten(2, (-1, CHUNK)).flatten(0, 1)
        k, v = (
            functional.pad(each, (0, 0, overlap, tail))
            .flatten(0, 1)
            .unfold(1, overlap + CHUNK, CHUNK)
            .transpose(-2, -1)
            for each in (k, v)
        )
        mask = mask_of(length, overlap)
        dropout_p = self.dropout.p if self.training else 0.0
        out = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, dropout_p=dropout_p
        )
        return out.unflatten(0, (rows, heads)).flatten(2, 3)[:, :, :length], None

    return chunked


def measure(length: int, overlap: int, args: argparse.Namespace) -> tuple[list[str], list[Ratio]]:
    """Seconds of a shape and what the masks take of them, as cells, and how many times as fast the other ways are."""
    kept = functools.cache(shown_in_windows)
    ways = {
        AS_IS: SelfAttention._chunked,
        AGAIN: SelfAttention._chunked,
        KEPT: attention(kept),
        CAUSAL: attention(lambda n, overlap: None if overlap == 0 and n % CHUNK == 0 else kept(n, overlap)),
    }
    torch.manual_seed(0)
    model = BitTransformerLM(
        args.d_model, 8, args.layers, 4 * args.d_model, length, use_checkpoint=False, chunk_size=CHUNK, overlap=overlap
    )
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # as in the presets
    bits = torch.randint(2, (args.batch_size, length))
    results = [seconds_of(model, bits, way) for way in ways.values()]  # the first turns warm up
    assert all(torch.allclose(logits, results[0][1], atol=1e-5) for _, logits in results), "they compute the same"
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for order in rounds(list(ways), args.rounds):
        for name in order:
            taken[name].append(seconds_of(model, bits, ways[name])[0])
    began = time.process_time()
    for _ in range(CALLS):
        shown_in_windows(length, overlap)
    masks, median = args.layers * (time.process_time() - began) / CALLS, statistics.median(taken[AS_IS])
    ratios = [ratio_of(taken[AS_IS], taken[name]) for name in (AGAIN, KEPT, CAUSAL)]
    return [f"{length:,}", str(overlap), f"{median:.3f}", f"{masks / median:.2%}"], ratios


def seconds_of(model: BitTransformerLM, bits: Tensor, way: Any) -> tuple[float, Tensor]:
    """Processor seconds of a forward and a backward, and the logits."""
    SelfAttention._chunked = way
    began = time.process_time()
    logits, _ = model(bits)
    next_bit_loss(logits, bits).backward()
    took = time.process_time() - began
    model.zero_grad()
    return took, logits.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description="What masks of windows cost.")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--d_model", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=21)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = [measure(*shape, args) for shape in SHAPES]
    lines = table(
        ("T", "overlap", "CPU s", "masks take", f"{AGAIN}, x (95%)", f"{KEPT}, x (95%)", f"{CAUSAL}, x (95%)"),
        [[*cells, *map(str, ratios)] for cells, ratios in found],
    )
    most = max((ratio for _, ratios in found for ratio in ratios[1:]), key=lambda ratio: ratio.median)
    lines += [
        "",
        verdict(f"neither gains {LEAST - 1:.0%}, so masks are made anew", most.median < LEAST, f"{most}x at most"),
    ]
    head = f"## Masks of windows: {args.layers}x{args.d_model}, chunk {CHUNK}"
    about = (
        f"A forward and a backward of {args.batch_size} rows, {args.rounds} rounds, in turn. x is how many times as "
        "fast as it is: the median of the pairs, with its 95% interval. What masks take is their making, in each layer."
        " On a GPU, whose fastest kernels take no masks, it was not measured."
    )
    write_section(f"window masks {args.layers}x{args.d_model}", [head, "", ran_on(threads=1), "", about, "", *lines])
    print("\n".join(lines))


if __name__ == "__main__":
    main()
