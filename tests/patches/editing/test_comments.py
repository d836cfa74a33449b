"""No comment is lost: what an edit rewrites keeps its comments, in the new text or above it."""

import io
import itertools
import re
import shutil
import subprocess
import tokenize

import pytest
from drift.rewriting import ruff
from samples import BASELINE, CODE_ONLY, FORKS, source

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.editing.edits import apply_edits, rewrite
from bitpatch.patches.known import all_tasks, task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Edit

FILES = [
    *("bit_transformer/model.py", "bit_transformer/training.py", "bit_transformer/safety.py"),
    *("dashboard/manager.py", "data/wikitext_schedule.py"),
]
NUMBERED = re.compile(r"# N\d+\b")


def numbered(text, start=0):
    """A comment behind every line that can have one, and above every statement of a file."""
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    ends = {token.start[0] for token in tokens if token.type in (tokenize.NEWLINE, tokenize.NL)}
    inside = {n for token in tokens if token.type == tokenize.STRING for n in range(token.start[0], token.end[0])}
    lines = text.splitlines()
    return (
        "\n".join(
            f"{line}  # N{start + n}" if n in ends - inside and line.strip() and not line.endswith("\\") else line
            for n, line in enumerate(lines, 1)
        )
        + "\n"
    )


@pytest.fixture
def numbered_tree(tree):
    for place, path in enumerate(FILES):
        (tree / path).write_text(numbered((tree / path).read_text(), 1000 * place))
    return tree


def assert_every_comment_kept(tree, task):
    planned = plan(open_tree(tree), [task])
    assert planned.changes, planned.outcomes[0].reason
    for change in planned.changes:
        before, after = (sorted(NUMBERED.findall(raw.decode())) for raw in (change.before, change.after))
        assert [one for one in before if one not in after] == []
        assert before == after


@pytest.mark.parametrize("task", all_tasks(), ids=lambda task: task.id)
def test_each_task_keeps_every_comment(numbered_tree, task):
    assert_every_comment_kept(numbered_tree, task)


@pytest.mark.parametrize(
    ("tree", "task"),
    [*((BASELINE, task) for task in all_tasks()), (FORKS / "trainer/tree", task_named("task-4"))],
    ids=lambda each: getattr(each, "id", getattr(each, "name", "")),
)
def test_what_stands_on_many_lines_keeps_every_comment_once(tmp_path, tree, task):
    """As a formatter breaks them into the shortest lines: what is written twice, or moved, has its comments once."""
    shutil.copytree(tree, tmp_path / "tree", ignore=CODE_ONLY)
    short = [ruff(), "format", "--quiet", "--isolated", "--line-length", "40", tmp_path / "tree"]
    subprocess.run(short, check=True)
    for place, file in enumerate(sorted((tmp_path / "tree").rglob("*.py"))):
        file.write_text(numbered(file.read_text(), 10_000 * place))
    assert_every_comment_kept(tmp_path / "tree", task)


def spread(text):
    """A comment, and a new line, behind every token that stands in brackets."""
    depth, lines, places = 0, text.splitlines(keepends=True), list[tuple[int, int]]()
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    for token, following in itertools.pairwise(tokens):
        depth += (token.string in "([{") - (token.string in ")]}") if token.type == tokenize.OP else 0
        if depth and not {token.type, following.type} & {tokenize.NL, tokenize.COMMENT}:
            places.append(token.end)
    for number, (line, column) in reversed(list(enumerate(places))):
        before = lines[line - 1]
        lines[line - 1] = f"{before[:column]}  # N{number}\n{before[column:]}"
    return "".join(lines)


def test_a_comment_behind_every_token_is_kept(tree):
    model = tree / "bit_transformer/model.py"
    model.write_text(spread(model.read_text()))
    for name in ("task-9", "task-11"):
        planned = plan(open_tree(tree), [task_named(name)])
        assert not planned.refused, planned.outcomes[0].reason
        (change,) = planned.changes
        before, after = (set(NUMBERED.findall(raw.decode())) for raw in (change.before, change.after))
        assert before == after


def test_all_tasks_together_keep_every_comment(numbered_tree):
    planned = plan(open_tree(numbered_tree), all_tasks())
    assert not planned.refused, [outcome.reason for outcome in planned.outcomes]
    for change in planned.changes:
        assert sorted(NUMBERED.findall(change.before.decode())) == sorted(NUMBERED.findall(change.after.decode()))


def _call(file):
    import libcst as cst

    return next(file.walk(cst.Call))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("x = g(  # a\n    1,  # b\n)\n", "# a\n# b\nx = new\n", id="inside"),
        pytest.param("# above\nx = g(1)  # behind\n", "# above\nx = new  # behind\n", id="around it stays"),
        pytest.param("x = g(\n    # own line\n    1,\n)\n", "# own line\nx = new\n", id="on a line of its own"),
        pytest.param(
            "def f():\n    return g(  # a\n        1,\n    )\n", "def f():\n    # a\n    return new\n", id="indented"
        ),
        pytest.param("if g(  # a\n    1,\n):\n    pass  # b\n", "# a\nif new:\n    pass  # b\n", id="in a condition"),
        pytest.param(
            "x = [  # kept\n    g(  # a\n        1,\n    ),\n]\n",
            "# kept\n# a\nx = [\n    new,\n]\n",
            id="with its neighbours",
        ),
        pytest.param('x = g("# no comment")\n', "x = new\n", id="a text that looks like one"),
    ],
)
def test_what_is_rewritten_has_its_comments_above(before, after):
    file = source(before)
    assert apply_edits(file, [rewrite(file, _call(file), lambda _: "new")]).raw.decode() == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("# a\ng()  # b\nx = 1\n", "# a\n# b\nx = 1\n", id="to the one behind"),
        pytest.param(
            "def f():\n    x = 1\n    # a\n    g()  # b\n",
            "def f():\n    # a\n    # b\n    x = 1\n",
            id="to the one before",
        ),
        pytest.param(
            "if a:\n    x = 1\n    g()  # b\nelse:\n    y = 1\n",
            "if a:\n    # b\n    x = 1\nelse:\n    y = 1\n",
            id="in its own block",
        ),
    ],
)
def test_what_is_taken_out_leaves_its_comments_to_its_neighbour(before, after):
    import libcst as cst

    file = source(before)
    gone = file.statement(_call(file))
    assert apply_edits(file, [Edit(file, gone, lambda _: cst.RemoveFromParent())]).raw.decode() == after


def test_a_comment_without_a_place_is_named():
    import libcst as cst

    file = source("x = 1\ng()  # why\n")
    edit = Edit(file, file.statement(_call(file)), lambda _: cst.RemoveFromParent())
    with pytest.raises(Exception, match=r"file\.py:2:1: the comment # why would have no place any more"):
        apply_edits(file, [edit])


@pytest.mark.parametrize(("first", "second"), [("9", "10"), ("10", "9"), ("1", "4"), ("4", "1")])
def test_the_order_of_tasks_leaves_no_trace_in_comments(numbered_tree, patched, tmp_path, first, second):
    import shutil

    other = shutil.copytree(numbered_tree, tmp_path / "other")
    one = patched(patched(numbered_tree, first), second)
    both = patched(patched(other, second), first)
    for path in FILES:
        assert (one / path).read_text() == (both / path).read_text()


def test_the_files_are_those_that_tasks_change():
    changed = {change.path for change in plan(open_tree(BASELINE), all_tasks()).changes}
    assert set(FILES) <= changed
    assert task_named("1").number == 1
