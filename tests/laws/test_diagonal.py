"""Law 8: a tree passes the judges of the tasks that it holds, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from laws.diagonal import SINGLES, Corner, Judged, Tellers, find_tellers, judge, name, random_corners, row_of

from bitpatch.verify.rendering.report import CheckResult, TaskReport
from bitpatch.verify.running.evidence import Evidence, Verdict
from bitpatch.verify.running.runner import Zygote

MET_IN_BACKWARD = (9, 10)  # what attention makes of a mask, its backward takes; task 11 hides that


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as zygote:
        yield zygote


@pytest.fixture(scope="module")
def tellers(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Tellers:
    return find_tellers(zygote, tmp_path_factory.mktemp("tellers"))


@pytest.mark.parametrize("corner", [*SINGLES, MET_IN_BACKWARD, *random_corners(1)], ids=name)
def test_a_set_of_tasks_passes_just_its_own_judges(
    corner: Corner, zygote: Zygote, tellers: Tellers, tmp_path: Path
) -> None:
    assert judge(zygote, corner, tellers, tmp_path).exceptions == []


def test_a_judge_that_is_wrong_about_a_tree_is_named() -> None:
    verdicts = {1: Verdict.PASS, 2: Verdict.PASS, 3: Verdict.UNPROVEN, 4: Verdict.FAIL, 5: Verdict.ERROR}
    reports = {
        task: TaskReport(task, (CheckResult(task, "looks", "", Evidence(verdict, detail="why"), 0.0),))
        for task, verdict in verdicts.items()
    }
    row = Judged((1, 3), reports, 1.0)
    assert row_of(row) == "| 1 3 | + | (+) | (?) | - | (!) | 1 |"
    assert row.exceptions == [
        "baseline + 1 3: judge 2 says verified, not violated",
        "baseline + 1 3: judge 3 says unproven, not verified; looks unproven why",
        "baseline + 1 3: judge 5 says error, not violated; looks error why",
    ]


def test_a_tree_that_the_first_check_lets_pass_meets_the_others(
    zygote: Zygote, tellers: Tellers, tmp_path: Path
) -> None:
    blind = {**tellers, 7: "absent-telemetry-is-explicit"}
    row = judge(zygote, (1,), blind, tmp_path)
    assert (row.exceptions, row.second_asked) == ([], [7])
