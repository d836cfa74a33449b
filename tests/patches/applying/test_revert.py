"""Taking tasks back: what stays, what is refused, and what is said."""

import re
import shutil
from dataclasses import replace

import pytest
from samples import BASELINE, contents

from bitpatch.patches.applying.originals import Originals, load, state_file
from bitpatch.patches.applying.revert import plan_apply, plan_revert
from bitpatch.patches.applying.transaction import write
from bitpatch.patches.known import all_tasks, task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import BitpatchError, Outcome

MODEL, TRAINING = "bit_transformer/model.py", "bit_transformer/training.py"
CACHED = "get_tri_mask(T, q.device)"
OWN = """

def window_count(T, chunk):
    return -(-T // chunk)
"""


@pytest.fixture
def baseline(tree):
    return contents(tree)


def apply(tree, *names):
    planned, originals = plan_apply(open_tree(tree), [task_named(name) for name in names], tell=pytest.fail)
    assert not planned.refused, planned.outcomes
    write(tree, planned.changes, originals)
    return contents(tree)


def revert(tree, *names, every=False):
    tasks = all_tasks() if every else [task_named(name) for name in names]
    planned, originals = plan_revert(open_tree(tree), load(tree), tasks, every=every)
    if not planned.refused:
        write(tree, planned.changes, originals)
    return {outcome.task.id: outcome for outcome in planned.outcomes}


def refusal(tree, *names):
    """Why a revert is refused; it must not have written anything, nor forgotten."""
    before = contents(tree), load(tree)
    (outcome,) = revert(tree, *names).values()
    assert (outcome.outcome, contents(tree), load(tree)) == (Outcome.REFUSED, *before)
    return outcome


def rewrite(path, old, new):
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())


def test_what_is_not_applied_is_left(tree, baseline):
    assert revert(tree, "10")["task-10"].outcome is Outcome.NOT_APPLIED
    assert contents(tree) == baseline


def test_what_was_patched_by_hand_is_left_and_refused(tree, patched):
    patched(tree, "task-10")
    outcome = refusal(tree, "10")
    assert "no originals to go back to" in outcome.reason
    assert {site.path for site in outcome.sites} == {MODEL}


def test_all_takes_back_what_was_applied_and_leaves_what_was_not(tree, patched):
    by_hand = contents(patched(tree, "task-10"))
    apply(tree, "11")
    outcomes = revert(tree, every=True)
    assert (outcomes["task-10"].outcome, outcomes["task-11"].outcome) == (Outcome.NOT_APPLIED, Outcome.REVERTED)
    assert (contents(tree), load(tree)) == (by_hand, Originals())


def test_all_without_any_originals_is_refused(tree, patched):
    patched(tree, "task-10")
    outcomes = revert(tree, every=True)
    assert (outcomes["task-10"].outcome, outcomes["task-11"].outcome) == (Outcome.REFUSED, Outcome.NOT_APPLIED)


def test_one_refusal_refuses_all(tree, patched):
    patched(tree, "task-10")
    before = apply(tree, "11")
    assert revert(tree, "10", "11")["task-10"].outcome is Outcome.REFUSED
    assert contents(tree) == before


def test_applied_again_is_remembered_once(tree, baseline):
    apply(tree, "10")
    apply(tree, "10")
    assert revert(tree, "10")["task-10"].outcome is Outcome.REVERTED
    assert (contents(tree), load(tree)) == (baseline, Originals())


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf", b"# -*- coding: latin-1 -*-\n# caf\xe9\n"])
def test_bytes_come_back_as_they_were(tree, prefix):
    dressed = prefix + (tree / MODEL).read_bytes().rstrip(b"\n")
    (tree / MODEL).write_bytes(dressed.replace(b"\n", b"\r\n"))
    (tree / MODEL).chmod(0o750)
    before = contents(tree)
    apply(tree, "10", "11")
    revert(tree, every=True)
    assert (contents(tree), (tree / MODEL).stat().st_mode & 0o777) == (before, 0o750)


