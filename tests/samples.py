"""The trees and files that tests start from, and how they are looked at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bitpatch
from bitpatch.patches.reading.source import Source

ROOT = Path(bitpatch.__file__).parent
BASELINE, REFERENCE, FORKS = ROOT / "baseline", ROOT / "reference", ROOT / "tests" / "forks"
CODE_ONLY = shutil.ignore_patterns("__pycache__")


def contents(tree: Path) -> dict[str, bytes]:
    """Every file of a tree, by its path in it."""
    return {
        os.path.relpath(os.path.join(folder, name), tree): Path(folder, name).read_bytes()
        for folder, _, names in os.walk(tree)
        for name in names
        if not folder.endswith("__pycache__")
    }


def parameters_of(session: pytest.Session, path: str) -> Iterator[dict[str, Any]]:
    """What each parametrized test of a file is given, of those that are going to run."""
    for item in session.items:
        if isinstance(item, pytest.Function) and item.path == Path(path) and hasattr(item, "callspec"):
            yield item.callspec.params


def line_of(path: str, text: str) -> int:
    """The number of the first line of the baseline's file that holds a text."""
    lines = (BASELINE / path).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def source(text: str | bytes) -> Source:
    """A file of its own."""
    return Source("file.py", text if isinstance(text, bytes) else text.encode())


LOOP = """\
import random

import torch


def train_loop(model, data, *, epochs=1, extra_steps=0, compress_prob=0.5):
    total = epochs * max(1, len(data) // 8)
    optimizer, scheduler = configure_optimizer(model, total_steps=total)
    for epoch in range(epochs):
        for batch in data.split(8):
            if random.random() < compress_prob:
                logits = model.forward_compressed(batch)
            else:
                logits = model(batch)
            loss = loss_of(logits, batch)
            loss.backward()
            optimizer.step()
            if scheduler.last_epoch < total:
                scheduler.step()
            optimizer.zero_grad()
"""
