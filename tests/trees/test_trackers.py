"""What --report_to sends, to packages that stand in for the real ones, and that none of them costs a run anything."""

import json
import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
from trees.running import SMALL, killed_at, records, together, words

from bit_transformer import checkpoint, runs
from bit_transformer.run_flags import TRACKERS, run_parser, values_of
from bit_transformer.trackers import asked_for

SHORT = {"max_steps": 4, "eval_interval": 2}
VARIABLES = ("WANDB_DIR", "WANDB_NAME", "WANDB_RUN_ID", "MLFLOW_RUN_NAME")
FIGURES = {
    "train": {"loss", "lr", "bits_per_second", "compress_prob"},
    "eval": {"loss", "bpb_data", "parity_waste"},
}
pytestmark = pytest.mark.usefixtures("one_thread_and_no_pictures")


class Wandb(ModuleType):
    """What is called of wandb, as the real one takes it, and a note of each call."""

    def __init__(self, name="wandb"):
        super().__init__(name)
        self.said, self.begun = [], 0

    def init(self, *, config, allow_val_change, **named):
        self.begun += 1
        known = named.pop("id")
        self.said.append(("init", known, config))
        self.asked = named
        return SimpleNamespace(
            id=known or f"run-{self.begun}",
            define_metric=lambda name, step_metric: self.said.append(("axis", name, step_metric)),
            log=lambda figures: self.said.append(("log", figures)),
            finish=lambda exit_code: self.said.append(("finish", exit_code)),
        )

    def sent(self):
        return [(each[1]["update"], each[1]) for each in self.said if each[0] == "log"]


class Mlflow(ModuleType):
    """The same of mlflow."""

    def __init__(self, name="mlflow"):
        super().__init__(name)
        self.said, self.begun = [], 0

    def start_run(self, run_id=None, run_name=None):
        self.begun += 1
        self.said.append(("start", run_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or f"run-{self.begun}"))

    def log_params(self, params):
        self.said.append(("params", params))

    def log_metrics(self, figures, step):
        self.said.append(("log", step, figures))

    def end_run(self, status):
        self.said.append(("end", status))

    def sent(self):
        return [each[1:] for each in self.said if each[0] == "log"]


MADE = {"wandb": Wandb, "mlflow": Mlflow}
each_package = pytest.mark.parametrize("name", MADE)


@pytest.fixture
def packages(monkeypatch):
    made = {name: kind() for name, kind in MADE.items()}
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return made


def fails(*_args, **_named):
    raise RuntimeError("out of reach")


def ids(out):
    return json.loads((out / "trackers.json").read_text(encoding="utf-8"))


@each_package
def test_every_figure_of_a_run_is_sent_and_nothing_before_the_first_update_but_the_flags(
    name, packages, text, tmp_path
):
    out, package = tmp_path / "run", packages[name]
    assert runs.main(words(out, text, report_to=name, **SHORT)) == 0
    had = [record for record in records(out) if record["kind"] in FIGURES]
    assert [step for step, _ in package.sent()] == [record["step"] for record in had] != []
    for record, (_, figures) in zip(had, package.sent(), strict=True):
        kind = record["kind"]
        assert {key for key in figures if key != "update"} == {f"{kind}/{figure}" for figure in FIGURES[kind]}
        assert figures[f"{kind}/loss"] == record["loss"]
    begin = 2  # what is said before the first figures: begin, and the axis or the flags
    assert [each[0] for each in package.said[:begin]] == {
        "wandb": ["init", "axis"],
        "mlflow": ["start", "params"],
    }[name]
    told = package.said[0][2] if name == "wandb" else package.said[1][1]
    assert {flag: str(told[flag]) for flag in SMALL if flag not in SHORT} == {
        flag: str(value) for flag, value in SMALL.items() if flag not in SHORT
    }
    assert json.dumps(told)
    assert ids(out) == {name: "run-1"}
    assert package.said[-1] == {"wandb": ("finish", 0), "mlflow": ("end", "FINISHED")}[name]


@each_package
@pytest.mark.parametrize("count", [1, 2], ids=["before its first checkpoint", "after it"])
def test_a_run_goes_on_under_its_id(name, count, packages, text, tmp_path):
    out, package = tmp_path / "run", packages[name]
    killed_at(checkpoint, "save", count, words(out, text, report_to=name, **SHORT))  # in a process of its own
    assert ids(out) == {name: "run-1"}
    package.begun = 5
    assert runs.main(["--resume", "--out", str(out)]) == 0
    assert package.said[0][:2] == {"wandb": ("init", "run-1"), "mlflow": ("start", "run-1")}[name]
    assert ids(out) == {name: "run-1"}
    assert [each for each in package.said if each[0] == "params"] == []  # MLflow takes none twice
    assert package.sent()[0][0] == 2 * count - 1  # the first update after the checkpoint


@each_package
def test_a_run_that_starts_anew_in_a_folder_is_another_run(name, packages, text, tmp_path):
    out = tmp_path / "run"
    killed_at(checkpoint, "save", 1, words(out, text, report_to=name, **SHORT))
    assert runs.main(words(out, text, report_to=name, layers=1, **{**SHORT, "max_steps": 2})) == 0
    assert packages[name].said[0][1] is None


