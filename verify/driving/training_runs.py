"""Runs of a tree's train_loop and of its command line, seen by a ledger. In child processes only."""

import contextlib
import copy
import functools
import io
import math
import random
import string
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.data import Dataset

from ..running.evidence import Evidence, Picture, failed, passed
from .pictures import curves, if_possible
from .seams import MissingSeam, function_of
from .short_fit import one_cycle
from .spies import Event, Ledger, Update, updates
from .tree import Tree, with_dropout

FLOOR = 1e-3  # of a peak: what a schedule that has ended is below
LENGTH = 18  # bits a row
REPORTED = ("loss", "acc", "accuracy")  # last words of the keys of a history that no grouping may change

Order = list[list[list[int]]]  # an epoch's micro-batches' rows, each by its place in the data


class Stopped(Exception):
    """The tree cannot be judged further: what is wrong, and the call that shows it."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Run:
    """What one call of train_loop did."""

    call: str
    model: nn.Module
    data: Tensor
    events: list[Event]
    history: Any
    options: dict[str, Any]
    streams: tuple[tuple[int, ...], ...] = ()  # what its rows are, run-length encoded and cut to fit

    @property
    def updates(self) -> list[Update]:
        return updates(self.events)

    @property
    def micro_batches(self) -> list[Tensor]:
        return [event.bits for event in self.events if event.bits is not None]

    @property
    def rates(self) -> list[float]:
        """The learning rate of each update."""
        return [update.step.lr or 0.0 for update in self.updates]

    def peak(self, planned: int) -> float:
        """What the rates rise to: as was asked, or, where nothing was, as the first of so many tells."""
        asked: float | None = self.options.get("lr")
        return asked or (self.rates[0] if self.rates else 1.0) / one_cycle(0, planned, 1.0)

    def gap(self, tree: Tree, planned: int) -> float:
        """The largest distance of a rate from OneCycle's over so many updates, as a share of its peak.

        Raises MissingSeam where another tree's rates go along a curve of their own, to its floor with the last update.
        """
        peak, rates = self.peak(planned), self.rates
        gap = max(abs(rate - one_cycle(at, planned, peak)) for at, rate in enumerate(rates)) / peak
        if gap > FLOOR and tree.seams.is_told and rates[-1] == min(rates) < FLOOR * max(rates):
            raise MissingSeam(
                "schedule", "its curve is another than OneCycle's, and reaches its floor with the last update"
            )
        return gap

    @property
    def scheduler_steps(self) -> int:
        """How often a scheduler was stepped in training: once an update, or never where rates are set by hand."""
        kinds = [event.kind for event in self.events]
        return kinds[kinds.index("micro-batch") :].count("scheduler") if "micro-batch" in kinds else 0

    def is_stepped(self, tree: Tree, planned: int) -> bool:
        """Whether a scheduler is stepped as often as is planned; another tree may leave out the last step of all."""
        return self.scheduler_steps in (0, planned, planned - tree.seams.is_told)

    def goes_on(self, rates: Sequence[float]) -> bool:
        """Whether the schedule, which has these rates for all updates, moves on where an update was left out."""
        expected = rates[: len(self.rates)]
        return not np.allclose(self.rates, expected, rtol=1e-6, atol=0) or self.scheduler_steps > len(self.updates)

    @property
    def order(self) -> Order:
        """Which rows make the micro-batches of each epoch, raw or as streams."""
        epochs, count = self.options.get("epochs", 1), len(self.micro_batches)
        if not count or count % epochs:
            raise Stopped(f"{count} micro-batches do not make {epochs} equal epochs", self.call)
        found = [self.places(bits) for bits in self.micro_batches]
        if any(place < 0 for places in found for place in places):
            self.require_streams()
            raise Stopped("what enters the model is not the rows that were handed over", self.call)
        return [found[at : at + count // epochs] for at in range(0, count, count // epochs)]

    def require_streams(self) -> None:
        """Raises MissingSeam where rows may have become something else, and what is not known."""
        if not self.streams and (self.options.get("compress_prob", 1) or self.options.get("direct_prob")):
            raise MissingSeam("compress_bits", "what a row becomes is not known", function_of("compress_bits"))

    def places(self, bits: Tensor) -> list[int]:
        """Where in the data each row of a micro-batch [rows, T] comes from; -1 for nowhere."""
        if bits.dim() != 2 or bits.is_floating_point():  # noqa: PLR2004 - rows and bits
            raise Stopped(f"{bits.dtype} {list(bits.shape)} enters the model, not integer bits [rows, T]", self.call)
        width = bits.shape[1]
        known = {stream + (width - len(stream)) * (0,): place for place, stream in enumerate(self.streams)}
        known |= {tuple(row): place for place, row in enumerate(self.data.tolist())}
        return [known.get(tuple(row), -1) for row in bits.tolist()]

    def scored(self, micro_batch: Tensor) -> Tensor | None:
        """Which next bits [rows, L - 1] of a micro-batch are its rows' own, and no padding.

        None if it holds neither rows of the data nor their streams.
        """
        rows, known = [tuple(row) for row in micro_batch.tolist()], {tuple(row) for row in self.data.tolist()}
        widths = [len(row) for row in rows]
        if not known.issuperset(rows):
            fitting = [{len(own) for own in self.streams if row == own + (0,) * (len(row) - len(own))} for row in rows]
            if any(len(found) != 1 for found in fitting):
                return None
            widths = [found.pop() for found in fitting]
        return torch.arange(1, micro_batch.shape[1]) < torch.tensor(widths)[:, None]


def watching(*options: str) -> Callable[[Callable[[Tree, Ledger], Evidence]], Callable[[Tree], Evidence]]:
    """Give a check a ledger that was made before the tree was imported; fail where train_loop lacks an option."""

    def decorate(function: Callable[[Tree, Ledger], Evidence]) -> Callable[[Tree], Evidence]:
        @functools.wraps(function)
        def judge(tree: Tree) -> Evidence:
            ledger = Ledger()
            ledger.watch_tree(tree)
            tree.asked = options
            tree.seams.evaluates = "amp" in options  # of which it is, too
            ledger.outlasts = "batch_size" not in options  # a total is task-1's to judge
            missing = (tree.require_option(option) for option in options)
            lack = next((each for each in missing if each is not None), None)
            if lack is not None:
                return lack
            try:
                if tree.seams.is_told:
                    train(tree, ledger, 8)  # or it cannot be driven
                return function(tree, ledger)
            except Stopped as stopped:
                if tree.seams.is_told and isinstance(stopped.__cause__, Exception):
                    raise stopped.__cause__ from None  # how another tree is called may be what is wrong
                return failed(*stopped.args)

        return judge

    return decorate


def train(
    tree: Tree,
    ledger: Ledger,
    rows: int,
    *,
    config: dict[str, Any] | None = None,
    light: bool = False,
    alike: bool = False,
    uneven: bool = False,
    scale: float = 1.0,
    dropout: float = 0.0,
    dtype: torch.dtype = torch.float64,
    seed: int = 1,
    data_set: bool = False,
    prepare: Callable[[nn.Module], object] | None = None,
    **options: Any,
) -> Run:
    """Call the tree's train_loop with the ledger open and the weights scaled, on random rows, or one repeated.

    Rows that are `uneven` have short runs of equal bits and long ones, so that their streams differ in length. A
    `light` model computes next to nothing. Options that are None are left out. Raises Stopped where the tree
    raises.
    """
    model = light_model(tree, ledger, config) if light else tree.model(dtype=dtype, **config or {})
    for weight in model.parameters():
        weight.data.mul_(scale)
    with_dropout(model, dropout)
    if prepare is not None:
        prepare(model)
    data = tree.bits(1, LENGTH).repeat(rows, 1) if alike else tree.bits(rows, LENGTH)
    if uneven:
        data = torch.stack([row.repeat_interleave(1 + 2 * (at % 5))[:LENGTH] for at, row in enumerate(data)])
    streams = streams_of(tree, data, (config or {}).get("max_seq_len", 64))
    shown = f"bits(1, {LENGTH}).repeat({rows}, 1)" if alike else f"bits({rows}, {LENGTH})"
    shown = f"stretched({shown})" if uneven else shown
    arguments = "".join(f", {name}={value!r}" for name, value in options.items())
    call = f"train_loop(model, {f'a data set of {shown}' if data_set else shown}{arguments})"
    call = f"manual_seed({seed}); {call}" if seed != 1 else call
    set_seeds(seed)
    ledger.take()
    given = {"compress_prob": 0.0, "direct_prob": 0.0} | options
    given |= {"seed": seed} if tree.seams.is_seeded else {}
    given = {n: value for n, value in given.items() if value is not None and (n != "lr" or tree.loop_takes("lr"))}
    try:
        history = tree.train(model, Rows(data) if data_set else data, **given)
    except Exception as error:
        raise Stopped(f"{type(error).__name__}: {error}", call) from error
    run = Run(call, model, data, ledger.take(), history, given, streams)
    if not run.updates:
        raise Stopped("train_loop makes no update", call)
    return run


def refused(tree: Tree, ledger: Ledger, cases: Iterable[dict[str, Any]], word: str = "") -> Evidence:
    """Whether runs with some options are refused by an error that holds a word, before anything is trained."""
    for options in cases:
        try:
            run = train(tree, ledger, 24, light=True, **options)
        except Stopped as stopped:
            if stopped.__cause__ is None or word not in str(stopped.__cause__):
                return failed(f"{stopped}: it is no error, or does not name {word}", stopped.args[1])
            if any(event.kind in ("backward", "step") for event in ledger.events):
                return failed(f"refused only after {len(ledger.events)} events", stopped.args[1])
        else:
            return failed(f"no error, and {len(run.updates)} updates", run.call)
    return passed("they are refused")


class Rows(Dataset[Tensor]):
    """Rows of bits as a data set that can be split and tells its shape, as one does that stands for a tensor."""

    def __init__(self, bits: Tensor) -> None:
        self.bits, self.shape, self.size, self.split = bits, bits.shape, bits.size, bits.split

    def __len__(self) -> int:
        return len(self.bits)

    def __getitem__(self, index: int) -> Tensor:
        return self.bits[index]


def streams_of(tree: Tree, data: Tensor, longest: int) -> tuple[tuple[int, ...], ...]:
    """The run-length stream of each row, cut to fit, which is the tree's to say; none where it has no encoder."""
    try:
        compress = tree.part("compression", "compress_bits")
    except MissingSeam:
        return ()
    return tuple(tuple(torch.as_tensor(compress(row)).tolist()[:longest]) for row in data)


