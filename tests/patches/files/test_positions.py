"""Every place that is told is one of the user's file, whatever a plan has made of it meanwhile."""

import pytest

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.files.positions import in_origin
from bitpatch.patches.known import all_tasks, task_named
from bitpatch.patches.reading.tree import open_tree

OLD = "import a\n\n\ndef f(x):\n    y = g(x)\n    y.backward()\n    return y\n"


@pytest.mark.parametrize(
    ("new", "place", "expected"),
    [
        pytest.param(OLD, (5, 9), (5, 9), id="nothing changed"),
        pytest.param("import b\n" + OLD, (6, 9), (5, 9), id="below lines that were put in"),
        pytest.param(OLD.replace("    y.b", "    z = 1\n    y.b"), (6, 5), (6, 5), id="in a line that was put in"),
        pytest.param(
            OLD.replace("y.back", "(y / shares[i]).back"), (6, 20), (6, 6), id="behind what was put into a line"
        ),
        pytest.param(OLD.replace("y.back", "(y / shares[i]).back"), (6, 5), (6, 5), id="where a line was rewritten"),
        pytest.param(OLD.replace("    y.b", "    if x:\n        y.b"), (7, 9), (6, 5), id="indented"),
        pytest.param(OLD.replace("g(x)", "g(\n        x,\n    )"), (6, 9), (5, 11), id="spread over lines"),
        pytest.param(OLD + "\n\nz = 1\n", (10, 5), (7, 5), id="below the end"),
        pytest.param(
            OLD.replace("\n", "\r\n").replace("import a", "import a, b"), (6, 5), (6, 5), id="other ends of lines"
        ),
        pytest.param(OLD.replace("import a", "import a  # \f \x1c \u2028"), (6, 5), (6, 5), id="what ends no line"),
    ],
)
def test_a_place_is_where_it_was(new, place, expected):
    old = OLD.replace("\n", "\r\n") if "\r" in new else OLD
    assert in_origin(old, new, *place) == expected


def test_a_plan_of_all_tasks_tells_the_places_that_each_task_alone_tells(tree):
    together = [
        outcome for quick in (True, False) for outcome in plan(open_tree(tree), all_tasks(), quick=quick).outcomes
    ]
    by_itself = {task: plan(open_tree(tree), [task]).outcomes[0] for task in all_tasks()}
    for outcome in together:
        alone = by_itself[outcome.task]
        places = [{(s["path"], s["line"]) for s in each.to_json()["sites"]} for each in (outcome, alone)]
        lines = {path: (tree / path).read_text().splitlines() for path, _ in places[0]}
        assert all(line <= len(lines[path]) for path, line in places[0])
        missing = places[1] - places[0]
        assert len(missing) <= 1, (outcome.task.id, places)


def test_a_refusal_among_other_tasks_tells_the_users_line(tree):
    model = tree / "bit_transformer/model.py"
    model.write_text(model.read_text().replace("diagonal=1", "diagonal=2"))
    together = plan(open_tree(tree), all_tasks())
    (alone,) = plan(open_tree(tree), [task_named("10")]).outcomes
    refused = next(outcome for outcome in together.outcomes if outcome.task.number == 10)
    assert alone.outcome == refused.outcome == "refused"
    assert [str(site) for site in refused.sites] == [str(site) for site in alone.sites]
    assert refused.reason == alone.reason
