"""The ledger, on training loops that are short enough to know each event. Each runs in a process of its own."""

import multiprocessing
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
import torch._dynamo  # the first optimizer imports it: here once, and not in each process
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR, LambdaLR, OneCycleLR, SequentialLR, StepLR
from torch.utils.checkpoint import checkpoint

from bitpatch.verify.driving.spies import Ledger, updates

UPDATE = ["micro-batch", "backward", "clip", "step", "scheduler", "zero-grad"]
BITS = torch.tensor([[3.0, 4.0]])


class Toy(nn.Module):
    """A model of two weights, whose gradient is the sum of its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, bits: Tensor) -> Tensor:
        return (bits * self.weight).sum()


class CheckpointedToy(Toy):
    """The backward runs a forward and a backward of its own."""

    def forward(self, bits: Tensor) -> Tensor:
        loss: Tensor = checkpoint(lambda weight: (bits * weight).sum(), self.weight, use_reentrant=True)
        return loss


def recorded(loop: Callable[[Ledger], Any]) -> Any:
    """Run a loop with a new ledger, and return what the loop returns, or else the kinds of its events."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(run, (loop,))


def run(loop: Callable[[Ledger], Any]) -> Any:
    ledger = Ledger()
    ledger.watch_model(Toy)
    ledger.watch_model(CheckpointedToy)
    found = loop(ledger)
    return found if found is not None else kinds(ledger)


def kinds(ledger: Ledger) -> list[str]:
    return [event.kind for event in ledger.events]


def names_imported_one_by_one(ledger: Ledger) -> None:
    from torch.nn.utils import clip_grad_norm_

    model = Toy()
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = LambdaLR(optimizer, lambda _: 1.0)
    for _ in range(2):
        model(BITS).backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        model.zero_grad()


def names_spelled_out(ledger: Ledger) -> None:
    from torch.nn.utils import clip_grad

    model = Toy()
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = OneCycleLR(optimizer, max_lr=0.1, total_steps=4)
    for _ in range(2):
        torch.autograd.backward(model(bits=BITS))
        clip_grad.clip_grad_value_(parameters=model.parameters(), clip_value=1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=False)


def norm_apart_from_clip(_: Ledger) -> None:
    model = Toy()
    model(BITS).backward()
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters() if weight.grad is not None])
    torch.nn.utils.clip_grads_with_norm_(model.parameters(), 1.0, norm)


@pytest.mark.parametrize("loop", [names_imported_one_by_one, names_spelled_out])
def test_each_idiom_gives_the_same_events(loop: Callable[[Ledger], None]) -> None:
    assert recorded(loop) == 2 * UPDATE


def test_clip_by_a_norm_that_was_computed_before_is_one_clip() -> None:
    assert recorded(norm_apart_from_clip) == UPDATE[:3]


def forwards_without_training(_: Ledger) -> None:
    model = Toy()
    with torch.no_grad():
        model(BITS)
    model.eval()(BITS)


def test_evaluation_is_no_event() -> None:
    assert recorded(forwards_without_training) == []


def backward_in_a_backward(_: Ledger) -> None:
    CheckpointedToy()(BITS).backward()


def forward_in_a_backward(_: Ledger) -> None:
    checkpoint(Toy(), BITS, use_reentrant=False).backward()


@pytest.mark.parametrize("loop", [backward_in_a_backward, forward_in_a_backward])
def test_what_a_backward_does_within_itself_is_no_event(loop: Callable[[Ledger], None]) -> None:
    assert recorded(loop) == ["micro-batch", "backward"]


def schedules_of_schedules(_: Ledger) -> None:
    optimizer = SGD(Toy().parameters(), lr=0.1)
    scheduler = SequentialLR(optimizer, [ConstantLR(optimizer), StepLR(optimizer, 1)], milestones=[1])
    optimizer.step()  # torch warns of a schedule that begins before its optimizer
    scheduler.step()
    scheduler.step()


def test_schedule_made_of_schedules_steps_once_and_its_constructor_never() -> None:
    assert recorded(schedules_of_schedules) == ["step", "scheduler", "scheduler"]


def steps_beyond_a_total(ledger: Ledger) -> list[float]:
    optimizer = SGD(Toy().parameters(), lr=1.0)
    scheduler = OneCycleLR(optimizer, 1.0, total_steps=2, cycle_momentum=False)
    rates = list[float]()
    for _ in range(3):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return [*rates, kinds(ledger).count("scheduler")]


def steps_that_outlast_a_total(ledger: Ledger) -> list[float]:
    ledger.outlasts = True
    return steps_beyond_a_total(ledger)


def test_schedule_beyond_its_total_keeps_its_rate_where_that_is_not_what_is_judged() -> None:
    *rates, steps = recorded(steps_that_outlast_a_total)
    assert (rates[1] == rates[2], steps) == (True, 3)
    with pytest.raises(ValueError, match="Tried to step 3 times"):
        recorded(steps_beyond_a_total)


