"""What a finished run must reach: each threshold passes a sound run and fails, or says so, where it is not."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from samples import CODE_ONLY, REFERENCE, ROOT

from bitpatch.verify.phase2.phases import command
from bitpatch.verify.phase2.run_folder import FLAGS, Run, hashes_of, read_run, tree_environment
from bitpatch.verify.phase2.validation import THRESHOLDS, Judged, Validation, judge, validate, write_validation
from bitpatch.verify.running.evidence import Evidence, Verdict

SMALL = "--layers 2 --d_model 16 --nhead 2 --max_seq_len 72 --chunk_size 32 --overlap 8 --batch_size 8 --accum_steps 1"
QUICK = "--lr 5e-2 --lr_warmup 4 --amp off --compress_prob 0 --eval_interval 8 --log_interval 4 --device cpu"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text that is learned at once: each row is the same 8 bytes, so that their frequencies tell 3 bits each."""
    path = tmp_path_factory.mktemp("text") / "easy.txt"
    path.write_text("abcdefgh" * 160)
    return path


@pytest.fixture(scope="module")
def make_run(text, tmp_path_factory):
    """Train a run, and return its folder."""

    def make(preset, *flags):
        folder = tmp_path_factory.mktemp("runs") / preset
        words = command(preset, [*f"{SMALL} {QUICK}".split(), "--data", str(text), "--out", str(folder), *flags])
        environment = tree_environment(REFERENCE) | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        result = subprocess.run(words, capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stderr
        return folder

    return make


@pytest.fixture(scope="module")
def learned(make_run):
    """A run of task-a that has learned its text by heart."""
    return make_run("task-a", "--max_steps", "24")


@pytest.fixture(scope="module")
def unlearned(make_run):
    """A run of task-b that has made two updates."""
    return make_run("task-b", *["--max_steps", "2", "--log_interval", "1", "--qat", "false", "--context_orders", "0"])


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def verdicts(folder, tree=REFERENCE):
    return {judged.threshold.name: judged.evidence for judged in validate(tree, read_run(folder)).judged}


def failing(found):
    return {name for name, evidence in found.items() if evidence.verdict is Verdict.FAIL}


def copied(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / folder.name))


def test_a_sound_run_passes_and_its_validation_is_kept(learned):
    found = validate(REFERENCE, read_run(learned))
    assert {judged.threshold.name: str(judged.evidence.verdict) for judged in found.judged} == dict.fromkeys(
        ["finished", "finite", "learned", "rate", "loads", "reproduced", "formula", "order-0", "parity", "causal"],
        "pass",
    )
    write_validation(found)
    kept = json.loads((learned / "validation.json").read_text())
    jsonschema.validate(kept, json.loads((ROOT / "verify/schemas/validate.json").read_text()))
    assert kept["verdict"] == "pass"
    assert hashes_of(learned).items() <= kept.items()
    assert not list(learned.glob(".validation*"))


def test_a_run_that_has_learned_little_fails_though_its_int8_is_sound(unlearned):
    found = verdicts(unlearned)
    assert {"order-0", "parity"} <= failing(found)
    sound = {"finished", "rate", "loads", "reproduced", "formula", "causal", "int8-cost", "int8-all"}
    assert {name for name in sound if found[name].verdict is not Verdict.PASS} == set()
    assert found["int8-time"].measured > 0


def test_a_run_that_grew_moved_no_logit_and_started_with_few_bits_by_force(learned, make_run):
    flags = ("--layers", "4", "--max_steps", "1", "--grow_from", str(learned / "model.safetensors"), "--force")
    found = verdicts(make_run("task-c", *flags))
    assert (found["grown"].verdict, found["data"].verdict) == (Verdict.PASS, Verdict.PASS)
    assert "started with --force" in found["data"].detail
    assert found["grown"].measured <= 1e-9


def test_weights_of_another_run_are_found_out(learned, unlearned, tmp_path):
    folder = copied(learned, tmp_path)
    shutil.copy(unlearned / "model.safetensors", folder)
    assert {"reproduced", "order-0", "parity"} <= failing(verdicts(folder))


