"""What a turn measures, on trees that are made up: figures that stand alone, and rows that forks load otherwise."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from samples import REFERENCE
from torch import nn

from bitpatch.verify.driving import timed_runs
from bitpatch.verify.driving.seams import MissingSeam

SAMPLE = (REFERENCE / "data/sample.txt").read_bytes()


class OwnTree:
    """A tree that makes an update each epoch, and loads a text by `load`."""

    def __init__(
        self, load: Any = lambda path, length: path.read_bytes(), roles: Any = None, *, is_method: bool = False
    ):
        names = load.__code__.co_varnames[: load.__code__.co_argcount]
        part = SimpleNamespace(
            is_method=is_method, parameters=names, roles=roles or {names[0]: "data"}, load=lambda: load
        )
        self.seams = SimpleNamespace(model=lambda config: nn.Linear(config["d_model"], 2), part=lambda seam: part)
        self.given: dict[str, Any] = {}

    def model_takes(self, name: str) -> bool:
        return False

    def train(self, model: nn.Module, rows: torch.Tensor, **options: Any) -> None:
        self.given = options | {"rows": tuple(rows.shape)}
        optimizer = torch.optim.SGD(model.parameters())
        for _ in range(options["epochs"]):
            model(torch.ones(64)).sum().backward()
            optimizer.step()


@pytest.fixture(autouse=True)
def no_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(tree: Any) -> None:
        raise MissingSeam("rows", "the tree has no module wikitext_schedule")

    monkeypatch.setattr(timed_runs, "schedule", missing)
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", os.environ.get("TORCHINDUCTOR_COMPILE_THREADS", "1"))
    monkeypatch.chdir(tmp_path)


def played(tree: OwnTree, **options: Any) -> dict[str, Any]:
    return timed_runs.play(tree, options, SAMPLE)  # type: ignore[arg-type]


def test_a_turn_trains_with_the_options_of_a_task_and_loads_a_text() -> None:
    tree = OwnTree()
    found = played(tree, accum_steps=4)
    assert (set(found["figures"]), found["lacks"]) == ({"bits_per_second", "peak_mb", "start_seconds"}, {})
    assert (tree.given["accum_steps"], tree.given["compress_prob"], tree.given["rows"]) == (4, 0.0, (32, 216))


def test_a_tree_that_does_not_train_still_loads() -> None:
    tree = OwnTree()
    tree.train = lambda *_, **__: 1 / 0  # type: ignore[method-assign]
    found = played(tree)
    assert set(found["figures"]) == {"start_seconds"}
    assert found["lacks"] == dict.fromkeys(("bits_per_second", "peak_mb"), "ZeroDivisionError: division by zero")


def test_a_run_that_shows_no_two_updates_has_no_time_between_them() -> None:
    tree = OwnTree()
    tree.train = lambda *_, **__: None  # type: ignore[method-assign]
    assert "0 steps of an optimizer were seen" in played(tree)["lacks"]["bits_per_second"]


@pytest.mark.parametrize(
    "tree",
    [
        pytest.param(OwnTree(lambda self, length: [], is_method=True), id="a method"),
        pytest.param(OwnTree(lambda path: [1]), id="no length"),
        pytest.param(OwnTree(lambda path, length, split: [1]), id="more"),
        pytest.param(OwnTree(lambda length, path: [1], {"path": "data"}), id="in another order"),
    ],
)
def test_rows_that_are_asked_for_otherwise_are_not_loaded(tree: OwnTree) -> None:
    found = played(tree)
    assert set(found["figures"]) == {"bits_per_second", "peak_mb"}
    assert "no module wikitext_schedule" in found["lacks"]["start_seconds"]
