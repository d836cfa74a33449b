"""The order of Phase 2, told from the tree's status and from what lies in the runs' folders."""

import json
from pathlib import Path

import pytest

from bitpatch.verify.phase2.phases import command, doubts, order, refusal
from bitpatch.verify.phase2.run_folder import FLAGS, RunUnreadableError, hashes_of

APPLIED = {f"task-{number}": "applied" for number in range(1, 13)}
NAMES = ["phase-1", "task-a", "validate task-a", "task-b", "validate task-b", "task-c", "validate task-c"]


@pytest.fixture
def make_run(tmp_path):
    """Write a run's folder as training does: its flags and records, its report if it is done, a validation if any."""

    def make(preset, *, made=40, planned=40, verdict=None, stopped=False):
        folder = tmp_path / preset
        folder.mkdir()
        values = dict.fromkeys(FLAGS) | {"preset": preset, "max_steps": planned, "max_seq_len": 1152}
        (folder / "run.json").write_text(json.dumps(values))
        records = [{"kind": "start", "parameters": 1000, "rows": 50}, {"kind": "train", "step": made}]
        records += [{"kind": "stop", "step": made}] * stopped
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        if made == planned:
            (folder / "model.safetensors").write_text(preset)
            (folder / "report.json").write_text(json.dumps({"updates": made}))
        if verdict is not None:
            thresholds = [{"name": "parity", "verdict": verdict}, {"name": "finite", "verdict": "pass"}]
            content = {"verdict": verdict, **hashes_of(folder), "thresholds": thresholds}
            (folder / "validation.json").write_text(json.dumps(content))
        return folder

    return make


def states(runs, tasks=APPLIED):
    return {step.name: str(step.state) for step in order(tasks, runs)}


def test_nothing_is_done_in_a_fresh_tree(tmp_path):
    found = states(tmp_path, APPLIED | {"task-3": "missing", "task-4": "partial"})
    assert list(found) == NAMES
    assert set(found.values()) == {"ready", "waiting"}
    assert found["phase-1"] == "ready"


def test_a_patched_tree_is_ready_for_the_first_run(tmp_path):
    found = states(tmp_path)
    assert (found["phase-1"], found["task-a"]) == ("done", "ready")
    assert {found[name] for name in NAMES[2:]} == {"waiting"}


def test_a_tree_patched_by_hand_is_unproven_and_holds_nothing_up(tmp_path):
    first, second, *_ = order(APPLIED | {"task-9": "unrecognised"}, tmp_path)
    assert (str(first.state), first.detail, str(second.state)) == ("unproven", "unrecognised: task-9", "ready")
    assert first.command == "bitpatch verify --all"


def test_each_step_makes_the_next_one_ready(tmp_path, make_run):
    for n, preset in enumerate(("task-a", "task-b", "task-c")):
        assert states(tmp_path)[preset] == "ready"
        folder = make_run(preset)
        assert states(tmp_path)[f"validate {preset}"] == "ready"
        assert "ready" not in {states(tmp_path)[name] for name in NAMES[2 * n + 3 :]}
        content = {"verdict": "pass", **hashes_of(folder), "thresholds": []}
        (folder / "validation.json").write_text(json.dumps(content))
    assert set(states(tmp_path).values()) == {"done"}


def test_a_run_half_done_is_shown_with_its_updates_and_how_to_go_on(tmp_path, make_run):
    make_run("task-a", made=7)
    step = order(APPLIED, tmp_path)[1]
    assert (str(step.state), step.detail) == ("unfinished", "update 7 of 40")
    assert step.command == f"bitpatch train task-a --resume --out {tmp_path / 'task-a'}"


def test_a_run_that_goes_on_beyond_its_report_is_not_done(tmp_path, make_run):
    folder = make_run("task-a", verdict="pass")
    flags = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(flags | {"max_steps": 80}))
    found = states(tmp_path)
    assert (found["task-a"], found["validate task-a"], found["task-b"]) == ("unfinished", "waiting", "waiting")


def test_a_run_that_the_gate_stopped_says_so(tmp_path, make_run):
    make_run("task-a", made=7, stopped=True)
    step = order(APPLIED, tmp_path)[1]
    assert (str(step.state), step.detail) == ("stopped", "update 7 of 40, by the safety gate")


