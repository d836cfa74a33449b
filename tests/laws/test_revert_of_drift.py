"""Law 7 on trees that have drifted: what apply has done, revert undoes, whatever the tree and the tasks."""

import random
import shutil

import pytest
from samples import BASELINE, CODE_ONLY, contents

from bitpatch.patches.applying.originals import Originals, load
from bitpatch.patches.applying.revert import plan_apply, plan_revert
from bitpatch.patches.applying.transaction import write
from bitpatch.patches.known import all_tasks
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome


def every_file(change):
    def drift(tree):
        for path in sorted(tree.rglob("*.py")):
            path.write_bytes(change(path.read_bytes()))

    return drift


def with_a_comment(*paths):
    def drift(tree):
        for path in paths:
            (tree / path).write_bytes(b"# mine\n" + (tree / path).read_bytes())

    return drift


def renamed(old, new):
    return every_file(lambda raw: raw.replace(old, new))


def without_runs(tree):
    """A fork that has none of what waits for the patches."""
    for name in ("runs", "pretraining", "run_flags", "run_folder", "evaluation", "generation"):
        (tree / f"bit_transformer/{name}.py").unlink(missing_ok=True)


DRIFTS = {
    "CRLF": every_file(lambda raw: raw.replace(b"\n", b"\r\n")),
    "tabs": every_file(lambda raw: raw.replace(b"    ", b"\t")),
    "a byte order mark": every_file(lambda raw: b"\xef\xbb\xbf" + raw),
    "no newline at the end": every_file(lambda raw: raw.rstrip(b"\n")),
    "a comment where no task is": with_a_comment("bit_transformer/pretraining.py", "bit_transformer/corpus.py"),
    "a comment in each file": every_file(lambda raw: b"# mine\n" + raw),
    "another name for a local": renamed(b"losses", b"all_losses"),
    "without runs": without_runs,
    "as it is": lambda tree: None,
}


def apply(root, tasks):
    planned, originals = plan_apply(open_tree(root), tasks, tell=pytest.fail)
    assert not planned.refused, [outcome.reason for outcome in planned.outcomes]
    write(root, planned.changes, originals)


def revert(root, tasks):
    planned, originals = plan_revert(open_tree(root), load(root), tasks)
    assert {outcome.outcome for outcome in planned.outcomes} <= {Outcome.REVERTED, Outcome.NOT_APPLIED}, [
        outcome.reason for outcome in planned.outcomes
    ]
    write(root, planned.changes, originals)


@pytest.fixture
def drifted(tmp_path):
    def make(drift, name):
        root = shutil.copytree(BASELINE, tmp_path / name, ignore=CODE_ONLY)
        DRIFTS[drift](root)
        return root

    return make


@pytest.mark.parametrize("drift", DRIFTS)
def test_all_that_was_applied_comes_off_again(drifted, drift):
    root = drifted(drift, "tree")
    before = contents(root)
    apply(root, all_tasks())
    assert contents(root) != before
    revert(root, all_tasks())
    assert (contents(root), load(root)) == (before, Originals())


@pytest.mark.parametrize("drift", DRIFTS)
def test_a_part_comes_off_and_the_rest_is_as_if_it_had_never_been(drifted, drift):
    draw = random.Random(drift)
    kept = draw.sample(all_tasks(), draw.randint(1, 6))
    gone = draw.sample([task for task in all_tasks() if task not in kept], draw.randint(1, 5))
    root, other = drifted(drift, "tree"), drifted(drift, "other")
    for some in (kept[:1] + gone, kept[1:]):
        if some:
            apply(root, some)
    revert(root, gone)
    apply(other, kept)
    assert contents(root) == contents(other)
