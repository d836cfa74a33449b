"""How much memory training takes: linear in T, under 4 GB at T = 16,384, and less in a reversible stack.

    python benchmarks/memory.py

First, peak resident memory against T: two updates of reference/ at 8x128, chunks of 128, no maps, each in a
process of its own, and of baseline/ as far as its T x T maps let it go. glibc keeps freed blocks of less than
32 MB for later, which bends the curve; so reference/ is also run where every large block goes back when it is
freed, and a line, and a parabola, are fitted to that.

Then the activations of a stack of 16 layers, each layer of it kept ("plain"), each recomputed from its
input ("checkpointed"), or all from the last ("reversible"): the bytes that autograd has saved at the end of a
forward, each storage once, without parameters; and by how much the resident memory rises, at its
highest, above what it was before that forward and its backward. Random states that the reversible stack
keeps are counted too.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import Player, peak_mb
from machine import ran_on
from page import new_picture, save_picture, table, verdict, write_section
from trees import ALL, grow

LIMIT_MB = 4096.0
REVERSIBLE_SHARE = 0.30
BEND = 0.05  # of the peak, that a parabola's quadratic term may make of what is linear
THRESHOLD = "MALLOC_MMAP_THRESHOLD_"
RETURNING = "reference, freed blocks returned"
STACKS: Mapping[str, Mapping[str, bool]] = {
    "plain": {"use_checkpoint": False, "reversible": False},
    "checkpointed": {"use_checkpoint": True, "reversible": False},
    "reversible": {"use_checkpoint": True, "reversible": True},
}


@dataclass(frozen=True, slots=True)
class Order:
    """A tree, a model, and the rows [rows, max_seq_len] of random bits that it is run on."""

    tree: Path
    config: Mapping[str, Any]
    rows: int
    device: str
    threads: int


@dataclass(frozen=True, slots=True)
class Kept:
    """Megabytes that autograd saved, and by how much the resident memory rose."""

    saved: float
    risen: float


def start(order: Order) -> tuple[Any, Any]:
    """A model of a tree, and its rows."""
    import torch  # noqa: PLC0415 - the process that starts this one goes without

    sys.path.insert(0, str(order.tree))
    from bit_transformer.model import BitTransformerLM  # noqa: PLC0415

    torch.set_num_threads(order.threads)
    torch.manual_seed(0)
    model = BitTransformerLM(**order.config).to(order.device)
    return model, torch.randint(2, (order.rows, model.max_seq_len))


def train(order: Order, wait: Callable[[Any], None]) -> None:
    """Train for two updates, and tell the peak memory in MB: of the GPU, where the model is on one."""
    model, rows = start(order)
    from bit_transformer.training import train_loop  # noqa: PLC0415 - the tree's

    wait(None)
    train_loop(model, rows, epochs=2, lr=1e-4)
    wait(device_peak_mb(order.device))


def device_peak_mb(device: str) -> float:
    """The most memory in MB that has been in use: of a GPU, or resident in this process."""
    import torch  # noqa: PLC0415

    return torch.cuda.max_memory_allocated() / 2**20 if device.startswith("cuda") else peak_mb()


def device_mb(device: str) -> float:
    """The memory in MB that is in use: of a GPU, or resident in this process."""
    import torch  # noqa: PLC0415

    if device.startswith("cuda"):
        return torch.cuda.memory_allocated() / 2**20
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return resident * os.sysconf("SC_PAGE_SIZE") / 2**20


def keep_activations(order: Order, wait: Callable[[Any], None]) -> None:
    """Run a forward and a backward, and tell what was kept for it."""
    import torch  # noqa: PLC0415 - the process that starts this one goes without

    model, rows = start(order)
    from bit_transformer.training import next_bit_loss  # noqa: PLC0415 - the tree's

    model.train()
    rows = rows.to(order.device)
    few = rows[:1, :2]  # what libraries set up once, and the gradients, are no activations
    next_bit_loss(model(few)[0], few).backward()
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes: dict[int, int] = {}  # of each storage, by its address

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    wait(None)
    before = device_mb(order.device)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        logits, _ = model(rows)
        loss = next_bit_loss(logits, rows)
    saved = sum(sizes.values()) + random_state_bytes(loss.grad_fn)
    loss.backward()
    wait(Kept(saved / 2**20, device_peak_mb(order.device) - before))


def random_state_bytes(node: Any) -> int:
    """The bytes of random states that nodes of a graph keep as plain attributes, which no hook sees."""
    found, seen, left = 0, set(), [node]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        pairs = [pair for states in getattr(node, "random_states", ()) for pair in states]
        found += sum(state.nbytes for pair in pairs for state in pair if state is not None)
        left.extend(after for after, _ in node.next_functions)
    return found


@contextmanager
def returning_freed_blocks(returning: bool) -> Iterator[None]:
    """Have glibc, in processes that start within, give large blocks back as soon as they are freed."""
    if returning:
        os.environ[THRESHOLD] = "131072"  # bytes; setting it keeps it from growing
    try:
        yield
    finally:
        os.environ.pop(THRESHOLD, None)


def ask(work: Callable[..., None], order: Order) -> Any:
    """What a process of its own measures."""
    with Player(f"{work.__name__} at {order.config}", work, order) as player:
        return player.play()


def main() -> None:
    """Measure both, print and write the tables."""
    args = build_parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="bitpatch-memory-") as folder:
        lines = [*against_length(args, Path(folder)), *of_stacks(args, Path(folder))]
    write_section(f"memory {args.device.partition(':')[0]}", lines)


def model_config(args: argparse.Namespace, **changes: Any) -> dict[str, Any]:
    """What a model is made with."""
    config = {"d_model": args.d_model, "nhead": args.nhead, "num_layers": args.layers, "chunk_size": args.chunk_size}
    return {**config, "dim_feedforward": 4 * args.d_model, "max_seq_len": args.max_seq_len, **changes}


def against_length(args: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Peak memory against T: the table, the fit and the picture."""
    trees = {"reference": grow(ALL, folder), "baseline": grow((), folder), RETURNING: grow(ALL, folder)}
    peaks: dict[str, dict[int, float]] = {name: {} for name in trees}
    lengths = list(range(args.longest // args.points, args.longest + 1, args.longest // args.points))
    for name, most in ("reference", args.longest), (RETURNING, args.longest), ("baseline", args.baseline_longest):
        for length in (each for each in lengths if each <= most):
            order = Order(trees[name], model_config(args, max_seq_len=length), args.rows, args.device, args.threads)
            with returning_freed_blocks(name == RETURNING):
                peaks[name][length] = ask(train, order)
            print(f"{name} T {length}: {peaks[name][length]:,.0f} MB", flush=True)
    T = np.array(lengths) / 1024
    fitted = np.array([peaks[RETURNING][length] for length in lengths])
    line, parabola = np.polyfit(T, fitted, 1), np.polyfit(T, fitted, 2)
    residual = float(np.abs(np.polyval(line, T) - fitted).max())
    quadratic = float(parabola[0] * T[-1] ** 2)
    kind = "memory of the GPU" if args.device != "cpu" else "resident memory"
    yield f"## Memory, {args.device.partition(':')[0]}"
    yield ""
    yield ran_on(args.device, args.threads)
    yield ""
    yield (
        f"Peak {kind} of training, {args.layers}x{args.d_model}, chunks of {args.chunk_size}, {args.rows} rows a "
        "micro-batch, checkpointed. The baseline logs its T x T maps, as it does by default; the reference does not."
    )
    yield ""
    rows = [(f"{n:,}", *(f"{peaks[k][n]:,.0f}" if n in peaks[k] else "" for k in peaks)) for n in lengths]
    yield from table(("T", *(f"{name} MB" for name in peaks)), rows)
    yield ""
    fit = f"{line[1]:,.0f} MB and {line[0]:.1f} MB for each 1,024 bits; largest residual {residual:.1f} MB"
    bend = f"a parabola's quadratic term makes {quadratic:+,.0f} MB of the {fitted[-1]:,.0f} at T = {lengths[-1]:,}"
    highest = peaks["reference"][lengths[-1]]
    claims = [
        verdict(f"T = {lengths[-1]:,} trains under 4 GB", highest < LIMIT_MB, f"{highest:,.0f} MB"),
        verdict("memory is linear in T", abs(quadratic) < BEND * fitted[-1], f"{fit}; {bend}"),
    ]
    print("\n".join(claims))
    yield from claims
    yield ""
    yield draw_lengths(peaks, line, kind)
    yield ""


def draw_lengths(peaks: Mapping[str, Mapping[int, float]], line: Sequence[float], kind: str) -> str:
    """Peak memory against T, and the line that was fitted."""
    figure, axes = new_picture()
    for (name, seen), colour in zip(peaks.items(), ("#1f77b4", "#d62728", "#2ca02c"), strict=True):
        axes.plot(seen.keys(), seen.values(), "o", color=colour, label=name)
    ends = np.array([0, max(peaks["reference"])])
    axes.plot(ends, np.polyval(line, ends / 1024), color="#2ca02c", linewidth=1, label="linear fit")
    axes.axhline(LIMIT_MB, color="black", linewidth=0.8, linestyle=":", label="4 GB")
    axes.set_xlabel("T, bits")
    axes.set_ylabel(f"peak {kind}, MB")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return save_picture(figure, "memory-against-length", "Peak memory against T")


def of_stacks(args: argparse.Namespace, folder: Path) -> Iterator[str]:
    """What each kind of stack keeps: the table, the claim and the picture."""
    tree, rows = grow(ALL, folder), 8
    seen: dict[str, dict[int, Kept]] = {name: {} for name in STACKS}
    for layers in args.stack_layers:
        for name, kind in STACKS.items():
            order = Order(tree, model_config(args, num_layers=layers, **kind), rows, args.device, args.threads)
            seen[name][layers] = kept = ask(keep_activations, order)
            print(f"{name} {layers} layers: saved {kept.saved:,.1f} MB, rose by {kept.risen:,.0f} MB", flush=True)
    deepest = max(args.stack_layers)
    yield "### What a stack keeps for its backward"
    yield ""
    yield f"{rows} rows of {args.max_seq_len:,} bits, width {args.d_model}, chunks of {args.chunk_size}, no maps."
    yield ""
    head = ("stack", "layers", "saved MB", "of plain", "peak rises by MB", "of plain")
    plain = seen["plain"]
    lines = [
        (
            name,
            str(layers),
            f"{kept.saved:,.1f}",
            f"{kept.saved / plain[layers].saved:.3f}",
            f"{kept.risen:,.0f}",
            f"{kept.risen / plain[layers].risen:.3f}",
        )
        for layers in args.stack_layers
        for name, kept in ((name, seen[name][layers]) for name in STACKS)
    ]
    yield from table(head, lines)
    yield ""
    kept = seen["reversible"][deepest]
    saved, risen = kept.saved / plain[deepest].saved, kept.risen / plain[deepest].risen
    name = f"reversible, {deepest} layers: at most {REVERSIBLE_SHARE:.2f}x of the plain stack"
    measured = f"{saved:.3f}x saved, {risen:.3f}x at the peak"
    claim = verdict(name, max(saved, risen) <= REVERSIBLE_SHARE, measured)
    print(claim)
    yield claim
    yield ""
    figure, axes = new_picture()
    for name in STACKS:
        axes.plot(args.stack_layers, [seen[name][layers].saved for layers in args.stack_layers], "o-", label=name)
    axes.set_xlabel("layers")
    axes.set_ylabel("saved for the backward, MB")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    yield save_picture(figure, "memory-of-stacks", "What each stack keeps for its backward, against its layers")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure how much memory training takes.")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--d_model", type=int, default=128)
    parser.add_argument("--nhead", type=int, default=8)
    parser.add_argument("--chunk_size", type=int, default=128)
    parser.add_argument("--rows", type=int, default=1, help="of a micro-batch, where memory is measured against T")
    parser.add_argument("--longest", type=int, default=16384, help="the largest T")
    parser.add_argument("--points", type=int, default=8, help="how many lengths are measured up to it")
    parser.add_argument("--baseline_longest", type=int, default=4096, help="the largest T of the baseline")
    parser.add_argument("--stack_layers", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--max_seq_len", type=int, default=1152, help="T, where stacks are compared")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    return parser


if __name__ == "__main__":
    main()
