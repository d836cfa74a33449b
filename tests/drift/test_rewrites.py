"""Each rewrite keeps what a tree computes, alone and beside others; what does not keep it is seen.

Numbers are compared within 1e-6, in float64: another spelling may sum in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from drift.behaviour import TOLERANCE, Asked, Numbers, differences, observe, parts_of
from drift.drifted import BASELINE, REFERENCE, Drift, copy_of, drift
from drift.patterns import substitute
from drift.rewrites import REWRITES
from drift.rewriting import HELD, OPEN, PLACES, STAGES, DoesNotFit, snapshot

pytest.importorskip("torch")

SEEDS = range(12)
# One for each part of a tree's behaviour: what changes its meaning.
SABOTAGE = {
    "training": ("len(data) // 8", "len(data) // 4", "bit_transformer/training.py"),
    "forwards": ("torch.softmax($x, dim=-1)", "torch.softmax(0.999 * $x, dim=-1)", "bit_transformer/model.py"),
    "gate": ("val_loss <= self.threshold", "val_loss < self.threshold", "bit_transformer/safety.py"),
    "rows": ("bits_to_rows(bits, max_seq_len)", "bits_to_rows(bits[9:], max_seq_len)", "data/wikitext_schedule.py"),
    "manager": ("with_extra_steps($b, self.plan.extra_steps)", "with_extra_steps($b, 0)", "dashboard/manager.py"),
    "main": ('{"causal": args.causal}', '{"causal": True}', "bit_transformer/training.py"),
    "schedule": ("best - args.min_gain", "best + args.min_gain", "data/wikitext_schedule.py"),
    "server": ("nhead: int = 8", "nhead: int = 4", "bit_transformer/model.py"),
}


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Numbers, Asked]]:
    """What each tree computes, driven all at once: one process that has imported torch forks for each."""
    folder = tmp_path_factory.mktemp("drift")
    asked: dict[str, Asked] = {"baseline": Asked(BASELINE, PLACES)}
    for name, rewrite in REWRITES.items():
        tree = copy_of(BASELINE, folder / name)
        places = rewrite(tree)
        asked[name] = Asked(tree, places, parts_of(changed(tree)))
    for part, (old, new, file) in SABOTAGE.items():
        tree = copy_of(BASELINE, folder / f"sabotaged {part}")
        substitute(tree, old, new, file)
        asked[f"sabotaged {part}"] = Asked(tree, PLACES, (part,))
    for seed in SEEDS:
        tree = copy_of(BASELINE, folder / f"seed {seed}")
        asked[f"seed {seed}"] = Asked(tree, drift(tree, seed).places)
    numbers = dict(zip(asked, observe(asked.values()), strict=True))
    return lambda name: (numbers[name], asked[name])


def changed(tree: Path) -> list[str]:
    before, after = snapshot(BASELINE), snapshot(tree)
    return [path for path in {**before, **after} if before.get(path) != after.get(path)]


def assert_same(seen: Callable[[str], tuple[Numbers, Asked]], name: str) -> None:
    (expected, _), (found, _) = seen("baseline"), seen(name)
    assert "error" not in expected, expected["error"]
    assert "error" not in found, found["error"]
    assert found
    assert differences({part: expected[part] for part in found}, found) == []


@pytest.mark.parametrize("part", SABOTAGE)
def test_another_meaning_is_seen(seen: Callable[[str], tuple[Numbers, Asked]], part: str) -> None:
    (expected, _), (found, _) = seen("baseline"), seen(f"sabotaged {part}")
    assert "error" not in found, found["error"]
    assert differences(expected[part], found[part])


@pytest.mark.parametrize("name", REWRITES)
def test_alone(seen: Callable[[str], tuple[Numbers, Asked]], name: str) -> None:
    _, asked = seen(name)
    assert changed(asked.tree)
    for path in asked.tree.rglob("*.py"):
        compile(path.read_bytes(), str(path), "exec")
    assert_same(seen, name)


@pytest.mark.parametrize("seed", SEEDS)
def test_composed(seen: Callable[[str], tuple[Numbers, Asked]], seed: int) -> None:
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
        if rewrite.stage == "code":
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
