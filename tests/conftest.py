"""Trees to patch, and the ways to look at them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from samples import BASELINE, CODE_ONLY

from bitpatch.patches.engine import plan, task_named
from bitpatch.patches.source import open_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A fresh copy of the baseline."""
    return Path(shutil.copytree(BASELINE, tmp_path / "tree", ignore=CODE_ONLY))


@pytest.fixture
def patched() -> Callable[..., Path]:
    """Apply tasks to a tree without the command line, and return it."""

    def patch(tree: Path, *names: str) -> Path:
        planned = plan(open_tree(tree), [task_named(name) for name in names])
        assert not planned.refused, [outcome.reason for outcome in planned.outcomes]
        for change in planned.changes:
            (tree / change.path).write_bytes(change.after)
        return tree

    return patch


@pytest.fixture
def model_of(tmp_path: Path) -> Callable[[str], Path]:
    """A tree that is only a model file."""

    def make(text: str) -> Path:
        package = tmp_path / "small" / "bit_transformer"
        package.mkdir(parents=True, exist_ok=True)
        (package / "model.py").write_text(text + "\n\nclass BitTransformerLM:\n    pass\n")
        return package.parent

    return make