@each_package
def test_ids_that_cannot_be_read_make_another_run(name, packages, text, tmp_path):
    out = tmp_path / "run"
    killed_at(checkpoint, "save", 2, words(out, text, report_to=name, **SHORT))
    (out / "trackers.json").write_text("[]")
    assert runs.main(["--resume", "--out", str(out)]) == 0
    assert packages[name].said[0][1] is None
    assert ids(out) == {name: "run-1"}


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("wandb", "init"), ("wandb", "log"), ("wandb", "finish"), ("mlflow", "start_run"),
        ("mlflow", "log_params"), ("mlflow", "log_metrics"), ("mlflow", "end_run"),
    ],
)  # fmt: skip
def test_what_fails_is_left_out_with_one_warning_and_the_other_goes_on(
    name, part, packages, text, tmp_path, monkeypatch, capsys
):
    package, (other,) = packages[name], packages.keys() - {name}
    if hasattr(package, part):
        monkeypatch.setattr(package, part, fails)
    else:
        real = package.init
        monkeypatch.setattr(package, "init", lambda **named: SimpleNamespace(**{**vars(real(**named)), part: fails}))
    out = tmp_path / "run"
    assert runs.main(words(out, text, report_to=list(MADE), **SHORT)) == 0
    said = capsys.readouterr().err
    assert said.count("out of reach") == said.count(f"warning: {name} fails, and is left out: RuntimeError") == 1
    assert json.loads((out / "report.json").read_text())["updates"] == 4
    assert [step for step, _ in packages[other].sent()] == [1, 2, 2, 3, 4, 4]


@each_package
def test_a_run_that_is_stopped_is_not_told_to_be_done(name, packages, text, tmp_path, monkeypatch):
    def trips(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", trips)
    assert runs.main(words(tmp_path / "run", text, report_to=name, **SHORT)) == 130
    assert packages[name].said[-1] == {"wandb": ("finish", 1), "mlflow": ("end", "KILLED")}[name]


@each_package
@pytest.mark.parametrize("is_folder", [False, True], ids=["not installed", "a folder of its name"])
def test_a_missing_package_is_named_before_any_text_is_read(
    name, is_folder, packages, text, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, name, ModuleType(name) if is_folder else None)
    monkeypatch.setattr(runs, "load_data", fails)
    assert runs.main(words(tmp_path / "run", text, report_to=name, **SHORT)) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: --report_to {name} needs the package {name}: pip install {name}"
    )
    assert not (tmp_path / "run").exists()


@each_package
def test_of_several_processes_one_sends(name, packages, text, tmp_path):
    def around(rank):
        if rank:
            packages[name].init = packages[name].start_run = lambda **_: os._exit(9)

    assert together(words(tmp_path / "run", text, report_to=name, **SHORT), around=around) == [0, 0]
    assert ids(tmp_path / "run") == {name: "run-1"}


def test_the_packages_variables_win(packages, text, tmp_path, monkeypatch):
    line = words(tmp_path / "run", text, report_to=list(MADE), **SHORT)
    assert runs.main(line) == 0
    plain = {
        "resume": "allow",
        "name": "run",
        "dir": str(tmp_path / "run"),
        "save_code": False,
        "settings": {"console": "off"},
    }
    assert packages["wandb"].asked == plain
    assert packages["mlflow"].said[0] == ("start", None, "run")
    for name in VARIABLES:
        monkeypatch.setenv(name, f"my {name}")
    line[line.index(str(tmp_path / "run"))] = str(tmp_path / "other")
    assert runs.main(line) == 0
    assert packages["wandb"].asked == {**plain, "name": "my WANDB_NAME", "dir": "my WANDB_DIR"}
    assert ids(tmp_path / "other")["wandb"] == "my WANDB_RUN_ID"
    assert ("start", None, "my MLFLOW_RUN_NAME") in packages["mlflow"].said


@pytest.mark.parametrize("flag", ["--tensorboard", "--report_to=tensorboard"])
def test_tensorboard_gets_the_scalars(flag, text, tmp_path):
    pytest.importorskip("tensorboard")
    assert runs.main([*words(tmp_path / "run", text, **SHORT), flag]) == 0
    (events,) = (tmp_path / "run").glob("*tfevents*")
    names = ("train/loss", "train/lr", "train/bits_per_second", "eval/bpb_data", "eval/parity_waste")
    assert [name for name in names if name.encode() not in events.read_bytes()] == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", ()),
        ("--tensorboard --report_to tensorboard", ("tensorboard",)),
        ("--report_to mlflow --report_to wandb --report_to mlflow", ("mlflow", "wandb")),
        ("--tensorboard --report_to wandb", ("tensorboard", "wandb")),
    ],
)
def test_trackers_are_those_that_are_named_each_once(line, expected, tmp_path):
    assert asked_for(values_of(run_parser(), [*line.split(), "--out", str(tmp_path / "no")])) == expected
    assert set(expected) <= set(TRACKERS)


def test_a_run_that_goes_on_may_begin_to_send(packages, text, tmp_path):
    out = tmp_path / "run"
    killed_at(checkpoint, "save", 2, words(out, text, **SHORT))
    assert runs.main(["--resume", "--out", str(out), "--report_to", "wandb"]) == 0
    assert packages["wandb"].sent()[0][0] == 3
