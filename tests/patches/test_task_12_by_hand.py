"""What turns maps off by hand in the fork that has an engine, and what undoes it elsewhere."""

import shutil
from pathlib import Path

import pytest

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome

FORK = Path(__file__).parents[1] / "forks/conf_engine/tree"
MODEL, SETTINGS, TRAIN = "bitnet/nn/lm.py", "settings.py", "train.py"
ON = (SETTINGS, '"keep_maps": None', '"keep_maps": True')
GIVEN = 'BitTransformerLM(**conf["model"])'
TOLD = "            keep_maps=keep_maps,\n"
OF_NONE = "chunk is None if keep_maps is None else keep_maps"
RESOLVED_IN_MODEL = (
    (MODEL, '"keep_maps", "dropout")', '"dropout")'),
    (MODEL, "hidden, **attention)", f"hidden, **attention, keep_maps={OF_NONE})"),
)


@pytest.fixture
def outcome(tmp_path):
    def outcome(*pairs):
        tree = tmp_path / "tree"
        shutil.copytree(FORK, tree)
        for name, old, new in pairs:
            text = (tree / name).read_text()
            assert old in text, old
            (tree / name).write_text(text.replace(old, new))
        planned = plan(open_tree(tree), [task_named("task-12")])
        return planned.outcomes[0], {each.path: each.after.decode() for each in planned.changes}

    return outcome


def test_it_is_left_alone(outcome):
    assert outcome()[0].outcome is Outcome.ALREADY_APPLIED


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(GIVEN, id="a subscript"),
        pytest.param("BitTransformerLM(**model_conf)", id="a name"),
    ],
)
def test_an_entry_of_a_nested_dict_that_turns_maps_on_is_left_open(outcome, given):
    name = (TRAIN, "    model = ", '    model_conf = conf["model"]\n    model = ')
    found, changes = outcome(ON, (TRAIN, GIVEN, given), name)
    assert (found.outcome, list(changes)) == (Outcome.APPLIED, [SETTINGS])
    assert '"keep_maps": None,' in changes[SETTINGS]


def test_an_entry_of_another_name_is_not_asked(outcome):
    found, _ = outcome((SETTINGS, '"optim": {', '"maps": {"keep_maps": True},\n    "optim": {'))
    assert found.outcome is Outcome.ALREADY_APPLIED


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param([(MODEL, TOLD, f"            keep_maps={OF_NONE},\n")], id="in its place"),
        pytest.param(
            [(MODEL, "        self.conf = dict(", f"        keep_maps = {OF_NONE}\n        self.conf = dict(")],
            id="before",
        ),
        pytest.param(
            [
                (MODEL, "self.conf = dict(", "self.conf = {"),
                (
                    MODEL,
                    "            checkpointing=checkpointing,\n        )",
                    '            "keep_maps": OF_NONE,\n        }',
                ),
                (MODEL, TOLD, ""),
                *(
                    (MODEL, f"            {x}={x},\n", f'            "{x}": {x},\n')
                    for x in ("width", "heads", "depth", "hidden", "max_len", "chunk", "lookback", "dropout")
                ),
                (MODEL, "OF_NONE", OF_NONE),
            ],
            id="in a display",
        ),
    ],
)
def test_a_configuration_that_keeps_what_is_made_of_none_is_named(outcome, pairs):
    found, changes = outcome(*pairs)
    assert (found.outcome, changes) == (Outcome.REFUSED, {})
    assert "is kept as a setting, and not what the user said" in found.reason


@pytest.mark.parametrize("default", ["None", "True"])
def test_what_is_resolved_where_blocks_are_made_is_left_open_there(outcome, default):
    found, changes = outcome(*RESOLVED_IN_MODEL, (MODEL, "keep_maps=None,", f"keep_maps={default},"))
    if default == "None":
        assert found.outcome is Outcome.ALREADY_APPLIED
    else:
        assert "keep_maps=None,\n        dropout" in changes[MODEL]
