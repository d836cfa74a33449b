"""A tree under its lock, as commands work on it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..reading.tree import SourceTree, open_tree, require_folder
from .transaction import locked


@contextmanager
def opened(tree: Path, *, shared: bool = False, tell: Callable[[str], None], others: str = "") -> Iterator[SourceTree]:
    """The tree under its lock, after a killed run was recovered."""
    require_folder(tree)
    gc.disable()  # a run lives for a second: collecting would walk its syntax trees again and again
    with locked(tree, shared=shared, tell=tell):
        yield open_tree(tree, tell=tell, others=others)
    gc.freeze()  # nor are they walked when Python ends
