"""How fast text becomes rows of bits: 30x the baseline, 2 s for a second start on 100 MB, never a bottleneck.

    python benchmarks/text_pipeline.py

First, a first start: load_rows of baseline/ and of the tree with task-5, on the same text, in processes that
take turns (interleaved.py), nothing kept from the turn before; and the baseline against itself (A/A).
Then a second start: load_rows on a large text whose rows are kept in a file already, in a new process each time,
the files in the page cache. It reads text and rows once, to compare their hashes. Last, rows a second: what the
DataLoader of reference/ gives, with 0 and 2 workers, against what its training takes, turn by turn.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from interleaved import Player, Stopwatch, Turn, play_together, take_turns
from machine import ran_on
from page import new_picture, save_picture, table, verdict, write_section
from trees import ALL, grow, write_text

from bitpatch.verify.benching.interleaving import ratio_of

LEAST_RATIO = 30.0
SECOND_START = 2.0  # seconds
BITS_PER_BYTE = 9
EPOCHS = 10**6  # the end is never reached


@dataclass(frozen=True, slots=True)
class Order:
    """A tree, a text, and what is done with them."""

    tree: Path
    text: Path
    max_seq_len: int
    threads: int
    workers: int = 0
    batch_size: int = 8
    rows: int = 0  # that a loader gives in a turn
    config: Mapping[str, Any] = field(default_factory=dict)


def open_tree(order: Order) -> Callable[[Path, int], Any]:
    """Put a tree on the path of this process, and return its load_rows."""
    import torch  # noqa: PLC0415 - the process that starts this one goes without

    sys.path.insert(0, str(order.tree))
    os.environ["XDG_CACHE_HOME"] = str(order.tree / "cache")
    from data.wikitext_schedule import load_rows  # noqa: PLC0415

    torch.set_num_threads(order.threads)
    torch.manual_seed(0)
    return load_rows


def start_first(order: Order, wait: Callable[[Any], None]) -> None:
    """Load a text as if for the first time, turn by turn."""
    load_rows = open_tree(order)
    cache = order.tree / f"{id(wait)}"  # of its own: others read theirs meanwhile
    os.environ["XDG_CACHE_HOME"] = str(cache)
    wait(None)
    while True:
        shutil.rmtree(cache, ignore_errors=True)
        watch = Stopwatch()
        rows = load_rows(order.text, order.max_seq_len)
        watch.lap()
        del rows
        wait(watch.turn())


def start_again(order: Order, wait: Callable[[Any], None]) -> None:
    """Load a text, and its first and last row, once."""
    load_rows = open_tree(order)
    wait(None)
    watch = Stopwatch()
    rows = load_rows(order.text, order.max_seq_len)
    _ = rows[0], rows[len(rows) - 1]
    watch.lap()
    wait(watch.turn())


def give_rows(order: Order, wait: Callable[[Any], None]) -> None:
    """Take rows from the loader of a training, turn by turn; what is measured is seconds a row."""
    rows = open_tree(order)(order.text, order.max_seq_len)
    from bit_transformer.training import row_loader  # noqa: PLC0415 - the tree's

    loader, given, began = row_loader(rows, order.batch_size, order.workers), 0, 0.0
    for epoch in range(EPOCHS):
        for batch in loader:
            if epoch == 0:
                continue  # workers start
            if not given:
                wait((time.perf_counter() - began) / order.rows if began else None)
                began = time.perf_counter()
            given += len(batch)
            if given >= order.rows:
                given = 0


def train(order: Order, wait: Callable[[Any], None]) -> None:
    """Train, an update a turn; what is measured is seconds a row."""
    rows = open_tree(order)(order.text, order.max_seq_len)
    from torch.optim.optimizer import register_optimizer_step_post_hook  # noqa: PLC0415

    from bit_transformer.model import BitTransformerLM  # noqa: PLC0415 - the tree's
    from bit_transformer.training import train_loop  # noqa: PLC0415

    updates, began = 0, 0.0

    def end_of_update(*_: object) -> None:
        nonlocal updates, began
        updates += 1
        if updates >= 2:
            wait((time.perf_counter() - began) / order.batch_size if updates > 2 else None)
        began = time.perf_counter()

    register_optimizer_step_post_hook(end_of_update)
    rows = rows[: len(rows) // order.batch_size * order.batch_size]
    train_loop(BitTransformerLM(**order.config), rows, epochs=EPOCHS, batch_size=order.batch_size)


def main() -> None:
    """Measure all three, print and write the tables."""
    args = build_parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="bitpatch-text-") as folder:
        lines = ["## From text to rows", "", ran_on(threads=args.threads), ""]
        for part in (first_start, second_start, loader):
            lines += part(args, Path(folder))
    write_section("text pipeline", lines)
    print("\n".join(line for line in lines if line.startswith(("|", "-"))))


def first_start(args: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Text to bits, for the first time."""
    text = write_text(folder / "first.txt", int(args.megabytes * 1e6))
    trees = {"baseline": (), "baseline again (A/A)": (), "task-5": (5,)}
    orders = {name: Order(grow(tasks, folder), text, args.max_seq_len, args.threads) for name, tasks in trees.items()}
    turns: dict[str, list[Turn]] = play_together(
        {name: (start_first, order) for name, order in orders.items()}, args.rounds
    )
    seconds = {name: [sum(turn.seconds) for turn in seen] for name, seen in turns.items()}
    ratios = {name: ratio_of(seconds["baseline"], each) for name, each in seconds.items()}
    yield "### A first start"
    yield ""
    yield f"load_rows of {args.megabytes:g} MB of text, rows of {args.max_seq_len} bits, {args.rounds} rounds, in turn."
    yield ""
    rows = [
        (
            name,
            f"{median(seconds[name]):.3f}",
            f"{args.megabytes / median(seconds[name]):,.2f}",
            f"{args.megabytes * BITS_PER_BYTE / median(seconds[name]):,.1f}",
            "" if name == "baseline" else str(ratios[name]),
            f"{turns[name][-1].peak_mb:,.0f}",
        )
        for name in trees
    ]
    yield from table(("tree", "s", "MB/s of text", "Mbit/s of rows", "x (95%)", "peak RSS MB"), rows)
    yield ""
    ratio = ratios["task-5"]
    yield verdict(f"text to bits is at least {LEAST_RATIO:.0f}x as fast", ratio.median >= LEAST_RATIO, f"{ratio}x")
    yield ""


