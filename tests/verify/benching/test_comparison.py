"""What is compared with what, on trees; and what is said of it, on turns that are made up."""

import json
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from samples import REFERENCE, ROOT, contents

from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.verify.benching import comparison
from bitpatch.verify.benching.comparison import ENOUGH, OPTIONS, Compared, Comparison, compare, effects, pairs
from bitpatch.verify.benching.turns import Turn
from bitpatch.verify.rendering.effects import lines, picture, words
from bitpatch.verify.running.runner import Job, ignore_progress

SCHEMA = json.loads((ROOT / "verify/schemas/bench.json").read_text())
PLAIN, AGAIN, WITH = (Job(Path("tree"), None, 0, name, "", turn="{}") for name in ("as it is", "again", "with"))
Run = Callable[..., tuple[int, str, str]]


def turn(draw: random.Random, speed: float = 1.0, start: float | None = 1.0) -> Turn:
    def about(value: float) -> float:
        return value * draw.uniform(0.98, 1.02)

    figures = {"bits_per_second": about(1e4 * speed), "peak_mb": about(80.0)}
    if start is None:
        return Turn(figures, {"start_seconds": "seam rows: is not found"})
    return Turn(figures | {"start_seconds": about(0.1 * start)})


def turns(count: int, **changes: float | None) -> list[dict[Job, Turn]]:
    draw = random.Random(1)
    return [{PLAIN: turn(draw), AGAIN: turn(draw), WITH: turn(draw, **changes)} for _ in range(count)]


def compared(count: int, **changes: float | None) -> Comparison:
    seen = turns(count, **changes)
    noise = effects(seen, (PLAIN, AGAIN), {})
    measured = Compared(task_named("9"), "applied", jobs=(PLAIN, WITH), effects=effects(seen, (PLAIN, WITH), noise))
    refused = Compared(
        task_named("10"), "none", "refused: task-10 looked for masks\nnear miss at model.py:3:5 & <here>\n…"
    )
    return Comparison(Path("tree"), count, ["a machine"], noise, [measured, refused])


def test_an_effect_larger_than_the_noise_is_shown_and_no_other() -> None:
    (found, _) = compared(7, speed=1.5).tasks
    assert {name for name, each in found.effects.items() if each.is_shown} == {"bits_per_second"}
    assert words(found.effects["bits_per_second"]).startswith("1.49x (1.")
    assert words(found.effects["peak_mb"]).startswith("not shown (")


def test_after_few_rounds_only_what_is_far_beyond_the_noise_is_shown() -> None:
    def is_shown(count: int, speed: float) -> bool:
        return compared(count, speed=speed).tasks[0].effects["bits_per_second"].is_shown

    assert [is_shown(ENOUGH - 1, speed) for speed in (1.1, 3.0)] == [False, True]
    assert [is_shown(ENOUGH, speed) for speed in (1.1, 3.0)] == [True, True]
    assert "so few that only 4 times the noise is shown" in "\n".join(lines(compared(ENOUGH - 1)))


def test_a_figure_that_is_not_known_has_its_reason_and_the_others_are_shown() -> None:
    found = compared(7, speed=0.5, start=None)
    assert words(found.tasks[0].effects["start_seconds"]) == "?"
    assert "task-9: start of the data: seam rows: is not found" in [*lines(found)]
    assert found.tasks[0].effects["bits_per_second"].is_shown


def test_rounds_in_which_one_side_is_missing_are_left_out() -> None:
    seen = [*turns(6, speed=2.0), {PLAIN: turn(random.Random(2))}]
    assert effects(seen, (PLAIN, WITH), {})["bits_per_second"].ratio is not None


def test_what_was_not_measured_is_said_with_its_reason() -> None:
    said = [*lines(compared(7))]
    assert "task-10: not measured: refused: task-10 looked for masks near miss at model.py:3:5 & <here>" in said


@pytest.mark.parametrize(
    ("count", "changes"),
    [
        pytest.param(7, {"speed": 1.5}, id="shown"),
        pytest.param(3, {}, id="few rounds"),
        pytest.param(7, {"start": None}, id="not known"),
    ],
)
def test_the_json_is_of_its_published_shape(count: int, changes: dict[str, float | None]) -> None:
    jsonschema.validate(compared(count, **changes).to_json(), SCHEMA)


