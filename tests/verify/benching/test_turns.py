"""The answer of a turn is believed only where it is shaped like one."""

import math
from typing import Any

import pytest

from bitpatch.verify.benching.turns import MEASURES, Turn, read_turn

FIGURES = {"bits_per_second": 1e4, "peak_mb": 70.0, "start_seconds": 0.1}


def test_figures_are_read() -> None:
    assert read_turn({"figures": FIGURES, "lacks": {}}) == Turn(FIGURES, {})


def test_what_could_not_be_measured_has_its_reason() -> None:
    figures = {name: FIGURES[name] for name in ("bits_per_second", "peak_mb")}
    found = read_turn({"figures": figures, "lacks": {"start_seconds": "seam rows: is not found"}})
    assert found == Turn(figures, {"start_seconds": "seam rows: is not found"})


@pytest.mark.parametrize("figure", [0.0, -1.0, math.nan, math.inf, "1", None, True, 3])
def test_a_figure_that_is_none_is_left_out_and_the_others_stand(figure: Any) -> None:
    found = read_turn({"figures": FIGURES | {"start_seconds": figure}, "lacks": {}})
    assert [*found.figures] == ["bits_per_second", "peak_mb"]
    assert found.lacks == {"start_seconds": f"measured {figure!r}"}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"verdict": "error", "detail": "it raised"}, id="an error"),
        pytest.param({"figures": FIGURES}, id="no lacks"),
        pytest.param({"figures": {"bits_per_second": 1.0}, "lacks": {}}, id="too few"),
        pytest.param({"figures": FIGURES | {"speed": 1.0}, "lacks": {}}, id="too many"),
        pytest.param({"figures": [1.0], "lacks": {}}, id="a list"),
    ],
)
def test_what_is_no_turn_measured_nothing(answer: dict[str, Any]) -> None:
    found = read_turn(answer)
    assert (found.figures, set(found.lacks)) == ({}, set(MEASURES))
