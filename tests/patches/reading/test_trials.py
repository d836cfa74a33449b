"""Runs that are tried: which options are epochs, extra steps and sizes, and whether the total is what is made."""

import shutil
from pathlib import Path

import pytest
from samples import BASELINE, FORKS, REFERENCE

from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.reading.trials import trials, updates


@pytest.mark.parametrize(
    ("tree", "start", "roles", "is_counted"),
    [
        (BASELINE, "train_loop", {"epochs": "epochs", "extra": "extra_steps"}, False),
        (
            REFERENCE,
            "train_loop",
            {"epochs": "epochs", "extra": "extra_steps", "accumulated": "accum_steps", "size": "batch_size"},
            True,
        ),
        (
            FORKS / "byhand/tree",
            "train_loop",
            {"epochs": "epochs", "extra": "extra_steps", "accumulated": "accum_steps", "size": "batch_size"},
            False,
        ),
        (
            FORKS / "upstream_like/tree",
            "train_loop",
            {"epochs": "epochs", "extra": "extra_steps", "accumulated": "accum_steps", "size": "batch_size"},
            True,
        ),
        (
            FORKS / "functional/tree",
            "fit",
            {"epochs": "cfg.epochs", "extra": "cfg.extra_steps", "size": "src/bitlm/loop.py:BATCH"},
            False,
        ),
        (
            FORKS / "trainer/tree",
            "run",
            {"epochs": "cfg.epochs", "extra": "cfg.extra_steps", "size": "src/bitformer/trainer.py:ROWS_PER_STEP"},
            False,
        ),
        (FORKS / "lightning_like/tree", "main", {"epochs": "args.epochs", "extra": "args.extra_steps"}, False),
    ],
    ids=lambda each: each.parent.name if isinstance(each, Path) else None,
)
def test_what_options_do_tells_what_they_are(tree, start, roles, is_counted):
    trial = next(each for each in trials(open_tree(tree).code) if getattr(each.start.node, "name", "") == start)
    assert trial.is_counted is is_counted
    shown = {
        role: path if not path.startswith("call:") else f"args.{path.rpartition('.')[2]}"
        for role, path in trial.roles.items()
    }
    assert shown == roles
    assert all(updates(player) == sizes.updates for sizes, player in trial.tries), "the closed form, by playing"


def test_another_run_that_a_function_imports_is_no_part_of_its_own(tmp_path):
    """A loop for more rows than are tried is tried by the command line's, which may begin a run in rounds instead."""
    shutil.copytree(REFERENCE, tmp_path / "tree")
    training = tmp_path / "tree/bit_transformer/training.py"
    training.write_text(training.read_text().replace("batch_size: int = 8", "batch_size: int = 64"))
    starts = {
        (each.start.file.path, getattr(each.start.node, "name", ""))
        for each in trials(open_tree(tmp_path / "tree").code)
    }
    assert ("bit_transformer/training.py", "main") in starts
