"""Forks written by hand are whole trees: they compile, they train, and what is expected of each is said in full."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

FORKS = sorted(drive.parent for drive in Path(__file__).parent.glob("*/drive.py"))
TASKS = [f"task-{number}" for number in range(1, 13)]
STATES = {"applied", "missing", "partial", "unrecognised"}
OUTCOMES = {"applied", "already-applied", "refused"}
CPU_SECONDS = 60  # of a fork that hangs: one that works needs three, and the import of torch
LONGEST = 400

each_fork = pytest.mark.parametrize("fork", FORKS, ids=lambda fork: fork.name)


def expected(fork: Path) -> dict[str, dict[str, str]]:
    tasks = tomllib.loads((fork / "expected.toml").read_text(encoding="utf-8"))
    assert tasks.pop("description").strip()
    return tasks


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))


@each_fork
def test_every_file_compiles_and_is_read_in_one_sitting(fork: Path) -> None:
    files = sorted((fork / "tree").rglob("*.py"))
    assert files
    for file in files:
        text = file.read_text(encoding="utf-8")
        compile(text, str(file), "exec", dont_inherit=True)
        assert text.count("\n") <= LONGEST, file


@each_fork
def test_all_twelve_tasks_are_expected_in_words_that_exist(fork: Path) -> None:
    tasks = expected(fork)
    assert sorted(tasks) == sorted(TASKS)
    for name, task in tasks.items():
        assert set(task) <= {"state", "apply", "why", "obstacle"}, name
        assert task["state"] in STATES, name
        assert task["apply"] in OUTCOMES, name
        assert task["why"].strip(), name
        assert (task["apply"] == "already-applied") == (task["state"] == "applied"), name


@each_fork
def test_obstacles_are_lines_of_the_tree(fork: Path) -> None:
    for name, task in expected(fork).items():
        if "obstacle" in task:
            assert task["apply"] == "refused", name
            path, line = task["obstacle"].rsplit(":", 1)
            lines = (fork / "tree" / path).read_text(encoding="utf-8").splitlines()
            assert lines[int(line) - 1].strip(), f"{name}: {path}:{line} is a blank line"


@each_fork
def test_it_trains_for_a_few_updates(fork: Path, tmp_path: Path) -> None:
    tree = shutil.copytree(fork / "tree", tmp_path / "tree", ignore=shutil.ignore_patterns("__pycache__"))
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "SYSTEMROOT", "LD_LIBRARY_PATH"}}
    home = {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        [sys.executable, fork / "drive.py", tree],
        cwd=tmp_path,
        env=kept | home,
        capture_output=True,
        text=True,
        timeout=600,
        preexec_fn=limited,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    shown = json.loads(ran.stdout.splitlines()[-1])
    assert 3 <= shown["updates"] <= 6
    assert len(shown["losses"]) == shown["updates"]
    assert shown["final_lr"] is None or 0 < shown["final_lr"] < 1
    sums = [value for name in ("dense", "chunked") if (value := shown.get(name)) is not None]
    assert sums
    assert all(math.isfinite(value) for value in [*shown["losses"], *sums])