def second_start(args: argparse.Namespace, folder: Path) -> Iterator[str]:
    """A large text, whose rows are kept already."""
    text = write_text(folder / "large.txt", int(args.large_megabytes * 1e6))
    order = Order(grow(ALL, folder), text, args.max_seq_len, args.threads)
    turns: list[Turn] = []
    for number in range(args.rounds + 1):
        with Player(f"start {number}", start_again, order) as player:
            turns.append(player.play())
    first, *again = (sum(turn.seconds) for turn in turns)
    yield "### A second start"
    yield ""
    rows = [
        ("first", f"{first:.2f}", "", f"{turns[0].peak_mb:,.0f}"),
        ("second and later", f"{median(again):.2f}", f"{max(again):.2f}", f"{turns[-1].peak_mb:,.0f}"),
    ]
    yield f"load_rows of {args.large_megabytes:g} MB of text, each start in a new process, {args.rounds} second ones."
    yield ""
    yield from table(("start", "s, median", "s, worst", "peak RSS MB"), rows)
    yield ""
    claim = f"a second start on {args.large_megabytes:g} MB takes less than {SECOND_START:.0f} s"
    yield verdict(claim, max(again) < SECOND_START, f"{max(again):.2f} s at worst")
    yield ""
    text.unlink()


def loader(args: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Rows a second that the loader gives, and that training takes."""
    text = write_text(folder / "first.txt", int(args.megabytes * 1e6))
    tree = grow(ALL, folder)
    seconds: dict[str, list[float]] = {}
    with ExitStack() as alive:
        works = {
            f"loader, {workers} workers": (
                give_rows,
                Order(tree, text, args.max_seq_len, args.threads, workers, rows=args.loader_rows),
            )
            for workers in (0, 2)
        }
        for layers, d_model in args.models:
            config = {"num_layers": layers, "d_model": d_model, "dim_feedforward": 4 * d_model, "chunk_size": 128}
            order = Order(
                tree, text, args.max_seq_len, args.threads, config={**config, "max_seq_len": args.max_seq_len}
            )
            works[f"training, {layers}x{d_model}"] = train, order
        players = [alive.enter_context(Player(name, work, order)) for name, (work, order) in works.items()]
        seconds = take_turns(players, args.rounds)
    rates = {name: 1 / median(each) for name, each in seconds.items()}
    yield "### The loader"
    yield ""
    yield f"Rows of {args.max_seq_len} bits, shuffled, in micro-batches of 8; training checkpointed, chunks of 128."
    yield ""
    rows = [(name, f"{rate:,.1f}", f"{rate * args.max_seq_len / 1e6:,.3f}") for name, rate in rates.items()]
    yield from table(("", "rows/s", "Mbit/s"), rows)
    yield ""
    given = min(rate for name, rate in rates.items() if name.startswith("loader"))
    taken = max(rate for name, rate in rates.items() if name.startswith("training"))
    measured = f"the slower loader gives {given / taken:,.0f} times what the faster training takes"
    yield verdict("the loader is never the bottleneck", given > taken, measured)
    yield ""
    yield draw(rates, args.max_seq_len)


def draw(rates: Mapping[str, float], max_seq_len: int) -> str:
    """A bar for each rate."""
    figure, axes = new_picture(7.0, 2.4)
    colours = ["#9ecae1" if name.startswith("loader") else "#d62728" for name in rates]
    axes.barh(list(rates), [rate * max_seq_len for rate in rates.values()], color=colours)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("bits/s")
    return save_picture(figure, "text-pipeline-loader", "What the loader gives, and what training takes")


def size(text: str) -> tuple[int, int]:
    """Layers and width of a model such as 8x256."""
    layers, _, d_model = text.partition("x")
    return int(layers), int(d_model)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure how fast text becomes rows of bits.")
    parser.add_argument("--megabytes", type=float, default=2.0, help="of text, for a first start")
    parser.add_argument("--large_megabytes", type=float, default=100.0, help="of text, for a second start")
    parser.add_argument("--max_seq_len", type=int, default=1152)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--loader_rows", type=int, default=2000, help="rows of a loader's turn")
    parser.add_argument("--models", type=size, nargs="+", default=[(2, 64), (8, 128)], help="such as 2x64 8x128")
    parser.add_argument("--threads", type=int, default=2)
    return parser


if __name__ == "__main__":
    main()