def step_with_closure(_: Ledger) -> None:
    model = Toy()
    optimizer = SGD(model.parameters(), lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = model(BITS)
        loss.backward()
        return float(loss.item())

    optimizer.step(closure)


def test_step_comes_after_the_closure_that_it_calls() -> None:
    assert recorded(step_with_closure) == ["zero-grad", "micro-batch", "backward", "step"]


def two_backwards_and_a_step(ledger: Ledger) -> list[Any]:
    model = Toy()
    optimizer = SGD(model.parameters(), lr=0.5)
    model(BITS).backward()
    model(2 * BITS).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.5)
    optimizer.step()
    return [
        (event.kind, event.loss, *((event.grads or {}).values()), *((event.weights or {}).values()), event.lr)
        for event in ledger.events
        if event.kind != "micro-batch"
    ]


def test_events_hold_what_the_model_held_just_before() -> None:
    seen = [
        [value.tolist() if isinstance(value, Tensor) else value for value in event if value is not None]
        for event in recorded(two_backwards_and_a_step)
    ]
    assert seen == [
        ["backward", 7.0],
        ["backward", 14.0, [3.0, 4.0]],
        ["clip", [9.0, 12.0]],
        ["step", pytest.approx([0.9, 1.2]), [1.0, 1.0], 0.5],
    ]


def loose_clips(ledger: Ledger) -> list[float]:
    ledger.clips = False
    model = Toy()
    model(BITS).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
    torch.nn.utils.clip_grad_value_(model.parameters(), 1.0)
    torch.nn.utils.clip_grads_with_norm_(model.parameters(), 1.0, torch.tensor(5.0))
    assert kinds(ledger) == ["micro-batch", "backward", "clip", "clip", "clip"]
    assert model.weight.grad is not None
    return model.weight.grad.tolist()


def test_clip_that_is_only_recorded_changes_no_gradient() -> None:
    assert recorded(loose_clips) == [3.0, 4.0]


def gradients_taken_out(ledger: Ledger) -> list[Any]:
    model = Toy()
    model(BITS).backward()
    torch.autograd.grad(model(BITS), list(model.parameters()))
    return [(event.kind, event.grads is None) for event in ledger.events if event.kind == "backward"]


def test_autograd_grad_is_a_backward_that_adds_to_no_gradient() -> None:
    assert recorded(gradients_taken_out) == [("backward", False), ("backward", True)]


def groups_of_two_and_one(ledger: Ledger) -> list[list[float]]:
    model = Toy()
    optimizer = SGD(model.parameters(), lr=0.0)
    for count in (2, 1, 0):
        for scale in range(count):
            model(scale * BITS).backward()
        optimizer.step()
    model(BITS)
    return [[micro_batch.sum().item() for micro_batch in update.micro_batches] for update in updates(ledger.events)]


def test_updates_hold_the_micro_batches_since_the_step_before() -> None:
    assert recorded(groups_of_two_and_one) == [[0.0, 7.0], [0.0], []]


def optimizer_of_a_package(ledger: Ledger) -> list[Any]:
    def configure_optimizer(model: nn.Module, lr: float = 1.0, *, total_steps: int) -> tuple[object, object]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
        return optimizer, OneCycleLR(optimizer, max_lr=lr, total_steps=total_steps)

    configure_optimizer.__module__ = "fork.optimization"
    for name in ("fork", "fork.training", "forklift"):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].make = configure_optimizer  # type: ignore[attr-defined]
    ledger.watch_optimizer(configure_optimizer)
    own, _ = sys.modules["fork"].make(Toy(), 0.25, total_steps=4)
    ledger.sgd_lr = 0.125
    plain, schedule = sys.modules["fork.training"].make(model=Toy(), total_steps=6)
    plain.step()
    schedule.step()
    untouched = sys.modules["forklift"].make is configure_optimizer
    return [type(own).__name__, type(plain).__name__, schedule.get_last_lr(), schedule.total_steps, untouched]


def test_configure_optimizer_is_replaced_wherever_its_package_refers_to_it() -> None:
    assert recorded(optimizer_of_a_package) == ["AdamW", "SGD", [0.125], 6, True]


def taken_twice(ledger: Ledger) -> list[int]:
    Toy()(BITS).backward()
    first = ledger.take()
    Toy()(BITS)
    return [len(first), len(ledger.take()), len(ledger.events)]


def test_take_starts_afresh() -> None:
    assert recorded(taken_twice) == [2, 1, 0]


class ToyOfStreams(Toy):
    """A model with a second way in."""

    def decode(self, streams: list[Tensor]) -> Tensor:
        loss: Tensor = self(torch.stack(streams))
        return loss


def two_ways_in(ledger: Ledger) -> list[str]:
    ledger.watch_model(ToyOfStreams)
    model = ToyOfStreams()
    model(BITS)
    model.decode([BITS[0], BITS[0]])
    model(BITS)
    return [event.form for event in ledger.events]


def test_form_says_whether_streams_entered() -> None:
    assert recorded(two_ways_in) == ["rows", "streams", "rows"]


def steps_of_frozen_weights(ledger: Ledger) -> list[Any]:
    model = Toy()
    optimizer = SGD(model.parameters(), lr=0.5)
    for ledger.frozen in (True, False):
        model(BITS).backward()
        optimizer.step()
    return [len(updates(ledger.events)), [event.weights["weight"].tolist() for event in ledger.events if event.weights]]


def test_frozen_weights_stay_through_a_step() -> None:
    assert recorded(steps_of_frozen_weights) == [2, [[1.0, 1.0], [1.0, 1.0]]]
