import math

import pytest

from bitpatch.verify.running.evidence import CHECKS, Check, Evidence, Verdict, at_most, check, failed, passed, unproven


def test_a_check_without_numbers_has_no_margin() -> None:
    assert [passed("").margin, failed("").margin, unproven("").margin] == [None, None, None]


@pytest.mark.parametrize("measured", [math.nan, math.inf], ids=["not a number", "infinite"])
def test_what_is_not_finite_has_no_margin(measured: float) -> None:
    assert Evidence(Verdict.FAIL, measured, 1e-12).margin is None


def test_a_limit_of_zero_has_no_margin() -> None:
    assert at_most(0, 0).margin is None


@pytest.mark.parametrize(
    ("measured", "limit", "margin"),
    [(1e-15, 1e-12, 3.0), (-1e-15, 1e-12, 3.0), (1e-4, 1e-12, -8.0), (1e-12, 1e-12, 0.0), (0.0, 1e-12, 5.0)],
    ids=["inside", "negative", "outside", "on the limit", "exactly zero"],
)
def test_the_margin_is_in_decades(measured: float, limit: float, margin: float) -> None:
    assert Evidence(Verdict.PASS, measured, limit).margin == margin


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [(0.5, Verdict.PASS), (1.0, Verdict.PASS), (1.5, Verdict.FAIL), (math.nan, Verdict.FAIL), (math.inf, Verdict.FAIL)],
)
def test_at_most_passes_up_to_its_limit(measured: float, verdict: Verdict) -> None:
    assert at_most(measured, 1.0).verdict is verdict


def test_only_a_failure_needs_reproducing() -> None:
    assert at_most(0.0, 1.0, reproduce="run this").reproduce == ""
    assert at_most(2.0, 1.0, reproduce="run this").reproduce == "run this"


def test_a_check_is_registered_under_its_task_by_the_name_of_its_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(CHECKS, 99, raising=False)

    @check(task=99, prop="it holds")
    def it_holds(tree: object) -> Evidence:
        return passed("")

    assert CHECKS.pop(99) == [Check(99, "it-holds", "it holds", it_holds)]
