"""Requests to a tree's ModelManager, and the updates that it makes. In child processes only.

What a schedule has before it is read from a copy that is run ahead: so it may be of any kind, and be made anywhere.
"""

import asyncio
import copy
import functools
import importlib
import inspect
import math
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from ..running.evidence import Evidence, Verdict, at_most, failed, passed, unproven
from .pictures import curves, one_cycle_curves
from .seams import function_of
from .tree import Tree

DASHBOARDS = ("dashboard.app", "bit_transformer.dashboard_app", "bit_transformer.dashboard")
SERVERS = ("mcp_server", "bit_transformer.mcp_server")
MANAGERS = ("dashboard.manager", "bit_transformer.dashboard_app", "bit_transformer.dashboard")
LIMITS = ("loss_threshold", "max_val_loss", "max_loss", "val_threshold", "threshold")  # what a gate's may be called
CONFIG = {"d_model": 8, "nhead": 2, "num_layers": 1, "dim_feedforward": 16, "max_seq_len": 18, "use_checkpoint": False}
PLAN = {"batch_size": 4, "epochs": 2, "extra_steps": 0, "lr": 1e-3, "weight_decay": 0.01, "accum_steps": 1}
NEEDED = ("batch_size", "epochs", "extra_steps")
NO_LIMIT = 1e9  # nats a bit, at which a safety gate would stop training
TOLERANCE = 1e-9  # of a rate, relative to the peak
FLOOR = 1e-3  # of the peak: a rate above it is no floor
LONGEST = 4000  # updates of a schedule that is shown
PEAKED = 20  # updates of a run that is long enough to come near its peak
Plan = dict[str, Any]
Cases = Iterator[Evidence]
Send = Callable[..., None]


class MissingPart(Exception):
    """The tree has no such part that we know to drive, or a package that the part needs is not installed."""

    def __init__(self, lack: str, seam: str = "") -> None:
        super().__init__(f"{lack}; settle it: {function_of(seam)}" if seam else lack)


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


def seam_or(tree: Tree, seam: str, modules: Sequence[str], attribute: str) -> Any:
    """What is at a seam of a tree, or stands for it, or is where ours has it. Raises MissingSeam, MissingPart."""
    if (own := tree.seams.own(seam)) is not None:
        return own
    return tree.seams.part(seam).load() if tree.seams.found is not None else import_from(tree, modules, attribute)


