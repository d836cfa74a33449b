"""Walk the cube of all sets of tasks: law 3, that order does not matter, for every set and every order.

    python tests/laws/cube.py docs/laws.md

Each set is a corner; an edge applies one more task. If both ends of every edge agree with what every
other edge into the corner makes, then every order of every set gives the same bytes. A step is computed
once for each content of the files that the task looked at, and that is all it may depend on.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.progress import track
from samples import BASELINE, REFERENCE

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import all_tasks
from bitpatch.patches.reading.code import Code
from bitpatch.patches.reading.files import Files
from bitpatch.patches.reading.source import Source
from bitpatch.patches.reading.tree import SourceTree, open_tree
from bitpatch.patches.task import Task

State = dict[str, bytes]  # the files that differ from the baseline's


@dataclass(frozen=True)
class WatchedTree(SourceTree):
    """A tree that notes which files were looked at, and which were passed over for lack of a pattern."""

    looked_at: set[str] = field(default_factory=set)
    passed_over: set[tuple[str, bytes]] = field(default_factory=set)

    def source(self, path: str) -> Source:
        self.looked_at.add(path)
        return super().source(path)

    @cached_property
    def code(self) -> Code:
        return Code(Files(self.paths, self._noted))

    def _noted(self, path: str) -> bytes:
        self.looked_at.add(path)
        return self.raw(path)

    def files(self, having: bytes) -> Iterator[Source]:
        yield from self._matching(self.paths, having)

    def package(self, having: bytes) -> Iterator[Source]:
        folder = os.path.dirname(self.model_path)
        yield from self._matching([path for path in self.paths if os.path.dirname(path) == folder], having)

    def _matching(self, paths: Sequence[str], having: bytes) -> Iterator[Source]:
        for path in paths:
            if re.search(having, self.raw(path)):
                yield self.source(path)
            else:
                self.passed_over.add((path, having))


@dataclass(frozen=True)
class Step:
    """What a task did to the files that it looked at."""

    read: State
    passed_over: set[tuple[str, bytes]]
    made: State


class Cube:
    """The sets of tasks, and the steps between them."""

    def __init__(self) -> None:
        self.base = open_tree(BASELINE)
        self.tasks = all_tasks()
        self.steps: dict[int, list[Step]] = {task.number: [] for task in self.tasks}
        self._sources: dict[tuple[str, bytes], Source] = {}

    def raw(self, state: State, path: str) -> bytes:
        return state[path] if path in state else self.base.raw(path)

    def apply(self, state: State, task: Task) -> State:
        """The state after one more task; AssertionError where it is refused, or twice is not once."""
        known = next((step for step in self.steps[task.number] if self._fits(step, state)), None)
        if known is None:
            known = self._compute(state, task)
            self.steps[task.number].append(known)
        return {path: raw for path, raw in {**state, **known.made}.items() if raw != self.base.raw(path)}

    def _fits(self, step: Step, state: State) -> bool:
        return all(self.raw(state, path) == raw for path, raw in step.read.items()) and not any(
            re.search(having, self.raw(state, path)) for path, having in step.passed_over if path not in step.read
        )

    def _compute(self, state: State, task: Task) -> Step:
        sources = {path: self._source(path, raw) for path, raw in state.items()}
        tree = WatchedTree(self.base.root, self.base.paths, self.base.model_path, self.base.training_path, sources)
        planned = plan(tree, [task])
        assert not planned.refused, planned.outcomes[0].reason
        made = {change.path: change.after for change in planned.changes}
        return Step({path: self.raw(state, path) for path in tree.looked_at}, tree.passed_over, made)

    def _source(self, path: str, raw: bytes) -> Source:
        if (path, raw) not in self._sources:
            self._sources[path, raw] = Source(path, raw)
        return self._sources[path, raw]


def walk() -> tuple[int, int, int, State]:
    """Walk every edge; return how many sets, edges and distinct steps there were, and the last corner."""
    cube = Cube()
    corners: dict[frozenset[int], State] = {frozenset(): {}}
    edges = 0
    sets = [
        frozenset(names) for size in range(len(cube.tasks) + 1) for names in itertools.combinations(cube.tasks, size)
    ]
    console = Console(stderr=True)
    for tasks in track(sets[1:], "walking the cube", console=console, disable=not console.is_terminal):
        numbers = frozenset(task.number for task in tasks)
        for task in tasks:
            made = cube.apply(corners[numbers - {task.number}], task)
            edges += 1
            assert corners.setdefault(numbers, made) == made, (
                f"{sorted(numbers)}: task-{task.number} last makes another tree"
            )
    return len(sets), edges, sum(map(len, cube.steps.values())), corners[numbers]


def main() -> None:
    began = time.monotonic()
    sets, edges, steps, last = walk()
    cube = Cube()
    files = [path.relative_to(REFERENCE).as_posix() for path in sorted(REFERENCE.rglob("*.py"))]
    assert all(cube.raw(last, path) == (REFERENCE / path).read_bytes() for path in files), (
        "all tasks are not reference/"
    )
    digest = hashlib.sha256(b"".join(cube.raw(last, path) for path in files)).hexdigest()
    text = f"""# The cube of all sets of tasks

`make laws` applies each task to each set of the others: {sets:,} sets, {edges:,} edges. Every edge into a set makes the
same bytes, so every order of every set does (law 3); each step is planned again on its own result, and finds nothing
left to do (law 2); the last set is `reference/`, byte for byte (law 1).

| sets | edges | distinct steps | seconds | SHA-256 of the last set |
| --- | --- | --- | --- | --- |
| {sets:,} | {edges:,} | {steps:,} | {time.monotonic() - began:.0f} | `{digest[:16]}` |

A step is computed once for each content of the files that the task looks at. Python {sys.version.split()[0]}, LibCST
{version("libcst")}, {datetime.date.today()}.
"""
    print(text)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
