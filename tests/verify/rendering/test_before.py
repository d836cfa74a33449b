"""A page shows the short training run of the tree before it was patched, beside that of now."""

import shutil
from pathlib import Path

import pytest
from results import fit, report
from samples import BASELINE, CODE_ONLY

from bitpatch.patches.applying.revert import plan_apply
from bitpatch.patches.applying.transaction import write
from bitpatch.patches.known import all_tasks, task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.verify.rendering import terminal


def look(tree: Path, *files: Path, form: str = "text"):
    return terminal.look(open_tree(tree), [task_named("12")], str(tree), form, None, files)


@pytest.fixture
def patched(tmp_path) -> Path:
    tree = tmp_path / "tree"
    shutil.copytree(BASELINE, tree, ignore=CODE_ONLY)
    planned, originals = plan_apply(open_tree(tree), all_tasks(), tell=pytest.fail)
    write(tree, planned.changes, originals, tell=pytest.fail)
    return tree


def test_a_page_shows_the_run_of_before(tmp_path, patched, monkeypatch):
    asked = []
    monkeypatch.setattr(terminal, "fitted", lambda root, changes: asked.append((root, changes)) or fit())
    shown = look(patched, tmp_path / "page.html")(report(fit=fit()))
    assert terminal.give(shown, "text", tmp_path / "text", [tmp_path / "page.html"], quiet=True) == 4
    ((root, changes),) = asked
    assert root == patched
    assert {each.path: each.after for each in changes} == {
        each.path: (BASELINE / each.path).read_bytes() for each in changes
    }
    assert "before it was patched" in (tmp_path / "page.html").read_text()


def test_a_tree_that_was_not_patched_here_has_no_before(tmp_path, monkeypatch):
    monkeypatch.setattr(terminal, "fitted", lambda *_: pytest.fail("asked"))
    shown = look(BASELINE, tmp_path / "page.html")(report(fit=fit()))
    terminal.give(shown, "text", tmp_path / "text", [tmp_path / "page.html"], quiet=True)
    assert "before it was patched" not in (tmp_path / "page.html").read_text()
