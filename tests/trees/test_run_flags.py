import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trees import running  # noqa: F401 - skips this file where it cannot run

from bit_transformer.presets import PRESETS
from bit_transformer.run_flags import RunError, jsonable, kept_values, run_parser, values_of

OF_RUNS = [
    "layers",
    "d_model",
    "nhead",
    "causal",
    "chunk_size",
    "act",
    "reversible",
    "checkpointing",
    "batch_size",
    "accum_steps",
    "amp",
    "lr_schedule",
    "full_attn_logging",
    "quantization",
    "qat",
    "data",
    "dataset",
    "out",
    "seed",
    "device",
    "epochs",
    "max_steps",
    "eval_interval",
    "max_seq_len",
    "overlap",
    "num_workers",
    "compile",
    "resume",
    "force",
]
SWITCHES = ["causal", "act", "reversible", "checkpointing", "full_attn_logging", "qat"]


def values(*words, out="no/such/folder"):
    return values_of(run_parser(), [*map(str, words), "--out", str(out)])


def refused(*words, **kept):
    with pytest.raises(RunError) as caught:
        values(*words, **kept)
    return str(caught.value)


@pytest.mark.parametrize("name", OF_RUNS)
def test_the_flag_exists(name):
    options = {option for action in run_parser()._actions for option in action.option_strings}
    assert f"--{name}" in options


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_its_flags_and_nothing_else(preset):
    found, without = values(preset), values()
    assert {name: found[name] for name in PRESETS[preset].values} == PRESETS[preset].values
    rest = found.keys() - PRESETS[preset].values.keys() - {"preset"}
    assert {name: found[name] for name in rest} == {name: without[name] for name in rest}


def test_the_presets_are_those_of_phase_two():
    shape = {"layers", "d_model", "nhead", "chunk_size", "batch_size", "accum_steps", "amp", "act", "reversible"}
    shape |= {"quantization", "qat", "lr_schedule", "checkpointing", "causal", "full_attn_logging"}
    expected = {
        "task-a": (8, 256, 8, 128, 64, 2, "bf16", True, True, "none", False, "progressive_plateau", True, True, False),
        "task-b": (8, 128, 8, 128, 128, 1, "bf16", False, True, "int8", True, "onecycle", True, True, None),
        "task-c": (16, 256, 8, 128, 48, 3, "bf16", True, True, "none", False, "progressive_plateau", True, True, False),
    }
    order = "layers d_model nhead chunk_size batch_size accum_steps amp act reversible quantization qat lr_schedule"
    order = [*order.split(), "checkpointing", "causal", "full_attn_logging"]
    assert shape == set(order)
    assert {name: tuple(values(name)[flag] for flag in order) for name in PRESETS} == expected


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_flag_overrides_a_preset(place):
    line = ["--layers", "3", "--act", "false", "--no-reversible"]
    line = [*line, "task-a"] if place == "before" else ["task-a", *line]
    found = values(*line)
    assert (found["layers"], found["act"], found["reversible"], found["d_model"]) == (3, False, False, 256)


@pytest.mark.parametrize("name", [name for name in SWITCHES if name != "causal"])
@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("--{}", True),
        ("--{} true", True),
        ("--{} True", True),
        ("--{}=true", True),
        ("--{} false", False),
        ("--{}=False", False),
        ("--no-{}", False),
    ],
)
def test_a_switch_has_every_form(name, form, expected):
    assert values(*form.format(name).split(), "--quantization", "int8")[name] is expected


@pytest.mark.parametrize("name", ["compile", "force", "tensorboard"])
def test_a_flag_that_only_says_yes_may_be_told_no(name):
    assert values(f"--{name}", "true")[name] is True
    assert values(f"--{name}", "false")[name] is values(f"--{name}=false")[name] is False
    assert values()[name] is False


