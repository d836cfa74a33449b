"""What is remembered of a tree: where, how, and what happens when it cannot be read."""

import json

import pytest

from bitpatch.patches.applying.originals import Originals, Remembered, load, state_file
from bitpatch.patches.applying.transaction import write
from bitpatch.patches.task import BitpatchError, Change, Unreadable

SOME = Originals(
    tasks=frozenset({"task-10"}),
    paths=("a.py", "b.py"),
    model_path="a.py",
    files={"a.py": Remembered(b"\xef\xbb\xbf\xff\r\n", b"")},
)


def test_nothing_is_remembered_of_a_new_tree(tmp_path, state):
    assert load(tmp_path) == Originals()
    assert not state.exists()


def test_what_is_written_is_read_back(tmp_path):
    write(tmp_path, [], SOME)
    assert load(tmp_path) == SOME


def test_nobody_else_may_read_it(tmp_path):
    write(tmp_path, [], SOME)
    assert state_file(tmp_path).parent.stat().st_mode & 0o077 == 0


def test_nothing_to_remember_leaves_nothing(tmp_path, state):
    write(tmp_path, [], SOME)
    write(tmp_path, [], Originals())
    assert list((state / "bitpatch").iterdir()) == []


def test_a_tree_is_known_by_its_real_path(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "link").symlink_to("tree")
    write(tmp_path / "link", [], SOME)
    assert load(tmp_path / "tree") == SOME
    (tmp_path / "tree").rename(tmp_path / "moved")
    assert load(tmp_path / "moved") == Originals()


@pytest.mark.parametrize("value", ["", "relative/state"])
def test_without_an_absolute_state_folder_it_is_the_home_folders(tmp_path, monkeypatch, value):
    monkeypatch.setenv("XDG_STATE_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_file(tmp_path).is_relative_to(tmp_path / ".local/state/bitpatch")


def _newer():
    return json.dumps(json.loads(SOME.encode()) | {"version": 2}).encode()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b"{}", SOME.encode()[:-20], _newer(), SOME.encode().replace(b'"task-10"', b"[]")],
)
def test_what_is_damaged_is_named_and_left(tmp_path, content):
    write(tmp_path, [], SOME)
    state_file(tmp_path).write_bytes(content)
    with pytest.raises(BitpatchError, match=r"originals\.json: what bitpatch remembers .* cannot be read"):
        load(tmp_path)
    assert state_file(tmp_path).read_bytes() == content


def test_what_is_too_deep_is_damaged(tmp_path):
    write(tmp_path, [], SOME)
    state_file(tmp_path).write_text("[" * 100_000)
    with pytest.raises(BitpatchError, match="cannot be read"):
        load(tmp_path)


def test_where_it_cannot_be_kept_nothing_is_written(tmp_path, state):
    (tmp_path / "a.py").write_bytes(b"old")
    state.write_text("a file where the folder should be")
    with pytest.raises(Unreadable, match="nothing was changed"):
        write(tmp_path, [Change("a.py", b"old", b"new")], SOME)
    assert (tmp_path / "a.py").read_bytes() == b"old"
    assert load(tmp_path) == Originals()


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_without_a_home_nothing_is_written(tmp_path, monkeypatch, home):
    """And nothing at the root of the disk."""
    monkeypatch.delenv("XDG_STATE_HOME")
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    assert load(tmp_path) == Originals()
    with pytest.raises(Unreadable, match="there is no home folder: set HOME or XDG_STATE_HOME; nothing was changed"):
        write(tmp_path, [], SOME)
