"""Trees to measure: the baseline with some tasks applied, and text for them to train on."""

import shutil
from collections.abc import Collection
from pathlib import Path

import bitpatch
from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import all_tasks
from bitpatch.patches.reading.tree import open_tree
from bitpatch.verify.running.runner import SAMPLE

ROOT = Path(bitpatch.__file__).parent
ALL = tuple(task.number for task in all_tasks())


def grow(tasks: Collection[int], folder: Path) -> Path:
    """The baseline with some tasks applied; made where it is not there yet."""
    tree = folder / "-".join(["baseline", *map(str, tasks)])
    if not tree.exists():
        shutil.copytree(ROOT / "baseline", tree, ignore=shutil.ignore_patterns("__pycache__"))
        planned = plan(open_tree(tree), [task for task in all_tasks() if task.number in tasks])
        assert not planned.refused, [outcome.reason for outcome in planned.outcomes]
        for change in planned.changes:
            (tree / change.path).write_bytes(change.after)
    return tree


def write_text(path: Path, size: int) -> Path:
    """Write so many bytes of text: the sample again and again, each copy with its number before each line."""
    lines = SAMPLE.read_text(encoding="utf-8").encode("ascii", "replace").splitlines()
    with path.open("wb") as text:
        copy = 0
        while text.tell() < size:
            text.write(b"".join(b"%d %s\n" % (copy, line) for line in lines))
            copy += 1
        text.truncate(size)
    return path