def test_a_file_called_true_is_no_switch():
    assert values("--data", "true")["data"] == values("--data=true")["data"] == [Path("true")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--layers 0", "--layers must be at least 1, got 0"),
        ("--batch_size -1", "--batch_size must be at least 1"),
        ("--accum_steps 0", "--accum_steps must be at least 1"),
        ("--max_seq_len 8", "--max_seq_len must be at least 9"),
        ("--chunk_size 0", "--chunk_size must be at least 1"),
        ("--overlap -1", "--overlap must be at least 0"),
        ("--num_workers -1", "--num_workers must be at least 0"),
        ("--max_steps 0", "--max_steps must be at least 1"),
        ("--epochs 0", "--epochs must be at least 1"),
        ("--extra_steps -1", "--extra_steps must be at least 0"),
        ("--eval_interval 0", "--eval_interval must be at least 1"),
        ("--patience 0", "--patience must be at least 1"),
        ("--d_model 30 --nhead 4", "--d_model must be a multiple of --nhead, got 30 and 4: try --nhead 2"),
        ("--lr 0", "--lr must be greater than 0"),
        ("--lr nan", "--lr must be a finite number"),
        ("--lr inf", "--lr must be a finite number"),
        ("--weight_decay -1", "--weight_decay must be a finite number, 0 or more"),
        ("--lr_floor nan", "--lr_floor must be a finite number"),
        ("--compress_prob 1.1", "--compress_prob must be a probability in 0..1"),
        ("--direct_prob -0.1", "--direct_prob must be a probability"),
        ("--dropout 1", "--dropout must be a probability below 1"),
        ("--seed -1", "--seed must be in 0..2**63 - 1"),
        ("--seed 18446744073709551616", "--seed must be in 0..2**63 - 1"),
        ("--epochs 2 --max_steps 3", "--epochs and --max_steps both say"),
        ("--data a --dataset b", "--data and --dataset both say"),
        ("--qat", "--qat trains for INT8: add --quantization int8"),
        ("--no-causal", "--no-causal: a model that sees the bits it predicts"),
        ("--causal false", "--no-causal: a model that sees the bits it predicts"),
        ("--device tpu", "--device must be cpu, cuda or cuda:1, got 'tpu'"),
        ("--device cpu:x", "--device must be cpu"),
        ("--device cuda:99", "--device cuda:99 is not there"),
    ],
)
def test_a_bad_value_names_the_flag_and_the_mend(line, expected):
    assert expected in refused(*line.split())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--layers two", "argument --layers: invalid int value: 'two'"),
        ("--amp fp16", "argument --amp: invalid choice: 'fp16' (choose from"),
        ("--lr_schedule cosine", "argument --lr_schedule: invalid choice"),
        ("--quantization int4", "argument --quantization: invalid choice"),
        ("--parallel pipeline", "argument --parallel: invalid choice"),
        ("task-d", "invalid choice: 'task-d' (choose from"),
        ("--lay 3 --batch-size 4", "there is no flag --batch-size: did you mean --batch_size?"),
        ("--xyz=4", "there is no flag --xyz; see --help"),
        ("--act maybe", "invalid choice: 'maybe'"),
    ],
)
def test_a_word_that_is_no_value_is_refused_as_usage(line, expected, capsys):
    with pytest.raises(SystemExit) as caught:
        values(*line.split())
    assert caught.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_named():
    assert "this machine shows 0 GPUs; cpu always is" in refused("--device", "cuda")


def test_a_gpu_by_number_is_refused_under_torchrun(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "torchrun, which deals the GPUs out" in refused("--device", "cuda:1")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--overlap 9", "--overlap does nothing without --chunk_size"),
        ("--patience 2", "--patience does nothing without --lr_schedule progressive_plateau"),
        ("--compile_policy table", "--compile_policy does nothing without --compile"),
        ("--overlap 9 --chunk_size 18", None),
        ("task-a --patience 2", None),
        ("task-b", None),
    ],
)
def test_a_flag_that_does_nothing_is_warned_of(line, expected, capsys):
    values(*line.split())
    said = capsys.readouterr().err
    assert said == (f"warning: {expected}\n" if expected else "")


def test_the_folder_is_named_after_the_preset():
    assert values_of(run_parser(), ["task-b"])["out"] == Path("runs/task-b")


# A file of flags ------------------------------------------------------------------------------------


def config(tmp_path, text):
    (tmp_path / "run.toml").write_text(text)
    return tmp_path / "run.toml"


