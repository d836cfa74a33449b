"""Trees that have drifted: one rewrite, or some that fit one another, chosen by a seed.

python tests/drift/drifted.py SEED FOLDER [--tree reference] [--count 4]
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [] if "drift" in sys.modules else [str(Path(__file__).resolve().parents[1])]

from drift.rewrites import REWRITES, Rewrite  # noqa: E402
from drift.rewriting import PLACES, STAGES, DoesNotFit  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BASELINE, REFERENCE = ROOT / "baseline", ROOT / "reference"


@dataclass(frozen=True, slots=True)
class Drift:
    """What was done to a tree, where its parts are now, and what tasks are to say where it is not "applied"."""

    names: tuple[str, ...]
    places: dict[str, str]
    expected: dict[int, str]


def drift(tree: Path, seed: int, count: int | None = None) -> Drift:
    """Rewrite the tree in a folder by a seed: `count` rewrites, or 3 to 5, that fit the tree and one another.

    At most one of several moves files, and at most one is of their bytes: those come last.
    """
    draws = random.Random(f"drift {seed}")
    drawn = [REWRITES[name] for name in draws.sample(sorted(REWRITES), len(REWRITES))]
    wanted = count or draws.randint(3, 5)
    last = {"layout": draws.random() < 0.5, "text": draws.random() < 0.6}
    wanted_of = {"code": wanted - sum(last.values()), **last}
    done: list[Rewrite] = []
    places = dict(PLACES)
    for stages in [STAGES] if wanted == 1 else [(stage,) for stage in STAGES]:
        tried = (rewrite for rewrite in drawn if rewrite.stage in stages)
        left = 1 if wanted == 1 else int(wanted_of[stages[0]])
        while left:
            rewrite = next(tried)
            moved = attempt(rewrite, tree, places)
            if moved is not None:
                places = moved
                done.append(rewrite)
                left -= 1
    return Drift(tuple(each.name for each in done), places, expected_of(done))


def attempt(rewrite: Rewrite, tree: Path, places: dict[str, str]) -> dict[str, str] | None:
    """Rewrite a tree if it fits, or else leave it as it was."""
    kept = tree.with_name(f"{tree.name}.kept")
    shutil.copytree(tree, kept)
    try:
        moved = rewrite(tree, places)
    except DoesNotFit:
        shutil.rmtree(tree)
        kept.rename(tree)
        return None
    shutil.rmtree(kept)
    return moved


def expected_of(done: Sequence[Rewrite]) -> dict[int, str]:
    """What tasks are to say after several rewrites: the most cautious of what each lets expect."""
    expected: dict[int, str] = {}
    for rewrite in done:
        for task, outcome in rewrite.expected.items():
            expected[task] = max(expected.get(task, ""), outcome, key=len)
    return expected


def copy_of(tree: Path, folder: Path) -> Path:
    return Path(shutil.copytree(tree, folder, ignore=shutil.ignore_patterns("__pycache__")))


def main(argv: Sequence[str] | None = None) -> None:
    """Write a drifted tree, and say what was done."""
    parser = argparse.ArgumentParser(description="Write a drifted tree.")
    parser.add_argument("seed", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tree", choices=("baseline", "reference"), default="baseline")
    parser.add_argument("--count", type=int)
    args = parser.parse_args(argv)
    done = drift(copy_of(ROOT / args.tree, args.folder), args.seed, args.count)
    for name in done.names:
        print(f"{name}: {REWRITES[name].says}")


if __name__ == "__main__":
    main()
