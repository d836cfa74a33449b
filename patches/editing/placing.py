"""Definitions above what uses them."""

from __future__ import annotations

import libcst as cst

from ..source import Source
from ..task import Edit


def above(source: Source, edit: Edit, user: cst.CSTNode) -> Edit:
    """A definition comes no later than what uses it, whatever the file's order."""
    top = next(top for top in source.module.body if user is top or top in source.ancestors(user))
    if source.order[edit.node] < source.order[top]:
        return edit
    new = [node for node in edit.change(edit.node) if node is not edit.node]  # type: ignore[union-attr]
    return Edit(source, top, lambda updated: cst.FlattenSentinel([*new, updated]))