def test_an_int8_file_that_is_in_floating_point_is_found_out(unlearned, tmp_path):
    folder = copied(unlearned, tmp_path)
    shutil.copy(folder / "model.safetensors", folder / "model.int8.safetensors")
    found = verdicts(folder)
    assert {"int8-size", "int8-all"} <= failing(found)
    assert "layers.0.attention.q_proj.weight" in found["int8-all"].detail


def test_a_saved_model_that_is_torn_does_not_load_and_leaves_the_rest_unproven(learned, tmp_path):
    folder = copied(learned, tmp_path)
    os.truncate(folder / "model.safetensors", 1000)
    found = verdicts(folder)
    assert failing(found) == {"loads"}
    assert {found[name].verdict for name in ("reproduced", "order-0", "causal")} == {Verdict.UNPROVEN}


def test_a_model_that_sees_the_future_and_an_evaluation_that_flatters_are_found_out(learned, tmp_path):
    tree = Path(shutil.copytree(REFERENCE, tmp_path / "tree", ignore=CODE_ONLY))
    for name, right, wrong in (
        ("model.py", "hidden = future[overlap:]\n", "pass\n"),
        ("evaluation.py", "bpb_data=(count + ", "bpb_data=("),
    ):
        path = tree / "bit_transformer" / name
        source = path.read_text()
        assert right in source
        path.write_text(source.replace(right, wrong))
    found = verdicts(learned, tree)
    assert {"causal", "formula"} <= failing(found)
    assert found["causal"].measured > 0


def test_an_int8_model_that_sees_the_future_is_found_out(unlearned, tmp_path):
    tree = Path(shutil.copytree(REFERENCE, tmp_path / "tree", ignore=CODE_ONLY))
    path = tree / "bit_transformer/quantization.py"
    right = "            if math.isfinite(step):\n"
    source = path.read_text()
    assert right in source
    wrong = "            step = (x.amax() - x.amin()).item() / INPUT_LEVELS\n"
    path.write_text(source.replace(right, wrong + right))
    assert "causal" in failing(verdicts(unlearned, tree))


def test_other_text_than_was_trained_on_leaves_the_report_unproven(learned, tmp_path):
    folder = copied(learned, tmp_path)
    (tmp_path / "other.txt").write_text("abcdefgh" * 170)
    flags = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(flags | {"data": [str(tmp_path / "other.txt")]}))
    found = verdicts(folder)
    assert found["reproduced"].verdict is Verdict.UNPROVEN
    assert "the text has changed" in found["reproduced"].detail


def test_a_tree_that_does_not_import_leaves_all_that_is_measured_unproven(learned, tmp_path):
    tree = Path(shutil.copytree(REFERENCE, tmp_path / "tree", ignore=CODE_ONLY))
    (tree / "bit_transformer/__init__.py").write_text("import os\nos._exit(3)\n")
    found = verdicts(learned, tree)
    assert "exit status 3" in found["causal"].detail
    assert {name for name, evidence in found.items() if evidence.verdict is Verdict.PASS} == {
        "finished",
        "finite",
        "learned",
        "rate",
    }


# A run as its records tell it: evaluations count from update 10 on, and the rate halves at 24 and at 32.
FLAT = [(8, 0.2), (16, 0.4), (20, 0.4), (24, 0.4), (28, 0.41), (32, 0.4), (36, 0.3)]
VALUES = dict.fromkeys(FLAGS) | {
    "preset": "task-c", "max_seq_len": 72, "max_steps": 40, "amp": "bf16", "quantization": "int8",
    "lr": 0.01, "lr_schedule": "progressive_plateau", "lr_warmup": 10, "patience": 2, "lr_floor": 1e-5,
    "grow_from": "small.safetensors", "force": False,
}  # fmt: skip
RATES = {4: 0.004, 8: 0.008, 12: 0.01, 24: 0.01, 25: 0.005, 32: 0.005, 33: 0.0025, 40: 0.0025}
RECORDS = [
    {"kind": "start", "parameters": 1000, "rows": 300},
    *({"kind": "train", "step": step, "loss": 0.7 - step / 100, "lr": lr} for step, lr in RATES.items()),
    *({"kind": "eval", "step": step, "loss": loss} for step, loss in FLAT),
    {"kind": "drop", "step": 24, "lr": 0.005},
    {"kind": "drop", "step": 32, "lr": 0.0025},
]
MEASURED = {
    "load": {"faults": []},
    "text": {"bytes": 80, "order_0": 3.0, "is_same": True},
    "saved": {"bpb_data": 2.0, "tree_bpb_data": 2.0, "parity_waste": 0.01},
    "leak": {"before": 0.0, "after": 0.1, "flips": 8},
    "int8": {"bpb_data": 2.01, "size": 0.28, "float_bytes": 100, "int8_bytes": 28, "float_matrices": ["out.weight"]},
    "speed": {"float": 0.2, "int8": 0.1, "share": 0.5, "least_share": 0.4, "threads": 1},
    "grown": {"moved": 1e-14},
}
REPORT = {"updates": 40, "evaluation": {"bpb_data": 2.001}}


