"""What a tree holds, for somebody who waits: remembered from the last time it was like this, or found in two processes.

What is found depends on the tree's files and on bitpatch's own, byte for byte: under the hash of both it is kept,
in one file a tree under $XDG_CACHE_HOME/bitpatch (default: ~/.cache/bitpatch). Nothing is lost where that cannot be
read or written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..files.places import read_bytes, read_regular
from ..reading.tree import SourceTree
from ..task import Finding, Site, State, Task, TaskStatus
from .beside import beside
from .originals import folder_of
from .settling import findings

Rows = list[Any]  # of a task: of each finding its state, its site, and why it does not count


def survey(tree: SourceTree, tasks: Sequence[Task]) -> list[TaskStatus]:
    """How far a tree holds each task, as far as its source tells; its findings have no edits."""
    content = _hash(tree)
    known = _recalled(tree.root, content)
    unknown = [task for task in tasks if task.id not in known]
    if unknown:
        found = _in_halves(lambda some: [_rows(tree, task) for task in some], unknown)
        known |= {task.id: rows for task, rows in zip(unknown, found, strict=True)}
        _remember(tree.root, content, known)
    return [
        TaskStatus.of(
            task, [Finding(Site.at(**site), State(state), aside=aside) for state, site, aside in known[task.id]]
        )
        for task in tasks
    ]


def is_remembered(tree: SourceTree, task: Task) -> bool:
    """Whether it is known, without looking, how far a tree holds a task."""
    return task.id in _recalled(tree.root, _hash(tree))


def _rows(tree: SourceTree, task: Task) -> Rows:
    return [[finding.state, finding.site.to_json(), finding.aside] for finding in findings(tree, task)]


def _hash(tree: SourceTree) -> str:
    """The hash of all that the findings depend on: reading follows imports to any file of the tree."""
    settled = (f"{tree.model_path}\0{tree.training_path}\0{tree.at}", b"")
    return _hash_of([settled, *((path, tree.raw(path)) for path in tree.paths)]) + _own_hash()


@cache
def _own_hash() -> str:
    own = Path(__file__).parents[1]
    files = [*sorted(own.rglob("*.py")), *sorted((own.parent / "reference").rglob("*.py"))]
    libcst = Path(sys.modules["libcst"].__file__ or "").stat().st_mtime_ns
    return _hash_of([(f"{sys.version} {libcst}", b""), *((path.name, read_bytes(path)) for path in files)])


def _hash_of(files: Iterable[tuple[str, bytes]]) -> str:
    content = hashlib.sha256()
    for path, raw in files:
        content.update(f"{path}\0{len(raw)}\0".encode(errors="surrogateescape") + raw)
    return content.hexdigest()


def _file(root: Path) -> Path:
    return folder_of(root, "XDG_CACHE_HOME", ".cache") / "findings.json"


def _recalled(root: Path, content: str) -> dict[str, Rows]:
    """The rows of each task that were found in a tree of this content; a file that is not whole is no cache."""
    try:
        kept = json.loads(read_regular(_file(root)))
        if kept["content"] != content:
            return {}
        return {str(name): [_row(*row) for row in rows] for name, rows in kept["rows"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _row(state: str, site: dict[str, Any], aside: str) -> list[Any]:
    """One finding as it is kept; ValueError or TypeError where it is none."""
    place = Site.at(**site)
    if not (
        all(isinstance(text, str) for text in (place.path, place.note, aside))
        and all(type(n) is int for n in place.locate())
    ):
        raise TypeError
    return [State(state), site, aside]


def _remember(root: Path, content: str, rows: dict[str, Rows]) -> None:
    with contextlib.suppress(OSError):
        file = _file(root)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, whole = tempfile.mkstemp(dir=file.parent)
        try:
            with open(handle, "w") as opened:
                json.dump({"content": content, "rows": rows}, opened)
            os.replace(whole, file)
        except BaseException:
            os.unlink(whole)
            raise


def _in_halves(find: Callable[[Sequence[Task]], list[Rows]], tasks: Sequence[Task]) -> list[Rows]:
    middle = (len(tasks) + 1) // 2
    if middle == len(tasks):
        return find(tasks)
    with beside(lambda: find(tasks[middle:])) as answer:
        first = find(tasks[:middle])
        second = answer()
    return first + (find(tasks[middle:]) if second is None else second)
