"""Evaluation that can be compared: the bits a model needs for each byte of a text, beside what others need.

    python -m bit_transformer.evaluation model.pt --data wiki.test.txt --train wiki.train.txt --sample "The "

bpb_data is the cost of a byte's 8 data bits by the chain rule, in bits: what a compressor driven by the
model would spend on the byte. parity_waste is the cost of the ninth bit, which follows from the eight.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .bit_io import BITS_PER_BYTE, CODEWORDS, SAMPLE
from .checkpoint import load_checkpoint
from .curves import BLUE, GREY, ORANGE, as_shipped, new_figure, save_figure
from .generation import evaluation_mode, generate
from .ladder import LABELS, alone, given_train

if TYPE_CHECKING:
    from rich.console import Group

DATA_BITS = BITS_PER_BYTE - 1
MODEL = "this model"
GIVEN = "given its text"
KNOWN = f"'{GIVEN}': it has read the text that the model was trained on. The others know nothing beforehand."


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model spends on held-out rows: loss in nats a predicted bit, the others in bits a byte."""

    loss: float
    bpb_data: float
    parity_waste: float
    bytes: int

    def to_json(self) -> dict[str, float]:
        """The numbers by their names."""
        return asdict(self)


def evaluate(
    model: nn.Module,
    rows: Tensor | Dataset,
    batch_size: int = 8,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Evaluation:
    """Evaluate on rows of bits [rows, T], or a data set of rows [T], that begin with a codeword.

    The first bit of a row is predicted by nothing: it costs exactly 1 bit of bpb_data, and no loss.
    The forward runs in evaluation mode, and in a context that autocast makes; costs are summed in
    float64. No random number is drawn, and the model's mode stays as it was.

    Raises ValueError where T is no multiple of 9, and where there are no rows.
    """
    device = next(model.parameters()).device
    places = torch.zeros(BITS_PER_BYTE, dtype=torch.float64, device=device)  # nats, by the place in the byte
    count = bits = 0
    with evaluation_mode(model), torch.no_grad():
        for batch in whole_codewords(rows, batch_size):
            batch = batch.to(device).long()
            with autocast():
                logits = model(batch)[0]
            places += next_bit_costs(logits, batch).view(-1, BITS_PER_BYTE).sum(0)
            count += len(batch)
            bits += batch.numel()
    if count == 0:
        raise ValueError("there are no rows to evaluate on: hold out more text, or make rows shorter")
    bytes_ = bits // BITS_PER_BYTE
    spent = (places / math.log(2)).tolist()
    return Evaluation(
        loss=places.sum().item() / (bits - count),
        bpb_data=(count + math.fsum(spent[:DATA_BITS])) / bytes_,  # 1 bit for the first of each row
        parity_waste=spent[DATA_BITS] / bytes_,
        bytes=bytes_,
    )


def next_bit_costs(logits: Tensor, bits: Tensor) -> Tensor:
    """What each of bits [B, T] costs in nats, float64 [B, T]; the first of a row, which nothing predicts, 0."""
    costs = F.cross_entropy(logits[:, :-1].double().transpose(1, 2), bits[:, 1:], reduction="none")
    return F.pad(costs, (1, 0))


def whole_codewords(rows: Tensor | Dataset, batch_size: int) -> Iterator[Tensor]:
    """Batches [B, T] of rows, in order; ValueError unless T is a multiple of 9."""
    # A loader without a generator of its own would draw from the one that training draws from.
    for batch in DataLoader(rows, batch_size, generator=torch.Generator()):
        if batch.dim() != 2 or batch.shape[1] % BITS_PER_BYTE or not batch.shape[1]:
            expected = f"rows of whole codewords, a multiple of {BITS_PER_BYTE} bits"
            raise ValueError(f"expected {expected}, got rows of shape {list(batch.shape[1:])}")
        yield batch


def bytes_of_rows(rows: Tensor | Dataset) -> bytes:
    """The bytes that rows of bits encode; ValueError, naming the byte, where one is no codeword."""
    decoded = bytearray()
    for batch in whole_codewords(rows, batch_size=256):
        words = batch.cpu().numpy().reshape(-1, BITS_PER_BYTE)
        is_codeword = (words.sum(1) % 2 == 0) & (words >> 1 == 0).all(1)
        if not is_codeword.all():
            at = int(is_codeword.argmin())
            raise ValueError(f"byte {len(decoded) + at} is no codeword of even parity: {tuple(words[at].tolist())}")
        decoded += np.packbits(words[:, :DATA_BITS].astype(np.uint8), axis=1).tobytes()
    return bytes(decoded)


def rows_of_bytes(data: bytes, length: int) -> Tensor:
    """The codewords of bytes as rows, a uint8 tensor [rows, length]; the tail that fills no row is dropped.

    Raises ValueError where the length is no multiple of 9, and where the bytes fill no row.
    """
    if length < BITS_PER_BYTE or length % BITS_PER_BYTE:
        raise ValueError(f"the length of a row must be a multiple of {BITS_PER_BYTE} bits, got {length}")
    row_bytes = length // BITS_PER_BYTE
    rows = len(data) // row_bytes
    if rows == 0:
        raise ValueError(f"{len(data)} bytes do not fill one row of {row_bytes}: give more text")
    table = np.array(CODEWORDS, dtype=np.uint8)  # [256, 9]
    return torch.from_numpy(table[np.frombuffer(data, np.uint8, rows * row_bytes)].reshape(rows, length))


def compare(evaluation: Evaluation, data: bytes, train: bytes = b"", row_bytes: int = 0) -> dict[str, Any]:
    """An evaluation beside what others spend on the same bytes, alone and, where there is a training text, given it.

    Raises ValueError where the bytes are not as many.
    """
    if evaluation.bytes != len(data):
        raise ValueError(f"evaluated on {evaluation.bytes} bytes, got {len(data)}: take bytes_of_rows of the same rows")
    given = {"given_train": given_train(data, train, row_bytes or len(data))} if train else {}
    return {"evaluation": evaluation.to_json(), "alone": alone(data), **given}


def ranking(comparison: dict[str, Any]) -> list[tuple[str, float]]:
    """Names and bits per byte, the best first; the model alone where nothing is beside it."""
    others = [(LABELS[name], value) for name, value in comparison.get("alone", {}).items()]
    given = [(f"{LABELS[name]}, {GIVEN}", value) for name, value in comparison.get("given_train", {}).items()]
    return sorted([(MODEL, comparison["evaluation"]["bpb_data"]), *others, *given], key=lambda entry: entry[1])


def comparison_table(comparison: dict[str, Any]) -> "Group":
    """The comparison as a table for rich's print, the best first, with notes below it."""
    from rich.console import Group  # noqa: PLC0415 - only who prints needs it
    from rich.table import Table  # noqa: PLC0415

    evaluation = comparison["evaluation"]
    table = Table(title=f"{evaluation['bytes']:,} bytes")
    table.add_column("")
    table.add_column("bits per byte", justify="right")
    table.add_column("of its size", justify="right")
    for name, value in ranking(comparison):
        table.add_row(name, f"{value:.3f}", f"{value / 8:.1%}", style="bold" if name == MODEL else None)
    spent = f"parity waste {evaluation['parity_waste']:.4f} bits per byte, loss {evaluation['loss']:.4f} nats per bit"
    return Group(table, f"This model: {spent}.", KNOWN)


@as_shipped()
def draw_comparison(comparison: dict[str, Any], folder: Path) -> list[Path]:
    """Write comparison.png and comparison.svg, the best on top; ImportError where there is no matplotlib."""
    names, values = zip(*ranking(comparison), strict=True)
    figure = new_figure(8, 1 + 0.4 * len(names))
    axes = figure.subplots()
    colours = [ORANGE if name == MODEL else BLUE if GIVEN in name else GREY for name in names]
    bars = axes.barh(names, values, color=colours, height=0.7)
    axes.bar_label(bars, fmt="%.3f", padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlim(left=0)
    axes.set_xlabel("bits per byte (lower is better)")
    figure.supxlabel(KNOWN, fontsize=8.5, color=GREY)
    evaluation = comparison["evaluation"]
    waste = f"the parity bit costs the model {evaluation['parity_waste']:.4f} bits a byte more"
    axes.set_title(f"The same {evaluation['bytes']:,} bytes; {waste}", loc="left", fontsize=11)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    return save_figure(figure, folder, "comparison")


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m bit_transformer.evaluation`."""
    parser = argparse.ArgumentParser(prog="bit_transformer.evaluation", description="Evaluate a checkpoint on a text.")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--data", type=Path, default=SAMPLE, help="text file, all of it held out (default: a sample)")
    parser.add_argument("--train", type=Path, action="append", help="text it was trained on, for others to read too")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write comparison.json, .png and .svg there")
    parser.add_argument("--sample", metavar="PROMPT", help="write text that goes on from a prompt, which may be empty")
    parser.add_argument("--sample_bytes", type=int, default=256, help="bytes to write after the prompt")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 takes the likelier bit")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--device", type=device, default="cpu", help="such as cuda (default: cpu)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def device(name: str) -> torch.device:
    """A device that can be used here."""
    try:
        return torch.empty(0, device=name).device
    except (AssertionError, RuntimeError) as error:
        raise argparse.ArgumentTypeError(f"torch finds no device {name!r} here: take cpu") from error


def main(argv: Sequence[str] | None = None) -> None:
    """Print what a checkpoint's model spends on a text, beside what others spend."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        run(args)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))


def run(args: argparse.Namespace) -> None:
    """Evaluate, compare, and sample, as the command line asks."""
    model = load_checkpoint(args.checkpoint, args.device)["model"]
    rows = rows_of_bytes(args.data.read_bytes(), model.max_seq_len - model.max_seq_len % BITS_PER_BYTE)
    train = b"".join(path.read_bytes() for path in args.train or ())
    report = compare(evaluate(model, rows), bytes_of_rows(rows), train, rows.shape[1] // BITS_PER_BYTE)
    if args.out is not None:
        draw_comparison(report, args.out)
        (args.out / "comparison.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if args.sample is not None:
        generator = torch.Generator().manual_seed(args.seed)
        sample = generate(model, args.sample, args.sample_bytes, args.temperature, generator)
        report = {**report, "sample": sample}
    if args.json:
        print(json.dumps(report, indent=2))
        return
    from rich.console import Console  # noqa: PLC0415 - JSON needs no table

    console = Console()
    console.print(comparison_table(report))
    if "sample" in report:
        print(printable(report["sample"]))


def printable(text: str) -> str:
    """The text without what would command a terminal, which a model is free to write."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


if __name__ == "__main__":
    main()
