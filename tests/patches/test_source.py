"""Reading files: what is round-tripped, what is refused, and how a tree is found."""

from pathlib import Path

import libcst as cst
import pytest

from bitpatch.patches.source import Source, open_tree
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
    ],
)
def test_bytes_survive(raw):
    assert Source("file.py", raw).module.bytes == raw


def test_a_file_that_is_not_reproduced_is_refused():
    with pytest.raises(Unparsable, match=r"file\.py:3: LibCST does not reproduce"):
        Source("file.py", b"def f():\n    pass\n\x0cx = 1\n").require_faithful()


def test_a_syntax_error_is_named_with_its_line():
    with pytest.raises(Unparsable, match=r"file\.py:2: syntax error: '\(' was never closed"):
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


def test_a_linked_folder_is_searched_and_a_circle_ends(tmp_path):
    write(tmp_path / "elsewhere", "pkg/model.py", MODEL)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/pkg").symlink_to(tmp_path / "elsewhere/pkg")
    (tmp_path / "tree/again").symlink_to(tmp_path / "tree")
    (tmp_path / "tree/gone.py").symlink_to(tmp_path / "nowhere.py")
    assert open_tree(tmp_path / "tree").paths == ("pkg/model.py",)


def test_an_empty_folder_is_no_tree(tmp_path):
    with pytest.raises(BitpatchError, match="expected a BitTransformerLM tree") as refusal:
        open_tree(tmp_path)
    assert refusal.value.exit_code == 3


def test_a_class_that_is_only_mentioned_is_no_tree(tmp_path):
    write(tmp_path, "notes.py", '"""Once there was a class BitTransformerLM."""\n')
    with pytest.raises(BitpatchError, match="expected a BitTransformerLM tree"):
        open_tree(tmp_path)


def test_two_trees_are_named(tmp_path):
    write(tmp_path, "a/model.py", MODEL)
    write(tmp_path, "b/model.py", MODEL)
    with pytest.raises(BitpatchError, match=r"found 2 BitTransformerLM trees \(a/model.py, b/model.py\)"):
        open_tree(tmp_path)


def test_a_missing_folder_cannot_be_read(tmp_path):
    with pytest.raises(Unreadable, match="expected a folder, found nothing"):
        open_tree(tmp_path / "nowhere")