@functools.cache
def shows_streams(tree: Tree) -> bool:
    """Whether what enters a model with direct_prob=1 is known: a row's stream as compress_bits makes it."""
    row, entered = tree.bits(1, LENGTH), list[Tensor]()
    try:
        with register_module_forward_pre_hook(lambda _, args: entered.extend(args[:1])):
            tree.train(tree.model(dtype=torch.float32), row.repeat(8, 1), compress_prob=0.0, direct_prob=1.0)
    except Exception:  # others will see it
        return True
    streams = [list(stream) for stream in streams_of(tree, row, LENGTH)]
    return any(bits[0].tolist()[:LENGTH] in streams for bits in entered if bits.dim() == 2)  # noqa: PLR2004


def set_seeds(seed: int) -> None:
    """Set the global random streams."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def light_model(tree: Tree, ledger: Ledger, config: dict[str, Any] | None = None) -> nn.Module:
    """A model of the tree's class whose logits are a parameter of its own, whatever enters it; all others have a part.

    Their gradients are 0, and there: a loop may divide each by hand. What comes with logits, telemetry say, is what the
    model itself gave once, as a loop may read what it likes of that.
    """
    small = {"d_model": 4, "nhead": 2, "num_layers": 1, "dim_feedforward": 4, "max_seq_len": 64}
    model = tree.model(dtype=torch.float32, **small | (config or {}))
    with torch.no_grad():
        own: Any = model(tree.bits(1, 2)) if tree.seams.is_told else (None, {})
    if type(own) is not tuple:
        return model  # what it answers with is its own

    class Light(type(model)):  # type: ignore[misc]
        def forward(self, bits: Tensor, *_: Any, **__: Any) -> Any:
            others = sum(weight.sum() for weight in self.parameters() if weight is not self.coin)
            return self.coin[0].expand(*bits.shape, 2) + 0.0 * others, *map(copy.copy, own[1:])

    ledger.watch_model(Light)
    model.__class__ = Light
    model.coin = nn.Parameter(torch.full((1, 2), 0.5))
    return model


def freeze_the_first(model: nn.Module) -> None:
    """Have a model's first weight take no gradient."""
    next(model.parameters()).requires_grad_(False)


