"""Every task on trees that have drifted, and on forks that strangers wrote: what is said, and what was wanted.

    python tests/drift/cells.py docs/drift.md [--tasks 9 10] [--seeds 28] [--judge 10]

A cell is one task on one tree. On a rewrite of its own it is each task whose code the rewrite touches, on compositions
and forks all twelve. Beside it stand `git apply --3way` and `patch -F3` of the baseline's own patch on the same tree.
`--judge N` has every Nth cell that was applied judged.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from drift.drifted import drift  # noqa: E402
from drift.rewrites import REWRITES  # noqa: E402
from drift.rewriting import DoesNotFit  # noqa: E402
from samples import BASELINE, CODE_ONLY, FORKS  # noqa: E402

from bitpatch.patches.applying.engine import diff_of, plan  # noqa: E402
from bitpatch.patches.known import all_tasks, task_named  # noqa: E402
from bitpatch.patches.reading.tree import open_tree  # noqa: E402
from bitpatch.patches.task import BitpatchError  # noqa: E402
from bitpatch.verify.running.driven import driving  # noqa: E402
from bitpatch.verify.running.runner import Zygote, verify  # noqa: E402

RIGHT = {"applied": {"applied"}, "refused": {"refused"}, "already-applied": {"already-applied"}}
RIGHT["applied or refused"] = {"applied", "refused"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One task on one tree."""

    tree: str
    task: int
    wanted: str
    outcome: str  # what an apply does, or "crash"
    reason: str
    verdict: str = ""  # the judge's, where it was asked
    git: bool = False  # whether `git apply --3way` takes the baseline's patch
    patch: bool = False

    @property
    def is_right(self) -> bool:
        return self.outcome in RIGHT[self.wanted] and self.verdict in ("", "verified")

    @property
    def is_silently_wrong(self) -> bool:
        """Whether something was done without a word that nobody wants."""
        return self.outcome == "applied" and (self.wanted not in ("applied", "applied or refused") or not self.is_right)