class Session:
    """A tree's manager, what it was asked for so far, and the rates of each update that it made.

    Make it before the tree is imported. Torch stays patched: a check's process ends with the check.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.threshold = NO_LIMIT
        self.data = tree.bits(1000, CONFIG["max_seq_len"])
        self.rates: list[list[float]] = []  # of each update since `follows` began, by group
        self.before_update: list[Callable[[], None]] = []
        self.calls: list[str] = []
        self.kept: dict[str, dict[str, Tensor]] = {}  # the moments of the snapshot that was saved last
        self.shapes: dict[tuple[int, float], list[float]] = {}  # the rates of a schedule, by its updates and peak
        register_optimizer_step_pre_hook(self._note_update)

    def start(self) -> None:
        """Make the manager, and see what it takes. Raises MissingPart."""
        self.kind = seam_or(self.tree, "manager", MANAGERS, "ModelManager")
        self.folder = tempfile.mkdtemp()
        self.calls = [f"import torch; from {self.kind.__module__} import {self.kind.__name__} as M"]
        self.calls.append(f"data = torch.randint(0, 2, {tuple(self.data.shape)})")
        self.renew()
        self.texts = next(iter(inspect.signature(self.method("init")).parameters), "") == "text"
        try:
            self.init(8)
        except RequestFailed as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            is_other = isinstance(error.__cause__, TypeError) and unknown and unknown[1] in CONFIG
            if is_other or self.tree.seams.is_told:  # of another tree it is not known how it is to be asked
                raise MissingPart(str(error), "manager") from error
            raise
        self.takes = {name for name, value in PLAN.items() if self._plans_by(name, value)}
        if missing := [name for name in NEEDED if name not in self.takes]:
            raise MissingPart(f"a plan that ModelManager.init is given takes no {missing[0]}", "manager")
        del self.calls[3:]
        self.rates.clear()

    def renew(self) -> None:
        """Go on with a new manager that has the same snapshots."""
        names = inspect.signature(self.kind).parameters
        self.limit = next((name for name in LIMITS if name in names), "")
        floors = {name: -NO_LIMIT for name in ("c_floor", "s_floor") if not self.limit and name in names}
        limits = {self.limit: self.threshold} if self.limit else floors
        self.manager = self.kind(self.folder, **limits)
        self.calls.append(f"m = M('snapshots', {', '.join(f'{name}={limit!r}' for name, limit in limits.items())})")

    def method(self, name: str) -> Callable[..., Any]:
        """A method of the manager. Raises MissingPart."""
        found = getattr(self.manager, name, None)
        if not callable(found):
            raise MissingPart(f"ModelManager has no method {name}", "manager")
        bound: Callable[..., Any] = found
        return bound

    def ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the manager, with rows as it takes them. Raises RequestFailed, or MissingPart."""
        method = self.method(name)
        shown = [f"data[:{len(arg)}]" if isinstance(arg, Tensor) else repr(arg) for arg in args]
        shown += [f"{key}={value!r}" for key, value in kwargs.items()]
        self.calls.append(f"m.{name}({', '.join(shown)})")
        args = tuple(as_text(arg) if self.texts and isinstance(arg, Tensor) else arg for arg in args)
        try:
            inspect.signature(method).bind(*args, **kwargs)
        except TypeError as error:
            raise MissingPart(f"ModelManager.{name} is to be called otherwise: {error}", "manager") from error
        try:
            return method(*args, **kwargs)
        except Exception as error:
            raise RequestFailed(f"{name} raises {type(error).__name__}: {error}") from error

    def init(self, rows: int, plan: Plan | None = None, held_out: int = 0, **more: Any) -> None:
        """Ask for a new model, to be trained on so many rows; without a plan, by the tree's own.

        Where the manager takes rows to validate on, it is given some.
        """
        given: dict[str, Any] = {} if plan is None else {"plan": self.known(plan)}
        if held_out and self.validates:
            given["validation"] = self.data[-held_out:]
        self.ask("init", self.data[:rows], **given, **CONFIG | more)

    @property
    def validates(self) -> bool:
        """Whether the manager takes rows to validate on."""
        return "validation" in inspect.signature(self.method("init")).parameters

    def step(self, rows: int = 4) -> None:
        """Ask for one update."""
        self.ask("train_step", self.data[:rows])

    def known(self, plan: Plan) -> Plan:
        """What this manager takes of a plan."""
        return {name: value for name, value in plan.items() if name in self.takes}

    @property
    def line(self) -> str:
        """One line that does the same."""
        return "; ".join(self.calls)

    @property
    def model(self) -> nn.Module:
        """The manager's model."""
        found: nn.Module = self._part("model", "net")
        return found

    @property
    def optimizer(self) -> Optimizer:
        """The manager's optimizer."""
        found: Optimizer = self._part("optimizer", "optim")
        return found

    @property
    def schedule(self) -> Any:
        """The manager's schedule."""
        return self._part("scheduler", "schedule", "lr_scheduler")

    def ahead(self, updates: int) -> list[float]:
        """The rates of the next updates, at most so many, as a copy of the schedule tells them."""
        optimizer, schedule = copy.deepcopy((self.optimizer, self.schedule))
        rates: list[float] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            while len(rates) < updates:
                rates.append(float(optimizer.param_groups[0]["lr"]))
                try:
                    schedule.step()
                except ValueError:  # a OneCycle beyond its total
                    break
        return rates

    def plans(self, updates: int, peak: float) -> Evidence:
        """Whether the schedule has just so many updates before it, up to the peak and down to its floor.

        Its shape is the tree's; but the request says no more than how long and how high it is, so that each
        schedule of this length and peak is the same.
        """
        wrong = self._misplanned(updates, peak)
        if not wrong:
            return passed(f"{updates} updates up to {peak}")
        before, total = self.shapes.get((updates, peak)), getattr(self.schedule, "total_steps", 0)
        rates = self.ahead(max(updates, total if total in range(LONGEST) else 0))
        shown = one_cycle_curves(rates, updates, peak) if before is None else curves("learning rates", rates, before)
        return failed(wrong, f"{self.line}; print(m.scheduler.state_dict())", picture=shown)

    def _misplanned(self, updates: int, peak: float) -> str:
        """What is wrong with the schedule, if anything is."""
        total = getattr(self.schedule, "total_steps", updates)
        if total != updates:
            return f"total_steps={total}, planned {updates}"
        known = hasattr(self.schedule, "total_steps")
        rates = self.ahead(updates if known else updates + 1)
        beyond = rates[updates:]
        rates = rates[:updates]
        top = rates.index(max(rates))
        up, down = rates[: top + 1], rates[top:]
        if len(rates) < updates or any(0 < rate < rates[-1] * (1 - TOLERANCE) for rate in beyond):
            return f"the schedule is not of {updates} updates"
        if up != sorted(up) or down != sorted(down, reverse=True) or (updates > 1 and rates[-1] >= rates[-2]):
            return f"the rates do not rise and fall until the last of {updates} updates: {spoken(rates)}"
        if rates[-1] > FLOOR * peak:
            return f"the last of {updates} updates is not at the floor: {spoken(rates)}"
        if max(rates) > peak * (1 + TOLERANCE) or (updates >= PEAKED and max(rates) < 0.9 * peak):
            return f"the highest rate is {max(rates):.6g}, not lr={peak}"
        before = self.shapes.setdefault((updates, peak), rates)
        if not all(map(math.isclose, rates, before)):
            return f"another schedule than before, of {updates} updates too: {spoken(rates)}"
        return ""

    def decays(self, decay: float) -> Evidence:
        """Whether the optimizer decays weights so much, all or some."""
        found = {float(group.get("weight_decay", 0.0)) for group in self.optimizer.param_groups}
        if "weight_decay" in self.takes and (decay not in found or not found <= {0.0, decay}):
            return failed(f"weight_decay={decay} was asked for, and the optimizer's is {sorted(found)}", self.line)
        return passed(f"weight_decay={decay}")

    def holds_the_model(self) -> Evidence:
        """Whether schedule, optimizer and model belong together."""
        held = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
        own = {id(parameter) for parameter in self.model.parameters()}
        if held != own:
            return failed(f"the optimizer holds {len(own & held)} of the model's {len(own)} and others", self.line)
        if getattr(self.schedule, "optimizer", self.optimizer) is not self.optimizer:
            return failed("the schedule is of another optimizer than the manager's", self.line)
        return passed(f"{len(own)} parameters")

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """What the optimizer keeps of each parameter, by its name."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        return {
            names.get(id(parameter), "?"): {key: torch.as_tensor(value).clone() for key, value in kept.items()}
            for parameter, kept in self.optimizer.state.items()
        }

    def follows(self, wanted: list[float], act: Callable[[], object]) -> Evidence:
        """Whether the updates of an act have these rates, and nothing is raised."""
        trouble = ""
        self.rates.clear()
        try:
            act()
        except RequestFailed as error:
            trouble = f"after {len(self.rates)} of {len(wanted)} updates {error}"
        if not trouble and len(self.rates) != len(wanted):
            trouble = f"{len(self.rates)} updates, planned {len(wanted)}"
        shown = curves("learning rates, beside those planned", [max(rates) for rates in self.rates], wanted)
        if trouble:
            return failed(trouble, self.line, picture=shown)
        gaps = [max(abs(rate - want) for rate in rates) for rates, want in zip(self.rates, wanted, strict=True)]
        at = gaps.index(max(gaps))
        detail = f"update {at + 1} of {len(wanted)} has the rate {self.rates[at][0]:.6g}, planned {wanted[at]:.6g}"
        return at_most(gaps[at] / max(wanted), TOLERANCE, f"{detail}; relative to the peak", self.line, shown)

    def _part(self, *names: str) -> Any:
        for name in names:
            if (found := getattr(self.manager, name, None)) is not None:
                return found
        raise MissingPart(f"ModelManager keeps no {names[0]} by a name that we know", "manager")

    def _plans_by(self, name: str, value: Any) -> bool:
        try:
            self.ask("init", self.data[:8], plan={name: value}, **CONFIG)
        except RequestFailed:
            return False
        return True

    def _note_update(self, optimizer: Optimizer, *_: Any) -> None:
        self.rates.append([float(group["lr"]) for group in optimizer.param_groups])
        for act in self.before_update:
            act()


def dashboard(session: Session) -> Send:
    """What sends a dashboard a request. Raises MissingPart."""
    app = import_from(session.tree, DASHBOARDS, "create_app")(session.manager)
    client = app.test_client()
    headers = {"Authorization": f"Bearer {app.config.get('TOKEN')}"}  # which a dashboard without a token ignores

    def post(name: str, /, **body: Any) -> None:
        session.calls.append(f"POST /{name} {body}")
        answer = client.post(f"/{name}", json=body, headers=headers)
        if answer.status_code != HTTPStatus.OK:
            raise RequestFailed(f"POST /{name} is answered with {answer.status}: {answer.get_data(as_text=True)}")

    return post


def mcp_server(session: Session) -> Send:
    """What calls a tool of an MCP server. Raises MissingPart."""
    server = import_from(session.tree, SERVERS, "build_server")(session.manager)

    def call(name: str, /, **arguments: Any) -> None:
        session.calls.append(f"the tool {name} {arguments}")
        try:
            asyncio.run(server.call_tool(name, arguments))
        except Exception as error:
            raise RequestFailed(f"the tool {name} fails: {error}") from error

    return call


def as_text(bits: Tensor) -> str:
    """A text of as many rows: two bytes of 9 bits each."""
    return "".join(chr(97 + int(row[:5].sum()) + at % 16) + "e" for at, row in enumerate(bits))


def spoken(rates: list[float]) -> str:
    """The first of some rates, the highest, and the last two."""
    return ", ".join(f"{rate:.4g}" for rate in (rates[0], max(rates), *rates[-2:]))


def managing(function: Callable[..., Cases]) -> Callable[..., Evidence]:
    """Make a check of what a function yields for a manager."""

    @functools.wraps(function)
    def judge(tree: Tree, *others: Any) -> Evidence:
        session = Session(tree)
        try:
            session.start()
            return worst_of(function(session, *others))
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
    worst = max(found, key=lambda evidence: -1.0 if evidence.measured is None else evidence.measured)
    return worst if worst.measured is not None else passed(f"{len(found)} cases; the last: {found[-1].detail}")
