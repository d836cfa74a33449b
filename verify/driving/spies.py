"""The ledger of a training loop: what it did, in order, seen from torch's side. In child processes only."""

import contextlib
import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from .seams import MissingSeam
from .torch_spies import BACKWARDS, CLIPS, ZEROS, Spies, schedulers

if TYPE_CHECKING:
    from .tree import Tree


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a training loop did, and what the model held just before.

    kind is "micro-batch", "backward", "clip", "step", "scheduler" or "zero-grad".
    """

    kind: str
    bits: Tensor | None = None  # [rows, T], of a micro-batch: what entered the model
    form: str = ""  # of a micro-batch: "streams" if a list of run-length streams entered, "rows" if rows did
    arguments: Any = None  # of a micro-batch: what else the model was given
    is_autocast: bool = False  # of a micro-batch
    loss: Tensor | None = None  # of a backward
    grads: dict[str, Tensor] | None = None  # by parameter, of a backward that adds to .grad, a clip, a step
    weights: dict[str, Tensor] | None = None  # by parameter, of a step
    lr: float | None = None  # of a step: the rate of the first parameter group


@dataclass(frozen=True, slots=True)
class Update:
    """One optimizer step, and the micro-batches [rows, T] that entered the model since the one before."""

    micro_batches: list[Tensor]
    step: Event
    clip: Event | None = None  # the last before it


def updates(events: list[Event]) -> list[Update]:
    """The optimizer steps among events, each with its micro-batches."""
    found, micro_batches, clip = [], [], None
    for event in events:
        clip = event if event.kind == "clip" else clip
        if event.bits is not None:
            micro_batches.append(event.bits)
        elif event.kind == "step":
            found.append(Update(micro_batches, event, clip))
            micro_batches, clip = [], None
    return found


class Ledger:
    """The events of a training loop, in the order in which they happened.

    Make it before the tree is imported, so that `from torch.nn.utils import clip_grad_norm_` finds
    the spy too. Torch stays patched: a check's process ends with the check.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.optimizer: Optimizer | None = None  # the last that stepped
        self.frozen = False  # if True, a step is recorded but changes no weight
        self.clips = True  # if False, a clip is recorded but changes no gradient
        self.outlasts = False  # if True, a OneCycle beyond its total keeps its rate, and does not raise
        self.sgd_lr: float | None = None  # if set, configure_optimizer gives SGD at this constant rate
        self.on_entry: Callable[[], object] = int  # done before each micro-batch
        self._model: nn.Module | None = None
        self._spies = Spies()
        self._begun: dict[str, Any] = {}  # what a step that has not ended yet found
        self._watch_torch()

    def take(self) -> list[Event]:
        """Hand over the events recorded so far, and start afresh."""
        taken, self.events = self.events, []
        return taken

    def watch_tree(self, tree: "Tree") -> None:
        """Watch a tree's model, and the optimizer that it configures."""
        self.watch_model(tree.kind)
        if tree.seams.own("train") is None:
            tree.seams.part("update").load()
        with contextlib.suppress(MissingSeam, ImportError, AttributeError):  # a loop may make its optimizer itself
            self.watch_optimizer(tree.part("optimization", "configure_optimizer"))

    @property
    def is_in_streams(self) -> bool:
        """Whether what enters a model now came as a list of run-length streams."""
        return self._spies.running["streams"] > 0

    def watch_model(self, kind: type[nn.Module]) -> None:
        """Record what enters the models of this class while they train."""
        original = kind.forward

        @functools.wraps(original)
        def forward(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if model.training and torch.is_grad_enabled() and not self._spies.running["backward"]:
                self._model = model
                self.on_entry()
                bits, *others = [*args, *kwargs.items()] if args else [*kwargs.values()]
                self._record(
                    "micro-batch",
                    lambda: {
                        "bits": bits.clone(),
                        "form": "streams" if self.is_in_streams else "rows",
                        "arguments": others,
                        "is_autocast": torch.is_autocast_enabled(bits.device.type),
                    },
                )
            with self._spies.inside("micro-batch"):
                return original(model, *args, **kwargs)

        kind.forward = forward
        for name, method in list(vars(kind).items()):
            if inspect.isfunction(method) and name != "forward" and not name.startswith("_"):
                setattr(kind, name, self._way_in(method))

    def _way_in(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method of a model, which may take a list of streams."""

        @functools.wraps(method)
        def entered(*args: Any, **kwargs: Any) -> Any:
            lists = [each for each in (*args, *kwargs.values()) if isinstance(each, list | tuple) and each]
            firsts = [each[0].tolist() if isinstance(each[0], Tensor) else each[0] for each in lists]
            if not any(isinstance(each, list) and not isinstance(each[0], list) for each in firsts if each):
                return method(*args, **kwargs)
            with self._spies.inside("streams"):
                return method(*args, **kwargs)

        return entered

    def watch_optimizer(self, configure: Callable[..., Any]) -> None:
        """Have a package's configure_optimizer give SGD where that is asked for, wherever it refers to it."""
        signature = inspect.signature(configure)

        @functools.wraps(configure)
        def configure_optimizer(*args: Any, **kwargs: Any) -> Any:
            if self.sgd_lr is None:
                return configure(*args, **kwargs)
            own, given = configure(*args, **kwargs)[1], signature.bind(*args, **kwargs).arguments
            optimizer = SGD(given["model"].parameters(), lr=self.sgd_lr)
            constant = LambdaLR(optimizer, lambda _: 1.0)
            vars(constant).update(vars(own) | vars(constant))  # a loop may ask it for its total
            return optimizer, constant

        package = configure.__module__.partition(".")[0]
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == package:
                for attribute, value in list(vars(module).items()):
                    if value is configure:
                        setattr(module, attribute, configure_optimizer)

    def _watch_torch(self) -> None:
        for owner, name in BACKWARDS:
            self._spy(
                owner, name, "backward", lambda losses, *_: {"loss": first(losses).detach(), "grads": self._grads()}
            )
        self._spy(torch.autograd, "grad", "backward", lambda losses, *_: {"loss": first(losses).detach()})
        for module, name in CLIPS:
            self._spy(module, name, "clip", lambda *_: {"grads": self._grads()})
            self._loosen(module, name)
        register_optimizer_step_pre_hook(self._before_step)
        register_optimizer_step_post_hook(self._after_step)
        for kind in schedulers():
            if "__init__" in vars(kind):
                self._spies.on(kind, "__init__", "scheduler")  # its own first step is no event
            if "step" in vars(kind):
                self._spy(kind, "step", "scheduler", lambda *_: {})
        for owner, name in ZEROS:
            self._spy(owner, name, "zero-grad", lambda *_: {})
        self._outlast()

    def _spy(self, owner: Any, name: str, kind: str, fields: Callable[..., dict[str, Any]]) -> None:
        def tell(*args: Any, **kwargs: Any) -> None:
            self._record(kind, lambda: fields(*args, *kwargs.values()))

        self._spies.on(owner, name, kind, tell)

    def _outlast(self) -> None:
        get_lr = OneCycleLR.get_lr

        def rates(schedule: OneCycleLR) -> list[float | Tensor]:
            is_over = self.outlasts and schedule.last_epoch > schedule.total_steps
            return [group["lr"] for group in schedule.optimizer.param_groups] if is_over else get_lr(schedule)

        OneCycleLR.get_lr = rates  # type: ignore[method-assign, assignment]

    def _loosen(self, module: Any, name: str) -> None:
        spied = getattr(module, name)
        signature = inspect.signature(spied)
        limit = list(signature.parameters)[1]  # max_norm or clip_value

        @functools.wraps(spied)
        def clip(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            if not self.clips:
                given.arguments[limit] = math.inf
            return spied(*given.args, **given.kwargs)

        setattr(module, name, clip)

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        closure = next((each for each in (*args[1:], *kwargs.values()) if callable(each)), None)
        if closure is None:
            self._note_step(optimizer)
            return None

        def noted() -> Any:  # what makes the gradients comes before the step that uses them
            loss = closure()
            self._note_step(optimizer)
            return loss

        return (optimizer, noted), {}

    def _note_step(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        weights = {name: weight.detach().clone() for name, weight in self._parameters()}
        self._begun = {"weights": weights, "lr": float(optimizer.param_groups[0]["lr"])}

    def _after_step(self, *_: Any) -> None:
        self._record("step", lambda: {"grads": self._grads(), **self._begun})  # as other hooks, too, have left them
        if self.frozen and self.events:
            for name, weight in self._parameters():
                weight.data.copy_((self.events[-1].weights or {})[name])

    def _record(self, kind: str, fields: Callable[[], dict[str, Any]]) -> None:
        if not self._spies.running[kind]:
            self.events.append(Event(kind, **fields()))

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(()) if self._model is None else self._model.named_parameters()

    def _grads(self) -> dict[str, Tensor]:
        return {name: weight.grad.detach().clone() for name, weight in self._parameters() if weight.grad is not None}


def first(tensors: Any) -> Tensor:
    """The tensor, or the first of a sequence of them."""
    return tensors if isinstance(tensors, Tensor) else next(iter(tensors))
