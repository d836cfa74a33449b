from dataclasses import asdict
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bitpatch.verify.driving import space
from bitpatch.verify.driving.space import DRAWN, OTHERS, Points, Span, always, over
from bitpatch.verify.running.evidence import Evidence, failed, passed

AXES: dict[str, Any] = {
    "batch_size": (4, 1, 8),
    "accum_steps": (1, 2, 3),
    "windows": ((None, 0), (4, 2)),
    "seed": (0, 1, 7),
}


def tree(*lacks: str, seconds: float = 0.0) -> Any:
    """Enough of a tree: one that takes all but some arguments."""
    takes = lambda name: name not in lacks  # noqa: E731
    return SimpleNamespace(
        seconds=seconds,
        model_takes=takes,
        loop_takes=takes,
        path=Path(),
        looks_ahead=(True, True),
        seams=SimpleNamespace(found=None, is_told=False),
    )


def other(**known: Any) -> Any:
    """Enough of a tree of another layout, which makes no model of a width of 6."""

    def model(d_model: int, nhead: int) -> object:
        if d_model == 6:
            raise RuntimeError("an odd number of frequencies")
        return object()

    vars(told := tree()).update(asked=(), states={}, model=model, seams=SimpleNamespace(found={}, is_told=True))
    vars(told).update(known)
    return told


def values(tree: Any, axis: str, **axes: Any) -> list[Any]:
    return list(Points(tree, axes, always).axes.get(axis, ()))


def test_a_width_that_a_tree_makes_no_model_of_is_no_value() -> None:
    assert values(other(), "width", width=((8, 2), (6, 2))) == [(8, 2)]
    assert values(tree(), "width", width=((8, 2), (6, 2))) == [(8, 2), (6, 2)]


def test_an_option_of_a_task_that_is_half_done_is_on_only_where_it_is_asked_about() -> None:
    states = {"amp": "partial", "accum_steps": "applied"}
    axes = {"amp": ("off", "bf16"), "accum_steps": (1, 2)}
    assert values(other(states=states), "amp", **axes) == []
    assert values(other(states=states), "accum_steps", **axes) == [1, 2]
    assert values(other(states=states, asked=("amp",)), "amp", **axes) == ["off", "bf16"]


def test_streams_that_are_not_known_are_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = {"direct_prob": (0.0, 1.0), "form": ("raw", "compressed", "direct", "mixed")}
    for shown, forms in ((False, ["raw", "compressed"]), (True, ["raw", "compressed", "direct", "mixed"])):
        monkeypatch.setattr(space, "shows_streams", lambda _, shown=shown: shown)
        assert values(other(), "form", **axes) == forms
        assert values(other(), "direct_prob", **axes) == [0.0, 1.0][: 1 + shown]


def test_windows_that_hide_the_future_alone_are_not_tried_without_it() -> None:
    axes = {"causal": (True, False), "windows": ((None, 0), (4, 2))}
    points = [(point["causal"], point["windows"]) for point in Points(other(looks_ahead=(True, False)), axes, always)]
    assert sorted(points, key=repr) == [(False, (None, 0)), (True, (4, 2)), (True, (None, 0))]
    assert values(other(looks_ahead=(False, False)), "causal", **axes) == [True]


def test_each_pair_of_values_occurs() -> None:
    points = list(Points(tree(), AXES, always))
    for one, other in combinations(AXES, 2):
        assert {(point[one], point[other]) for point in points} == set(product(AXES[one], AXES[other]))
    assert len(points) < len(list(product(*AXES.values()))) / 2


@pytest.mark.parametrize("names", [("seed",), (), ("seed", "windows")], ids=str)
def test_few_axes_are_walked_whole(names: tuple[str, ...]) -> None:
    axes = {name: AXES[name] for name in names}
    points = [tuple(point.values.values()) for point in Points(tree(), axes, always)]
    assert sorted(points, key=repr) == sorted(product(*axes.values()), key=repr)


def test_what_the_tree_does_not_take_is_no_axis() -> None:
    (point, *_) = Points(tree("accum_steps", "overlap"), AXES, always)
    assert set(point.values) == {"batch_size", "seed"}


def test_what_may_not_be_together_is_not() -> None:
    points = list(Points(tree(), AXES, lambda values: not (values.get("seed") == 7 and values.get("batch_size") == 1)))
    assert points
    assert not [point for point in points if point["seed"] == 7 and point["batch_size"] == 1]


def test_a_point_says_what_it_is_for() -> None:
    point = next(iter(Points(tree(), AXES, always)))
    assert point.config == {"chunk_size": None, "overlap": 0}
    assert point.options == {"batch_size": 4, "accum_steps": 1}
    assert str(point) == "batch_size=4, accum_steps=1, windows=(None, 0), seed=0"


def test_time_is_filled_with_random_points() -> None:
    few, many = (len(list(Points(tree(seconds=seconds), AXES, always))) for seconds in (0.0, 0.05))
    assert many > 2 * few


def test_of_a_span_others_are_drawn_within_its_bounds_where_they_may_be() -> None:
    axes = AXES | {"rows": Span(1, 50, 3, None)}
    points = list(Points(tree(), axes, lambda values: values.get("rows") != 7))
    drawn = [point["rows"] for point in points if point["rows"] not in (3, None)]
    assert 1 < len({*drawn}) <= DRAWN
    assert {*drawn} <= {*range(1, 51)} - {7}
    assert [str(point) for point in points] == [
        str(point) for point in Points(tree(), axes, lambda values: values.get("rows") != 7)
    ]


def test_what_is_compiled_is_as_it_was_while_compile_is_an_axis() -> None:
    compiler = torch.compile
    for point in Points(tree(), {"compile": (False, True)}, always):
        assert torch.compile(point) is torch.compile(fullgraph=True)(point) is point
    assert torch.compile is compiler


def test_rows_are_a_data_set_only_where_a_loop_takes_rows_as_ours_does() -> None:
    axes = {"data": ("a tensor", "a data set")}
    assert [point.options for point in Points(tree(), axes, always)] == [{}, {"data_set": True}]
    assert [point.options for point in Points(tree("batch_size"), axes, always)] == [{}]


def test_evidence_says_what_was_covered() -> None:
    def judge(given: Any, stops: bool) -> Evidence:
        @over("seed", "batch_size", rows=(1, 2))
        def check(_: Any, points: Points) -> Evidence:
            for point in points:
                if stops and point["seed"] == 7:
                    return failed(str(point))
            return passed("")

        return check(given)

    covered = judge(tree(), stops=False).covered
    assert covered is not None
    others = covered["axes"]["batch_size"].pop()
    assert covered["axes"] == {"seed": ["0", "1", "7"], "batch_size": ["1", "4", "8"], "rows": ["1", "2"]}
    assert others.endswith(" more of 1 to 40")
    assert covered["pairs"] == covered["of_pairs"] == 21
    partly = asdict(judge(tree(), stops=True))["covered"]
    assert partly["pairs"] < 21
    assert OTHERS["seed"][-1] == 7
