"""Each defect in each shape is found, and no right shape raises an alarm."""

from collections.abc import Callable

import pytest
from shapes import DEFECTS, SHAPES, VARIANTS, script

from bitpatch.verify.rendering.report import Outcome, Report

Judged = Callable[..., Report]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_right_script_raises_no_alarm(judged_text: Judged, shape: str, variant: str) -> None:
    report = judged_text(script(shape, **VARIANTS[variant]))
    assert (report.verdict, [(each.name, each.evidence.detail) for each in report.tasks[0].red]) == (
        Outcome.VERIFIED,
        [],
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found_in_every_shape(judged_text: Judged, shape: str, defect: str) -> None:
    wanted, slots = DEFECTS[defect]
    report = judged_text(script(shape, **slots))
    found = {each.name for each in report.tasks[0].red}
    assert wanted & found, report.tasks[0].checks[0].evidence.detail
