"""The trees and files that tests start from, and how they are looked at."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import bitpatch
from bitpatch.patches.source import Source

ROOT = Path(bitpatch.__file__).parent
BASELINE, REFERENCE = ROOT / "baseline", ROOT / "reference"
CODE_ONLY = shutil.ignore_patterns("__pycache__")


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
