import math

import torch

from bitpatch.verify.driving.pictures import POINTS, SIDE, curves, events, ledgers, maps, one_cycle_curves
from bitpatch.verify.driving.short_fit import one_cycle
from bitpatch.verify.driving.spies import Event
from bitpatch.verify.running.answers import is_picture


def test_what_is_equal_is_no_picture() -> None:
    assert curves("", [1.0, math.nan], torch.tensor([1.0, math.inf])) is None
    assert maps("", torch.eye(3), torch.eye(3)) is None
    assert events("", ["step"], ["step"]) is None
    assert one_cycle_curves([one_cycle(at, 9, 0.1) for at in range(9)], 9, 0.1) is None


def test_a_small_difference_is_kept() -> None:
    shown = curves("", [0.1], [0.1 + 1e-8])
    assert shown is not None
    assert (shown.found, shown.wanted) == ([0.1], [0.10000001])


def test_what_is_no_number_is_none() -> None:
    shown = curves("", [math.nan, 1.0, -math.inf], [0.0])
    assert shown is not None
    assert shown.found == [None, 1.0, None]


def test_long_curves_are_thinned_alike() -> None:
    shown = curves("rates", range(3 * POINTS), range(1, POINTS))
    assert shown is not None
    assert shown.found == [float(each) for each in range(0, 3 * POINTS, 3)]
    assert shown.wanted == [float(each) for each in range(1, POINTS, 3)]
    assert shown.title == "rates (one in 3)"


def test_of_maps_the_first_page_that_differs_is_shown_where_it_does() -> None:
    found = torch.zeros(2, 3, 200, 200)
    found[1, 2, 199, 100] = 1.0
    shown = maps("weights", found, torch.zeros(2, 3, 200, 200))
    assert shown is not None
    assert (len(shown.found), len(shown.found[0])) == (SIDE, SIDE)
    assert shown.found[SIDE - 1][SIDE // 2] == 1.0
    assert shown.title == f"weights, row 1, head 2, from query {200 - SIDE}, key {100 - SIDE // 2} on"


def test_maps_of_two_shapes_are_not_compared() -> None:
    assert maps("", torch.zeros(2, 3), torch.zeros(3, 2)) is None


def test_events_are_cut_to_where_they_first_differ() -> None:
    shown = events("done", 500 * ["step"], [*300 * ["step"], "clip"])
    assert shown is not None
    assert shown.wanted == [*10 * ["step"], "clip"]
    assert shown.title == "done, from event 290 on"
    assert is_picture({"kind": "events", "title": "", "x": "", "y": "", "found": shown.found, "wanted": shown.wanted})


def test_a_ledger_numbers_what_an_update_has_many_of() -> None:
    kinds = ["zero-grad", "micro-batch", "backward", "step", "scheduler", "micro-batch", "backward", "step"]
    shown = ledgers([Event(kind) for kind in kinds], [2])
    assert shown is not None
    first = ["micro-batch 1/1", "backward 1/1", "step"]
    assert shown.found == [*first, "schedule", *first]
    assert shown.wanted == ["micro-batch 1/2", "backward 1/2", "micro-batch 2/2", "backward 2/2", "step", "schedule"]


def test_rates_that_are_set_by_hand_have_no_event() -> None:
    shown = ledgers([Event("micro-batch"), Event("backward"), Event("step")], [1, 1])
    assert shown is not None
    assert shown.wanted == 2 * ["micro-batch 1/1", "backward 1/1", "step"]


def test_what_cannot_be_shown_is_no_picture() -> None:
    assert curves("", [torch.zeros((), device="meta")], [0.0]) is None
    assert maps("", torch.zeros(2, 2), torch.zeros(2, 2, device="meta")) is None
