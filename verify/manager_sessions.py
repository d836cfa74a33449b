"""Requests to a tree's ModelManager, and the rates of the updates that it makes. In child processes only."""

import functools
import importlib
import inspect
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from .evidence import Evidence, Verdict, at_most, failed, passed, unproven
from .tree import Tree

MANAGERS = ("dashboard.manager", "bit_transformer.dashboard_app", "bit_transformer.dashboard")
CONFIG = {"d_model": 8, "nhead": 2, "num_layers": 1, "dim_feedforward": 16, "max_seq_len": 18, "use_checkpoint": False}
NO_LIMIT = 1e9  # nats a bit, at which a safety gate would stop training
TOLERANCE = 1e-9  # of a rate, relative to the peak
SHAPE = ("pct_start", "anneal_strategy", "three_phase", "div_factor", "final_div_factor")  # of a OneCycle
Plan = dict[str, Any]
Cases = Iterator[Evidence]


class MissingPart(Exception):
    """The tree has no such part, or a package that the part needs is not installed."""


class RequestFailed(Exception):
    """The tree raised where it was asked for something that it must be able to do."""


def import_from(tree: Tree, modules: Sequence[str], attribute: str) -> Any:
    """An attribute of the first of these modules that the tree has and that has it. Raises MissingPart."""
    for name in modules:
        file = tree.path / name.replace(".", "/")
        if not (file.with_suffix(".py").is_file() or file.is_dir()):
            continue
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            package = str(error.name).partition(".")[0]
            if (tree.path / package).is_dir() or (tree.path / f"{package}.py").is_file():
                raise
            raise MissingPart(f"{name} needs {error.name}: pip install 'bitpatch[dashboard]'") from error
        if hasattr(module, attribute):
            return getattr(module, attribute)
    raise MissingPart(f"the tree has no {attribute} in {' or '.join(modules)}")


class Session:
    """A tree's manager, what it was asked for so far, and the rate of each update that it made.

    Make it before the tree is imported. Torch stays patched: a check's process ends with the check.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.loss_threshold = NO_LIMIT
        self.data = tree.bits(1000, CONFIG["max_seq_len"])
        self.rates: list[list[float]] = []  # of each update since `follows` began, by group
        self.shape: dict[str, Any] = {}  # what the last OneCycleLR was given of SHAPE
        self.calls: list[str] = []
        register_optimizer_step_pre_hook(self._note_rates)
        self._watch_schedules()

    def start(self) -> None:
        """Make the manager. Raises MissingPart."""
        self.kind = import_from(self.tree, MANAGERS, "ModelManager")
        self.folder = tempfile.mkdtemp()
        self.calls = [f"import torch; from {self.kind.__module__} import ModelManager as M"]
        self.calls.append(f"data = torch.randint(0, 2, {tuple(self.data.shape)})")
        self.renew()

    def renew(self) -> None:
        """Go on with a new manager that has the same snapshots."""
        self.manager = self.kind(self.folder, loss_threshold=self.loss_threshold)
        self.calls.append(f"m = M('snapshots', loss_threshold={self.loss_threshold})")

    def ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the manager. Raises RequestFailed, and TypeError where it takes other arguments."""
        shown = [f"data[:{len(arg)}]" if isinstance(arg, Tensor) else repr(arg) for arg in args]
        shown += [f"{key}={value!r}" for key, value in kwargs.items()]
        self.calls.append(f"m.{name}({', '.join(shown)})")
        try:
            return getattr(self.manager, name)(*args, **kwargs)
        except TypeError:
            raise
        except Exception as error:
            raise RequestFailed(f"{name} raises {type(error).__name__}: {error}") from error

    def init(self, rows: int, plan: Plan | None = None) -> None:
        """Ask for a new model, to be trained on so many rows; without a plan, by the tree's own."""
        self.ask("init", self.data[:rows], **({} if plan is None else {"plan": plan}), **CONFIG)

    def step(self, rows: int = 4) -> None:
        """Ask for one update."""
        self.ask("train_step", self.data[:rows])

    @property
    def line(self) -> str:
        """One line that does the same."""
        return "; ".join(self.calls)

    @property
    def total(self) -> Any:
        """The total of the manager's schedule, None if it does not say."""
        return getattr(self.manager.scheduler, "total_steps", None)

    def plans(self, updates: int) -> Evidence:
        """Whether the schedule has a total of so many updates."""
        if self.total != updates:
            return failed(
                f"total_steps={self.total}, planned {updates}", f"{self.line}; print(m.scheduler.total_steps)"
            )
        return passed(f"total_steps={updates}")

    def follows(self, wanted: list[float], act: Callable[[], object]) -> Evidence:
        """Whether the updates of an act have these rates, and nothing is raised."""
        self.rates.clear()
        try:
            act()
        except RequestFailed as error:
            return failed(f"after {len(self.rates)} of {len(wanted)} updates {error}", self.line)
        if len(self.rates) != len(wanted):
            return failed(f"{len(self.rates)} updates, planned {len(wanted)}", self.line)
        gaps = [max(abs(rate - want) for rate in rates) for rates, want in zip(self.rates, wanted, strict=True)]
        at = gaps.index(max(gaps))
        detail = f"update {at + 1} of {len(wanted)} has the rate {self.rates[at][0]:.6g}, planned {wanted[at]:.6g}"
        return at_most(gaps[at] / max(wanted), TOLERANCE, f"{detail}; relative to the peak", self.line)

    def cycle(self, updates: int, peak: float) -> list[float]:
        """The rates of a OneCycle over so many updates, of the shape that the tree gave its last."""
        optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=peak)
        schedule = OneCycleLR(optimizer, peak, total_steps=updates, cycle_momentum=False, **self.shape)
        rates = []
        for _ in range(updates):
            rates.append(float(schedule.get_last_lr()[0]))
            optimizer.step()
            schedule.step()
        return rates

    def _note_rates(self, optimizer: Optimizer, *_: Any) -> None:
        self.rates.append([float(group["lr"]) for group in optimizer.param_groups])

    def _watch_schedules(self) -> None:
        original = OneCycleLR.__init__
        signature = inspect.signature(original)

        @functools.wraps(original)
        def init(*args: Any, **kwargs: Any) -> None:
            given = signature.bind(*args, **kwargs).arguments
            self.shape = {name: given[name] for name in SHAPE if name in given}
            original(*args, **kwargs)

        setattr(OneCycleLR, "__init__", init)  # noqa: B010 - a method, which mypy does not let be assigned


def managing(function: Callable[[Session], Cases]) -> Callable[[Tree], Evidence]:
    """Make a check of what a function yields for a manager."""

    @functools.wraps(function)
    def judge(tree: Tree) -> Evidence:
        session = Session(tree)
        try:
            session.start()
            return worst_of(function(session))
        except MissingPart as missing:
            return unproven(str(missing))
        except RequestFailed as error:
            return failed(str(error), session.line)

    return judge


def worst_of(cases: Cases) -> Evidence:
    """The first case that does not pass, else the one nearest to its limit; unproven if there is none."""
    found: list[Evidence] = []
    for evidence in cases:
        if evidence.verdict is not Verdict.PASS:
            return evidence
        found.append(evidence)
    if not found:
        return unproven("nothing was exercised")
    if len(found) == 1:
        return found[0]
    worst = max(found, key=lambda evidence: -1.0 if evidence.measured is None else evidence.measured)
    return worst if worst.measured is not None else passed(f"{len(found)} cases; the last: {found[-1].detail}")
