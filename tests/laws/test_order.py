"""Laws 1 to 3: apply makes the reference, twice is once, order leaves no trace."""

import itertools
import random

import pytest
from laws.cube import Cube
from samples import BASELINE, FORKS, REFERENCE, contents

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import all_tasks
from bitpatch.patches.reading.source import Source
from bitpatch.patches.reading.tree import open_tree

TASKS = all_tasks()
ON_FORKS = [
    *(("scripty", 6, 8), ("functional", 1, 3), ("functional", 2, 1), ("functional", 6, 8), ("trainer", 1, 6)),
    *(("trainer", 3, 12), ("lightning_like", 3, 8), ("trainer", 9, 11), ("scripty", 9, 11), ("functional", 9, 10)),
]
OWNED = {
    1: {"bit_transformer/training.py"},
    2: {"dashboard/manager.py", "bit_transformer/training.py"},
    3: {"bit_transformer/training.py"},
    4: {"bit_transformer/training.py"},
    5: {"data/wikitext_schedule.py"},
    6: {"bit_transformer/training.py", "data/wikitext_schedule.py"},
    7: {"bit_transformer/safety.py"},
    8: {"bit_transformer/training.py"},
    9: {"bit_transformer/model.py"},
    10: {"bit_transformer/model.py"},
    11: {"bit_transformer/model.py"},
    12: {"bit_transformer/model.py", "bit_transformer/training.py"},
}


# Pairs that change a file in common, and some others: `make laws` goes through every order of every set.
PAIRS = [pair for pair in itertools.combinations(TASKS, 2) if set.intersection(*(OWNED[task.number] for task in pair))]
PAIRS += [(TASKS[a - 1], TASKS[b - 1]) for a, b in ((5, 7), (1, 9), (2, 11), (8, 10))]


@pytest.fixture(scope="module")
def cube():
    return Cube()


@pytest.fixture(scope="module")
def corner(cube):
    """What a set of tasks makes, applied in order of number."""

    def make(tasks):
        state = {}
        for task in sorted(tasks, key=lambda task: task.number):
            state = cube.apply(state, task)
        return state

    return make


def test_all_at_once_makes_the_reference(tree, patched):
    assert contents(patched(tree, *(task.id for task in TASKS))) == contents(REFERENCE)


@pytest.mark.parametrize("seed", range(3))
def test_one_by_one_in_any_order_makes_the_reference(tree, patched, seed):
    for task in random.Random(seed).sample(TASKS, k=len(TASKS)):
        patched(tree, task.id)
    assert contents(tree) == contents(REFERENCE)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " ".join(task.id for task in pair))
def test_both_orders_of_a_pair_make_the_same(cube, corner, pair):
    first, second = pair
    assert cube.apply(corner([second]), first) == cube.apply(corner([first]), second)


@pytest.mark.parametrize("seed", range(6))
def test_random_steps_on_the_cube_end_where_the_straight_way_does(cube, corner, seed):
    walk = random.Random(seed)
    last, *others = walk.sample(TASKS, k=walk.randint(1, len(TASKS)))
    assert cube.apply(corner(others), last) == corner([last, *others]), (last.id, [task.id for task in others])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_twice_is_once(cube, corner, task):
    once = corner([task])
    assert cube.apply(once, task) == once


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_a_task_changes_only_its_own_files(task):
    assert {change.path for change in plan(open_tree(BASELINE), [task]).changes} == OWNED[task.number]


def changed(tree, task):
    """A tree with a task, which it takes."""
    planned = plan(tree, [task])
    assert planned.changes
    for change in planned.changes:
        tree = tree.with_source(Source(change.path, change.after))
    return tree


@pytest.mark.parametrize(("fork", "one", "other"), ON_FORKS)
def test_both_orders_of_a_pair_make_the_same_on_a_fork(fork, one, other):
    first, second = TASKS[one - 1], TASKS[other - 1]
    tree = open_tree(FORKS / fork / "tree")
    ways = [changed(changed(tree, way[0]), way[1]) for way in ((first, second), (second, first))]
    made = [{path: way.raw(path) for path in way.paths} for way in ways]
    assert made[0] == made[1]
