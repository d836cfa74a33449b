"""Runs of two processes against runs of one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from trees.running import killed_at, records, together, words

from bit_transformer import runs
from bit_transformer.checkpoint import load_checkpoint, read_content

# 13 rows in micro-batches of 4, by threes: the last update of an epoch has one row for two processes.
SHAPE = {"dropout": 0, "accum_steps": 3, "direct_prob": 0.5, "eval_interval": 1, "max_steps": 4}
STACKS = {
    "plain": {},
    "act": {"act": True},
    "reversible": {"reversible": True},
    "task-a": {
        "act": True,
        "reversible": True,
        "chunk_size": 9,
        "overlap": 9,
        "context_orders": 2,
        "context_slots": 256,
    },
}
# Exchanges of gradients in an update: one for all, or one for the shards of each layer and one for the rest.
EXCHANGES = {"ddp": dict.fromkeys(STACKS, 1), "fsdp": {"plain": 3, "act": 3, "reversible": 1, "task-a": 1}}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(runs, "draw_curves", lambda *_: None)
    monkeypatch.setattr(runs, "draw_comparison", lambda *_: None)


@pytest.fixture(scope="module")
def text(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    # Rows of 8 bytes with long runs and with short ones: as run-length streams they differ in length.
    path.write_text("".join("\0" * (n * 5 % 9) + corpus[8 * n + n * 5 % 9 : 8 * n + 8] for n in range(14)), "utf-8")
    return path


@pytest.fixture(scope="module")
def alone(text, tmp_path_factory):
    """The folder of a run of one process."""
    folders = {}

    def folder_of(stack):
        if stack not in folders:
            folders[stack] = tmp_path_factory.mktemp("alone") / "run"
            assert runs.main(words(folders[stack], text, **SHAPE, **STACKS[stack])) == 0
        return folders[stack]

    return folder_of


def assert_same_curve(out, expected):
    found, wanted = records(out), records(expected)
    assert [(record["kind"], record.get("step")) for record in found] == [
        (record["kind"], record.get("step")) for record in wanted
    ]
    for record, other in zip(found, wanted, strict=True):
        numbers = {name: value for name, value in other.items() if isinstance(value, float)}
        assert {name: record[name] for name in numbers} == pytest.approx(numbers, rel=1e-5)
    kept, others = (load_checkpoint(folder / "model.safetensors")["model"].state_dict() for folder in (out, expected))
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-3, atol=1e-4)


def count_exchanges(path):
    """In a process of a run, write a letter to a file whenever gradients are exchanged."""

    def note():
        with path.open("a") as file:
            file.write("x")

    # What fully_shard calls, by its name in newer and in older releases of torch.
    scatter = "reduce_scatter_single" if hasattr(dist, "reduce_scatter_single") else "reduce_scatter_tensor"
    real_wrap, real_scatter = runs.wrap_model, getattr(dist, scatter)

    def wrap(*args):
        model = real_wrap(*args)
        if isinstance(model, DistributedDataParallel):
            model.register_comm_hook(None, lambda _, bucket: note() or allreduce_hook(None, bucket))
        return model

    runs.wrap_model = wrap
    setattr(dist, scatter, lambda *args, **kwargs: note() or real_scatter(*args, **kwargs))


@pytest.mark.parametrize("parallel", EXCHANGES)
@pytest.mark.parametrize("stack", STACKS)
def test_two_processes_have_the_curve_of_one(parallel, stack, alone, text, tmp_path):
    out = tmp_path / "run"
    line = words(out, text, parallel=parallel, **SHAPE, **STACKS[stack])
    assert together(line, around=lambda rank: count_exchanges(tmp_path / str(rank))) == [0, 0]
    assert_same_curve(out, alone(stack))
    for rank in range(2):
        assert (tmp_path / str(rank)).stat().st_size == EXCHANGES[parallel][stack] * SHAPE["max_steps"]
    assert {path.name for path in out.iterdir()} == {path.name for path in alone(stack).iterdir()}


def test_a_run_goes_on_with_two_processes_and_again_with_one(alone, text, tmp_path):
    out = tmp_path / "run"
    killed_at(torch.nn.utils, "clip_grad_norm_", 2, words(out, text, **SHAPE, **STACKS["task-a"]))
    resume = ["--resume", "--out", str(out)]

    def interrupt_the_second(rank):
        if rank == 1:
            real = torch.nn.utils.clip_grad_norm_
            torch.nn.utils.clip_grad_norm_ = lambda *args: os.kill(os.getpid(), signal.SIGINT) or real(*args)

    assert together([*resume, "--parallel", "fsdp"], around=interrupt_the_second) == [130, 130]
    assert read_content(out / "checkpoint.safetensors")["extra"]["progress"]["update"] == 2
    assert runs.main(resume) == 0
    assert_same_curve(out, alone("task-a"))


def test_processes_that_do_not_see_one_folder_are_told(text, tmp_path):
    out = tmp_path / "run"
    assert runs.main(words(out, text, **{**SHAPE, "max_steps": 1})) == 0
    (out / "report.json").unlink()

    def elsewhere(rank):
        if rank == 1:
            (tmp_path / "empty").mkdir()
            real = runs.kept_state
            runs.kept_state = lambda path, corpus: real(tmp_path / "empty" / path.name, corpus)

    assert 2 in together(["--resume", "--out", str(out)], around=elsewhere)


def test_torchrun_starts_a_run(alone, text, tree, tmp_path):
    out = tmp_path / "run"
    line = words(out, text, **SHAPE, **STACKS["plain"])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, "-m", "bit_transformer.training", *line], cwd=tree, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert_same_curve(out, alone("plain"))
    assert sum(said.startswith("4/4 loss") for said in done.stderr.splitlines()) == 1
    assert not Path(tree, "runs").exists()
