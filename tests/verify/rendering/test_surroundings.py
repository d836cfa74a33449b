"""What is shown beside a verdict: the lines that are meant, and commands that can be copied."""

import shlex
import shutil

import pytest
from results import report, shown
from samples import BASELINE, CODE_ONLY

from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Site, TaskStatus, mend, mended
from bitpatch.verify.rendering import surroundings
from bitpatch.verify.rendering.forms import FORMS
from bitpatch.verify.rendering.surroundings import Shown, looked_round


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    shutil.copytree(BASELINE, root, ignore=CODE_ONLY)
    return root


def test_an_excerpt_has_the_line_that_is_meant_whatever_else_ends_lines(tree):
    model = tree / "bit_transformer/model.py"
    first, rest = model.read_text().split("import math\n")
    model.write_text(f'{first}import math\n\nODD = "a\u2028b\x85c\x1cd"  # \x0b \x0c\n{rest}')
    found = looked_round(open_tree(tree), [task_named("11")], "tree")(report()).tasks[11]
    assert "canvas[:, :, s:end, columns] =" in dict(found.excerpt)[found.sites[0].line]


def test_what_apply_would_refuse_is_told(tree):
    model = tree / "bit_transformer/model.py"
    hidden = "getattr(torch, 'soft' + 'max')(scores, dim=-1)"
    before, softmax, after = model.read_text().rpartition("torch.softmax(scores, dim=-1)")
    model.write_text(f"{before}{hidden if softmax else ''}{after}")
    found = looked_round(open_tree(tree), [task_named("11")], "tree")(report()).tasks[11]
    assert "near miss at bit_transformer/model.py" in found.refusal


@pytest.mark.parametrize("name", ["a tree", "it's; rm -rf"])
def test_the_commands_that_are_shown_can_be_copied(name):
    made = shown()
    made = Shown(made.report, made.tasks, made.prefix, name)
    assert shlex.split(made.command(11)) == ["bitpatch", "verify", "task-11", "--tree", name]
    page = FORMS["html"](made)
    for words in ("verify task-4", "verify task-4 task-11", "apply task-4"):
        line = shlex.join(["bitpatch", *words.split(), "--tree", name])
        assert line.replace("&", "&amp;").replace("'", "&#39;").replace('"', "&#34;") in page, words


def test_a_place_that_is_named_twice_stays_where_it_was_named_first(monkeypatch):
    path = "bit_transformer/model.py"
    sites = [Site.at(path, note, line, 1) for note, line in (("open", 33), ("done", 9), ("done here too", 33))]
    status = TaskStatus.of(task_named("12"), [mend(sites[0], ()), *map(mended, sites[1:])])
    monkeypatch.setattr(surroundings, "survey", lambda *_: [status])
    found = surroundings.looked_round(open_tree(BASELINE), [status.task], "tree")(report()).tasks[12]
    assert [(each.line, each.note) for each in found.sites[:2]] == [(33, "open"), (9, "done")]
    assert found.excerpt[surroundings.AROUND][0] == found.sites[0].line