def test_files_that_bitpatch_never_wrote_are_left(tree, baseline):
    apply(tree, "10", "11")
    new = {"bit_transformer/mine.py": b"import torch\n\n\ndef f(n):\n    return torch.triu(torch.zeros(n, n))\n"}
    (tree / "bit_transformer/mine.py").write_bytes(new["bit_transformer/mine.py"])
    assert revert(tree, "11")["task-11"].outcome is Outcome.REVERTED
    assert revert(tree, "10")["task-10"].outcome is Outcome.REVERTED
    assert contents(tree) == baseline | new


def test_an_edit_by_hand_is_kept(tree, baseline):
    apply(tree, "10", "11")
    (tree / MODEL).write_bytes((tree / MODEL).read_bytes() + OWN.encode())
    revert(tree, "10", "11")
    assert contents(tree) == baseline | {MODEL: baseline[MODEL] + OWN.encode()}


def test_a_conflict_is_named_with_what_both_sides_want(tree):
    apply(tree, "10")
    rewrite(tree / MODEL, CACHED, f"{CACHED}.clone()")
    line = next(n for n, text in enumerate((tree / MODEL).read_text().splitlines(), 1) if ".clone()" in text)
    outcome = refusal(tree, "10")
    assert f"{MODEL}:{line}: edited by hand" in outcome.reason
    assert f"{CACHED}.clone()" in outcome.reason
    assert "torch.triu(torch.ones(" in outcome.reason
    assert [(site.path, site.line) for site in outcome.sites] == [(MODEL, line)]


def test_a_conflict_is_settled_by_doing_what_the_revert_wants(tree, baseline):
    apply(tree, "10")
    old = next(line for line in (tree / MODEL).read_text().splitlines() if CACHED in line)
    new = next(line for line in baseline[MODEL].decode().splitlines() if "torch.triu(torch.ones(T, T" in line)
    rewrite(tree / MODEL, old, old + "  # mine")
    refusal(tree, "10")
    rewrite(tree / MODEL, old + "  # mine", new)
    assert revert(tree, "10")["task-10"].outcome is Outcome.REVERTED
    assert contents(tree) == baseline


def test_what_was_written_between_two_applies_becomes_part_of_the_originals(tree, baseline):
    """A triangle that was written, and then patched, after the first apply: reverting gives the triangle back."""
    own = "\n\ndef own(T):\n    return torch.triu(torch.ones(T, T, dtype=torch.bool, device='cpu'), diagonal=1)\n"
    apply(tree, "10")
    (tree / MODEL).write_bytes((tree / MODEL).read_bytes() + own.encode())
    assert own.encode() not in apply(tree, "10")[MODEL]
    revert(tree, "10")
    assert contents(tree) == baseline | {MODEL: baseline[MODEL] + own.encode()}


def test_an_edit_of_what_bitpatch_wrote_does_not_stop_an_apply_but_a_revert(tree, baseline):
    apply(tree, "10")
    rewrite(tree / MODEL, CACHED, f"{CACHED}.clone()")
    apply(tree, "11")
    assert f"{MODEL}:" in refusal(tree, "10").reason
    assert "edited by hand where bitpatch had written, and then patched again" in refusal(tree, "11").reason
    (tree / MODEL).write_bytes(baseline[MODEL])
    apply(tree, "11")
    assert revert(tree, "11")["task-11"].outcome is Outcome.REVERTED
    assert contents(tree) == baseline


def test_a_tree_that_was_put_back_by_hand_is_forgotten(tree, baseline):
    apply(tree, "10", "11")
    (tree / MODEL).write_bytes(baseline[MODEL])
    assert {each.outcome for each in revert(tree, "10", "11").values()} == {Outcome.NOT_APPLIED}
    assert (contents(tree), load(tree)) == (baseline, Originals())


def test_after_a_tree_was_put_back_by_hand_the_next_apply_begins_anew(tree, baseline):
    apply(tree, "10")
    (tree / MODEL).write_bytes(baseline[MODEL] + OWN.encode())
    apply(tree, "11")
    assert load(tree).tasks == {"task-11"}
    revert(tree, "11")
    assert contents(tree) == baseline | {MODEL: baseline[MODEL] + OWN.encode()}


