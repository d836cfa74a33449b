"""Trees to patch, and the ways to look at them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import bitpatch
from bitpatch.patches.engine import plan, task_named
from bitpatch.patches.source import Source, open_tree

ROOT = Path(bitpatch.__file__).parent
BASELINE, REFERENCE = ROOT / "baseline", ROOT / "reference"
CODE_ONLY = shutil.ignore_patterns("__pycache__")


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


def contents(tree: Path) -> dict[str, bytes]:
    """Every file of a tree, by its path in it."""
    return {
        os.path.relpath(os.path.join(folder, name), tree): Path(folder, name).read_bytes()
        for folder, _, names in os.walk(tree)
        for name in names
        if not folder.endswith("__pycache__")
    }


def source(text: str | bytes) -> Source:
    """A file of its own."""
    return Source("file.py", text if isinstance(text, bytes) else text.encode())
