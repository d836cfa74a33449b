"""Laws 1 to 3: apply makes the reference, twice is once, order leaves no trace."""

import itertools
import random
import shutil

import pytest
from samples import BASELINE, CODE_ONLY, REFERENCE, contents

from bitpatch.patches.engine import all_tasks, plan
from bitpatch.patches.source import open_tree

NAMES = [task.id for task in all_tasks()]
SUBSETS = [names for size in range(len(NAMES)) for names in itertools.combinations(NAMES, size)]


@pytest.mark.parametrize("order", [pytest.param(order, id=" ".join(order)) for order in itertools.permutations(NAMES)])
def test_every_order_makes_the_reference(tree, patched, order):
    for name in order:
        patched(tree, name)
    assert contents(tree) == contents(REFERENCE)


def test_all_at_once_makes_the_reference(tree, patched):
    assert contents(patched(tree, *NAMES)) == contents(REFERENCE)


@pytest.mark.parametrize("names", [pytest.param(names, id=" ".join(names) or "none") for names in SUBSETS])
def test_every_subset_is_the_same_in_every_order_and_twice_is_once(tmp_path, patched, names):
    results = []
    for number, order in enumerate(itertools.permutations(names)):
        tree = shutil.copytree(BASELINE, tmp_path / str(number), ignore=CODE_ONLY)
        for name in order:
            patched(tree, name)
        once = contents(tree)
        assert contents(patched(tree, *names)) == once
        results.append(once)
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("task", all_tasks(), ids=lambda task: task.id)
def test_a_task_changes_only_its_own_files(task):
    owned = {4: {"bit_transformer/training.py"}, 10: {"bit_transformer/model.py"}, 11: {"bit_transformer/model.py"}}
    assert {change.path for change in plan(open_tree(BASELINE), [task]).changes} == owned[task.number]


def test_a_random_walk_over_subsets_ends_where_the_straight_way_does(tmp_path, patched):
    walk = random.Random(11)
    for number in range(2):
        order = walk.choices(NAMES, k=5)
        tree = shutil.copytree(BASELINE, tmp_path / str(number), ignore=CODE_ONLY)
        straight = shutil.copytree(BASELINE, tmp_path / f"straight {number}", ignore=CODE_ONLY)
        for name in order:
            patched(tree, name)
        assert contents(tree) == contents(patched(straight, *set(order)))
