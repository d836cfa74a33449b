"""Each rewrite keeps what a tree computes, alone and beside others; what does not keep it is seen.

Numbers are compared within 1e-6, in float64: another spelling may sum in another order.
"""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from drift.behaviour import TOLERANCE, Asked, Numbers, differences, observe, parts_of
from drift.drifted import BASELINE, REFERENCE, Drift, copy_of, drift
from drift.rewrites import REWRITES
from drift.rewriting import HELD, OPEN, PLACES, STAGES, DoesNotFit, retext, ruff, snapshot
from samples import parameters_of

pytest.importorskip("torch")

SEEDS = range(12)
# One for each part of a tree's behaviour: what changes its meaning.
SABOTAGE = {
    "training": ("len(data) // 8", "len(data) // 4", "bit_transformer/training.py"),
    "forwards": ("torch.softmax(scores,", "torch.softmax(0.999 * scores,", "bit_transformer/model.py"),
    "gate": ("val_loss <= self.threshold", "val_loss < self.threshold", "bit_transformer/safety.py"),
    "rows": ("bits_to_rows(bits, max_seq_len)", "bits_to_rows(bits[9:], max_seq_len)", "data/wikitext_schedule.py"),
    "manager": ("batches, self.plan.extra_steps", "batches, 0", "dashboard/manager.py"),
    "main": ('{"causal": args.causal}', '{"causal": True}', "bit_transformer/training.py"),
    "schedule": ("best - args.min_gain", "best + 99", "data/wikitext_schedule.py"),
    "server": ("batch_size: int = 8", "batch_size: int = 4", "dashboard/manager.py"),
}


@dataclass(frozen=True, slots=True)
class Tree:
    """A rewritten tree: what changed in it, before and after by path, and what it computes."""

    changed: dict[str, tuple[bytes, bytes]]
    numbers: Numbers


@pytest.fixture(scope="session")
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tree]:
    """Every tree that a test asks for, driven in turn by one process that has imported torch."""
    folder = tmp_path_factory.mktemp("drift")
    asked = {each for given in parameters_of(request.session, __file__) for each in given.items()}
    places: dict[str, dict[str, str]] = {}
    for name in (name for name in REWRITES if ("name", name) in asked):
        places[name] = REWRITES[name](copy_of(BASELINE, folder / name))
    for part, (old, new, file) in SABOTAGE.items():
        tree = copy_of(BASELINE, folder / f"sabotaged {part}")
        retext(tree / file, (old, new))
        places[tree.name] = PLACES
    for seed in (seed for seed in SEEDS if ("seed", seed) in asked):
        tree = copy_of(BASELINE, folder / f"seed {seed}")
        places[tree.name] = drift(tree, seed).places
    changes = {name: changed(folder / name) for name in places}
    # What is only written in another way needs no run: its syntax trees are compared.
    driven = [name for name in places if name not in REWRITES or REWRITES[name].stage != "text"]
    runs = [Asked(folder / name, places[name], parts_of(changes[name])) for name in driven]
    numbers = dict(zip(["baseline", *driven], observe([Asked(BASELINE, PLACES), *runs]), strict=True))
    trees = {name: Tree(changes[name], numbers.get(name, {})) for name in places}
    check = [ruff(), "check", "--isolated", "--no-cache", "--select", "F821", "--output-format", "concise", str(folder)]
    said = subprocess.run(check, capture_output=True, text=True).stdout.splitlines()
    assert [line for line in said if "F821" in line] == []  # no name is unknown, in what is not driven either
    return {**trees, "baseline": Tree({}, numbers["baseline"])}


def changed(tree: Path) -> dict[str, tuple[bytes, bytes]]:
    before, after = snapshot(BASELINE), snapshot(tree)
    paths = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    return {path: (before.get(path, b""), after.get(path, b"")) for path in paths}


def assert_same(seen: dict[str, Tree], name: str) -> None:
    expected, found = seen["baseline"].numbers, seen[name].numbers
    assert "error" not in expected, expected["error"]
    assert "error" not in found, found["error"]
    assert found
    assert differences({part: expected[part] for part in found}, found) == []


def meaning(code: bytes) -> str:
    """The syntax tree of a file, without docstrings, nor what stands in their place."""
    module = ast.parse(code)
    for node in ast.walk(module):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(body, list):
            if ast.get_docstring(node) is not None:
                del body[0]
            body[:] = [each for each in body if not isinstance(each, ast.Pass)]
    return ast.dump(module)


@pytest.mark.parametrize("part", SABOTAGE)
def test_another_meaning_is_seen(seen: dict[str, Tree], part: str) -> None:
    expected, found = seen["baseline"].numbers, seen[f"sabotaged {part}"].numbers
    assert "error" not in found, found["error"]
    assert part in found
    assert differences(expected[part], found[part])


@pytest.mark.parametrize("name", REWRITES)
def test_alone(seen: dict[str, Tree], name: str) -> None:
    tree = seen[name]
    assert tree.changed
    for path, (before, after) in tree.changed.items():
        if path.endswith(".py"):
            compile(after, path, "exec")
            if REWRITES[name].stage == "text":
                assert meaning(before) == meaning(after)
    if REWRITES[name].stage != "text":
        assert_same(seen, name)


@pytest.mark.parametrize("seed", SEEDS)
def test_composed(seen: dict[str, Tree], seed: int) -> None:
    assert_same(seen, f"seed {seed}")


def test_a_seed_is_a_tree(tmp_path: Path) -> None:
    one, other = copy_of(BASELINE, tmp_path / "one"), copy_of(BASELINE, tmp_path / "other")
    done = drift(one, 3)
    assert done == drift(other, 3)
    assert snapshot(one) == snapshot(other)
    assert 3 <= len(done.names) <= 5
    assert len(drift(copy_of(BASELINE, tmp_path / "single"), 3, count=1).names) == 1


def test_seeds_differ(tmp_path: Path) -> None:
    done: list[Drift] = [drift(copy_of(BASELINE, tmp_path / str(seed)), seed) for seed in range(4)]
    assert len({each.names for each in done}) == len(done)


def test_reference_is_rewritten_or_refused(tmp_path: Path) -> None:
    fitting = []
    for name in sorted(REWRITES)[::9]:
        tree = copy_of(REFERENCE, tmp_path / name)
        try:
            REWRITES[name](tree)
        except DoesNotFit:
            continue
        fitting.append(name)
        for path in tree.rglob("*.py"):
            compile(path.read_bytes(), str(path), "exec")
    assert fitting


def test_nothing_to_rewrite_does_not_fit(tmp_path: Path) -> None:
    tree = tmp_path / "empty"
    tree.mkdir()
    (tree / "notes.py").write_text("x = 1\n")
    for rewrite in REWRITES.values():
        if rewrite.stage == "code" and len(rewrite.tasks) < 9:  # others work on any code
            with pytest.raises(DoesNotFit):
                rewrite(tree)


def test_table() -> None:
    assert len(REWRITES) >= 60
    for rewrite in REWRITES.values():
        assert rewrite.stage in STAGES
        assert rewrite.tasks <= set(range(1, 13))
        assert rewrite.says
        assert "\n" not in rewrite.says
        assert set(rewrite.expected) <= set(range(1, 13))
        assert set(rewrite.expected.values()) <= {"refused", OPEN, HELD}
    assert {task for rewrite in REWRITES.values() for task in rewrite.tasks} == set(range(1, 13))
    assert TOLERANCE == 1e-6
