"""Turns and their ratios, on timings that are made up."""

import random

import pytest

from bitpatch.verify.benching import interleaving
from bitpatch.verify.benching.interleaving import FEWEST, Ratio, ratio_of, rounds

NOISE = Ratio(1.0, 0.95, 1.05)


def timings(scale: float, seed: int) -> list[float]:
    draw = random.Random(seed)
    return [scale * draw.uniform(0.97, 1.03) for _ in range(9)]


def test_a_ratio_is_taken_in_each_round_so_what_slows_a_round_does_not_count() -> None:
    slowed = [1.0, 5.0, 1.0, 9.0, 2.0]
    assert ratio_of([2 * each for each in slowed], slowed) == Ratio(2.0, 2.0, 2.0)


def test_the_interval_holds_what_the_timings_were_made_with() -> None:
    found = ratio_of(timings(1.5, 1), timings(1.0, 2))
    assert found.low < 1.5 < found.high
    assert found.is_beyond(ratio_of(timings(1.0, 3), timings(1.0, 4)))


@pytest.mark.parametrize(
    ("ratio", "is_beyond"),
    [
        pytest.param(Ratio(1.0, 0.9, 1.1), False, id="around 1"),
        pytest.param(Ratio(1.04, 1.03, 1.2), False, id="ends within the noise"),
        pytest.param(Ratio(1.1, 1.06, 1.2), True, id="all above the noise"),
        pytest.param(Ratio(0.5, 0.4, 0.94), True, id="all below the noise"),
        pytest.param(Ratio(0.97, 0.96, 0.98), False, id="all within the noise"),
    ],
)
def test_an_effect_is_shown_where_its_interval_and_the_noise_have_nothing_in_common(
    ratio: Ratio, is_beyond: bool
) -> None:
    assert ratio.is_beyond(NOISE) == is_beyond


def test_what_memory_layout_does_is_not_shown_however_quiet_the_machine() -> None:
    assert not Ratio(1.01, 1.01, 1.015).is_beyond(Ratio(1.0, 1.0, 1.0))


def test_same_timings_are_not_apart_in_any_of_many_draws() -> None:
    apart = [
        ratio_of(timings(1.0, seed), timings(1.0, seed + 500)).is_beyond(
            ratio_of(timings(1.0, seed), timings(1.0, seed + 900))
        )
        for seed in range(40)
    ]
    assert not any(apart)


def test_each_round_has_every_player_once_and_orders_differ() -> None:
    orders = list(rounds("abcd", most=12))
    assert {"".join(sorted(order)) for order in orders} == {"abcd"}
    assert len({tuple(order) for order in orders}) > 6


def test_who_is_out_is_not_asked_again() -> None:
    players, seen = ["a", "b"], []
    for order in rounds(players, most=3):
        seen.append(sorted(order))
        if "b" in players:
            players.remove("b")
    assert seen == [["a", "b"], ["a"], ["a"]]


def test_no_round_begins_that_would_not_end_in_time_but_the_first_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(interleaving.time, "monotonic", lambda: next(clock))
    assert len(list(rounds("ab", most_seconds=60))) == 4
    assert len(list(rounds("ab", most_seconds=1))) == FEWEST
