"""Every way in which a tree is rewritten, by kind."""

from drift.rewrites import (  # noqa: F401 - each enters its own in the table
    attention,
    calls,
    config,
    flow,
    gate,
    imports,
    layout,
    manager,
    masks,
    names,
    rows,
    schedule,
    structure,
    text,
    training,
    updates,
    windows,
)
from drift.rewriting import REWRITES, Rewrite

__all__ = ["REWRITES", "Rewrite"]
