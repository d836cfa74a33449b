"""What is written where: before the judges run what can fail is tried, and a page has the curves of before."""

import shutil
from pathlib import Path

import pytest
from results import fit, report
from samples import BASELINE, CODE_ONLY

from bitpatch.patches.engine import all_tasks, task_named
from bitpatch.patches.revert import plan_apply
from bitpatch.patches.transaction import write
from bitpatch.patches.tree import open_tree
from bitpatch.screen import Failure
from bitpatch.verify.rendering import terminal
from bitpatch.verify.rendering.surroundings import Shown


def look(tree: Path, *files: Path, form: str = "text"):
    return terminal.look(open_tree(tree), [task_named("12")], str(tree), form, files)


@pytest.fixture
def patched(tmp_path) -> Path:
    tree = tmp_path / "tree"
    shutil.copytree(BASELINE, tree, ignore=CODE_ONLY)
    planned, originals = plan_apply(open_tree(tree), all_tasks(), tell=pytest.fail)
    write(tree, planned.changes, originals, tell=pytest.fail)
    return tree


@pytest.mark.parametrize(("name", "code"), [("page.htm", 2), ("page", 2), ("no/such/page.html", 6)])
def test_a_file_that_cannot_be_written_is_named_before_the_judges_run(tmp_path, name, code):
    with pytest.raises(Failure) as raised:
        look(BASELINE, tmp_path / name)
    assert raised.value.code == code
    assert raised.value.then


def test_a_plain_form_asks_nothing_of_the_source():
    assert look(BASELINE) is Shown
    assert look(BASELINE, form="github") is not Shown


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