def trees(seeds: int, tasks: Sequence[int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The trees to try, by name, and the tasks on each."""
    for name, rewrite in sorted(REWRITES.items()):
        yield f"alone {name}", tuple(task for task in tasks if task in rewrite.tasks)
    for seed in range(seeds):
        yield f"seed {seed}", tuple(tasks)
    for folder in sorted(FORKS.iterdir()):
        if (folder / "expected.toml").exists():
            yield f"fork {folder.name}", tuple(tasks)


def make(kind: str, name: str, tree: Path) -> dict[int, str]:
    """Make a tree, and say what is wanted of each task."""
    if kind == "fork":
        shutil.copytree(FORKS / name / "tree", tree, ignore=CODE_ONLY)
        wanted = tomllib.loads((FORKS / name / "expected.toml").read_text())
        return {task.number: wanted[task.id]["apply"] for task in all_tasks()}
    shutil.copytree(BASELINE, tree, ignore=CODE_ONLY)
    expected = drift(tree, int(name)).expected if kind == "seed" else dict(REWRITES[name].expected)
    if kind == "alone":
        REWRITES[name](tree)
    return {task.number: expected.get(task.number, "applied") for task in all_tasks()}


def cells(job: tuple[str, tuple[int, ...]]) -> list[Cell]:
    """The cells of one tree."""
    title, tasks = job
    kind, _, name = title.partition(" ")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        try:
            wanted = make(kind, name, tree) if tasks else {}
        except DoesNotFit:
            return []
        return [_cell(title, task, wanted[task], tree, kind != "fork") for task in tasks]


def _cell(title: str, task: int, wanted: str, tree: Path, has_base: bool) -> Cell:
    try:
        planned = plan(open_tree(tree), [task_named(str(task))])
        outcome, reason = planned.outcomes[0].outcome.value, planned.outcomes[0].reason
        for change in planned.changes:
            if change.path.endswith(".py"):
                compile(change.after, change.path, "exec")
    except BitpatchError as error:
        outcome, reason = "refused", str(error)
    except Exception as error:
        outcome, reason = "crash", f"{type(error).__name__}: {error}"
    git, patch = _by_text(task, tree) if has_base else (False, False)
    return Cell(title, task, wanted, outcome, reason, git=git, patch=patch)


@cache
def _own_patch(task: int) -> bytes:
    """The baseline's own patch."""
    return diff_of(plan(open_tree(BASELINE), [task_named(str(task))]).changes)


def _by_text(task: int, tree: Path) -> tuple[bool, bool]:
    """Whether git and patch take the baseline's own patch on a tree."""
    text = _own_patch(task)
    quiet = {
        "capture_output": True,
        "env": os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"},
    }
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "own"
        shutil.copytree(BASELINE, own, ignore=CODE_ONLY)
        git = ["git", "-C", str(own), "-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
        for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "baseline"]):
            subprocess.run([*git, *words], check=True, **quiet)
        for path in own.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(tree, own, dirs_exist_ok=True)
        for words in (["add", "-A"], ["commit", "-qm", "drifted", "--allow-empty"]):
            subprocess.run([*git, *words], check=True, **quiet)
        by_git = subprocess.run([*git, "apply", "--3way", "--check"], input=text, **quiet).returncode == 0
        command = ["patch", "-F3", "-p1", "--dry-run", "-s", "-f", "-d", str(own)]
        by_patch = bool(shutil.which("patch")) and subprocess.run(command, input=text, **quiet).returncode == 0
    return by_git, by_patch


def judged(found: Sequence[Cell], every: int) -> list[Cell]:
    """The same cells, every so many of those that were applied with the judge's verdict."""
    chosen = set([cell for cell in found if cell.outcome == "applied"][::every]) if every else set()
    judged_cells = []
    with Zygote() as zygote:
        for cell in found:
            if cell not in chosen:
                judged_cells.append(cell)
                continue
            with tempfile.TemporaryDirectory() as folder:
                tree = Path(folder) / "tree"
                kind, _, name = cell.tree.partition(" ")
                make(kind, name, tree)
                for change in plan(open_tree(tree), [task_named(str(cell.task))]).changes:
                    (tree / change.path).write_bytes(change.after)
                driven = driving(open_tree(tree), [task_named(str(cell.task))])
                verdict = verify(tree, [cell.task], zygote=zygote, jobs=2, driving=driven).tasks[0].verdict
            judged_cells.append(replace(cell, verdict=str(verdict)))
    return judged_cells


def page(found: Sequence[Cell], told: Sequence[str] = ()) -> Iterator[str]:
    """What docs/drift.md says."""
    yield "# Drift\n"
    command = " ".join(["python tests/drift/cells.py", *told])
    yield f"`{command}`, {datetime.date.today()}: {len(found)} cells, one task on one tree each.\n"
    yield from _head("task")
    for task in sorted({cell.task for cell in found}):
        yield _row(f"task-{task}", [cell for cell in found if cell.task == task])
    yield _row("all", found)
    yield "\n## By tree\n"
    yield from _head("trees")
    yield _row("one rewrite", [cell for cell in found if cell.tree.startswith("alone")])
    yield _row("3 to 5 rewrites", [cell for cell in found if cell.tree.startswith("seed")])
    for fork in sorted({cell.tree for cell in found if cell.tree.startswith("fork")}):
        yield _row(fork, [cell for cell in found if cell.tree == fork])
    yield "\n## What is not as wanted\n"
    for cell in found:
        if not cell.is_right:
            reason = " ".join(cell.reason.split("\n")[1:2]) or cell.reason.split("\n")[0]
            verdict = f", judged {cell.verdict}" if cell.verdict else ""
            yield f"- {cell.tree}, task-{cell.task}: {cell.outcome}{verdict}, wanted {cell.wanted}. {reason[:220]}"


def _head(first: str) -> Iterator[str]:
    columns = ["cells", "as wanted", "refused, but wanted", "silently wrong", "crashes", "judged"]
    columns += ["`git apply --3way`", "`patch -F3`"]
    yield f"| {first} | {' | '.join(columns)} |"
    yield f"| --- |{' ---: |' * len(columns)}"


def _row(title: str, found: Sequence[Cell]) -> str:
    counts = Counter(
        right=sum(cell.is_right for cell in found),
        refused=sum(cell.outcome == "refused" and not cell.is_right for cell in found),
        wrong=sum(cell.is_silently_wrong for cell in found),
        crash=sum(cell.outcome == "crash" for cell in found),
        judged=sum(bool(cell.verdict) for cell in found),
        git=sum(cell.git for cell in found),
        patch=sum(cell.patch for cell in found),
    )
    share = f"{counts['right']} ({counts['right'] / max(1, len(found)):.0%})"
    shown = [counts[name] for name in ("refused", "wrong", "crash", "judged", "git", "patch")]
    return f"| {title} | {len(found)} | {share} | {' | '.join(map(str, shown))} |"


def main() -> None:
    """Try every cell, and write the page."""
    parser = argparse.ArgumentParser(description="Try every task on drifted trees.")
    parser.add_argument("page", type=Path)
    parser.add_argument("--tasks", type=int, nargs="*", default=[task.number for task in all_tasks()])
    parser.add_argument("--seeds", type=int, default=28)
    parser.add_argument("--judge", type=int, default=0)
    args = parser.parse_args()
    with ProcessPoolExecutor(2) as pool:
        found = [cell for some in pool.map(cells, trees(args.seeds, args.tasks), chunksize=1) for cell in some]
    found = judged(found, args.judge)
    args.page.write_text("\n".join(page(found, sys.argv[1:])) + "\n", encoding="utf-8")
    print("\n".join(line for line in page(found) if line.startswith("|")))
    sys.exit(any(cell.is_silently_wrong or cell.outcome == "crash" for cell in found))


if __name__ == "__main__":
    main()
