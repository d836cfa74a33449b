"""How fast each task makes training: "1.2-1.8x" of task-3, "3x" of all at 8x256, and what the others cost or gain.

    python benchmarks/training_speed.py
    python benchmarks/training_speed.py --layers 8 --d_model 256 --seconds 240 --only all "all, dropout 0"
    python benchmarks/training_speed.py --device cuda --layers 8 --d_model 256 --updates 50

Each tree, the baseline with a task applied, trains with its own train_loop on its own rows of the same
text, in a process of its own; telemetry, logging of attention maps, checkpointing, dropout and compression
are as the tree has them by default. Where a task brings an option that is off by default, it is used. The
ramp of task-6 is at its end, so that every tree compresses half of its micro-batches. A variant without
dropout, or with dense attention, is compared with a baseline that is so too. The processes
take turns, an update each (interleaved.py); the baseline against itself (A/A) comes first and last, and a
ratio within those is noise. A step is an optimizer update, with everything from one to the next.

MFU is the share of the float32 matrix products per second, measured in the same run, that the model's own
products make up: 6 operations a weight and a bit, and 12 * layers * d_model * keys a bit for attention.
What is computed a second time, by checkpoints or for maps, does not count.
"""

import argparse
import inspect
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interleaved import Player, Stopwatch, Turn, percentile, play_together, take_turns
from machine import multiply_matrices, ran_on
from page import new_picture, row, save_picture, table, verdict, write_section
from trees import ALL, grow, write_text

from bitpatch.verify.benching.interleaving import Ratio, ratio_of
from bitpatch.verify.benching.machine import bf16_instructions

BITS_PER_BYTE = 9
MICRO_BATCHES = 16  # an epoch; an epoch's end is part of what is measured
WARM_UP = 2  # updates before the first turn
EPOCHS = 10**6  # the end is never reached
DENSE = {"chunk_size": None, "full_attn_logging": False}
AA = "baseline again (A/A)"
COMPILED = {"compile": True, "compile_policy": "table"}
ACCUM_STEPS = 4


@dataclass(frozen=True, slots=True)
class Variant:
    """Tasks that a tree has, what train_loop is given for them, and how the model differs from the default."""

    name: str
    tasks: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)  # of the baseline that it is compared with too


VARIANTS = (
    Variant(AA),
    Variant("task-1", (1,)),
    Variant("task-1, batch_size x 4", (1,), {"batch_size": 4}),
    Variant("task-2", (2,)),
    Variant("task-3, amp bf16", (3,), {"amp": "bf16"}),
    Variant(f"task-4, accum_steps {ACCUM_STEPS}", (4,), {"accum_steps": ACCUM_STEPS}),
    Variant("task-5", (5,)),
    Variant("task-6", (6,)),
    Variant("task-7", (7,)),
    Variant("task-8, compile", (8,), COMPILED),
    Variant("task-9", (9,)),
    Variant("task-10", (10,)),
    Variant("task-11", (11,)),
    Variant("task-12", (12,)),
    Variant("all", ALL),
    Variant("all, compile", ALL, COMPILED),
    Variant("all, amp bf16", ALL, {"amp": "bf16"}),
    Variant("all, dropout 0", ALL, config={"dropout": 0.0}),
    Variant("task-9, dense, no maps", (9,), config=DENSE),
    Variant("task-10, dense, no maps", (10,), config=DENSE),
    Variant("all, dense, no maps", ALL, config=DENSE),
    Variant(f"{AA}, at the end"),
)


@dataclass(frozen=True, slots=True)
class Order:
    """A tree to train, on what, and how."""

    tree: Path
    text: Path
    config: Mapping[str, Any]
    options: Mapping[str, Any]
    batch_size: int
    device: str
    threads: int


