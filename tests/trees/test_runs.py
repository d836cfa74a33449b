import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trees.running import CONFIGURATIONS, CONTEXTS, KEPT, assert_same_run, killed_at, records, words

from bit_transformer import checkpoint, display, run_report, runs
from bit_transformer.checkpoint import load_checkpoint, read_content

pytestmark = pytest.mark.usefixtures("one_thread_and_no_pictures")

# Stopped, and resumed ------------------------------------------------------------------------------

MOMENTS = {
    "before the first record": (display.Display, "record", 1),
    "in an update": (torch.nn.utils, "clip_grad_norm_", 4),
    "after an update, before its record": (display.Display, "record", 7),
    "before the first checkpoint is on the disk": (checkpoint, "save", 1),
    "in the write of the first checkpoint": (os, "fsync", 4),
    "in the write of the second checkpoint": (os, "fsync", 6),
    "before the second replaces the first": (Path, "chmod", 4),
    "once it is done, before its model is kept": (runs, "report", 1),
    "in the write of its report": (run_report, "write_json", 1),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_run_that_is_killed_goes_on_to_the_same_bits(moment, whole, text, tmp_path):
    configuration = "task-a: act, reversible, bf16, plateau"
    killed_at(*moment, words(tmp_path / "run", text, **CONFIGURATIONS[configuration]))
    assert runs.main(["--resume", "--out", str(tmp_path / "run")]) == 0
    assert_same_run(tmp_path / "run", whole(configuration))


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_every_kind_of_run_goes_on_to_the_same_bits_twice(configuration, whole, text, tmp_path):
    out = tmp_path / "run"
    killed_at(torch.nn.utils, "clip_grad_norm_", 4, words(out, text, **CONFIGURATIONS[configuration]))
    killed_at(torch.nn.utils, "clip_grad_norm_", 4, ["--resume", "--out", str(out)])  # after a checkpoint of its own
    assert runs.main(["--resume", "--out", str(out)]) == 0
    assert_same_run(out, whole(configuration))
    if "int8" in configuration:
        assert (out / "model.int8.safetensors").read_bytes() == (
            whole(configuration) / "model.int8.safetensors"
        ).read_bytes()


@pytest.mark.parametrize(
    ("number", "configuration"),
    [
        (signal.SIGINT, "onecycle, dropout, extra steps, two epochs"),
        (signal.SIGTERM, "direct rows, two workers"),
    ],
    ids=["Ctrl-C", "SIGTERM, with workers"],
)
def test_a_first_ctrl_c_stops_after_the_update(configuration, number, whole, text, tmp_path, monkeypatch, capsys):
    out, drawn = tmp_path / "run", []
    monkeypatch.setattr(runs, "draw_curves", lambda *paths: drawn.append(paths))
    interrupt_at(3, number, monkeypatch)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert runs.main(words(out, text, **CONFIGURATIONS[configuration])) == 130
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert [record["step"] for record in records(out, "train")][-1] in (3, 4)
    assert drawn == [(out / "metrics.jsonl", out)]
    assert f"go on: --out {out} --resume" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(runs, "draw_curves", lambda *_: None)
    monkeypatch.setattr(runs, "draw_comparison", lambda *_: None)
    assert runs.main(["--resume", "--out", str(out)]) == 0
    assert_same_run(out, whole(configuration))


def interrupt_at(step, number, monkeypatch, times=1):
    real = display.Display.record

    def record(self, entry):
        real(self, entry)
        if entry["kind"] == "train" and entry["step"] == step:
            for process in [os.getpid()] * times + [worker.pid for worker in multiprocessing.active_children()]:
                os.kill(process, number)

    monkeypatch.setattr(display.Display, "record", record)


def test_a_second_ctrl_c_stops_at_once(text, tmp_path, monkeypatch, capsys):
    interrupt_at(5, signal.SIGINT, monkeypatch, times=2)
    assert runs.main(words(tmp_path, text)) == 130
    assert "the last checkpoint is whole" in capsys.readouterr().err
    assert read_content(tmp_path / "checkpoint.safetensors")["extra"]["progress"]["update"] == 4


def test_a_run_that_is_done_stays_as_it_is(whole, capsys):
    out = whole("task-a: act, reversible, bf16, plateau")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    assert runs.main(["--resume", "--out", str(out)]) == 0
    assert "is done: 8 updates" in capsys.readouterr().err
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()} == before


