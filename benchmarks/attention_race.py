"""Attention in windows beside what else computes it: forward and backward, milliseconds and peak memory.

    python benchmarks/attention_race.py

Queries of a chunk see their own chunk and the one to its left. Ours is the reference's, without its projections;
local-attention is lucidrains' package, where it is installed, and is told to see the same; SDPA is given the same
windows as one mask [T, T]; and the dense one sees all that lies before. Outputs are compared first: all but the dense
one compute the same. Each is in a process of its own, and they take turns. Linux: memory is read from /proc.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from interleaved import Stopwatch, play_together
from machine import ran_on
from page import table, verdict, write_section
from trees import ROOT

from bitpatch.verify.benching.interleaving import ratio_of

OURS, AGAIN, LOCAL, MASKED, DENSE = "ours", "ours (A/A)", "local-attention", "SDPA, a mask [T, T]", "SDPA, dense causal"
LENGTHS = {1152: 31, 4096: 15, 16384: 5}  # rounds of each
HEADS, WIDTH, CHUNK = 8, 32, 128
SHORT, LONG = 1152, 16384  # where it may be a tenth slower than the best, and where its memory is told
Attend = Callable[[Any, Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Order:
    """One way to attend, over so many positions."""

    way: str
    length: int
    threads: int


def attend_by(way: str, length: int) -> Attend:
    """What maps queries, keys and values [1, H, T, D] to an output of that shape."""
    import torch  # noqa: PLC0415 - each process imports its own
    from torch.nn.functional import scaled_dot_product_attention  # noqa: PLC0415

    if way in (OURS, AGAIN):
        sys.path.insert(0, str(ROOT / "reference"))
        from bit_transformer.model import SelfAttention  # noqa: PLC0415

        attention = SelfAttention(HEADS * WIDTH, HEADS, 0.0, CHUNK, CHUNK)
        return lambda q, k, v: attention._chunked(q, k, v, True)[0]
    if way == LOCAL:
        from local_attention import LocalAttention  # noqa: PLC0415 - it is no dependency

        return LocalAttention(CHUNK, causal=True, look_backward=1, look_forward=0, use_rotary_pos_emb=False, dim=WIDTH)
    if way == MASKED:
        places = torch.arange(length)
        chunks = places // CHUNK
        behind = places[None] <= places[:, None]
        mask = behind & (chunks[None] >= chunks[:, None] - 1)
        return lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True)


def race(order: Order, wait: Callable[[Any], None]) -> None:
    """Attend forward and backward, a turn each; tells seconds, the rise of the peak in MB, and the first output."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(order.threads)
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, order.length, WIDTH, requires_grad=True) for _ in range(3))
    attend = attend_by(order.way, order.length)
    watch, idle = Stopwatch(), resident_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    out = attend(q, k, v)
    first = out.detach()[:, :, :: max(1, order.length // 64)].tolist()
    out.sum().backward()
    wait(None)
    while True:
        q.grad = k.grad = v.grad = None
        watch.start()
        attend(q, k, v).sum().backward()
        watch.lap()
        wait((watch.seconds.pop(), resident_mb("VmHWM") - idle, first))


def resident_mb(field: str) -> float:
    """The memory of this process in MB: what is resident now (VmRSS), or was at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) / 1024


def measure(length: int, rounds: int, ways: list[str], threads: int) -> dict[str, list[Any]]:
    """What each way measured, turn by turn; its outputs are those of ours, where it computes the same."""
    import torch  # noqa: PLC0415

    measured = play_together({way: (race, Order(way, length, threads)) for way in ways}, rounds)
    outputs = {way: torch.tensor(turns[0][2]) for way, turns in measured.items()}
    for way in {AGAIN, LOCAL, MASKED} & outputs.keys():
        assert torch.allclose(outputs[way], outputs[OURS], atol=1e-5), f"{way} computes something else"
    return measured


def rows_of(length: int, measured: Mapping[str, list[Any]]) -> list[list[str]]:
    """A table's rows for a length."""
    ours = [turn[0] for turn in measured[OURS]]
    return [
        [
            f"{length:,}",
            way,
            f"{1e3 * statistics.median(turn[0] for turn in turns):.1f}",
            "" if way == OURS else str(ratio_of([turn[0] for turn in turns], ours)),
            f"{turns[-1][1]:.0f}",
        ]
        for way, turns in measured.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Ways to attend in windows, side by side.")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    installed = find_spec("local_attention") is not None
    ways = [OURS, AGAIN, *([LOCAL] if installed else []), MASKED, DENSE]
    found = {length: measure(length, rounds, ways, args.threads) for length, rounds in LENGTHS.items()}
    seconds = {
        length: {way: statistics.median(turn[0] for turn in turns) for way, turns in measured.items() if way != AGAIN}
        for length, measured in found.items()
    }
    best = {length: min(taken, key=lambda way: taken[way]) for length, taken in seconds.items()}
    behind = seconds[SHORT][OURS] / seconds[SHORT][best[SHORT]]
    lines = table(
        ("T", "way", "ms", "ours is so many times as fast (95%)", "peak MB above its inputs"),
        [row for length, measured in found.items() for row in rows_of(length, measured)],
    )
    fastest = all(best[length] == OURS for length in LENGTHS if length != SHORT)
    told = ", ".join(f"at {length:,} {best[length]}" for length in LENGTHS)
    lines += [
        "",
        verdict("the fastest from 4,096 on", fastest, f"the fastest: {told}"),
        verdict(f"at {SHORT:,} at most 1.1x of the best's time", behind <= 1.1, f"{behind:.2f}x"),
    ]
    if installed:
        share = found[LONG][OURS][-1][1] / found[LONG][LOCAL][-1][1]
        lines.append(verdict(f"half of local-attention's peak at {LONG:,}", share <= 0.5, f"{share:.2f} of it"))
    about = f"One row, {HEADS} heads of {WIDTH}, chunks of {CHUNK} that see the one to their left; float32."
    head = ["## Attention in windows, side by side", "", ran_on(threads=args.threads), "", about, ""]
    write_section("attention race", [*head, *lines])
    print("\n".join(lines))


if __name__ == "__main__":
    main()