def train(order: Order, wait: Callable[[Any], None]) -> None:
    """Train a tree, an update a turn."""
    import torch  # noqa: PLC0415 - the process that starts this one goes without
    from torch.optim.optimizer import register_optimizer_step_post_hook  # noqa: PLC0415

    sys.path.insert(0, str(order.tree))
    from bit_transformer.model import BitTransformerLM  # noqa: PLC0415
    from bit_transformer.training import train_loop  # noqa: PLC0415
    from data.wikitext_schedule import load_rows  # noqa: PLC0415

    torch.set_num_threads(order.threads)
    torch.manual_seed(0)
    random.seed(0)
    on_gpu = order.device.startswith("cuda")
    watch, updates = Stopwatch(), 0

    def end_of_update(*_: object) -> None:
        nonlocal updates
        updates += 1
        if on_gpu:
            torch.cuda.synchronize()
        watch.lap()
        if updates == WARM_UP:
            watch.turn()
            wait(None)
        elif updates > WARM_UP:
            wait(watch.turn(torch.cuda.max_memory_allocated() / 2**20 if on_gpu else 0.0))
        watch.start()

    register_optimizer_step_post_hook(end_of_update)
    config = dict(order.config)
    dropout = config.pop("dropout", None)
    model = BitTransformerLM(**config).to(order.device)
    for module in model.modules():
        if dropout is not None and isinstance(module, torch.nn.Dropout):
            module.p = dropout
    os.environ["XDG_CACHE_HOME"] = str(order.tree / "cache")
    rows = load_rows(order.text, model.max_seq_len)
    # The baseline's micro-batches have 8 rows, or as many as there are.
    rows = rows[: order.batch_size if order.batch_size < 8 else order.batch_size * MICRO_BATCHES]
    offered = inspect.signature(train_loop).parameters
    options = {"batch_size": order.batch_size, "warmup_steps": 0, **order.options}
    train_loop(model, rows, epochs=EPOCHS, **{name: value for name, value in options.items() if name in offered})


@dataclass(frozen=True, slots=True)
class Finding:
    """What was measured of a variant and of the baseline beside it."""

    variant: Variant
    before: Sequence[Turn]
    after: Sequence[Turn]
    bits: tuple[int, int]  # an update, before and after

    @property
    def speedup(self) -> Ratio:
        """Bits a second, after over before."""
        return self.ratio(lambda turn: turn.seconds)

    @property
    def processor_speedup(self) -> Ratio:
        """Bits a second of a processor, after over before: other jobs on the machine change it less."""
        return self.ratio(lambda turn: turn.processor_seconds)

    def ratio(self, seconds_of: Callable[[Turn], Sequence[float]]) -> Ratio:
        """Bits for some seconds, after over before."""
        before, after = ([sum(seconds_of(turn)) for turn in turns] for turns in (self.before, self.after))
        return ratio_of([a / self.bits[0] for a in before], [b / self.bits[1] for b in after])


def main() -> None:
    """Compare all, print and write the table."""
    args = build_parser().parse_args()
    if args.batch_size > 8:
        sys.exit(f"--batch_size {args.batch_size}: the baseline's micro-batches have 8 rows at most; give 1 to 8")
    known = [variant.name for variant in VARIANTS]
    if unknown := [name for name in args.only or () if not any(each.startswith(name) for each in known)]:
        sys.exit(f"--only {', '.join(unknown)}: expected names, or their beginnings, of {'; '.join(known)}")
    wanted = [each for each in VARIANTS if is_wanted(each, args)]
    findings, rates = [], []
    with tempfile.TemporaryDirectory(prefix="bitpatch-speed-") as folder:
        print(row(HEAD), flush=True)
        for finding in compare(wanted, args, Path(folder), rates):
            findings.append(finding)
            print(row(cells_of(finding, args, peak(rates)["float32"])), flush=True)
    lines = list(document(findings, args, peak(rates)))
    write_section(f"training speed {title(args)}", lines)
    print("\n".join(line for line in lines if line.startswith("- ")))


def is_wanted(variant: Variant, args: argparse.Namespace) -> bool:
    """Whether a variant is to be measured: named, or begun, by --only; A/A always."""
    if variant.name.startswith(AA):
        return True
    if args.only is None:  # in bfloat16 without the instructions, task-3 tells enough
        return variant.options.get("amp") is None or variant.tasks == (3,) or can_bf16(args.device)
    names = {each.name for each in VARIANTS}
    return any(variant.name == name or (name not in names and variant.name.startswith(name)) for name in args.only)


def can_bf16(device: str) -> bool:
    """Whether a device multiplies bfloat16 by instructions of its own."""
    return device != "cpu" or bool(bf16_instructions())


