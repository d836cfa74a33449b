"""Law 3 where code is not the baseline's: a sample of drifted trees, and of a fork whose parts are far apart."""

import itertools
import random

import pytest
from drift.drifted import copy_of, drift
from samples import BASELINE, ROOT

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import all_tasks
from bitpatch.patches.reading.source import Source
from bitpatch.patches.reading.tree import open_tree

FORK = ROOT / "tests/forks/conf_engine/tree"
LEFT_OUT = [("fork", {2, 8})]  # whose imports come in another order where both put some among unsorted ones


def taken(tree, task):
    """A tree with one more task; None where it is refused."""
    planned = plan(tree, [task])
    for change in planned.changes:
        tree = tree.with_source(Source(change.path, change.after))
    return None if planned.refused else tree


@pytest.mark.parametrize("seed", ["fork", *range(3)])
def test_both_orders_of_what_a_tree_takes_make_the_same(tmp_path, seed):
    folder = FORK if seed == "fork" else copy_of(BASELINE, tmp_path / "tree")
    if seed != "fork":
        drift(folder, seed)
    tree, tasks = open_tree(folder), all_tasks()
    once = []
    for task in random.Random(f"order {seed}").sample(tasks, k=len(tasks)):
        made = taken(tree, task) if len(once) < 4 else None
        once += [(task, made)] if made is not None and made is not tree else []
    for (first, one), (second, other) in itertools.combinations(once, 2):
        if (seed, {first.number, second.number}) in LEFT_OUT:
            continue
        ways = [taken(one, second), taken(other, first)]
        assert None not in ways, (first.id, second.id)
        texts = [{path: way.raw(path) for path in tree.paths} for way in ways]
        assert texts[0] == texts[1], (first.id, second.id)
