"""What a call may leave behind, and what it holds."""

import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bitpatch.verify.driving.world import differences, held_tensors, settings, started_processes, streams

CHANGES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "the default dtype": (
        lambda: torch.set_default_dtype(torch.float64),
        lambda: torch.set_default_dtype(torch.float32),
    ),
    "the filters of warnings": (lambda: warnings.simplefilter("ignore"), lambda: warnings.filters.pop(0)),  # type: ignore[attr-defined]
    "the environment": (lambda: os.environ.update(OF_A_TEST="1"), lambda: os.environ.pop("OF_A_TEST")),
    "the files that are here": (lambda: Path("left.txt").touch(), lambda: Path("left.txt").unlink()),
    "whether gradients are made": (lambda: torch.set_grad_enabled(False), lambda: torch.set_grad_enabled(True)),
}


def test_settings_are_the_same_where_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert differences(settings(), settings()) == []


@pytest.mark.parametrize("name", CHANGES)
def test_settings_tell_what_is_left(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    change, undo = CHANGES[name]
    before = settings()
    change()
    try:
        assert differences(before, settings()) == [name]
    finally:
        undo()


def test_streams_tell_which_was_drawn_from() -> None:
    before = streams()
    random.random()
    assert differences(before, streams()) == ["random"]


def test_held_tensors_are_counted_by_their_memory_and_their_graphs() -> None:
    large, figures = held_tensors()
    kept = torch.ones(100)
    views = [kept[1:], kept.view(10, 10)]
    graph = torch.ones((), requires_grad=True) * 2
    assert held_tensors() == (large + 1, figures + 1), (views, graph)


def test_no_process_is_started_by_nothing() -> None:
    with started_processes() as started:
        pass
    assert started == []
