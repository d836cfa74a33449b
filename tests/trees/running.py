"""Runs of the smallest size, started in this process, or in others that may be killed.

Importing this skips a test file on a tree that lacks patches: there no run can start.
"""

import json
import os
import signal
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from bit_transformer import training

if not hasattr(training, "accumulation_groups") or not hasattr(training, "autocast"):
    pytest.skip("a run needs every patch of training.py", allow_module_level=True)

from bit_transformer import runs

SMALL = {
    "layers": 2,
    "d_model": 16,
    "nhead": 2,
    "max_seq_len": 72,
    "batch_size": 4,
    "accum_steps": 2,
    "max_steps": 8,
    "eval_interval": 2,
    "eval_rows": 3,
    "log_interval": 1,
    "warmup_steps": 4,
}
KEPT = ("checkpoint.safetensors", "model.safetensors", "report.json")
TIMES = ("bits_per_second", "seconds_left")

CONTEXTS = {"context_orders": 2, "context_slots": 256}
CONFIGURATIONS = {
    "onecycle, dropout, extra steps, two epochs": {
        "max_steps": None, "epochs": 2, "extra_steps": 1, "batch_size": 8, "accum_steps": 3, "dropout": 0.3,
    },
    "task-a: act, reversible, bf16, plateau": {
        "preset": "task-a", "chunk_size": 9, "overlap": 9, "lr_warmup": 2, "patience": 1, "lr": 0.3,
        **CONTEXTS,
    },
    "task-b: int8 aware": {
        "preset": "task-b", "chunk_size": 18, "overlap": 9, "max_steps": 6, "compress_prob": 0.9, **CONTEXTS,
    },
    "direct rows, two workers": {"direct_prob": 0.5, "num_workers": 2, "checkpointing": True},
}  # fmt: skip


def words(out, data, preset=None, **flags):
    """The command line of a small run: lists are given again and again, None leaves a flag out."""
    line = [preset] if preset else []
    for name, value in {**SMALL, "data": data, "out": out, **flags}.items():
        for item in value if isinstance(value, list) else [value]:
            line += [] if item is None else [f"--{name}"] if item is True else [f"--{name}", str(item)]
    return line


def records(out, kind=None):
    """The records of a run, but for what tells the time."""
    lines = map(json.loads, Path(out, "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    kept = [{name: value for name, value in line.items() if name not in TIMES} for line in lines]
    return [record for record in kept if kind in (None, record["kind"])]


def assert_same_run(out, expected):
    for name in KEPT:
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name
    assert records(out) == records(expected)
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [".lock"]


def forked(work):
    """Start a process that does some work; return its id. What the work returns is its exit status."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # no thread of this process holds a lock
        child = os.fork()
    if child:
        return child
    status = 99
    try:
        torch.set_num_threads(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        status = work()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.__stdout__, flush=True)
    finally:
        os._exit(status)


def killed_at(owner, name, count, line):
    """Start a run, and kill it when it calls a function for so manieth time."""
    calls = iter(range(1, count))

    def work():
        real = getattr(owner, name)

        def counting(*args, **kwargs):
            if next(calls, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        setattr(owner, name, counting)
        return runs.main(line)

    _, status = os.waitpid(forked(work), 0)
    assert os.WIFSIGNALED(status), f"the run ended with {os.waitstatus_to_exitcode(status)} before call {count}"


def together(line, count=2, around=None):
    """Start a run of several processes; return their exit statuses. `around` is called in each before it starts."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    announced = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": "True"}

    def process(rank):
        def work():
            here = {**announced, "WORLD_SIZE": count, "RANK": rank, "LOCAL_RANK": rank}
            os.environ.update({name: str(value) for name, value in here.items()})
            if around is not None:
                around(rank)
            return runs.main(line)

        return forked(work)

    children = [process(rank) for rank in range(count)]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