def test_a_plateaus_run_may_be_made_longer(whole, text, tmp_path):
    configuration = "task-a: act, reversible, bf16, plateau"
    shutil.copytree(whole(configuration), tmp_path / "run")
    assert runs.main(["--resume", "--out", str(tmp_path / "run"), "--max_steps", "10"]) == 0
    shape = {**CONFIGURATIONS[configuration], "max_steps": 10}
    assert runs.main(words(tmp_path / "at once", text, **shape)) == 0
    steps = [record["step"] for record in records(tmp_path / "run", "train")]
    assert steps == [record["step"] for record in records(tmp_path / "at once", "train")]
    assert load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")["extra"]["progress"]["update"] == steps[-1]
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (
        tmp_path / "at once" / "model.safetensors"
    ).read_bytes()


def test_the_number_of_workers_changes_nothing(whole, text, tmp_path):
    configuration = "direct rows, two workers"
    assert runs.main(words(tmp_path, text, **{**CONFIGURATIONS[configuration], "num_workers": 0})) == 0
    assert_same_run(tmp_path, whole(configuration))


# The gate --------------------------------------------------------------------------------------------


def test_a_gate_that_trips_ends_the_run_with_its_state_saved(text, tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(runs, "draw_curves", lambda *paths: drawn.append(paths))
    line = words(tmp_path, text, max_steps=40, eval_interval=1, loss_threshold=0.001)
    assert runs.main(line) == 1
    said = capsys.readouterr().err
    assert "the safety gate trips" in said
    assert "stopped at update 11" in said  # after ten evaluations that are let pass
    assert len(drawn) == 1
    kept = read_content(tmp_path / "checkpoint.safetensors")["extra"]["progress"]
    assert (kept["update"], kept["gate"]["tripped"]) == (11, True)
    assert records(tmp_path)[-1]["kind"] == "stop"
    assert runs.main(["--resume", "--out", str(tmp_path)]) == 1
    assert records(tmp_path)[-1] == {"kind": "stop", "step": 11, "ema": kept["gate"]["ema_val"]}


# Rates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_the_last_rate_of_onecycle_is_its_floor(steps, text, tmp_path):
    assert runs.main(words(tmp_path, text, max_steps=steps, lr=0.01, eval_interval=100)) == 0
    rates = [record["lr"] for record in records(tmp_path, "train")]
    assert len(rates) == steps
    assert rates[-1] == pytest.approx(0.01 / 25 / 1e4, abs=1e-9) or steps == 1


def test_drops_of_the_rate_are_recorded(whole):
    out = whole("task-a: act, reversible, bf16, plateau")
    drops = records(out, "drop")
    assert [drop["lr"] for drop in drops] == [0.3 / 2**count for count in range(1, len(drops) + 1)]
    assert len(drops) > 0
    after = {record["step"] - 1: record["lr"] for record in records(out, "train")}
    assert all(after.get(drop["step"], drop["lr"]) == drop["lr"] for drop in drops)
    assert [record["lr"] for record in records(out, "train")][:3] == [0.15, 0.3, 0.3]


# What a run leaves -----------------------------------------------------------------------------------


def test_a_report_of_training_for_int8_is_of_the_model_that_was_saved(text, tmp_path):
    pytest.importorskip("torchao")
    out = tmp_path / "run"
    assert runs.main(words(out, text, "task-b", chunk_size=18, overlap=9, amp="off", max_steps=2)) == 0
    values = runs.values_of(runs.run_parser(), words(tmp_path / "other", text, "task-b"))
    held_out = runs.evenly(runs.load_data(values).held_out, values["eval_rows"])
    found = runs.evaluate(load_checkpoint(out / "model.safetensors")["model"], held_out)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["evaluation"]["bpb_data"] == pytest.approx(found.bpb_data, abs=1e-9)


def test_a_run_leaves_its_flags_records_model_and_report(whole):
    out = whole("task-b: int8 aware")
    flags = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert (flags["preset"], flags["quantization"], flags["qat"], flags["layers"]) == ("task-b", "int8", True, 2)
    start, *_, last = records(out)
    assert (start["kind"], start["updates"], start["rows"]) == ("start", 6, 59)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["updates"] == 6
    assert report["evaluation"]["bpb_data"] == pytest.approx(last["bpb_data"], rel=0.05)
    assert abs(report["int8"]["bpb_data"] - last["bpb_data"]) < 0.05
    names = load_checkpoint(out / "model.int8.safetensors")["model"].state_dict()
    assert any(tensor.dtype == torch.int8 for tensor in names.values())


def test_the_model_that_is_kept_is_that_of_the_checkpoint(whole):
    out = whole("task-a: act, reversible, bf16, plateau")
    kept, state = load_checkpoint(out / "model.safetensors"), read_content(out / "checkpoint.safetensors")
    assert kept["model"].config == state["config"]
    assert all(torch.equal(tensor, state["model"][name]) for name, tensor in kept["model"].state_dict().items())
    assert {name: kept["model"].config[name] for name in ("use_act", "reversible", "chunk_size", "overlap")} == {
        "use_act": True, "reversible": True, "chunk_size": 9, "overlap": 9,
    }  # fmt: skip


def test_a_cautious_preset_wants_data_or_force(text, tmp_path, capsys):
    line = words(tmp_path / "run", text, preset="task-c", chunk_size=9, overlap=9, max_steps=1)
    assert runs.main(line) == 2
    said = capsys.readouterr().err
    assert "wants 164,380 bits to train on, 20 for each" in said
    assert "--force" in said
    assert runs.main([*line, "--force"]) == 0
    assert "retuned against task-a" in capsys.readouterr().err


# Growing ---------------------------------------------------------------------------------------------


def test_a_run_grows_from_another_and_goes_on_when_killed(whole, text, tmp_path, capsys):
    source = whole("task-a: act, reversible, bf16, plateau") / "model.safetensors"
    flags = {
        "preset": "task-c",
        "layers": 4,
        "chunk_size": 9,
        "overlap": 9,
        "max_steps": 3,
        "eval_interval": 1,
        **CONTEXTS,
    }
    line = words(tmp_path / "whole", text, grow_from=source, **flags)
    assert runs.main(line) == 2
    assert "--force" in capsys.readouterr().err
    assert runs.main([*line, "--force"]) == 0
    assert "grown from" in capsys.readouterr().err
    for count in (1, 2):  # before its first checkpoint, and after
        out = tmp_path / str(count)
        killed_at(checkpoint, "save", count, [*words(out, text, grow_from=source, **flags), "--force"])
        assert runs.main(["--resume", "--out", str(out)]) == 0
        assert_same_run(out, tmp_path / "whole")


# The command -----------------------------------------------------------------------------------------


def test_the_command_is_killed_after_a_record_and_goes_on_to_the_same_files(text, tree, tmp_path):
    line = words(tmp_path / "killed", text, preset="task-a", chunk_size=9, overlap=9, num_workers=2, tensorboard=True)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "bit_transformer.training"]
    killed = subprocess.Popen([*command, *line], cwd=tree, env=environment, stderr=subprocess.PIPE, text=True)
    with killed:
        assert any(said.startswith("5/8 loss") for said in killed.stderr)  # a line follows its record in the file
        killed.kill()
    assert killed.returncode == -signal.SIGKILL
    assert [record["step"] for record in records(tmp_path / "killed", "train")][-1] >= 5
    resume = [*command, "--resume", "--out", str(tmp_path / "killed")]
    resumed = subprocess.run(resume, cwd=tree, env=environment, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    line[line.index(str(tmp_path / "killed"))] = str(tmp_path / "whole")
    assert runs.main(line) == 0
    assert records(tmp_path / "killed") == records(tmp_path / "whole")
    for name in KEPT:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    for name in ("curves.png", "curves.svg", "comparison.png"):
        assert (tmp_path / "killed" / name).stat().st_size > 1000
    events = [path for path in (tmp_path / "whole").iterdir() if "tfevents" in path.name]
    assert len(events) == 1
    assert b"train/loss" in events[0].read_bytes()


# bfloat16 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amp", "capabilities", "is_warned"),
    [
        ("bf16", {"avx2": True, "avx512_bf16": False}, True),
        ("bf16", {"avx2": True, "avx512_bf16": True}, False),
        ("bf16", {"neon": True, "bf16": True}, False),
        ("bf16", {}, False),
        ("off", {"avx2": True}, False),
    ],
)
def test_a_cpu_that_emulates_bfloat16_is_named(amp, capabilities, is_warned, text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert runs.main(words(tmp_path / "run", text, amp=amp, max_steps=1)) == 0
    assert ("warning: --amp bf16: this CPU has no instructions" in capsys.readouterr().err) == is_warned
