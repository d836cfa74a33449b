"""A gate of floors, which watches two scores, is asked for the same properties as one that watches a loss."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from bitpatch.verify import task_07_safety_gate as judge
from bitpatch.verify.driving import gates
from bitpatch.verify.running.evidence import Verdict

CHECKS = (
    judge.average_is_the_closed_form,
    judge.burn_in_trips_nothing,
    judge.threshold_itself_is_allowed,
    judge.what_is_not_finite_trips,
    judge.stays_tripped_until_reset,
    judge.state_saves_and_loads,
    judge.older_state_loads,
)


class Floors:
    """A right one."""

    def __init__(self, *, c_floor: float = 0.3, s_floor: float = 0.5, decay: float = 0.9, burn_in: int = 10) -> None:
        self.floors = (c_floor, s_floor)
        self.decay, self.burn_in = decay, burn_in
        self.averages: list[float] | None = None
        self.step = 0

    def should_trigger(self, c_val: float, s_val: float) -> bool:
        told, before = [c_val, s_val], self.averages or [c_val, s_val]
        self.averages = [self.decay * old + (1 - self.decay) * new for old, new in zip(before, told, strict=True)]
        self.step += 1
        return self.step > self.burn_in and not self.well()

    def well(self) -> bool:
        return all(each > floor for each, floor in zip(self.averages or [], self.floors, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {"averages": self.averages, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.averages, self.step = state["averages"], state["step"]


class AllowsTheFloor(Floors):
    def well(self) -> bool:
        return all(each >= floor for each, floor in zip(self.averages or [], self.floors, strict=True))


class WatchesComplexityAlone(Floors):
    def well(self) -> bool:
        return bool(self.averages) and self.averages[0] > self.floors[0]


class PassesNan(Floors):
    def well(self) -> bool:
        return not any(each <= floor for each, floor in zip(self.averages or [], self.floors, strict=True))


class BurnsOneLonger(Floors):
    def should_trigger(self, c_val: float, s_val: float) -> bool:
        return super().should_trigger(c_val, s_val) and self.step > self.burn_in + 1


class ForgetsSteps(Floors):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state | {"step": 0})


class Raw(Floors):
    def should_trigger(self, c_val: float, s_val: float) -> bool:
        self.averages = None
        return super().should_trigger(c_val, s_val)


class Unknown:
    def __init__(self, patience: int = 3) -> None:
        self.patience = patience


class NoBurnIn:
    def __init__(self, max_val_loss: float = 1.5) -> None:
        self.limit = max_val_loss

    def should_stop(self, loss: float) -> bool:
        return not loss <= self.limit


class SaysOk:
    """A right one that calls all but its threshold by names of its own."""

    def __init__(self, ceiling: float = 1.0, beta: float = 0.9, grace: int = 10) -> None:
        self.ceiling, self.beta, self.grace = ceiling, beta, grace
        self.reset()

    def reset(self) -> None:
        self.average: float | None = None
        self.seen, self.is_open = 0, True

    def ok(self, loss: float) -> bool:
        known = self.average is not None and (math.isfinite(self.average) or self.seen > self.grace)
        self.average = self.beta * self.average + (1 - self.beta) * loss if known and self.average is not None else loss
        self.seen += 1
        self.is_open = self.is_open and (self.seen <= self.grace or self.average <= self.ceiling)
        return self.is_open

    def state_dict(self) -> dict[str, Any]:
        return vars(self).copy()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update({"average": state["average"]} | state)


class SaysOkToNan(SaysOk):
    def ok(self, loss: float) -> bool:
        return super().ok(loss if math.isfinite(loss) else 0.0)


class Trips(SaysOk):
    """Another right one, whose yes refuses."""

    ok = None  # type: ignore[assignment]

    def over(self, loss: float) -> bool:
        return not SaysOk.ok(self, loss)


def verdicts(monkeypatch: pytest.MonkeyPatch, kind: type[Any], **words: str) -> dict[str, Verdict]:
    seams = SimpleNamespace(options=lambda _: words, is_told=bool(words))
    monkeypatch.setattr(gates, "seam_or", lambda *_: kind)
    return {check.__name__: check(SimpleNamespace(seams=seams)).verdict for check in CHECKS}  # type: ignore[arg-type]


WORDS = {"threshold": "ceiling", "decay": "beta", "burn_in_steps": "grace"}


@pytest.mark.parametrize("kind", [SaysOk, Trips])
def test_what_a_gate_is_asked_by_is_found_by_its_answers(monkeypatch: pytest.MonkeyPatch, kind: type[Any]) -> None:
    assert set(verdicts(monkeypatch, kind, **WORDS).values()) == {Verdict.PASS}


def test_and_a_wrong_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdicts(monkeypatch, SaysOkToNan, **WORDS)["what_is_not_finite_trips"] is Verdict.FAIL


def test_a_right_gate_of_floors_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(verdicts(monkeypatch, Floors).values()) == {Verdict.PASS}


@pytest.mark.parametrize(
    ("kind", "killer"),
    [
        (AllowsTheFloor, "threshold_itself_is_allowed"),
        (WatchesComplexityAlone, "burn_in_trips_nothing"),
        (PassesNan, "what_is_not_finite_trips"),
        (BurnsOneLonger, "burn_in_trips_nothing"),
        (ForgetsSteps, "state_saves_and_loads"),
        (Raw, "average_is_the_closed_form"),
    ],
)
def test_a_wrong_one_fails(monkeypatch: pytest.MonkeyPatch, kind: type[Any], killer: str) -> None:
    assert verdicts(monkeypatch, kind)[killer] is Verdict.FAIL


def test_an_interface_that_is_not_known_is_unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(verdicts(monkeypatch, Unknown).values()) == {Verdict.UNPROVEN}


def test_a_gate_that_trips_at_the_first_loss_has_no_burn_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(verdicts(monkeypatch, NoBurnIn).values()) == {Verdict.FAIL}