def compare(wanted: Iterable[Variant], args: argparse.Namespace, folder: Path, rates: list[Any]) -> Iterator[Finding]:
    """Let each variant and the baseline take turns; the rates of matrix products are added to `rates`."""
    config = {
        "d_model": args.d_model,
        "nhead": args.nhead,
        "num_layers": args.layers,
        "dim_feedforward": 4 * args.d_model,
        "max_seq_len": args.max_seq_len,
        "chunk_size": args.chunk_size or None,
    }
    text = write_text(folder / "text.txt", args.max_seq_len // BITS_PER_BYTE * 8 * 4 * MICRO_BATCHES)

    def player(variant: Variant, alive: ExitStack) -> Player:
        options, batch_size = dict(variant.options), args.batch_size
        if "batch_size" in options:
            batch_size *= options.pop("batch_size")
        tree = grow(variant.tasks, folder)
        asked = {**config, **variant.config}
        order = Order(tree, text, asked, options, batch_size, args.device, args.threads)
        return alive.enter_context(Player(variant.name, train, order))

    with ExitStack() as all_along:
        baseline = player(Variant("baseline"), all_along)
        for variant in wanted:
            rates += play_together({"": (multiply_matrices, (args.device, args.threads))}, 1)[""]
            with ExitStack() as alive:
                before = player(Variant("baseline, too", config=variant.config), alive) if variant.config else baseline
                after = player(variant, alive)
                turns = take_turns([before, after], args.updates, args.seconds)
            rows = args.batch_size, args.batch_size * variant.options.get("batch_size", 1)
            bits = rows[0] * args.max_seq_len, rows[1] * args.max_seq_len * variant.options.get("accum_steps", 1)
            yield Finding(variant, turns[before.name], turns[after.name], bits)


def peak(rates: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The best GFLOPS of each type of matrix."""
    return {name: max(rate[name] for rate in rates) for name in ("float32", "bfloat16")}


def operations_of_a_bit(args: argparse.Namespace, config: Mapping[str, Any]) -> float:
    """The operations in matrix products that a bit takes in a forward and a backward."""
    weights = args.layers * (4 * args.d_model**2 + 2 * args.d_model * 4 * args.d_model) + 2 * args.d_model
    keys = config.get("chunk_size", args.chunk_size) or args.max_seq_len
    return 6 * weights + 12 * args.layers * args.d_model * keys


HEAD = (
    "tree",
    "bits/s x (95%)",
    "per CPU second x (95%)",
    "bits/s before",
    "bits/s after",
    "bytes/s after",
    "step p50 s",
    "step p95 s",
    "MFU before",
    "MFU after",
    "peak RSS MB before",
    "peak RSS MB after",
    "CUDA MB before",
    "CUDA MB after",
)


def cells_of(finding: Finding, args: argparse.Namespace, gflops: float) -> list[str]:
    """A line of the table; MFU against so many GFLOPS."""
    before, after = (
        bits / statistics.median(sum(turn.seconds) for turn in turns)
        for bits, turns in zip(finding.bits, (finding.before, finding.after), strict=True)
    )
    seconds = [second for turn in finding.after for second in turn.seconds]
    operations = operations_of_a_bit(args, finding.variant.config)
    device = [f"{turns[-1].device_mb:,.0f}" if turns[-1].device_mb else "" for turns in (finding.before, finding.after)]
    return [
        finding.variant.name,
        str(finding.speedup),
        str(finding.processor_speedup),
        f"{before:,.0f}",
        f"{after:,.0f}",
        f"{after / BITS_PER_BYTE:,.0f}",
        f"{percentile(seconds, 0.5):.3f}",
        f"{percentile(seconds, 0.95):.3f}",
        f"{before * operations / gflops / 1e9:.1%}",
        f"{after * operations / gflops / 1e9:.1%}",
        f"{finding.before[-1].peak_mb:,.0f}",
        f"{finding.after[-1].peak_mb:,.0f}",
        *device,
    ]


def title(args: argparse.Namespace) -> str:
    """What was trained, where: one section each."""
    chunk = f"chunk {args.chunk_size}" if args.chunk_size else "dense"
    return f"{args.layers}x{args.d_model}, T {args.max_seq_len}, {chunk}, {args.device.partition(':')[0]}"


def document(findings: Sequence[Finding], args: argparse.Namespace, gflops: Mapping[str, float]) -> Iterator[str]:
    """The section of the page."""
    device, counts = args.device, [len(finding.after) for finding in findings]
    if device.startswith("cuda"):
        import torch  # noqa: PLC0415 - nothing is measured any more

        device = torch.cuda.get_device_name(device)
    yield f"## Training speed: {title(args)}"
    yield ""
    yield ran_on(device, args.threads)
    yield ""
    yield (
        f"Micro-batches of {args.batch_size} rows of {args.max_seq_len} bits, {args.nhead} heads, {min(counts)} to "
        f"{max(counts)} updates each, in turn. x is after over before: the median of the pairs, with its 95% interval; "
        f"rows of A/A are its noise. MFU is of {gflops['float32']:,.0f} GFLOPS, the best float32 matrix product in "
        f"this run (bfloat16: {gflops['bfloat16']:,.0f})."
    )
    yield ""
    yield from table(HEAD, (cells_of(finding, args, gflops["float32"]) for finding in findings))
    yield ""
    yield from claims(findings, args)
    yield draw(findings, args)


def claims(findings: Sequence[Finding], args: argparse.Namespace) -> Iterator[str]:
    """What was promised, and whether it holds at this size."""
    seen = {finding.variant.name: finding.speedup for finding in findings}
    if "task-3, amp bf16" in seen:
        found = seen["task-3, amp bf16"]
        claim = "task-3 is at least 1.2x where the CPU has the instructions"
        if can_bf16(args.device):
            yield verdict(claim, found.median >= 1.2, f"{found}x")
        else:
            yield f"- {claim}: cannot be told here, {found}x; this CPU's bfloat16 instructions: none"
    headline = (args.layers, args.d_model, args.max_seq_len, args.chunk_size) == (8, 256, 1152, 128)
    if "all, dropout 0" in seen and headline:
        found = seen["all, dropout 0"]
        yield verdict(
            "with dropout 0, as the presets have it, all tasks are at least 3x", found.median >= 3, f"{found}x"
        )
    if "all" in seen and headline:
        yield f"- with dropout 0.1, whose random numbers no task makes cheaper, they are {seen['all']}x"
    yield ""


def draw(findings: Sequence[Finding], args: argparse.Namespace) -> str:
    """A bar for each variant, its interval, and the band of the noise."""
    figure, axes = new_picture(8.0, 1.2 + 0.3 * len(findings))
    noise = [finding.speedup for finding in findings if finding.variant.name.startswith(AA)]
    axes.axvspan(
        min(each.low for each in noise), max(each.high for each in noise), color="#dddddd", zorder=0, label="A/A noise"
    )
    axes.axvline(1.0, color="black", linewidth=0.8)
    for place, finding in enumerate(findings):
        ratio = finding.speedup
        errors = [[max(0.0, ratio.median - ratio.low)], [max(0.0, ratio.high - ratio.median)]]
        axes.barh(place, ratio.median, xerr=errors, color="#9ecae1", height=0.6, zorder=1)
    axes.set_yticks(range(len(findings)), [finding.variant.name for finding in findings])
    axes.invert_yaxis()
    axes.set_xlabel("bits/s, as a multiple of the baseline's")
    axes.set_title(title(args))
    axes.legend(loc="lower right", frameon=False)
    name = "training-speed-" + title(args).replace(", ", "-").replace(" ", "")
    return save_picture(figure, name, f"Speed of each tree against the baseline, {title(args)}")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare the training speed of patched trees with the baseline's.")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--d_model", type=int, default=128)
    parser.add_argument("--nhead", type=int, default=8)
    parser.add_argument("--max_seq_len", type=int, default=1152)
    parser.add_argument("--chunk_size", type=int, default=128, help="0 for dense attention")
    parser.add_argument("--batch_size", type=int, default=8, help="rows a micro-batch, 8 at most")
    parser.add_argument("--updates", type=int, default=20, help="turns of each tree, at most")
    parser.add_argument("--seconds", type=float, default=40.0, help="of turns, at most, for each variant")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="variants, by names or their beginnings; A/A is always run")
    return parser


if __name__ == "__main__":
    main()