def test_a_file_of_flags_is_over_the_preset_and_under_what_is_given(tmp_path):
    file = config(tmp_path, 'preset = "task-b"\nlr = 0.5\nseed = 7\n\n[data]\ndata = ["a.txt", "b.txt"]\nact = false\n')
    found = values("--config", file, "--seed", 8)
    assert (found["preset"], found["lr"], found["seed"], found["act"]) == ("task-b", 0.5, 8, False)
    assert found["data"] == [Path("a.txt"), Path("b.txt")]
    assert found["quantization"] == PRESETS["task-b"].values["quantization"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("lr = ", "Invalid value", id="no TOML"),
        pytest.param("learning_rate = 1.0", "there is no flag learning_rate", id="no flag"),
        pytest.param("batch_siz = 1", "did you mean batch_size?", id="nearly a flag"),
        pytest.param('lr = "fast"', "invalid float value: 'fast'", id="another type"),
        pytest.param("resume = true", "there is no flag resume", id="what a file is not to say"),
        pytest.param("lr = -1.0", "--lr must be", id="no sound value"),
        pytest.param("[a.b]\nlr = 1.0", "there is no flag b", id="tables in tables"),
    ],
)
def test_a_file_that_is_no_file_of_flags_is_refused_by_its_name(tmp_path, text, why):
    assert why in refused("--config", config(tmp_path, text))


def test_a_file_of_flags_that_is_not_there_is_named(tmp_path):
    assert f"--config {tmp_path / 'none.toml'}: No such file" in refused("--config", tmp_path / "none.toml")


# Going on --------------------------------------------------------------------------------------------


def keep(folder, *words):
    found = values(*words, out=folder)
    (folder / "run.json").write_text(json.dumps({name: jsonable(value) for name, value in found.items()}))
    return found


@given(
    st.sampled_from([[], ["task-a"], ["task-b"], ["task-c"]]),
    st.sampled_from([[], ["--no-act"], ["--full_attn_logging"], ["--compile", "--force"]]),
    st.sampled_from([[], ["--data", "a b.txt", "--data=-c.txt"], ["--dataset", "x:y"], ["--grow_from=-x"]]),
    st.sampled_from([[], ["--lr", "1e-05"], ["--max_steps", "7"], ["--device", "cpu", "--seed", "5"]]),
)
def test_the_flags_that_are_kept_come_back(tmp_path_factory, preset, switches, source, numbers):
    folder = tmp_path_factory.mktemp("run")
    found = keep(folder, *preset, *switches, *source, *numbers)
    assert kept_values(folder / "run.json") == found
    assert values("--resume", out=folder) == {**found, "resume": True}


def test_what_may_change_may_and_what_may_not_is_named(tmp_path):
    keep(tmp_path, "task-b", "--max_steps", 5)
    free = values("--resume", "--num_workers", 2, "--device", "cpu", "--data", "moved.txt", out=tmp_path)
    assert (free["num_workers"], free["device"], free["data"]) == (2, "cpu", [Path("moved.txt")])
    assert "--lr is 0.002 in the run in" in refused("--resume", "--lr", 0.1, out=tmp_path)
    assert "--max_steps is 5" in refused("--resume", "--max_steps", 9, out=tmp_path)
    assert refused("--resume", "task-a", out=tmp_path).startswith("preset is task-b")
    assert values("--resume", "task-b", "--lr", 0.002, "--qat", out=tmp_path)["max_steps"] == 5


def test_a_plateaus_length_may_change_in_either_measure(tmp_path):
    keep(tmp_path, "task-a", "--max_steps", 5)
    assert values("--resume", "--max_steps", 9, out=tmp_path)["max_steps"] == 9
    longer = values("--resume", "--epochs", 4, out=tmp_path)
    assert (longer["epochs"], longer["max_steps"]) == (4, None)


def test_a_folder_without_a_run_and_one_with_a_run_are_told_apart(tmp_path):
    assert "holds no run; start one without --resume" in refused("--resume", out=tmp_path)
    keep(tmp_path)
    assert values(out=tmp_path)["resume"] is False  # stopped before its first checkpoint: it starts again
    (tmp_path / "checkpoint.safetensors").touch()
    assert "add --resume to go on with it, or name another folder" in refused(out=tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff\xfe", b"[1]", b"null", b'{"layers": "two"}', b'{"layers": []}x', b'{"amp": "fp8"}',
        b'{"preset": "task-z"}', b'{"preset": {"a": 1}}', b'{"no_such_flag": 1}', b'{"lr": [1]}junk',
    ],
)  # fmt: skip
def test_a_damaged_run_json_is_named(content, tmp_path):
    (tmp_path / "run.json").write_bytes(content)
    said = refused("--resume", out=tmp_path)
    assert f"{tmp_path / 'run.json'} is damaged" in said
    assert "start anew in another folder" in said


def test_a_run_json_with_a_value_out_of_bounds_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"layers": 0}')
    assert "--layers must be at least 1" in refused("--resume", out=tmp_path)
