"""Backward calls that no run of a tree learns by, as near misses."""

from __future__ import annotations

from collections.abc import Iterator

from ..reading.updates import strays
from ..task import Finding, apart, near_miss
from ..tree import SourceTree


def strayed_backwards(tree: SourceTree) -> Iterator[Finding]:
    """The backward calls of a tree in which no run learns."""
    for file, node, why in strays(tree.code):
        yield from apart([node], [near_miss(tree.source(file.path).site(node, f"backward call, but {why}"))])
