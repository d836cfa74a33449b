"""`bitpatch train` and `bitpatch validate`: what they refuse, what they pass on, and a run from start to verdict."""

import json
import shutil
import signal
import subprocess
import sys

import jsonschema
import pytest
from samples import BASELINE, CODE_ONLY, REFERENCE, ROOT

BITPATCH = [sys.executable, "-m", "bitpatch"]
SMALL = "--layers 2 --d_model 16 --nhead 2 --max_seq_len 72 --chunk_size 32 --overlap 8 --batch_size 8 --accum_steps 1"
QUICK = "--lr 5e-2 --lr_warmup 4 --amp off --compress_prob 0 --eval_interval 8 --log_interval 1 --device cpu"


@pytest.fixture
def started(monkeypatch):
    """What would be started: its command and the first folder on its path."""
    seen = []

    def note(program, command, environment):
        seen.append((command, environment["PYTHONPATH"].split(":")[0]))

    monkeypatch.setattr("os.execve", note)
    return seen


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A copy of the reference, which no run of ours writes to."""
    return shutil.copytree(REFERENCE, tmp_path_factory.mktemp("tree") / "reference", ignore=CODE_ONLY)


def test_flags_go_to_the_tree_as_they_are(run, started, reference):
    flags = ["--layers", "4", "--out", "runs/x", "--resume", "--lr", "-1", "--qat", "false", "--data", "a b.txt"]
    code, out, _ = run("train", "task-a", "--tree", reference, *flags)
    assert (code, out) == (0, "")
    assert started == [([sys.executable, "-P", "-m", "bit_transformer.training", "task-a", *flags], str(reference))]


def test_help_is_ours_and_says_how_to_see_the_trees(run, started, reference):
    code, out, _ = run("train", "task-a", "--help")
    assert (code, started) == (0, [])
    assert "bitpatch train task-a -- --help" in " ".join(out.split())
    run("train", "task-a", "--tree", reference, "--", "--help")
    assert started[0][0][-2:] == ["task-a", "--help"]


def test_a_tree_without_its_patches_is_refused(run, started):
    code, out, err = run("train", "task-a", "--tree", BASELINE)
    assert (code, out, started) == (3, "", [])
    assert "lacks task-1, task-2" in err
    assert f"bitpatch apply --all --tree {BASELINE}" in err


def test_a_task_that_is_missing_is_named(run, started, tree, patched):
    patched(tree, *(f"task-{number}" for number in range(1, 13) if number != 9))
    code, _, err = run("train", "task-a", "--tree", tree)
    assert (code, started) == (3, [])
    assert "lacks task-9:" in err


def test_a_task_done_by_hand_is_warned_of_and_no_obstacle(run, started, reference, tmp_path):
    tree = shutil.copytree(reference, tmp_path / "fork")
    path = tree / "bit_transformer/model.py"
    path.write_text(path.read_text().replace("weights.new_zeros(B, H, T, T)", "empty_canvas(weights, T)"))
    code, _, err = run("train", "task-a", "--tree", tree)
    assert (code, len(started)) == (0, 1)
    assert "note: task-12 is unrecognised" in err
    assert "bitpatch verify task-12" in err


def test_a_fork_without_runs_is_refused(run, started, reference, tmp_path):
    tree = shutil.copytree(reference, tmp_path / "fork")
    (tree / "bit_transformer/runs.py").unlink()
    for words in (["train", "task-a"], ["validate", "task-a", "--run", folder_of_a_run(tmp_path)]):
        code, _, err = run(*words, "--tree", tree)
        assert (code, started) == (3, [])
        assert "no bit_transformer/runs.py" in err


def test_without_torch_training_is_refused_and_a_run_unproven(run, started, reference, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = run("train", "task-a", "--tree", reference)
    assert (code, started) == (3, [])
    assert "pip install 'bitpatch[train]'" in err
    assert run("validate", "task-a", "--tree", reference, "--run", folder_of_a_run(tmp_path))[0] == 5


def test_a_run_out_of_order_is_told_and_starts(run, started, reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("train", "task-b", "--tree", reference)
    assert (code, len(started)) == (0, 1)
    assert "task-b comes after task-a, validate task-a" in err


@pytest.mark.parametrize("command", ["train", "validate"])
def test_without_a_tree_the_reference_is_used_and_named(run, started, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bitpatch.verify.phase2.validation.measure", lambda tree, run: [])
    flags = [] if command == "train" else ["--run", folder_of_a_run(tmp_path)]
    assert f"the embedded reference, {REFERENCE.resolve()}" in run(command, "task-a", *flags)[2]
    assert [path for _, path in started] == [str(REFERENCE.resolve())] * (command == "train")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["train"], id="no run"),
        pytest.param(["train", "task-z"], id="an unknown run"),
        pytest.param(["train", "--layers", "4"], id="flags without a run"),
        pytest.param(["train", "task-a", "--plan"], id="a run and a plan"),
        pytest.param(["train", "--plan", "--nonsense"], id="a plan with flags"),
        pytest.param(["validate"], id="nothing to validate"),
        pytest.param(["validate", "task-a", "--nonsense"], id="an unknown option"),
    ],
)
def test_wrong_usage_is_two(run, started, words):
    code, out, err = run(*words)
    assert (code, out, started) == (2, "", [])
    assert err


def folder_of_a_run(tmp_path):
    """A folder that says it holds a run of task-a, not finished."""
    from bitpatch.verify.phase2.run_folder import FLAGS

    folder = tmp_path / "a run"
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps(dict.fromkeys(FLAGS) | {"preset": "task-a", "max_steps": 3}))
    return folder


def test_a_run_that_has_not_finished_fails(run, reference, tmp_path):
    code, out, _ = run("validate", "task-a", "--tree", reference, "--run", folder_of_a_run(tmp_path))
    assert code == 4
    assert out.splitlines()[0].split("\t")[:3] == ["finished", "fail", "3"]


def test_what_is_no_run_cannot_be_read(run, reference, tmp_path):
    code, out, err = run("validate", "task-a", "--tree", reference, "--run", tmp_path)
    assert (code, out, len(err.splitlines())) == (6, "", 1)
    (tmp_path / "run.json").write_text("{torn")
    code, _, err = run("validate", "task-a", "--tree", reference, "--run", tmp_path)
    assert (code, "damaged" in err) == (6, True)


def test_a_run_of_another_preset_is_not_judged(run, reference, tmp_path):
    code, _, err = run("validate", "task-b", "--tree", reference, "--run", folder_of_a_run(tmp_path))
    assert code == 2
    assert "holds a run of task-a, not of task-b" in err


def test_a_validation_that_cannot_be_kept_is_no_success(run, reference, tmp_path):
    folder = folder_of_a_run(tmp_path)
    (folder / "validation.json").mkdir()
    code, out, err = run("validate", "task-a", "--tree", reference, "--run", folder)
    assert (code, bool(out)) == (6, True)
    assert "validation.json" in err
    assert sorted(path.name for path in folder.iterdir()) == ["run.json", "validation.json"]


def test_the_plan_of_a_fresh_tree_begins_with_its_patches(run, tmp_path):
    code, out, _ = run("train", "--plan", "--tree", BASELINE, "--runs", tmp_path)
    first, second, *_ = (line.split("\t") for line in out.splitlines())
    assert code == 0
    assert (first[:2], first[-1]) == (["phase-1", "ready"], f"bitpatch apply --all --tree {BASELINE}")
    assert second[:2] == ["task-a", "waiting"]


def test_from_start_to_verdict(run, tmp_path, reference, monkeypatch):
    """Ctrl-C between two updates, --resume, validate, and a plan that knows; all relative to the user's folder."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/easy.txt").write_text("abcdefgh" * 160)
    train = [*BITPATCH, "train", "task-a", "--tree", str(reference)]
    flags = [*f"{SMALL} {QUICK}".split(), "--data", "texts", "--max_steps", "24"]
    with subprocess.Popen([*train, *flags], stderr=subprocess.PIPE, text=True) as training:
        said = [line for line in iter(training.stderr.readline, "") if not line.startswith("2/24") or stop(training)]
    assert training.returncode == 130, "".join(said)
    plan = json.loads(run("train", "--plan", "--json", "--tree", reference)[1])
    jsonschema.validate(plan, json.loads((ROOT / "verify/schemas/plan.json").read_text()))
    step = plan["steps"][1]
    assert (step["state"], step["command"]) == ("unfinished", f"bitpatch train task-a --tree {reference} --resume")

    result = subprocess.run([*train, "--resume"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    code, out, err = run("validate", "task-a", "--tree", reference, "--json")
    assert (code, err) == (0, "runs/task-a: pass; kept in runs/task-a/validation.json\n")
    found = json.loads(out)
    jsonschema.validate(found, json.loads((ROOT / "verify/schemas/validate.json").read_text()))
    assert json.loads((tmp_path / "runs/task-a/validation.json").read_text()) == found
    plan = json.loads(run("train", "--plan", "--json", "--tree", reference)[1])
    assert [step["state"] for step in plan["steps"]] == ["done", "done", "done", "ready", *["waiting"] * 3]


def stop(process):
    """Send what Ctrl-C sends."""
    process.send_signal(signal.SIGINT)
    return True