@pytest.mark.parametrize(("verdict", "state"), [("fail", "failed"), ("unproven", "unproven")])
def test_a_validation_that_did_not_pass_holds_up_what_follows(tmp_path, make_run, verdict, state):
    make_run("task-a", verdict=verdict)
    steps = {step.name: step for step in order(APPLIED, tmp_path)}
    assert (str(steps["validate task-a"].state), steps["validate task-a"].detail) == (state, "parity")
    assert str(steps["task-b"].state) == "waiting"


@pytest.mark.parametrize("file", ["report.json", "model.safetensors", "model.int8.safetensors"])
def test_a_validation_of_other_files_does_not_count(tmp_path, make_run, file):
    folder = make_run("task-a", verdict="pass")
    (folder / file).write_text(json.dumps({"updates": 40, "other": True}))
    step = order(APPLIED, tmp_path)[2]
    assert (str(step.state), step.detail) == ("ready", "the run has changed since it was validated")


def test_the_last_run_says_what_data_it_wants(tmp_path, make_run):
    assert "20 bits to train on a parameter" in order(APPLIED, tmp_path)[5].needs
    make_run("task-a")
    assert "task-a had 57,600 for 1,000" in order(APPLIED, tmp_path)[5].needs


def test_commands_name_the_tree_and_the_folder_where_they_are_not_the_usual():
    usual, named = order(APPLIED), order(APPLIED, Path("my runs"), Path("tree"))
    assert usual[1].command == "bitpatch train task-a --data TEXT"
    assert usual[2].command == "bitpatch validate task-a"
    assert named[1].command == "bitpatch train task-a --tree tree --data TEXT --out 'my runs/task-a'"
    assert named[2].command == "bitpatch validate task-a --tree tree --run 'my runs/task-a'"


@pytest.mark.parametrize("file", ["run.json", "metrics.jsonl", "report.json", "validation.json"])
def test_a_damaged_file_is_named(tmp_path, make_run, file):
    folder = make_run("task-a", verdict="pass")
    (folder / file).write_text("{torn\n")
    with pytest.raises(RunUnreadableError, match=f"damaged.*{file}"):
        order(APPLIED, tmp_path)


def test_a_torn_last_record_is_no_damage(tmp_path, make_run):
    folder = make_run("task-a", made=7)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tra')
    assert order(APPLIED, tmp_path)[1].detail == "update 7 of 40"


def test_training_is_refused_where_a_task_is_missing(tmp_path):
    reason = refusal(tmp_path, APPLIED | {"task-3": "missing", "task-4": "partial"}, tmp_path)
    assert reason is not None
    assert "lacks task-3, task-4" in reason
    assert f"bitpatch apply --all --tree {tmp_path}" in reason


def test_training_is_refused_where_the_tree_makes_no_runs(tmp_path):
    assert "no bit_transformer/runs.py" in (refusal(tmp_path, APPLIED, tmp_path) or "")


def test_training_is_refused_without_torch(tmp_path, monkeypatch):
    (tmp_path / "bit_transformer").mkdir()
    (tmp_path / "bit_transformer/runs.py").touch()
    assert refusal(tmp_path, APPLIED, tmp_path) is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert refusal(tmp_path, APPLIED, tmp_path) == "this needs torch, numpy, safetensors: pip install 'bitpatch[train]'"


def test_what_is_unclear_or_out_of_order_is_said(tmp_path, make_run):
    assert doubts("task-a", APPLIED, tmp_path) == []
    make_run("task-a")
    by_hand, early = doubts("task-b", APPLIED | {"task-9": "unrecognised"}, tmp_path)
    assert "task-9 is unrecognised" in by_hand
    assert f"task-b comes after validate task-a, not done in {tmp_path}" in early


def test_the_command_of_a_run_ignores_the_folder_it_runs_in():
    assert command("task-a", ["--layers", "4"])[1:] == [
        "-P",
        "-m",
        "bit_transformer.training",
        "task-a",
        "--layers",
        "4",
    ]
