"""Forks that have drifted: other names, other files, other layout, other idioms."""

import re
import subprocess
import sys

import pytest
from samples import contents

from bitpatch.patches.applying.engine import plan, status
from bitpatch.patches.known import all_tasks
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import State
from bitpatch.verify.running.runner import Zygote, verify

MODEL, TRAINING = "bit_transformer/model.py", "bit_transformer/training.py"


def edit(tree, path, *pairs):
    file = tree / path
    text = file.read_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text)


def rename(tree, path, **names):
    file = tree / path
    text = file.read_text()
    for old, new in names.items():
        text = re.sub(rf"(?<![\w.\"-]){old}(?![\w\"])", new, text)
    file.write_text(text)


def other_names(tree):
    rename(tree, MODEL, T="seq_len", future="causal_mask", hidden="blocked", canvas="full_map", chunk="size", s="begin")
    edit(tree, MODEL, ("-T % size", "-seq_len % size"))
    rename(tree, TRAINING, batch="rows", loss="objective", optimizer="opt", scheduler="sched", total_updates="total")


def other_imports(tree):
    rename(tree, MODEL, torch="th", F="fn")
    edit(
        tree,
        MODEL,
        (
            "import th\nimport th.nn.functional as fn\nfrom th import Tensor, nn\nfrom th.utils",
            "import torch as th\nfrom torch import Tensor, nn\nimport torch.nn as neural\nfrom torch.utils",
        ),
    )
    edit(tree, MODEL, ("from . import scale\n", "from . import scale\n\nfn = neural.functional\n"))


def other_layout(tree):
    for path in (MODEL, TRAINING):
        command = [
            sys.executable,
            "-m",
            "ruff",
            "format",
            "--isolated",
            "--line-length",
            "79",
            "--config",
            "format.quote-style='single'",
            str(tree / path),
        ]
        subprocess.run(command, check=True, capture_output=True)


def attention_in_a_file_of_its_own(tree):
    text = (tree / MODEL).read_text()
    start, end = text.index("class SelfAttention"), text.index("class TransformerLayer")
    head = text[: text.index("from . import scale")]
    (tree / "bit_transformer/attention.py").write_text(head + "\n" + text[start:end].rstrip() + "\n")
    (tree / MODEL).write_text(
        text[:start].replace("from .compression", "from .attention import SelfAttention\nfrom .compression")
        + text[end:]
    )


def training_at_the_root(tree):
    text = (tree / TRAINING).read_text()
    (tree / TRAINING).unlink()
    (tree / "train.py").write_text(re.sub(r"from \.(\w+)", r"from bit_transformer.\1", text))
    for path in ("data/wikitext_schedule.py", "dashboard/manager.py"):
        edit(tree, path, ("from bit_transformer.training import", "from train import"))


def zeroing_first(tree):
    edit(
        tree,
        TRAINING,
        ("            optimizer.zero_grad()\n", ""),
        (
            "            batch = batch.to",
            "            optimizer.zero_grad(set_to_none=True)\n            batch = batch.to",
        ),
    )


def counted_loop(tree):
    edit(
        tree,
        TRAINING,
        ("for batch in with_extra", "for step, batch in enumerate(with_extra"),
        ("extra_steps):\n            batch", "extra_steps)):\n            batch"),
    )


def other_masks(tree):
    edit(
        tree,
        MODEL,
        (
            "torch.triu(torch.ones(T, T, dtype=torch.bool, device=q.device), diagonal=1)",
            "torch.ones((T, T), device=q.device).triu(1).bool()",
        ),
        (
            "torch.triu(torch.ones(width, width, dtype=torch.bool, device=q.device), diagonal=1)",
            "~torch.tril(torch.ones(width, width, dtype=torch.bool, device=q.device))",
        ),
    )


def sliced_columns(tree):
    edit(
        tree,
        MODEL,
        ("canvas[:, :, s:end, columns]", "canvas[:, :, s:end, start:end]"),
        ("            columns = torch.arange(start, end, device=weights.device)\n", ""),
    )


def own_parser(tree):
    edit(tree, TRAINING, ("parser", "cli"), ("args.", "options."), ("    args = ", "    options = "))


def extra_code(tree):
    edit(
        tree,
        MODEL,
        (
            "class SelfAttention",
            "def helper():\n    return 1\n\n\n@helper\nclass Unrelated:\n    pass\n\n\nclass SelfAttention",
        ),
    )
    edit(
        tree,
        TRAINING,
        (
            "    log: bool = False,\n",
            "    log: bool = False,  # print each epoch\n    wandb_project: str | None = None,\n",
        ),
    )


FORKS = [other_names, other_imports, other_layout, attention_in_a_file_of_its_own, training_at_the_root, zeroing_first]
FORKS += [counted_loop, other_masks, sliced_columns, own_parser, extra_code]


@pytest.mark.parametrize("fork", FORKS, ids=lambda fork: fork.__name__.replace("_", " "))
def test_all_tasks_apply_once_and_compile(tree, patched, fork):
    fork(tree)
    before = contents(tree)
    patched(tree, *(task.id for task in all_tasks()))
    once = contents(tree)
    assert [found.state for found in status(open_tree(tree), all_tasks())] == [State.APPLIED] * len(all_tasks())
    assert plan(open_tree(tree), all_tasks()).changes == ()
    for path in [path for path in once if path.endswith(".py")]:
        compile(once[path], path, "exec")
    changed = {path for path in once if once[path] != before[path]}
    assert 5 <= len(changed) <= 6


@pytest.mark.parametrize("fork", FORKS, ids=lambda fork: fork.__name__.replace("_", " "))
def test_each_task_of_a_fork_in_either_order(tree, patched, fork, tmp_path):
    import shutil

    fork(tree)
    other = shutil.copytree(tree, tmp_path / "other")
    for name in ("task-11", "task-10", "task-4"):
        patched(tree, name)
    for name in ("task-4", "task-10", "task-11"):
        patched(other, name)
    assert contents(tree) == contents(other)


def test_a_fork_drifted_in_many_ways_is_verified_once_patched(tree, patched):
    for fork in (counted_loop, zeroing_first, other_masks, sliced_columns, own_parser, other_imports, other_layout):
        fork(tree)
    patched(tree, *(task.id for task in all_tasks()))
    with Zygote() as zygote:
        report = verify(tree, [1, 4, 9, 10, 11], zygote=zygote, jobs=2)
    checks = [check for task in report.tasks for check in task.checks]
    failed = [check for check in checks if check.evidence.verdict != "pass"]
    assert [f"{check.name}: {check.evidence.verdict}: {check.evidence.detail}" for check in failed] == []
    assert len(checks) > 30
