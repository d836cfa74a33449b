import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bitpatch.verify.driving.spies import Event
from bitpatch.verify.driving.training_runs import Run, scored_gradient, where


def run_of(*kinds: str, rates: tuple[float, ...] = ()) -> Run:
    """A run of such events, each step at the next rate."""
    left = iter(rates)
    events = [Event(kind, lr=next(left, 1.0) if kind == "step" else None) for kind in kinds]
    return Run("", nn.Identity(), torch.zeros(1, 2), events, None, {})


def test_scheduler_that_is_stepped_ahead_of_a_run_steps_in_none() -> None:
    assert run_of("scheduler", "scheduler", "micro-batch", "step").scheduler_steps == 0
    assert run_of("scheduler", "micro-batch", "step", "scheduler").scheduler_steps == 1
    assert run_of("scheduler").scheduler_steps == 0


@pytest.mark.parametrize(
    ("rates", "scheduled", "goes_on"), [((3.0, 1.0), 2, True), ((3.0, 2.0), 2, False), ((3.0, 2.0), 3, True)]
)
def test_schedule_goes_on_where_a_rate_is_missing_or_a_step_is_left_over(
    rates: tuple[float, ...], scheduled: int, goes_on: bool
) -> None:
    run = run_of("micro-batch", "step", "step", *scheduled * ["scheduler"], rates=rates)
    assert run.goes_on([3.0, 2.0, 1.0]) is goes_on


def test_first_parameter_that_differs_is_named() -> None:
    wanted = {"a": torch.ones(2), "b": torch.full((2,), 4.0), "c": torch.ones(1)}
    assert where(wanted | {"b": torch.full((2,), 5.0), "c": torch.zeros(1)}, wanted, 0.1) == "b"
    assert where({"a": wanted["a"]}, wanted, 0.1) == "b"
    assert where(wanted | {"c": torch.tensor([math.nan])}, wanted, 0.1) == "c"
    assert where(wanted | {"d": torch.ones(1)}, wanted, 0.1) == "what should have no gradient"


class Doubling(torch.autograd.Function):
    """Has a backward that adds what is there once more, as it should not."""

    @staticmethod
    def forward(ctx: Any, bits: Tensor, weight: Tensor) -> Tensor:
        ctx.weight = weight
        return torch.nn.functional.one_hot(bits, 2).float() * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        there = 0.0 if ctx.weight.grad is None else ctx.weight.grad.clone()
        return None, grad.sum() + there


def test_wanted_gradient_is_not_made_by_backwards_that_see_each_other() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(1.0))

        def forward(self, bits: Tensor) -> tuple[Tensor]:
            return (Doubling.apply(bits, self.weight),)

    rows = torch.tensor([[0, 1, 1], [1, 1, 0]])
    whole = scored_gradient(Model(), [(rows, torch.ones(2, 2, dtype=torch.bool))])
    parts = scored_gradient(Model(), [(row[None], torch.ones(1, 2, dtype=torch.bool)) for row in rows])
    assert torch.allclose(whole["weight"], parts["weight"])
