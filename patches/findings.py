"""Ask a task what it finds in a tree; a failure of its code is a place that it does not read, and no end of the run."""

from __future__ import annotations

import os
import traceback
from dataclasses import replace

import libcst as cst

from .settling import settled
from .source import Source
from .task import BitpatchError, Finding, Site, Task, opaque
from .tree import SourceTree


def findings(tree: SourceTree, task: Task) -> list[Finding]:
    """What a task finds in a tree, and what of it does not count, as the user has settled that."""
    try:
        found = list(task.find(tree))
    except BitpatchError:
        raise
    except Exception as error:
        found = [opaque(_unread(error))]
    return settled(tree, task, found)


def _unread(error: Exception) -> Site:
    """The innermost place in a tree that was being read when an error was raised; raises it where there is none."""
    found, where = None, ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        values = list(frame.f_locals.values())
        where = f"{os.path.basename(frame.f_code.co_filename)}:{line}"
        for source in (each for each in values if isinstance(each, Source)):
            nodes = [each for each in values if isinstance(each, cst.CSTNode) and each in source.parents]
            found = source.site(nodes[-1] if nodes else source.module, "")
    if found is None:
        raise error
    fault = f"{type(error).__name__} at {where}"
    return replace(found, note=f"bitpatch fails to understand what is here ({fault}): please report it")
