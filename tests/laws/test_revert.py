"""Law 7: reverting gives what applying the others would have given, and what was edited by hand stays."""

import itertools
import random
from difflib import SequenceMatcher
from functools import cache

import pytest
from samples import BASELINE, REFERENCE

from bitpatch.patches.applying import revert
from bitpatch.patches.applying.engine import plan
from bitpatch.patches.applying.originals import Originals
from bitpatch.patches.applying.revert import plan_revert, remember
from bitpatch.patches.known import all_tasks, task_named
from bitpatch.patches.reading.source import Source
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome

NAMES = [task.id for task in all_tasks()]
PAIRS = random.Random(5).sample(list(itertools.permutations(NAMES, 2)), 40)
FRESH = open_tree(BASELINE)
CODE = "def added_by_hand(x, y=(1, 2)):\n    return x, y  # mine\n"


def contents(tree):
    """Every file of a tree in memory."""
    return {path: tree.raw(path) for path in tree.paths}


def changed(tree, changes):
    """The tree once changes are written, in memory."""
    for change in changes:
        tree = tree.with_source(_parsed(change.path, change.after))
    return tree


@cache
def _parsed(path, raw):
    return Source(path, raw)


def applied(tree, originals, names):
    planned = _plan(tree, [task_named(name) for name in names])
    assert not planned.refused, [outcome.reason for outcome in planned.outcomes]
    return changed(tree, planned.changes), remember(tree, originals, planned)


def reverted(tree, originals, names):
    planned, originals = plan_revert(tree, originals, [task_named(name) for name in names])
    assert {outcome.outcome for outcome in planned.outcomes} == {Outcome.REVERTED}, planned.outcomes
    return changed(tree, planned.changes), originals


PLANS = {}


def _plan(tree, tasks):
    """The engine's plan, once for each different tree: replays of the baseline come again and again."""
    differing = frozenset((path, source.raw) for path, source in tree.sources.items() if source.raw != FRESH.raw(path))
    key = (differing, tree.paths, tuple(sorted(task.id for task in tasks)))
    if key not in PLANS:
        PLANS[key] = plan(tree, tasks)
    return PLANS[key]


@pytest.fixture(autouse=True)
def each_plan_once(monkeypatch):
    monkeypatch.setattr(revert, "plan", _plan)


@cache
def both(first, second):
    return applied(*applied(FRESH, Originals(), [first]), [second])


@pytest.mark.parametrize(("gone", "kept"), PAIRS, ids=lambda name: name)
def test_of_two_tasks_the_other_one_stays(gone, kept):
    tree, originals = reverted(*both(*sorted((gone, kept))), [gone])
    alone, remembered = applied(FRESH, Originals(), [kept])
    assert contents(tree) == contents(alone)
    assert (originals.tasks, originals.blocked) == (remembered.tasks, "")


def test_all_tasks_come_off_again():
    tree, originals = applied(FRESH, Originals(), NAMES)
    planned, originals = plan_revert(tree, originals, all_tasks(), every=True)
    assert (contents(changed(tree, planned.changes)), originals) == (contents(FRESH), Originals())


def edited(tree, number):
    """The tree with comments, a new function and another default in it, away from what tasks change."""
    for path in ("bit_transformer/model.py", "bit_transformer/training.py"):
        places = random.Random(f"{number} {path}").sample(quiet_lines(path), 3)
        for place, note in zip(places, ("# note {}\n", "# {} notes\n\n", ""), strict=True):
            assert tree.raw(path).count(place) == 1
            indent = place[: len(place) - len(place.lstrip())]
            tree = tree.with_source(
                _parsed(path, tree.raw(path).replace(place, indent + note.format(number).encode() + place))
                if note
                else _parsed(path, tree.raw(path).replace(place, place.rstrip(b"\n") + b"  # mine\n"))
            )
    loop = tree.raw("bit_transformer/training.py") + f"\n\n{CODE.replace('hand', f'hand_{number}')}".encode()
    telemetry = tree.raw("bit_transformer/telemetry.py").replace(b": int =", b": int  =")
    tree = tree.with_source(_parsed("bit_transformer/telemetry.py", telemetry))
    return tree.with_source(_parsed("bit_transformer/training.py", loop))


@cache
def quiet_lines(path):
    """Lines that occur once, in both trees, with five lines around them that no task changes."""
    old, new = ((root / path).read_bytes().splitlines(keepends=True) for root in (BASELINE, REFERENCE))
    blocks = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    inner = [line for block in blocks for line in old[block.a + 5 : block.a + block.size - 5]]
    once = [line for line in inner if b"".join(old).count(line) == 1 == b"".join(new).count(line)]
    return [line for line in once if line.strip() and not line.strip().endswith((b",", b"(", b"\\"))]


@pytest.mark.parametrize("seed", range(4))
def test_edits_by_hand_after_or_between_applies_stay(seed):
    """Applying, editing and reverting is editing the baseline and applying what is left."""
    draw = random.Random(seed)
    names = draw.sample(NAMES, draw.randint(2, min(6, len(NAMES))))
    split = draw.randint(1, len(names))
    tree, originals = applied(FRESH, Originals(), names[:split])
    tree = edited(tree, 1)
    if names[split:]:
        tree, originals = applied(tree, originals, names[split:])
    tree = edited(tree, 2)
    assert originals.blocked == ""
    by_hand = edited(edited(FRESH, 1), 2)
    draw.shuffle(names)
    while names:
        size = draw.randint(1, len(names))
        gone, names = names[:size], names[size:]
        tree, originals = reverted(tree, originals, gone)
        expected = applied(by_hand, Originals(), names)[0] if names else by_hand
        assert contents(tree) == contents(expected)
    assert originals == Originals()
