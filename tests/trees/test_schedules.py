import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bit_transformer.schedules import ProgressivePlateau


def plateau(lr=0.8, **settings):
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": parameters[:1]}, {"params": parameters[1:], "lr": lr / 2}], lr=lr)
    return ProgressivePlateau(optimizer, **{"warmup": 0, "patience": 2, "floor": 0.1, **settings})


def rates_over(schedule, losses):
    """The rate after each of some evaluations, an update before each."""
    rates = []
    for loss in losses:
        schedule.optimizer.step()
        schedule.step()
        schedule.evaluated(loss)
        rates.append(schedule.get_last_lr()[0])
    return rates


def test_the_warm_up_is_linear_and_then_the_rate_is_held():
    schedule = plateau(warmup=4)
    rates = [schedule.get_last_lr()]
    for _ in range(6):
        schedule.step()
        rates.append(schedule.get_last_lr())
    assert [rate for rate, _ in rates] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8])
    assert all(half == pytest.approx(rate / 2) for rate, half in rates)


def test_no_warm_up_starts_at_the_peak():
    assert plateau(warmup=0).get_last_lr() == [0.8, 0.4]


def test_the_rate_halves_after_each_patience_without_a_gain_down_to_the_floor():
    schedule = plateau()
    assert rates_over(schedule, [1.0] * 10) == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1]
    assert schedule.drops == 3
    assert schedule.get_last_lr() == [0.1, 0.1]


@pytest.mark.parametrize("patience", [1, 3, 5])
def test_patience_counts_evaluations(patience):
    rates = rates_over(plateau(patience=patience), [1.0] * (patience + 2))
    assert rates.index(0.4) == patience  # the first evaluation is the best, and does not count


def test_a_gain_counts_from_a_thousandth_of_the_best():
    small, large = [1.0], [1.0]
    for _ in range(6):
        small.append(small[-1] * (1 - 0.9e-3) if len(small) < 2 else small[-1])
        large.append(large[-1] * (1 - 1.1e-3))
    assert rates_over(plateau(), small)[2] == 0.4
    assert set(rates_over(plateau(), large)) == {0.8}


def test_small_gains_add_up():
    losses = [1.0 * (1 - 0.6e-3) ** count for count in range(8)]  # each second one wins a thousandth of the best
    assert set(rates_over(plateau(patience=2), losses)) == {0.8}


def test_evaluations_in_the_warm_up_do_not_count():
    schedule = plateau(warmup=5, patience=1)
    assert rates_over(schedule, [1.0] * 4) == pytest.approx([0.32, 0.48, 0.64, 0.8])
    assert schedule.best is None
    assert rates_over(schedule, [2.0, 2.0]) == [0.8, 0.4]


def test_each_drop_is_told():
    schedule = plateau(patience=1)
    schedule.step()
    assert [schedule.evaluated(1.0) for _ in range(6)] == [False, True, True, True, False, False]


def test_a_floor_above_the_peak_holds_the_peak():
    assert set(rates_over(plateau(lr=0.05, patience=1), [1.0] * 5)) == {0.05}


@given(st.lists(st.sampled_from([1.0, 0.9995, 0.99, 0.9, 1.2]), max_size=12), st.integers(0, 12), st.integers(0, 4))
def test_a_schedule_goes_on_where_it_was_saved(losses, at, warmup):
    settings = {"warmup": warmup, "patience": 2}
    whole, first, second = (plateau(**settings) for _ in range(3))
    expected = rates_over(whole, losses)
    head = rates_over(first, losses[:at])
    second.load_state_dict(first.state_dict())
    assert head + rates_over(second, losses[at:]) == expected
    assert second.state_dict() == whole.state_dict()
