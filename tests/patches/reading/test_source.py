"""Reading files: what is round-tripped, what is refused, and how a tree is found."""

import ast
import os
from pathlib import Path

import libcst as cst
import pytest
from samples import ROOT, source

from bitpatch.patches.reading.source import Source
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import BitpatchError, Unparsable, Unreadable

MODEL = "class BitTransformerLM:\n    pass\n"


def write(root: Path, path: str, text: str | bytes) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"x = 1", id="no final newline"),
        pytest.param(b"if x:\r\n\ty = 1\r\n", id="CRLF and tabs"),
        pytest.param(b"\xef\xbb\xbfx = 1\n", id="byte order mark"),
        pytest.param(b"# -*- coding: latin-1 -*-\nx = '\xe9'\n", id="encoding cookie"),
        pytest.param(b"a = 1\r\nb = 2\n", id="mixed newlines"),
        pytest.param(b"# caf\xe9 -*- coding: latin-1 -*-\nx = 1\n", id="a letter on the cookie's own line"),
        pytest.param(
            b"#!/usr/bin/python\n# vim: set fileencoding=utf-8-unix :\nx = '\xc3\xa9'\n", id="an editor's name"
        ),
    ],
)
def test_bytes_survive(raw):
    assert Source("file.py", raw).module.bytes == raw


def test_a_file_that_is_not_reproduced_is_refused():
    with pytest.raises(Unparsable, match=r"file\.py:3:1: LibCST does not reproduce"):
        Source("file.py", b"def f():\n    pass\n\x0cx = 1\n").require_faithful()


def test_a_syntax_error_is_named_with_its_line():
    with pytest.raises(Unparsable, match=r"file\.py:2:5: syntax error: '\(' was never closed"):
        Source("file.py", b"x = 1\ny = (\n")


def test_bytes_that_are_not_utf8_are_named_with_the_way_out():
    with pytest.raises(Unparsable, match="convert the file to UTF-8"):
        Source("file.py", b"x = '\xe9'\n")


def test_a_site_is_counted_from_one_and_points_behind_the_indent():
    source = Source("file.py", b"# above\n\n\ndef f():\n    # on\n    return g(1)\n")
    call = next(source.walk(cst.Call))
    assert str(source.site(call, "a call")) == "file.py:6:12: a call"
    assert source.site(source.statement(call), "").line == 6


def test_a_use_is_no_attribute_and_no_keyword():
    source = Source("file.py", b"f(a, key=b.attr)\n")
    assert [name.value for name in source.uses()] == ["f", "a", "b"]


def test_a_tree_is_found_by_what_it_defines(tmp_path):
    write(tmp_path, "pkg/net.py", MODEL)
    write(tmp_path, "scripts/fit.py", "def train_loop():\n    pass\n")
    tree = open_tree(tmp_path)
    assert (tree.model_path, tree.training_path) == ("pkg/net.py", "scripts/fit.py")


def test_virtual_environments_builds_and_hidden_folders_are_not_searched(tmp_path):
    write(tmp_path, "pkg/model.py", MODEL)
    write(tmp_path, "env2/pyvenv.cfg", "")
    for folder in ("env2", ".git", "build", "node_modules"):
        write(tmp_path, f"{folder}/model.py", MODEL)
    assert open_tree(tmp_path).model_path == "pkg/model.py"


def test_a_linked_folder_is_searched_once_and_a_circle_ends(tmp_path):
    write(tmp_path, ".elsewhere/pkg/model.py", MODEL)
    (tmp_path / "pkg").symlink_to(".elsewhere/pkg")
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "gone.py").symlink_to("nowhere.py")
    assert open_tree(tmp_path).paths == ("pkg/model.py",)


def test_a_file_and_a_link_to_it_are_one(tmp_path):
    write(tmp_path, "pkg/model.py", MODEL)
    write(tmp_path, "pkg/training.py", "def train_loop():\n    pass\n")
    (tmp_path / "pkg/loop.py").symlink_to("training.py")
    (tmp_path / "alias").symlink_to("pkg")
    assert open_tree(tmp_path).paths == ("pkg/model.py", "pkg/training.py")


@pytest.mark.parametrize("link", ["pkg/training.py", "pkg", "pkg/model.py"])
def test_a_link_out_of_the_tree_is_named_and_not_followed(tmp_path, link):
    write(tmp_path, "tree/pkg/model.py", MODEL)
    write(tmp_path, "tree/pkg/training.py", "def train_loop():\n    pass\n")
    (tmp_path / "tree" / link).rename(tmp_path / "away")
    (tmp_path / "tree" / link).symlink_to(tmp_path / "away")
    if link == "pkg/training.py":
        tree = open_tree(tmp_path / "tree")
        assert (tree.links_out, tree.training_path) == ((link,), None)
    else:
        with pytest.raises(BitpatchError, match=f"not followed, as they lead out of the tree: {link};"):
            open_tree(tmp_path / "tree")


@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_left_out(tmp_path):
    write(tmp_path, "pkg/model.py", MODEL)
    os.mkfifo(tmp_path / "pkg/pipe.py")
    os.mkfifo(tmp_path / ".gitignore")
    (tmp_path / "pkg/kernel.py").symlink_to("/proc/kmsg")
    (tmp_path / "pkg/zero.py").symlink_to("/dev/zero")
    assert open_tree(tmp_path).paths == ("pkg/model.py",)


