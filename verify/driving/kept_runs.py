"""Runs that a tree keeps in a folder: their first updates, and their evaluations. In child processes only.

They have a loop of their own, of which the contracts hold too. A tree that keeps no runs, or whose runs wait for other
tasks, has nothing here that could be wrong.
"""

import contextlib
import functools
import io
import random
import string
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ..running.evidence import Evidence, Picture, failed, passed
from .manager_sessions import Cases, worst_of
from .pictures import ledgers, one_cycle_curves
from .seams import MissingSeam
from .short_fit import one_cycle
from .spies import Event, Ledger, updates
from .training_runs import Run, Stopped, group_sizes, planned_rows
from .tree import Tree

ROWS = 39  # to train on, no two of them alike
SMALL = {"layers": 1, "d_model": 8, "nhead": 2, "max_seq_len": 36, "dropout": 0.0, "lr": 0.01, "compress_prob": 0.0}
STOPPED, INTERRUPTED = 1, 130  # exit statuses: by the gate, by a signal


@dataclass(slots=True)
class KeptRun:
    """What a run did until it ended or was stopped."""

    call: str
    status: int
    events: list[Event] = field(default_factory=list)
    model: nn.Module | None = None
    evaluated: list[bool] = field(default_factory=list)  # of each forward of an evaluation: whether autocast was on

    @property
    def steps(self) -> int:
        """How many updates it made; a step that makes room for an optimizer's state is none."""
        return sum(bool(each.micro_batches) for each in updates(self.events))

    @property
    def run(self) -> Run:
        """What it did, as of a call of a loop."""
        bits = [event.bits for event in self.events if event.bits is not None]
        assert self.model is not None  # a run that has events has one
        return Run(self.call, self.model, torch.cat(bits), self.events, None, {})


class Runs:
    """The runs that a tree keeps; each test of it has a folder of its own."""

    def __init__(self, tree: Tree, ledger: Ledger) -> None:
        self.ledger, self.kind = ledger, tree.kind
        self.folder = Path(tempfile.mkdtemp())
        stream = random.Random(0)  # noqa: S311 - no secret
        self.text, self.held_out = (self.folder / name for name in ("train.txt", "held_out.txt"))
        for file, rows in ((self.text, ROWS), (self.held_out, 8)):
            file.write_text("".join(stream.choices(string.printable, k=4 * rows)), encoding="utf-8")
        sys.modules["matplotlib"] = None  # type: ignore[assignment] # pictures take longer than all else
        try:
            self.main: Callable[[Sequence[str]], int] | None = tree.part("runs", "main")
        except (MissingSeam, ImportError):
            self.main = None

    def go(self, *switches: str, name: str = "", most: int = 0, **flags: Any) -> KeptRun:
        """Start or resume a run of two epochs, and interrupt it after so many updates, or the first of the second one.

        Each update is followed by an evaluation. The run is kept under a name, or under one of its own. Raises Stopped
        where it is refused, and MissingSeam where it is to be started otherwise.
        """
        given = SMALL | {"epochs": 2, "eval_interval": 1} | flags
        shape = {name: given[name] for name in ("batch_size", "extra_steps") if name in given}
        most = most or len(group_sizes(len(planned_rows(ROWS, **shape)), given.get("accum_steps", 1))) + 1
        words = [word for flag, value in given.items() for word in (f"--{flag}", str(value))]
        call = " ".join(["runs", *words, *switches])
        out = self.folder / (name or call)
        files = ["--force", "--data", self.text, "--val_data", self.held_out, "--out", out]
        self.ledger.take()
        found = KeptRun(f"python -m bit_transformer.{call} --data FILE --out FOLDER", 0)
        assert self.main is not None  # or there is nothing to ask
        with interrupted_after(most), self._evaluations(found), contextlib.redirect_stdout(io.StringIO()):
            try:
                found.status = self.main([*map(str, files), *words, *switches])
            except SystemExit as end:
                raise MissingSeam("runs", f"their command line is another: {call} exits with {end.code}") from end
        found.events = self.ledger.take()
        if found.status not in (0, STOPPED, INTERRUPTED):
            raise Stopped(f"exit status {found.status}", found.call)
        return found

    @contextmanager
    def _evaluations(self, found: KeptRun) -> Iterator[None]:
        """Note of each forward that trains nothing whether it is under autocast, and the model that is trained."""

        def note(module: nn.Module, _: Any) -> None:
            if isinstance(module, self.kind):
                found.model = module
                if not module.training:
                    found.evaluated.append(torch.is_autocast_enabled("cpu"))

        with register_module_forward_pre_hook(note):
            yield


@contextmanager
def interrupted_after(updates: int) -> Iterator[None]:
    """Raise KeyboardInterrupt where an update more would be made."""
    made = 0

    def count(*_: Any) -> None:
        nonlocal made
        made += 1
        if made > updates:
            raise KeyboardInterrupt

    with register_optimizer_step_pre_hook(count):
        yield


def kept_runs(judge: Callable[[Runs], Cases]) -> Callable[[Tree, Ledger], Evidence]:
    """A check of the runs that a tree keeps, which passes where it keeps none."""

    @functools.wraps(judge)
    def asked(tree: Tree, ledger: Ledger) -> Evidence:
        runs = Runs(tree, ledger)
        if runs.main is None:
            return passed("no runs are kept here, or they wait for other tasks")
        return worst_of(judge(runs))

    return asked


def wrong_plan(
    kept: KeptRun, batch_size: int = 8, accum_steps: int = 1, extra_steps: int = 0
) -> tuple[str, Picture | None]:
    """What is wrong with rows, groups and rates of the first updates of a run of two epochs; or nothing."""
    run, planned = kept.run, planned_rows(ROWS, batch_size, extra_steps)
    sizes = group_sizes(len(planned), accum_steps)
    found = [len(update.micro_batches) for update in run.updates]
    if found != (2 * sizes)[: len(found)] or len(found) < len(sizes):
        return f"updates of {found} micro-batches, an epoch's should be of {sizes}", ledgers(run.events, 2 * sizes)
    epoch: list[Tensor] = run.micro_batches[: len(planned)]
    if [len(bits) for bits in epoch] != planned:
        return f"micro-batches of {[len(bits) for bits in epoch]} rows, not {planned}", None
    if len({str(row) for bits in epoch[: len(epoch) - extra_steps] for row in bits.tolist()}) != ROWS:
        return "an epoch does not hold each row once", None
    expected = [one_cycle(at, 2 * len(sizes), SMALL["lr"]) for at in range(len(run.rates))]
    gap = max(abs(a - b) for a, b in zip(run.rates, expected, strict=True)) / SMALL["lr"]
    trouble = f"a rate is {gap:.3g} of lr away from OneCycle's over {2 * len(sizes)} updates"
    shown = one_cycle_curves(run.rates, 2 * len(sizes), SMALL["lr"])
    return ("", None) if gap <= 1e-9 else (trouble, shown)  # noqa: PLR2004 - rounding


def judged(kept: KeptRun, trouble: str, shown: Picture | None = None) -> Evidence:
    """The finding on a run."""
    return failed(trouble, kept.call, picture=shown) if trouble else passed(kept.call)
