"""What a script asks of torch, watched from before it starts: the ledger of any training loop.

Nothing is changed for the script: no draw is made, no value, no order of calls. Kept are numbers and lines, and of
gradients the few that tell whether they were touched.
"""

import contextlib
import math
import random
from collections.abc import Callable
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ..driving.torch_spies import BACKWARDS, CLIPS, ZEROS, Spies, schedulers
from .attention import Attention
from .learning import Learning, has_gradient, holds_gradient, parameters
from .lines import Lines, is_replayed
from .losses import Losses, is_finite, written_out
from .rates import Rates
from .rows import Rows
from .seen import MOST_UPDATES, Event, Loss, Schedule, Seen, Update
from .taken import Taken

MOST_EVENTS = 1000  # of one update
MOST_SEEDS = 8


class Enough(BaseException):
    """The script has shown what it was to show: it is let go no further."""


class Watch:
    """Watches this process's torch; `seen` is what came of it. Torch stays so: the process ends with the script."""

    def __init__(self, lines: Lines, most: int, is_time: Callable[[], bool]) -> None:
        self.seen = Seen()
        self._lines, self._most, self._is_time = lines, most, is_time
        self._spies = Spies()
        self._group: list[Loss] = []
        self._unused: dict[int, Loss] = {}
        self._events: list[Event] = []
        self._backwards = 0
        self._is_after_step = False
        self._optimizers: dict[int, tuple[int, Optimizer]] = {}  # by identity, which is theirs as long as they are kept
        self._schedules: dict[int, tuple[int, Any]] = {}  # place in what was seen, by identity, of each that is kept
        self._learning = Learning(self.seen)
        self._probe: Tensor | None = None  # of the gradient after the last backward
        self._in_group = 0  # backward calls since the last step
        self._in_step = False  # whether an optimizer asks for the loss again
        self._modes: dict[int, bool] = {}  # in which the last backward was called
        self._is_loss_finite = True  # since the last step
        self._dirty: set[int] = set()  # optimizers whose gradients were there before the first backward of a group
        self._weights: Tensor | None = None  # of the parameters after the last backward
        self._factor: float | None = None
        self._scale = 1.0
        self._seeded: int | None = None  # where the random stream began again, if it did since the last step
        self._hand: list[Loss] = []  # what backward goes from, where the script has written that out
        self._weighed = 0  # losses of the group before it
        self._first = ""  # where the first backward of a group is called
        self._taken = Taken(lines, self.seen, lambda: self._backwards)
        Losses(lines, self._spies, self._note_loss, self._weigh, self._taken.note_target)
        Rows(lines, self.seen, lambda: self._backwards)
        Attention(lines, self._spies, self.seen)
        self._rates = Rates(lines)
        self._watch_torch()

    def _watch_torch(self) -> None:
        on = self._spies.on
        for owner, name in BACKWARDS:
            on(owner, name, "backward", self._before_backward, self._after_backward)
        for owner, name in CLIPS:
            on(owner, name, "clip", lambda *_, **__: self._touch("clip"))
        for owner, name in ZEROS:
            on(owner, name, "zero-grad", self._before_zero)
        for kind in schedulers():
            if "__init__" in vars(kind):
                on(kind, "__init__", "scheduler", after=self._note_schedule)
            if "step" in vars(kind):
                on(kind, "step", "scheduler", self._note_scheduler_step)
        scaler = torch.amp.GradScaler
        on(scaler, "unscale_", "unscale", after=lambda *_, **__: self._touch("unscale"))
        on(scaler, "scale", "scale", after=self._note_scale)
        for owner in (torch, torch.random):
            on(owner, "manual_seed", "seed", after=self._note_seed)
        for other in (random, numpy.random):
            on(other, "seed", "other seed", self._keep_seed)
        on(nn.functional, "dropout", "dropout", self._note_dropout)
        on(Optimizer, "__init__", "optimizer", self._note_optimizer)
        on(torch, "compile", "compile", self._note_compile)
        register_optimizer_step_pre_hook(self._before_step)
        register_optimizer_step_post_hook(self._after_step)

    def _say(self, kind: str, of: int = 0) -> None:
        if len(self._events) < MOST_EVENTS:
            self._events.append(Event(kind, self._lines.here(), of))

    def _note_loss(self, loss: Loss | None) -> None:
        if loss is None:
            self.seen.quiet_forwards += 1
            return
        modes = self._learning.modes().values()
        loss.was_training = any(modes) if modes else None
        device = next((each for each in ("cpu", "cuda") if torch.is_autocast_enabled(each)), "")
        loss.autocast = str(torch.get_autocast_dtype(device)).removeprefix("torch.") if device else ""
        if len(self._unused) < MOST_EVENTS:
            self._unused[id(loss)] = loss
        self._stop_in_time()

    def _weigh(self, loss: Loss, weight: float) -> None:
        if not self._spies.running["backward"]:
            return  # of a gradient that is only looked at
        self._unused.pop(id(loss), None)
        loss.weight += weight
        if not loss.backward:
            loss.backward = self._backwards
            self._group.append(loss)

    def _before_backward(self, losses: Any, *_: Any, **__: Any) -> None:
        self._notice_by_hand()
        roots = [losses] if isinstance(losses, Tensor) else list(losses)
        self._hand = written_out(roots[0], self._lines.here())
        self._taken.note_backward()
        self._learning.find_parameters(roots)
        self._is_loss_finite &= all(map(is_finite, roots))
        if not self._in_group:
            self._dirty = {number for number, each in self._optimizers.values() if holds_gradient(each)}
            self._dirty |= {0} if self._by_hand() and bool(self._learning.look().any()) else set()
            self._first = self._lines.here()
        elif self._probe is not None and bool(self._probe.any()) and not bool(self._learning.look().any()):
            self._lose()
        self._is_after_step, self._modes = False, self._learning.modes()
        self._backwards += 1
        self._in_group += 1
        self._factor = None
        if any(torch.is_autocast_enabled(each) for each in ("cpu", "cuda")) and not self.seen.autocast_backward:
            self.seen.autocast_backward = self._lines.here()
        self._say("backward")
        self._weighed = len(self._group)

    def _after_backward(self, _: Any, losses: Any, *__: Any, **___: Any) -> None:
        roots = [losses] if isinstance(losses, Tensor) else list(losses)
        if len(self._group) == self._weighed and len(roots) == 1:
            for loss in self._hand:
                loss.backward = self._backwards
            self._group += self._hand
        self._probe = self._learning.follow(self._probe)
        self._weights = self._learning.look(of_grad=False)

    def _touch(self, kind: str) -> None:
        """What may come between the last backward and the step: the gradient is compared before a clip changes it."""
        if kind == "clip":
            self._notice_by_hand()
            self._compare()
        self._say(kind)

    def _compare(self) -> Tensor:
        """Find what the gradient was multiplied by since the last backward; gives a few numbers of it as it is now."""
        now = self._learning.look()
        if self._factor is not None or self._probe is None or now.shape != self._probe.shape:
            return now
        if torch.equal(now, self._probe):
            self._factor = 1.0
            return now
        square = float(self._probe @ self._probe)
        factor = float(now @ self._probe) / square if square else 1.0
        is_multiple = torch.allclose(now, factor * self._probe, rtol=1e-3, atol=1e-12)
        self._factor = factor if is_multiple and factor else 1.0
        return now

    def _before_zero(self, owner: Any, *_: Any, **__: Any) -> None:
        self._notice_by_hand()
        if self._in_step:  # which begins again
            self._group, self._in_group = [], 0
        self._say("zero-grad")
        held = {id(each) for each in parameters(owner)}
        if self._group and not self._is_after_step and held & {id(each) for each in self._learning.probed}:
            self._lose()

    def _lose(self) -> None:
        """The gradients of a group are wiped before a step took them."""
        finite = self._probe is None or bool(torch.isfinite(self._probe).all())  # else it is left out on purpose
        if finite and not self._has_moved():
            self.seen.lost.append((self._lines.here(), self.seen.made, len({each.backward for each in self._group})))
        self._group, self._in_group, self._is_loss_finite = [], 0, True

    def _note_compile(self, *_: Any, disable: bool = False, **__: Any) -> None:
        if not disable and (line := self._lines.here()):
            self.seen.compiled.setdefault(line, set()).add(self.seen.made)

    def _note_optimizer(self, *_: Any, **__: Any) -> None:
        self.seen.runs += 1

    def _note_schedule(self, _: Any, scheduler: Any, *__: Any, **___: Any) -> None:
        optimizer = getattr(scheduler, "optimizer", None)
        if optimizer is None or id(scheduler) in self._schedules:
            return
        total = getattr(scheduler, "total_steps", None) or getattr(scheduler, "T_max", None)
        total = total or getattr(scheduler, "total_iters", None)
        made = Schedule(type(scheduler).__name__, self._lines.here(), id(optimizer), total, _end_of(scheduler))
        self.seen.schedules.append(made)
        self._schedules[id(scheduler)] = (len(self.seen.schedules), scheduler)

    def _note_scheduler_step(self, scheduler: Any, *_: Any, **__: Any) -> None:
        if id(scheduler) not in self._schedules:
            return
        number = self._schedules[id(scheduler)][0]
        schedule = self.seen.schedules[number - 1]
        schedule.steps += 1
        schedule.later += 1
        schedule.is_over |= schedule.kind == "OneCycleLR" and schedule.steps >= (schedule.total or 0) + 1
        self._say("scheduler", number)

    def _note_seed(self, _: Any, seed: Any = None, *__: Any, **___: Any) -> None:
        self._seeded = _stream()
        self._keep_seed(seed)

    def _keep_seed(self, seed: Any = None, *_: Any, **__: Any) -> None:
        if seed is not None and len(self.seen.seeds) < MOST_SEEDS:
            self.seen.seeds.append((self._lines.here(), str(seed)[:80]))

    def _note_scale(self, _: Any, scaler: Any, *__: Any, **___: Any) -> None:
        if scaler.is_enabled():
            self.seen.uses_scaler, self._scale = True, float(scaler.get_scale())

    def _note_dropout(self, _: Any, p: float = 0.5, training: bool = True, *__: Any, **___: Any) -> None:
        if torch.is_grad_enabled() or is_replayed():
            return
        self.seen.quiet_forwards += 1
        if training and p:
            self.seen.dropout_at_work[self._lines.here()] += 1

    def _before_step(self, *_: Any) -> None:
        self._in_step = True

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        self._in_step = False
        for schedule in self.seen.schedules:
            schedule.later *= schedule.optimizer != id(optimizer)
        number = self._optimizers.setdefault(id(optimizer), (len(self._optimizers) + 1, optimizer))[0]
        self.seen.optimizers.setdefault(number, type(optimizer).__name__)
        if self._is_after_step and not self._group:  # another part of the same update
            self._learning.note_given(optimizer)
            return
        self._close(self._lines.here(), optimizer)

    def _close(self, line: str, optimizer: Optimizer | None) -> None:
        """An update is made."""
        size = float(self._compare().abs().sum())
        number = self._optimizers[id(optimizer)][0] if optimizer is not None else 0
        if number in self._dirty and self.seen.made and len(self.seen.carried) < MOST_EVENTS:
            self.seen.carried.append((self._first, self.seen.made))
        self.seen.made += 1
        groups = optimizer.param_groups if optimizer is not None else []
        rates = tuple(float(group["lr"]) for group in groups if "lr" in group)
        if len(self.seen.updates) < MOST_UPDATES:
            self._learning.find_models(number, optimizer)
            if not self.seen.updates:
                self.seen.quiet_before = self.seen.quiet_forwards
            stream = _stream()
            update = Update(
                self.seen.made,
                line,
                number,
                rates,
                self._group,
                [*self._events, Event("step", line, number)],
                1.0 if self._factor is None else self._factor,
                self._scale,
                size != 0.0 or any(map(has_gradient, parameters(optimizer) if optimizer else self._learning.probed)),
                self._is_loss_finite and math.isfinite(size),
                self._modes.get(number),
                stream,
                self._seeded not in (None, stream),
                self.seen.runs,
                _defaults(),
            )
            self.seen.updates.append(update)
            if optimizer is not None:
                self._learning.note_given(optimizer)
                self._rates.look(optimizer, rates)
        self._group, self._events, self._is_after_step, self._factor = [], [], True, None
        self._in_group, self._seeded, self._is_loss_finite = 0, None, True
        if self.seen.made >= self._most:
            self.seen.stopped = f"stopped after {self.seen.made} updates"
            raise Enough
        self._stop_in_time()

    def _stop_in_time(self) -> None:
        if self._is_time():
            self.seen.stopped = f"stopped for want of time, after {self.seen.made} updates"
            raise Enough

    def _by_hand(self) -> bool:
        """Whether weights change, if they do, without an optimizer."""
        return not self._optimizers

    def _notice_by_hand(self) -> None:
        """Close the update that a script has made without an optimizer, if it has."""
        if not self._by_hand() or not self._group or self._weights is None:
            return
        if self._has_moved():
            self._close("", None)

    def _has_moved(self) -> bool:
        """Whether weights changed since the last backward, by the script's own hand."""
        return self._weights is not None and not torch.equal(self._weights, self._learning.look(of_grad=False))

    def end(self) -> Seen:
        """What was seen, now that the script has ended."""
        seen = self.seen
        with contextlib.suppress(Enough):
            self._notice_by_hand()
        seen.left = [] if seen.stopped else self._group
        seen.is_traced = bool(counters["frames"])
        seen.unused = list(self._unused.values())
        self._taken.tell(is_whole=not (seen.stopped or seen.ended))
        self._learning.tell(each for _, each in self._optimizers.values())
        seen.group_left_alone = self._rates.left_alone({each.optimizer for each in seen.schedules})
        seen.stale_rates, seen.rate_candidates = self._rates.stale(), self._rates.followed
        for schedule in seen.schedules:
            schedule.optimizer, _ = self._optimizers.get(schedule.optimizer, (-1, None))
        return seen


def _defaults() -> tuple[str, ...]:
    """What torch does where nothing else is said."""
    exact = "on" if torch.are_deterministic_algorithms_enabled() else "off"
    products = f"precision of float32 products {torch.get_float32_matmul_precision()}"
    return f"default type {torch.get_default_dtype()}", products, f"deterministic algorithms {exact}"


def _stream() -> int:
    """Where torch's random numbers are."""
    return hash(torch.get_rng_state().numpy().tobytes())


def _end_of(scheduler: Any) -> int | None:
    """The step from which on a rate that is a function is 0; None of any other."""
    functions = getattr(scheduler, "lr_lambdas", None)
    if not functions:
        return None
    with contextlib.suppress(Exception):
        ends, most = 1, 1 << 20
        while ends < most and functions[0](ends) > 0:
            ends *= 2
        if ends >= most or any(functions[0](ends + each) > 0 for each in (1, ends)):
            return None
        first, last = ends // 2, ends
        while last - first > 1:
            middle = (first + last) // 2
            first, last = (middle, last) if functions[0](middle) > 0 else (first, middle)
        return last
    return None