def test_the_picture_is_well_formed_and_has_a_bar_for_each_figure_that_is_known() -> None:
    root = ElementTree.fromstring(picture(compared(7, speed=30.0, start=None)))
    kinds = [each.get("class") for each in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert (kinds.count("shown"), kinds.count("not-shown"), kinds.count("noise")) == (1, 1, 3)
    texts = ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("not measured") == 4
    boxes = [each.attrib for each in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert all(float(box["x"]) + float(box["width"]) <= 640 for box in boxes)


def test_a_task_that_is_missing_is_applied_in_a_copy_with_its_option_on(tree: Path) -> None:
    before = contents(tree)
    with ExitStack() as copies:
        plain, (one, other) = pairs(open_tree(tree), [task_named("9"), task_named("4")], copies)
        assert (one.change, one.jobs and one.jobs[0]) == ("applied", plain)
        assert one.jobs is not None
        assert "scaled_dot_product_attention" in (one.jobs[1].tree / "bit_transformer/model.py").read_text()
        assert other.jobs is not None
        assert json.loads(other.jobs[1].turn) == other.options == OPTIONS[4]
        copied = one.jobs[1].tree
    assert (copied.exists(), contents(tree)) == (False, before)


def test_a_task_that_bitpatch_applied_is_taken_out_of_a_copy(run: Run, tree: Path) -> None:
    run("apply", "4", "9", "--tree", tree)
    before = contents(tree)
    with ExitStack() as copies:
        plain, (grouped, fused) = pairs(open_tree(tree), [task_named("4"), task_named("9")], copies)
        assert (grouped.change, fused.change) == ("reverted", "reverted")
        assert fused.jobs is not None
        assert fused.jobs[1] == plain
        assert "scaled_dot_product_attention" not in (fused.jobs[0].tree / "bit_transformer/model.py").read_text()
        assert grouped.jobs is not None
        assert (grouped.jobs[1].tree, grouped.jobs[1].turn) == (plain.tree, json.dumps(OPTIONS[4]))
    assert contents(tree) == before


def test_where_nobody_knows_what_was_before_that_is_said(run: Run) -> None:
    with ExitStack() as copies:
        _, (found,) = pairs(open_tree(REFERENCE), [task_named("9")], copies)
    assert found.jobs is None
    assert found.reason.startswith("applied already, and cannot be taken out: task-9: there are no originals")


def test_a_turn_that_compiles_is_tried_only_where_there_is_time() -> None:
    one = Compared(task_named("8"), "applied", jobs=(PLAIN, WITH))
    found = comparison._if_affordable(Path("tree"), one, 140.0)
    assert (found.jobs, found.reason.endswith("bitpatch bench task-8 --seconds 720 --tree tree")) == (None, True)
    assert comparison._if_affordable(Path("tree"), one, 720.0) is one


def test_what_measures_nothing_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class NoZygote(ExitStack):
        def __init__(self, *_: object, **__: object) -> None:
            super().__init__()

    def played(_: object, order: list[Job], *__: object):
        for job in order:
            asked.append(job)
            yield job, None
            yield job, Turn.failed("it raised") if job == WITH else turn(random.Random(len(asked)))

    monkeypatch.setattr(comparison, "Zygote", NoZygote)
    monkeypatch.setattr(comparison, "run_jobs", played)
    one = Compared(task_named("9"), "applied", jobs=(PLAIN, WITH))
    found = compare(Path("tree"), PLAIN, [one], 0.0, ignore_progress)
    assert (asked.count(WITH), asked.count(PLAIN), found.rounds) == (1, 3, 3)
    assert found.tasks[0].effects["peak_mb"].reason == "it raised"
    assert not found.tasks[0].is_measured


def test_a_tree_that_cannot_be_run_ends_it_after_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "Zygote", lambda *_, **__: ExitStack())
    monkeypatch.setattr(
        comparison, "run_jobs", lambda _, order, *__: ((job, Turn.failed("it raised")) for job in order)
    )
    one = Compared(task_named("9"), "applied", jobs=(PLAIN, replace(WITH, name="x")))
    assert compare(Path("tree"), PLAIN, [one], 60.0, ignore_progress).rounds == 1