def test_an_empty_folder_is_no_tree(tmp_path):
    with pytest.raises(BitpatchError, match="expected a BitTransformerLM tree") as refusal:
        open_tree(tmp_path)
    assert refusal.value.exit_code == 3


@pytest.mark.parametrize(
    "text",
    [
        '"""Once there was a class BitTransformerLM."""\n',
        'PAGE = """\nclass BitTransformerLM(nn.Module):\n    ...\n"""\n',
        "def make():\n    class BitTransformerLM:\n        pass\n",
    ],
    ids=["in a docstring", "at the start of a line in a string", "in a function"],
)
def test_a_class_that_is_not_defined_at_the_top_is_no_tree(tmp_path, text):
    write(tmp_path, "notes.py", text)
    with pytest.raises(BitpatchError, match="expected a BitTransformerLM tree"):
        open_tree(tmp_path)
    write(tmp_path, "pkg/model.py", MODEL)
    assert open_tree(tmp_path).model_path == "pkg/model.py"


@pytest.mark.parametrize(
    "head", ["if True:\n", "try:\n", "with open(__file__):\n", "if False:\n    pass\nelse:\n", "for _ in range(1):\n"]
)
def test_a_class_under_a_condition_is_one(tmp_path, head):
    tail = "finally:\n    pass\n" if head == "try:\n" else ""
    write(tmp_path, "pkg/model.py", f"{head}    class BitTransformerLM:\n        pass\n{tail}")
    assert open_tree(tmp_path).model_path == "pkg/model.py"


def test_a_model_that_does_not_parse_is_still_the_tree(tmp_path):
    write(tmp_path, "pkg/model.py", MODEL + "def f(:\n")
    assert open_tree(tmp_path).model_path == "pkg/model.py"


LOOP = "def train_loop():\n    pass\n"


@pytest.mark.parametrize(
    ("files", "taken", "why"),
    [
        pytest.param(
            {
                "pkg/model.py": MODEL,
                "pkg/training.py": LOOP,
                "scripts/pkg/model.py": MODEL,
                "scripts/run.py": "loss = 1",
            },
            ["pkg/model.py", "pkg/training.py"],
            "a training loop lies beside it",
            id="a copy under scripts",
        ),
        pytest.param(
            {
                "fork/src/pkg/model.py": MODEL,
                "pkg/model.py": MODEL,
                "pkg/training.py": LOOP,
                "fork/src/pkg/training.py": LOOP,
            },
            ["pkg/model.py", "pkg/training.py"],
            "it is nearest to the tree's root",
            id="a whole fork below",
        ),
        pytest.param(
            {"all_in_one.py": MODEL, "src/pkg/__init__.py": "", "src/pkg/model.py": MODEL},
            ["src/pkg/__init__.py", "src/pkg/model.py"],
            "it is in a package",
            id="a script that repeats the class",
        ),
        pytest.param(
            {"old/model.py": MODEL, "pkg/model.py": MODEL, "pkg/training.py": LOOP, "use.py": "import torch"},
            ["use.py", "pkg/model.py", "pkg/training.py"],
            "a training loop lies beside it",
            id="an old model",
        ),
    ],
)
def test_a_second_copy_is_left_alone_and_named(tmp_path, files, taken, why):
    for path, text in files.items():
        write(tmp_path, path, text)
    told = []
    tree = open_tree(tmp_path, tell=told.append)
    assert list(tree.paths) == taken
    (note,) = told
    assert note.startswith(f"note: {tree.model_path} is taken for the model, as {why}; left alone: ")


def test_two_trees_are_named(tmp_path):
    write(tmp_path, "a/model.py", MODEL)
    write(tmp_path, "b/model.py", MODEL)
    with pytest.raises(BitpatchError, match=r"found 2 BitTransformerLM trees \(a/model.py, b/model.py\)"):
        open_tree(tmp_path)


def test_a_missing_folder_cannot_be_read(tmp_path):
    with pytest.raises(Unreadable, match="expected a folder, found nothing"):
        open_tree(tmp_path / "nowhere")


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(
    "path", ["patches/applying/merge.py", "reference/bit_transformer/model.py", "reference/dashboard/manager.py"]
)
def test_every_expression_that_python_reads_has_its_node(path, newline):

    own = source((ROOT / path).read_text().replace("\n", newline))
    without_node = (ast.Tuple, ast.Starred, ast.Slice, ast.JoinedStr, ast.FormattedValue, ast.GeneratorExp)
    count = 0
    for node in ast.walk(ast.parse(own.raw)):
        inside_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if isinstance(node, ast.expr) and not isinstance(node, without_node) and not inside_text:
            found = own.code(own.at(node)).replace("\r\n", "\n")
            assert ast.unparse(ast.parse(f"({found})", mode="eval").body) == ast.unparse(node)
            count += 1
        elif isinstance(node, ast.stmt):
            assert own.site(own.at(node), "").locate() == own.site(node, "").locate()
    assert count > 100


def test_files_of_tests_are_not_shipped(model_of):
    root = model_of("")
    for path in ("a.py", "tests/b.py", "test_c.py", "conftest.py", "latest/d.py"):
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text("import torch  # here\n")
    assert [each.path for each in open_tree(root).shipped(rb"here")] == ["a.py", "latest/d.py"]
