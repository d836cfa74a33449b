import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

MODEL = """\
import torch

from . import blocks


class BitTransformerLM:
    def __init__(self, d_model, nhead, num_layers, dim_feedforward, max_seq_len):
        pass
"""
FILES = {
    "bit_transformer/__init__.py": "",
    "bit_transformer/model.py": MODEL,
    "bit_transformer/blocks.py": "WIDTH = 8  # features\n",
    "bit_transformer/training.py": "from .model import BitTransformerLM\n\n\ndef train_loop(model, data):\n    pass\n",
    "bit_transformer/safety.py": "class SafetyGate:\n    def __init__(self, threshold):\n        pass\n",
    "dashboard/__init__.py": "",
    "dashboard/manager.py": "from bit_transformer.model import BitTransformerLM\n\n\nclass ModelManager:\n    pass\n",
    "scripts/plot.py": "print(1)\n",
    "tests/test_model.py": "def test_one():\n    assert 1 + 1 == 2\n",
    "README.md": "# Bits\n",
    "pyproject.toml": '[project]\nname = "bits"\ndescription = "Bits"\n\n[tool.ruff]\nline-length = 100\n',
}


def git(folder: Path, *words: str) -> str:
    given = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    names = ("-c", "user.name=n", "-c", "user.email=n@example.com", "-c", "init.defaultBranch=main")
    done = subprocess.run(
        ["git", "-C", folder, *names, *words], env=os.environ | given, capture_output=True, text=True, check=True
    )
    return done.stdout


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "a commit")


@pytest.fixture
def repository(tmp_path: Path) -> Callable[..., Path]:
    """A repository with a small tree, and these files beside or in place of its own, all of it committed."""

    def make(files: dict[str, str] | None = None) -> Path:
        root = tmp_path / "repository"
        root.mkdir()
        git(root, "init", "--quiet")
        write(root, FILES | (files or {}))
        commit(root)
        return root

    return make