@pytest.mark.parametrize(
    ("task", "path", "code", "name"),
    [
        pytest.param("10", MODEL, "\n\nOWN = get_tri_mask(4, 'cpu')\n", "get_tri_mask", id="a name"),
        pytest.param(
            "10", "own.py", "from bit_transformer.model import get_tri_mask\n", "get_tri_mask", id="an import"
        ),
        pytest.param(
            "4",
            "own.py",
            "from bit_transformer import training\n\ntraining.train_loop(None, None, accum_steps=2)\n",
            "accum_steps",
            id="an argument",
        ),
    ],
)
def test_code_that_uses_what_would_be_gone_is_named(tree, task, path, code, name):
    apply(tree, task)
    file = tree / path
    file.write_text((file.read_text() if file.exists() else "") + code)
    outcome = refusal(tree, task)
    assert f"{path}:{len(file.read_text().splitlines())}:" in outcome.reason
    assert f"{name} is used here, and would be gone" in outcome.reason


def test_names_of_the_same_spelling_elsewhere_do_no_harm(tree, baseline):
    own = b"def train_loop_of_mine(accum_steps=1):\n    return accum_steps\n\n\ntrain_loop_of_mine(accum_steps=2)\n"
    apply(tree, "4", "10")
    (tree / "own.py").write_bytes(own)
    revert(tree, "4", "10")
    assert contents(tree) == baseline | {"own.py": own}


def test_a_file_that_was_deleted_stays_deleted(tree, baseline):
    apply(tree, "2", "10")
    (tree / "mcp_server.py").unlink()
    (tree / "dashboard/app.py").unlink()
    assert revert(tree, "10")["task-10"].outcome is Outcome.REVERTED
    revert(tree, "2")
    assert contents(tree) == {
        path: raw for path, raw in baseline.items() if path not in ("mcp_server.py", "dashboard/app.py")
    }


def test_a_file_that_was_moved_is_named(tree):
    apply(tree, "10")
    (tree / MODEL).rename(tree / "bit_transformer/net.py")
    assert "bit_transformer/net.py:" in refusal(tree, "10").reason
    assert "Move it back" in refusal(tree, "10").reason


def test_a_file_that_does_not_parse_as_merged_is_refused(tree):
    apply(tree, "10")
    (tree / MODEL).write_bytes((tree / MODEL).read_bytes() + b"\ndef own(:\n")
    line = len((tree / MODEL).read_text().splitlines())
    reason = refusal(tree, "10").reason
    assert re.search(r"model\.py:\d+:1: does not parse as merged", reason), (line, reason)


def test_a_task_of_another_version_is_named(tree):
    apply(tree, "10")
    write(tree, [], replace(load(tree), tasks=frozenset({"task-10", "task-99"})))
    assert "another version of bitpatch" in refusal(tree, "10").reason


def test_a_copy_has_no_originals(tree, tmp_path):
    apply(tree, "10")
    copy = shutil.copytree(tree, tmp_path / "copy")
    assert "moved since" in refusal(copy, "10").reason


def test_originals_that_cannot_be_read_do_not_stop_an_apply(tree):
    apply(tree, "10")
    state_file(tree).write_text("{")
    told = []
    planned, originals = plan_apply(open_tree(tree), [task_named("11")], tell=told.append)
    assert (planned.outcomes[0].outcome, originals) == (Outcome.APPLIED, None)
    assert "cannot be read" in told[0]
    with pytest.raises(BitpatchError, match="cannot be read"):
        revert(tree, "10")


def test_the_baseline_is_what_it_was(tree):
    """What the tests above rest on: tasks 2, 4, 10 and 11 change these files and no others."""
    before = contents(tree)
    after = apply(tree, "4", "10", "11")
    assert {path for path in before if before[path] != after[path]} == {MODEL, TRAINING}
    assert before == contents(BASELINE)