def judged(values=VALUES, records=RECORDS, measured=MEASURED, report=REPORT):
    run = Run(Path("run"), values, records, report)
    return {each.threshold.name: each.evidence for each in judge(run, measured)}


def with_measured(name, **changes):
    return {"measured": MEASURED | {name: MEASURED[name] | changes}}


def with_record(kind, step, **changes):
    return {
        "records": [each | changes if (each["kind"], each.get("step")) == (kind, step) else each for each in RECORDS]
    }


def test_the_run_as_told_passes_every_threshold():
    found = judged()
    assert set(found) == {threshold.name for threshold in THRESHOLDS}
    assert {name: each.detail for name, each in found.items() if each.verdict is not Verdict.PASS} == {}


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param("finished", {"report": None}, id="no report"),
        pytest.param("finished", {"report": REPORT | {"updates": 39}}, id="a report of fewer updates"),
        pytest.param("finished", {"values": VALUES | {"max_steps": 41}}, id="an update too few"),
        pytest.param("finished", {"records": [*RECORDS, {"kind": "stop", "step": 40}]}, id="stopped by the gate"),
        pytest.param("finite", with_record("train", 24, loss=math.nan), id="a loss that is no number"),
        pytest.param("finite", with_record("eval", 36, loss=math.inf), id="an infinite validation loss"),
        pytest.param("learned", with_record("train", 40, loss=0.655), id="a loss that hardly fell"),
        pytest.param("learned", with_record("train", 40, loss=math.nan), id="a last loss that is no number"),
        pytest.param("rate", with_record("train", 40, lr=0.005), id="a rate that did not fall"),
        pytest.param("rate", with_record("train", 4, lr=0.01), id="no warm-up"),
        pytest.param("rate", with_record("drop", 32, lr=0.005), id="a drop to another rate"),
        pytest.param("rate", {"records": RECORDS[:-1]}, id="a drop left out"),
        pytest.param("rate", with_record("eval", 32, loss=0.3), id="a drop without a plateau"),
        pytest.param("rate", {"values": VALUES | {"lr_schedule": "onecycle"}}, id="another schedule"),
        pytest.param("loads", with_measured("load", faults=["torn"]), id="a torn file"),
        pytest.param("reproduced", with_measured("saved", bpb_data=2.01), id="a report of other weights"),
        pytest.param("formula", with_measured("saved", tree_bpb_data=2.00001), id="another formula"),
        pytest.param("order-0", with_measured("text", order_0=1.9), id="worse than letter frequencies"),
        pytest.param("parity", with_measured("saved", parity_waste=0.06), id="parity not learned"),
        pytest.param("parity", with_measured("saved", parity_waste=math.nan), id="parity that is no number"),
        pytest.param("causal", with_measured("leak", before=1e-9), id="a small leak"),
        pytest.param("int8-size", with_measured("int8", size=0.31), id="a large file"),
        pytest.param("int8-cost", with_measured("int8", bpb_data=2.03), id="dear rounding"),
        pytest.param("int8-time", with_measured("speed", share=1.05, least_share=1.01), id="slower"),
        pytest.param("int8-all", with_measured("int8", float_matrices=["layers.0.weight"]), id="a layer forgotten"),
        pytest.param("grown", with_measured("grown", moved=1e-6), id="growing that forgets"),
        pytest.param("data", {"records": [RECORDS[0] | {"rows": 277}, *RECORDS[1:]]}, id="too few bits"),
    ],
)
def test_what_is_below_a_threshold_fails(name, damage):
    assert judged(**damage)[name].verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param("finite", {"records": RECORDS[:1]}, id="no loss recorded"),
        pytest.param("learned", {"records": RECORDS[:2]}, id="one loss recorded"),
        pytest.param("rate", {"records": RECORDS[:1]}, id="no rate recorded"),
        pytest.param("rate", {"records": [{"kind": "train", "step": 40}]}, id="a record without its rate"),
        pytest.param("data", {"records": RECORDS[1:]}, id="no record of the start"),
        pytest.param("reproduced", with_measured("text", is_same=False), id="other text"),
        pytest.param("reproduced", {"report": {"updates": 40}}, id="a report without an evaluation"),
        pytest.param("causal", with_measured("leak", after=0.0), id="a model that no bit moves"),
        pytest.param("int8-time", with_measured("speed", share=1.02, least_share=0.98), id="too near to tell"),
        pytest.param("causal", {"measured": {"leak": {"error": "ValueError: torn"}}}, id="an error"),
        pytest.param("causal", {"measured": {}, "report": None}, id="not finished"),
    ],
)
def test_what_could_not_be_measured_is_unproven(name, damage):
    evidence = judged(**damage)[name]
    assert evidence.verdict is Verdict.UNPROVEN
    assert evidence.detail


