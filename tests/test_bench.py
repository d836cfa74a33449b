"""`bitpatch bench`: one small run, and the ends without one."""

import json

import jsonschema
import pytest
from samples import REFERENCE, ROOT, contents

from bitpatch.verify.benching import comparison, interleaving
from bitpatch.verify.driving import timed_runs
from bitpatch.verify.running.clean_start import RUN_A_TREE

SCHEMA = json.loads((ROOT / "verify/schemas/bench.json").read_text())


def test_a_run_measures_the_tree_and_leaves_it_as_it_was(run, tree, tmp_path, monkeypatch):
    for module in (interleaving, comparison):
        monkeypatch.setattr(module, "FEWEST", 1)
    before, picture = contents(tree), tmp_path / "bars.svg"
    code, out, err = run("bench", "task-5", "--tree", tree, "--seconds", "1", "--report", picture, "--json")
    found = json.loads(out)
    jsonschema.validate(found, SCHEMA)
    assert (code, err, contents(tree)) == (0, "", before)
    (task,) = found["tasks"]
    assert (task["id"], task["change"], found["rounds"]) == ("task-5", "applied", 1)
    effects = {each["measure"]: each for each in task["effects"]}
    assert all(each["before"] > 0 for each in effects.values())
    assert effects["start_seconds"]["high"] < 0.5  # no text is encoded bit by bit any more
    assert picture.read_text().startswith("<svg xmlns=")


def test_a_tree_whose_tasks_cannot_be_taken_out_is_unproven_and_says_why(run):
    code, out, err = run("bench", "9", "--tree", REFERENCE)
    assert code == 5
    assert out.splitlines()[1:] == [
        "task-9\t\tnot measured\tnot measured\tnot measured",
        *[line for line in out.splitlines() if line.startswith("task-9: not measured: applied already, and cannot")],
    ]
    assert err.startswith("next: bitpatch verify")
    code, out, _ = run("bench", "9", "--tree", REFERENCE, "--json")
    jsonschema.validate(json.loads(out), SCHEMA)
    assert (code, json.loads(out)["rounds"]) == (5, 0)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        pytest.param(["13"], 2, "no task is called", id="no such task"),
        pytest.param(["9", "--report", "bars.png"], 2, "one of .svg, .json", id="no such form"),
        pytest.param(["9", "--report", "nowhere/bars.svg"], 6, "no such folder", id="no such folder"),
        pytest.param(["9", "--seconds", "0"], 2, "--seconds", id="no time"),
    ],
)
def test_what_is_asked_wrongly_is_said_before_anything_runs(run, tree, words, code, said):
    found, out, err = run("bench", *words, "--tree", tree)
    assert (found, out) == (code, "")
    assert said in err


def test_a_folder_without_a_tree_is_refused(run, tmp_path):
    assert run("bench", "--tree", tmp_path)[0] == 3


def test_without_torch_it_says_what_to_install(run, tree, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = run("bench", "9", "--tree", tree)
    assert code == 5
    assert "pip install 'bitpatch[verify]'" in err


def test_rows_fill_every_batch_and_group_that_options_ask_for():
    sizes = comparison.OPTIONS[1]["batch_size"], 8 * comparison.OPTIONS[4]["accum_steps"]
    assert [timed_runs.ROWS % size for size in sizes] == [0, 0]
    assert timed_runs.CONFIG["max_seq_len"] % timed_runs.CHUNKS["chunk_size"] == 0


def test_the_environment_of_a_bench_holds_no_secrets():
    assert "bench" in RUN_A_TREE
