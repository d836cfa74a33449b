"""A red check shows what it saw beside what should be, as its judge makes it and as it arrives."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from cases import Case, judged

from bitpatch.verify.running.evidence import Evidence, Verdict
from bitpatch.verify.running.runner import Zygote

SHOWN = {  # the kind of the picture, by task, mutant and check
    (1, "schedule-goes-on-without-a-step", "skipped-update-is-not-scheduled"): "curves",
    (1, "total-one-too-many", "rates-follow-one-cycle"): "curves",
    (1, "drop-batch-of-one", "batches-hold-each-row-once"): "events",
    (2, "one-too-many", "init-plans-what-is-asked"): "curves",
    (2, "no-guard", "full-runs-end-at-the-floor"): "curves",
    (4, "clip-every-micro-batch", "ledger-is-the-planned-list"): "events",
    (4, "scheduler-before-step", "schedule-ends-with-the-last-update"): "curves",
    (4, "zero-grad-every-micro-batch", "clips-the-group-mean-once"): "curves",
    (6, "full-cosine", "ramp-is-half-a-cosine"): "curves",
    (6, "linear", "clock-counts-updates"): "curves",
    (7, "decay-swapped", "average-is-the-closed-form"): "curves",
    (7, "raw-value", "a-spike-counts-a-tenth"): "events",
    (9, "is-causal-forgotten", "equals-the-explicit-softmax"): "maps",
    (9, "is-causal-forgotten", "later-positions-reach-nothing"): "maps",
    (10, "lower-left-of-the-largest", "hides-exactly-the-future"): "maps",
    (11, "heads-averaged", "maps-over-a-grid"): "maps",
    (11, "padding-unmasked", "outputs-are-those-of-the-window"): "maps",
    (12, "canvas-kept", "maps-are-of-this-forward"): "maps",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[int, str, str], Evidence]]:
    """What each of these checks says."""
    cases = [Case(task, mutant, (check,)) for task, mutant, check in SHOWN]
    with Zygote() as zygote, closing(judged(zygote, cases, tmp_path_factory.mktemp("trees"))) as results:
        yield {(case.task, case.tree, result.name): result.evidence for case, result in results}


@pytest.mark.parametrize("case", SHOWN, ids=lambda case: f"task-{case[0]}-{case[1]}-{case[2]}")
def test_a_red_check_shows_what_it_saw_beside_what_should_be(
    found: dict[tuple[int, str, str], Evidence], case: tuple[int, str, str]
) -> None:
    evidence = found[case]
    assert evidence.verdict is Verdict.FAIL, evidence.detail
    assert evidence.picture is not None
    assert evidence.picture.kind == SHOWN[case]
    assert evidence.picture.found != evidence.picture.wanted


def test_attention_that_sees_the_future_is_shown_to_do_so(found: dict[tuple[int, str, str], Evidence]) -> None:
    shown = found[9, "is-causal-forgotten", "equals-the-explicit-softmax"].picture
    assert shown is not None
    later = [(found[-1] > 0, wanted[-1]) for found, wanted in list(zip(shown.found, shown.wanted, strict=True))[:-1]]
    assert {*later} == {(True, 0.0)}


def test_a_ramp_that_is_a_full_cosine_is_shown_to_fall(found: dict[tuple[int, str, str], Evidence]) -> None:
    shown = found[6, "full-cosine", "ramp-is-half-a-cosine"].picture
    assert shown is not None
    assert shown.found != sorted(shown.found)
    assert shown.wanted == sorted(shown.wanted)
