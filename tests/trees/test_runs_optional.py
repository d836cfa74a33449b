"""What a run can do without never decides whether its model and its report are kept."""

import builtins
import json
import os
import subprocess
import sys

import pytest
from trees.running import records, words

from bit_transformer import display, evaluation, runs
from bit_transformer.checkpoint import load_checkpoint

SHORT = {"max_steps": 2, "eval_interval": 1}


def fails(*_args, **_named):
    raise RuntimeError("out of ink")


def assert_kept(out):
    assert load_checkpoint(out / "model.safetensors")["model"] is not None
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["updates"] == 2
    assert report["evaluation"]["bpb_data"] > 0
    assert [record["step"] for record in records(out, "train")] == [1, 2]
    return report


@pytest.mark.usefixtures("one_thread_and_no_pictures")
@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        (runs, "require_pictures", "there will be no pictures"),
        (runs, "draw_curves", "no curves in"),
        (runs, "draw_comparison", "no picture of the comparison"),
        (runs, "comparison_table", "no table"),
        (evaluation, "given_train", "nothing beside the model in the report"),
        (display, "train_line", "the display fails, and is left out"),
        (display.Progress, "start", "the display fails, and is left out"),
        (display.Progress, "stop", "the display fails, and is left out"),
    ],
)
def test_a_part_that_fails_is_warned_of_and_the_run_goes_on(owner, name, said, text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(owner, name, fails)
    assert runs.main(words(tmp_path / "run", text, **SHORT)) == 0
    assert ("alone" in assert_kept(tmp_path / "run")) == (name != "given_train")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert [line for line in lines if said in line and line.endswith("RuntimeError: out of ink")] == lines[:1]


@pytest.mark.usefixtures("one_thread_and_no_pictures")
@pytest.mark.parametrize("name", ["add_scalar", "flush", "close"])
def test_tensorboard_that_fails_is_left_out(name, text, tmp_path, monkeypatch, capsys):
    writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter
    monkeypatch.setattr(writer, name, fails)
    assert runs.main(words(tmp_path / "run", text, tensorboard=True, **SHORT)) == 0
    assert_kept(tmp_path / "run")
    assert capsys.readouterr().err.count("warning: tensorboard fails, and is left out") == 1


@pytest.mark.usefixtures("one_thread_and_no_pictures")
def test_a_terminal_that_is_gone_does_not_end_a_run(text, tmp_path, monkeypatch):
    def gone(*_args, **_named):
        raise BrokenPipeError

    monkeypatch.setattr(display.Console, "print", gone)
    monkeypatch.setattr(builtins, "print", gone)
    assert runs.main(words(tmp_path / "run", text, **SHORT)) == 0
    assert_kept(tmp_path / "run")


def test_folders_in_the_place_of_pictures_cost_the_pictures_alone(text, tmp_path, capsys):
    out = tmp_path / "run"
    for name in ("curves.svg", "comparison.png"):
        (out / name).mkdir(parents=True)
    assert runs.main(words(out, text, **SHORT)) == 0
    assert_kept(out)
    said = capsys.readouterr().err
    assert f"warning: no curves in {out}: IsADirectoryError" in said
    assert "warning: no picture of the comparison: IsADirectoryError" in said
    assert (out / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize("hostile", [False, True], ids=["as shipped", "in a hostile environment"])
def test_the_environment_decides_nothing(hostile, text, tree, tmp_path):
    """matplotlib reads variables, a file in the working directory, and one in the user's folder, when it is imported."""
    out, here = tmp_path / "run", tmp_path / "here"
    here.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
    if hostile:
        (here / "matplotlibrc").write_text("figure.dpi: 20\nfont.size: 40\naxes.facecolor: red\ntext.usetex: True\n:::")
        (here / "config").write_text("no folder")
        environment |= {"MPLBACKEND": "nonsense", "MPLCONFIGDIR": str(here / "config"), "LC_ALL": "C", "DISPLAY": ":9"}
        environment |= {"MATPLOTLIBRC": str(here / "matplotlibrc")}
    command = [sys.executable, "-m", "bit_transformer.training", *words(out, text, **SHORT)]
    run = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert_kept(out)
    drawn = tmp_path / "drawn"
    runs.draw_curves(out / "metrics.jsonl", drawn)
    assert (out / "curves.svg").read_bytes() == (drawn / "curves.svg").read_bytes()
    assert (out / "comparison.svg").exists()
    assert "warning: " not in run.stderr