def run_command(tree: Tree, ledger: Ledger, flags: list[str]) -> int | str | None:
    """Run the tree's command line, by our options, on 39 short rows of text, here; return its exit status."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        text = Path(folder, "text.txt")
        text.write_text(3 * string.ascii_letters, encoding="utf-8")
        small = ["--layers", "1", "--d_model", "8", "--nhead", "2", "--max_seq_len", "36"]
        ledger.take()
        try:
            tree.seams.command(["--data", str(text), *small, *flags])
        except (Exception, SystemExit) as end:
            code = end.code if isinstance(end, SystemExit) else f"{type(end).__name__}: {end}"
            if code and tree.seams.is_told and not tree.has_run:  # who spells them otherwise is not refuted by it
                lack = f"it ends with {code} for {' '.join(flags) or 'the options that it takes'}"
                raise MissingSeam("command-line", lack, function_of("command-line")) from end
            if isinstance(end, SystemExit):
                return end.code
            raise
    tree.has_run = True
    return None


def command_line(flags: Sequence[str]) -> str:
    """What a user types to see a run of the command line again."""
    return " ".join(["python -m bit_transformer.training --data FILE --max_seq_len 36", *flags])


@if_possible
def losses_beside(run: Run, other: Run) -> Picture | None:
    """The losses of a run beside those of another, which should be equal."""
    a, b = ([event.loss.mean() for event in each.events if event.loss is not None] for each in (run, other))
    return curves("losses of two runs that should be equal", a, b, x="backward", y="loss")


def first_difference(found: list[str], planned: list[str]) -> str:
    """Say where two lists of events part."""
    at = next((at for at, pair in enumerate(zip(found, planned, strict=False)) if pair[0] != pair[1]), None)
    if at is None:
        return f"{len(found)} events, not {len(planned)}"
    return f"event {at} is {found[at]}, not {planned[at]}, after {' '.join(found[max(0, at - 4) : at]) or 'none'}"


def reported(run: Run) -> dict[str, float]:
    """The finite losses and accuracies in a history that is a list of records, by key and epoch."""
    return {
        f"{key} of epoch {epoch}": float(value)
        for epoch, record in enumerate(run.history if isinstance(run.history, list) else [])
        for key, value in (record.items() if isinstance(record, dict) else [])
        if key.split("_")[-1] in REPORTED and isinstance(value, (int, float, Tensor)) and math.isfinite(value)
    }


def group_sizes(micro_batches: int, accum_steps: int) -> list[int]:
    """How many micro-batches each update of an epoch takes."""
    return [min(accum_steps, micro_batches - start) for start in range(0, micro_batches, accum_steps)]


def planned_sizes(run: Run) -> list[int]:
    """How many micro-batches each update of a run takes, given how many there were: one an epoch at least."""
    epochs, accum_steps = run.options.get("epochs", 1), run.options.get("accum_steps", 1)
    groups: list[int] = epochs * group_sizes(max(1, len(run.micro_batches) // epochs), accum_steps)
    return groups


def planned_rows(rows: int, batch_size: int = 8, extra_steps: int = 0) -> list[int]:
    """How many rows each micro-batch of an epoch has."""
    sizes = [min(batch_size, rows - at) for at in range(0, rows, batch_size)]
    return sizes + extra_steps * sizes[-1:]


def planned_updates(rows: int, **options: Any) -> int:
    """How many updates a run of train_loop makes."""
    micro_batches = planned_rows(rows, options.get("batch_size", 8), options.get("extra_steps", 0))
    epochs: int = options.get("epochs", 1)
    return epochs * len(group_sizes(len(micro_batches), options.get("accum_steps", 1)))