def test_what_measures_does_nothing_for_a_parent_that_is_gone():
    request = json.dumps({"run": "no/such/run", "values": {}, "parent": -1})
    command = [sys.executable, "-P", "-m", "bitpatch.verify.phase2.validation_worker"]
    done = subprocess.run(command, input=request, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_without_an_error_of_its_own_the_end_of_measuring_is_told():
    assert judged(measured={"end": {"error": "killed"}})["causal"].detail == "killed"


def test_float32_is_held_to_a_closer_limit_than_bf16():
    close = with_measured("saved", bpb_data=2.003)
    assert judged(**close)["reproduced"].verdict is Verdict.PASS
    assert judged(values=VALUES | {"amp": "off"}, **close)["reproduced"].verdict is Verdict.FAIL


def test_few_bits_by_force_pass_and_are_told():
    records = [RECORDS[0] | {"rows": 10}, *RECORDS[1:]]
    evidence = judged(values=VALUES | {"force": True}, records=records)["data"]
    assert (evidence.verdict, "started with --force" in evidence.detail) == (Verdict.PASS, True)


@pytest.mark.parametrize("total", [1, 2, 24])
def test_one_cycle_ends_at_its_floor(total):
    values = VALUES | {"lr_schedule": "onecycle", "max_steps": total}
    floor = [{"kind": "train", "step": total, "lr": 0.01 / 25 / 1e4}]
    assert judged(values=values, records=floor)["rate"].verdict is Verdict.PASS
    above = [{"kind": "train", "step": total, "lr": 0.01 / 25}]
    assert judged(values=values, records=above)["rate"].verdict is Verdict.FAIL


def test_updates_are_planned_from_epochs_where_no_number_is_given():
    values = VALUES | {"max_steps": None, "epochs": 3, "batch_size": 8, "extra_steps": 1, "accum_steps": 3}
    run = Run(Path("run"), values, [{"kind": "start", "rows": 65}], None)
    assert run.planned == 3 * 4  # 9 micro-batches and an extra one, by threes


def test_the_gravest_verdict_counts():
    def overall(*words):
        found = tuple(Judged(THRESHOLDS[0], Evidence(Verdict(word))) for word in words)
        return str(Validation(Run(Path(), VALUES, [], None), found, {}).verdict)

    assert overall("pass", "unproven", "fail") == "fail"
    assert overall("pass", "unproven") == "unproven"
    assert overall("pass", "pass") == "pass"
