import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bitpatch.verify.driving.derivatives import as_weighed, distance, mean_gradient, scored_gradient, where
from bitpatch.verify.driving.seams import MissingSeam
from bitpatch.verify.driving.short_fit import one_cycle
from bitpatch.verify.driving.spies import Event, Update
from bitpatch.verify.driving.training_runs import Run, light_model, run_command


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


class Scaled(nn.Module):
    """A model of one weight a bit, which a row's bits choose."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 2, generator=torch.Generator().manual_seed(seed)).double())

    def forward(self, bits: Tensor) -> tuple[Tensor]:
        return (torch.nn.functional.one_hot(bits, 2).double() @ self.weight,)


def test_micro_batches_weigh_what_they_do_elsewhere() -> None:
    rows = [torch.tensor([[0, 1, 1, 0]]), torch.tensor([[1, 1, 0, 1]])]
    here, there = Scaled(1), Scaled(2)

    def update(model: nn.Module, *weights: float) -> Update:
        grads = [mean_gradient(model, bits)["weight"].clone() for bits in rows]
        grad = sum(weight * each for weight, each in zip(weights, grads, strict=True))
        return Update(rows, Event("step", grads={"weight": grad}, weights={"weight": model.weight.detach().clone()}))

    for weights in ((0.5, 0.5), (0.9, 0.1), (0.25, 0.25)):  # right, or wrong in some way
        found = update(here, *weights)
        assert distance(found.step.grads or {}, as_weighed(Scaled(0), found, update(there, *weights))) < 1e-9
    lost = update(here, 0.5, 0.0)
    assert distance(lost.step.grads or {}, as_weighed(Scaled(0), lost, update(there, 0.5, 0.5))) > 0.2


def tree(*, is_told: bool) -> Any:
    return SimpleNamespace(seams=SimpleNamespace(is_told=is_told), has_run=False)


@pytest.mark.parametrize(
    ("stepped", "ours", "others"), [(0, True, True), (3, True, True), (2, False, True), (1,) + 2 * (False,)]
)
def test_another_tree_may_leave_out_the_last_step_of_a_scheduler(stepped: int, ours: bool, others: bool) -> None:
    run = run_of("micro-batch", "step", "step", "step", *stepped * ["scheduler"])
    assert run.is_stepped(tree(is_told=False), 3) is ours
    assert run.is_stepped(tree(is_told=True), 3) is others


def test_rates_tell_the_peak_where_none_is_asked_for() -> None:
    run = run_of("micro-batch", "step", rates=(0.5 * one_cycle(0, 4, 1.0),))
    assert math.isclose(run.peak(4), 0.5)


def test_a_command_line_that_never_ran_refutes_nothing() -> None:
    def ends(_: Any) -> None:
        raise SystemExit(2)

    for is_told in (False, True):
        own = tree(is_told=is_told)
        own.seams.command = ends
        if not is_told:
            assert run_command(own, SimpleNamespace(take=list), []) == 2
            continue
        with pytest.raises(MissingSeam, match=r"it ends with 2 .* a function main\(words\)"):
            run_command(own, SimpleNamespace(take=list), [])
        own.has_run = True
        assert run_command(own, SimpleNamespace(take=list), []) == 2


def test_each_parameter_of_a_light_model_has_a_gradient_and_the_coin_alone_one_that_moves_it() -> None:
    tree: Any = SimpleNamespace(
        model=lambda **_: nn.Linear(2, 3), bits=lambda *_: None, seams=SimpleNamespace(is_told=False)
    )
    ledger: Any = SimpleNamespace(watch_model=lambda _: None)
    model = light_model(tree, ledger)
    model(torch.zeros(4, 5))[0].square().sum().backward()
    moved = {name: bool(weight.grad.any()) for name, weight in model.named_parameters() if weight.grad is not None}
    assert moved == {"weight": False, "bias": False, "coin": True}


class Telling(nn.Module):
    """A model whose telemetry a loop reads."""

    def __init__(self, **_: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, bits: Tensor) -> tuple[Tensor, dict[str, Tensor], str]:
        logits = bits[..., None] * self.weight
        return logits, {"symbiosis_score": logits.mean()}, "more"


def test_light_model_has_the_telemetry_of_the_models_that_it_stands_for() -> None:
    seams = SimpleNamespace(is_told=True)
    tree: Any = SimpleNamespace(seams=seams, model=lambda dtype, **_: Telling(), bits=lambda *shape: torch.ones(shape))
    ledger: Any = SimpleNamespace(watch_model=id)
    model = light_model(tree, ledger)
    logits, telemetry, more = model(torch.zeros(3, 4))
    assert (logits.shape, logits.requires_grad, more) == ((3, 4, 2), True, "more")
    assert telemetry.pop("symbiosis_score") == 1.0
    assert "symbiosis_score" in model(torch.zeros(3, 4))[1]
    seams.is_told = False
    assert light_model(tree, ledger)(torch.zeros(3, 4))[1:] == ({},)
