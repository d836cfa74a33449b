"""Law 4: all or nothing, whatever happens, and nothing left behind."""

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
from samples import BASELINE, contents

from bitpatch.patches.applying import transaction
from bitpatch.patches.applying.originals import Originals, Remembered, load, state_file
from bitpatch.patches.applying.transaction import copy_baseline, locked, write
from bitpatch.patches.files import places
from bitpatch.patches.task import BitpatchError, Change, Unreadable

OLD = {"a.py": b"a = 1\n", "pkg/b.py": b"b = 1\n", "pkg/c.py": b"c = 1\n"}
NEW = {"a.py": b"a = 2\n", "pkg/b.py": b"b = 2\n", "pkg/c.py": b"c = 1\n"}
CHANGES = [Change(path, OLD[path], NEW[path]) for path in ("a.py", "pkg/b.py")]
ORIGINALS = Originals(
    tasks=frozenset({"task-10"}), files={path: Remembered(OLD[path], NEW[path]) for path in ("a.py", "pkg/b.py")}
)
POINTS = range(1, 48)
BACK = [Change(path, NEW[path], OLD[path]) for path in ("a.py", "pkg/b.py")]


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    for path, raw in OLD.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(raw)
    return root


def test_nothing_to_write_touches_nothing(root):
    before = root.stat().st_mtime_ns
    write(root, [])
    assert (contents(root), root.stat().st_mtime_ns) == (OLD, before)


def test_all_is_written_and_nothing_is_left(root):
    with locked(root):
        write(root, CHANGES)
    assert contents(root) == NEW


def test_the_mode_of_a_file_stays(root):
    (root / "a.py").chmod(0o754)
    write(root, CHANGES)
    assert (root / "a.py").stat().st_mode & 0o777 == 0o754


def test_a_symbolic_link_stays_one(root):
    (root / "a.py").rename(root / "real.py")
    (root / "a.py").symlink_to("real.py")
    write(root, CHANGES)
    assert (root / "a.py").is_symlink()
    assert (root / "real.py").read_bytes() == b"a = 2\n"


def test_a_file_that_changed_meanwhile_is_not_overwritten(root):
    (root / "pkg/b.py").write_bytes(b"mine\n")
    with pytest.raises(Unreadable, match=r"b\.py: changed while bitpatch was working"):
        write(root, CHANGES)
    assert contents(root) == OLD | {"pkg/b.py": b"mine\n"}


@pytest.mark.parametrize("path", ["a.py", "pkg/b.py", "pkg", "."])
def test_what_is_read_only_is_not_written(root, path):
    mode = (root / path).stat().st_mode
    (root / path).chmod(mode & 0o555)
    with pytest.raises(Unreadable, match="is read-only; nothing was changed"):
        write(root, CHANGES)
    (root / path).chmod(mode)
    assert contents(root) == OLD


@pytest.mark.parametrize("call", range(1, 14))
def test_a_full_disk_leaves_the_old_tree(root, monkeypatch, call):
    """The disk fills at the n-th write, and a little room comes back for the clean-up."""
    seen = 0
    told = []
    real = os.fsync

    def fsync(handle):
        nonlocal seen
        seen += 1
        if seen == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    failure = None
    try:
        write(root, CHANGES, ORIGINALS, tell=told.append)
    except Unreadable as error:
        failure = str(error)
    assert (failure is not None) == (seen >= call)
    is_undone = "No space left on device; nothing was changed" in (failure or "")
    assert is_undone or failure is None or f"every file of {root} is written" in failure
    expected = (OLD, Originals()) if is_undone else (NEW, ORIGINALS)
    assert (contents(root) | expected[0], load(root)) == (contents(root), expected[1])
    with locked(root):
        assert (contents(root), load(root), told) == (*expected, [])


def _cannot_exchange(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")


def killed_at(root, point, changes=CHANGES, originals=ORIGINALS, can_exchange=True):
    """Write in a child that kills itself with SIGKILL at the n-th system call that changes the disk."""

    def child():
        count = 0

        def counted(real):
            def call(*args, **kwargs):
                nonlocal count
                count += 1
                if count == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            return call

        for name in ("replace", "fsync", "unlink", "open", "mkdir", "rmdir", "link"):
            setattr(transaction.os, name, counted(getattr(os, name)))
        places._exchange = counted(places._exchange) if can_exchange else _cannot_exchange
        with locked(root):
            write(root, changes, originals)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("can_exchange", [True, False], ids=["swaps at once", "swaps one after the other"])
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_moment_the_next_run_finds_the_old_tree_or_the_new(root, point, can_exchange):
    """And remembers what belongs to it."""
    was_killed = killed_at(root, point, can_exchange=can_exchange)
    with locked(root):
        found = contents(root), load(root)
    assert found in ((OLD, Originals()), (NEW, ORIGINALS))
    assert was_killed or found[0] == NEW


@pytest.mark.parametrize("point", POINTS)
def test_a_revert_that_was_killed_is_done_or_not(root, point):
    write(root, CHANGES, ORIGINALS)
    was_killed = killed_at(root, point, BACK, Originals())
    with locked(root):
        found = contents(root), load(root)
    assert found in ((OLD, Originals()), (NEW, ORIGINALS))
    assert was_killed or found[0] == OLD


def test_the_kills_reach_from_the_first_call_to_the_last(tmp_path):
    outcomes = []
    for point in POINTS:
        root = tmp_path / str(point)
        for path, raw in OLD.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(raw)
        killed = killed_at(root, point)
        with locked(root):
            outcomes.append((killed, contents(root) == NEW))
    assert {(True, False), (True, True), (False, True)} <= set(outcomes)


def _half_done(root):
    """The point at which a kill leaves one file new and one old."""
    for point in POINTS:
        killed_at(root, point)
        if (contents(root)["a.py"], contents(root)["pkg/b.py"]) == (NEW["a.py"], OLD["pkg/b.py"]):
            return point
        with locked(root):
            write(root, [Change(path, contents(root)[path], OLD[path]) for path in CHANGED], Originals())
    raise AssertionError


CHANGED = ("a.py", "pkg/b.py")


def test_recovery_puts_back_beside_a_later_edit_by_hand(root):
    """The file that was not replaced yet is edited: it keeps the edit, and the other one goes back."""
    _half_done(root)
    (root / "pkg/b.py").write_bytes(b"mine\n")
    with locked(root):
        assert contents(root) == OLD | {"pkg/b.py": b"mine\n"}


def test_recovery_does_not_overwrite_a_later_edit_of_what_was_replaced(root):
    _half_done(root)
    (root / "a.py").write_bytes(b"mine\n")
    with pytest.raises(Unreadable, match="To keep yours, delete") as refusal, locked(root):
        pass
    assert (root / "a.py").read_bytes() == b"mine\n"
    (staged,) = (path for path in root.iterdir() if path.name.startswith(places.MARK))
    assert str(staged) in str(refusal.value)
    staged.unlink()
    with locked(root):
        assert contents(root) == OLD | {"a.py": b"mine\n"}


def journal_of(root):
    file = state_file(root).with_name(transaction.JOURNAL)
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"[" * 100_000, b'{"files": [["a.py", "a.py", "", ""]], "draft": "x"}']
)
def test_a_damaged_journal_is_named(root, content):
    journal_of(root).write_bytes(content)
    with pytest.raises(Unreadable, match="journal of a killed run is damaged"), locked(root):
        pass
    assert contents(root) == OLD


@pytest.mark.parametrize("path", ["../precious", "/etc/precious", "pkg/../../precious", "out/precious", "."])
def test_a_journal_leads_nowhere_outside_of_the_tree(root, path):
    precious = root.parent / "precious"
    precious.write_bytes(b"mine")
    (root / "out").symlink_to(root.parent)
    path = path.replace("/etc", str(root.parent))
    entry = [path, places.fresh_name(), "", hashlib.sha256(b"mine").hexdigest()]
    journal_of(root).write_text(json.dumps({"files": [entry], "draft": places.fresh_name()}))
    with pytest.raises(Unreadable, match="leads out of the tree"), locked(root):
        pass
    assert precious.read_bytes() == b"mine"


def test_a_journal_that_a_tree_brings_along_is_not_obeyed(root):
    """What the first version wrote into the tree, and would have obeyed: bytes for a file outside of it."""
    precious = root.parent / "precious"
    precious.write_bytes(b"mine")
    entry = {"path": "../precious", "before": "ZXZpbA==", "after_hash": hashlib.sha256(b"mine").hexdigest()}
    brought = json.dumps({"phase": "undone", "files": [entry], "remembered": ["", ""]}).encode()
    for name in (".bitpatch-journal.json", "journal.json"):
        (root / name).write_bytes(brought)
    with locked(root):
        write(root, CHANGES)
    assert precious.read_bytes() == b"mine"
    assert contents(root) == NEW | dict.fromkeys((".bitpatch-journal.json", "journal.json"), brought)


def test_an_edit_at_the_last_moment_is_kept(root, monkeypatch):
    """After the last look at the file, and before it changes places."""
    swap, calls = places._exchange, []

    def late(folder, name, other):
        if name == "b.py" and not calls:
            calls.append(name)
            (root / "pkg/b.py").write_bytes(b"mine\n")
        swap(folder, name, other)

    monkeypatch.setattr(places, "_exchange", late)
    with pytest.raises(Unreadable, match=r"b\.py: changed while bitpatch was working"):
        write(root, CHANGES, ORIGINALS)
    assert (contents(root), load(root)) == (OLD | {"pkg/b.py": b"mine\n"}, Originals())


def test_what_another_program_writes_while_a_file_is_replaced_is_kept_beside_it(root, monkeypatch):
    """It had the file open, and writes after all was compared: that would be lost with the old file."""
    held = (root / "a.py").open("ab", buffering=0)
    commit = transaction._commit

    def late(*args):
        commit(*args)
        held.write(b"mine\n")

    monkeypatch.setattr(transaction, "_commit", late)
    told = []
    write(root, CHANGES, ORIGINALS, tell=told.append)
    held.close()
    (kept,) = set(contents(root)) - set(NEW)
    assert contents(root) == NEW | {kept: OLD["a.py"] + b"mine\n"}
    assert f"a.py was written to by another program while it was replaced; that is in {root / kept}" in told[0]


def test_what_cannot_be_undone_is_said(root, monkeypatch):
    """A disk on which nothing can be done any more, after the first of two files has changed places."""
    swap, calls = places._exchange, []

    def once(*args):
        calls.append(args)
        if len(calls) > 1:
            raise OSError(errno.EIO, "Input/output error")
        swap(*args)

    monkeypatch.setattr(places, "_exchange", once)
    with pytest.raises(Unreadable, match="is half changed, and nothing is lost: mend this, and the next bitpatch"):
        write(root, CHANGES, ORIGINALS)
    monkeypatch.setattr(places, "_exchange", swap)
    with locked(root):
        assert (contents(root), load(root)) == (OLD, Originals())


def test_a_run_whose_journal_is_elsewhere_is_not_written_over(root, monkeypatch):
    _half_done(root)
    before = contents(root)
    monkeypatch.setenv("XDG_STATE_HOME", str(root.parent / "another"))
    with locked(root), pytest.raises(Unreadable, match="left by a run that was killed, and whose journal is not here"):
        write(root, [Change("a.py", before["a.py"], b"a = 3\n")])
    assert contents(root) == before


@pytest.mark.parametrize("link", ["a.py", "pkg"])
def test_nothing_is_written_through_a_link_out(root, link):
    away = root.parent / "away"
    (root / link).rename(away)
    (root / link).symlink_to(away)
    with pytest.raises(BitpatchError, match=rf"^{link}.*: leads out of the tree, to .*away"):
        write(root, CHANGES)
    assert {path: (root / path).read_bytes() for path in OLD} == OLD


def test_names_that_lie_in_wait_are_not_taken(root):
    """Those that the first version gave to its new files, as links to a file that is not the tree's."""
    precious = root.parent / "precious"
    precious.write_bytes(b"mine")
    for path in CHANGED:
        (root / path).with_name(f".{(root / path).name}.bitpatch-new").symlink_to(precious)
    write(root, CHANGES)
    assert (precious.read_bytes(), (root / "a.py").is_symlink()) == (b"mine", False)
    assert {path: contents(root)[path] for path in NEW} == NEW


@pytest.mark.parametrize("length", [200, 250, 252])
def test_a_long_name_is_no_trouble(root, length):
    name = "n" * length + ".py"
    (root / name).write_bytes(b"old")
    write(root, [*CHANGES, Change(name, b"old", b"new")], ORIGINALS)
    assert contents(root) == NEW | {name: b"new"}


def test_a_pipe_in_the_state_folder_does_not_block(root):
    os.mkfifo(journal_of(root))
    with pytest.raises(Unreadable, match="journal of a killed run is damaged"), locked(root):
        pass


SECOND_RUN = """
import sys
from pathlib import Path
from bitpatch.patches.applying.transaction import locked
with locked(Path(sys.argv[1]), tell=lambda text: print(text, flush=True)):
    print("in", flush=True)
"""


def test_two_runs_are_serialised(root):
    with locked(root):
        command = [sys.executable, "-c", SECOND_RUN, str(root)]
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert second.stdout.readline() == f"waiting for another run on {root}\n"
    assert second.communicate()[0] == "in\n"


def test_readers_do_not_wait_for_readers(root):
    with locked(root, shared=True), locked(root, shared=True, tell=pytest.fail):
        pass


def test_an_interrupt_while_staging_leaves_the_old_tree(root, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(transaction, "_require_unchanged", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(root, CHANGES)
    assert contents(root) == OLD


def test_a_copy_of_the_baseline(tmp_path):
    copy_baseline(tmp_path / "tree")
    assert contents(tmp_path / "tree") == contents(BASELINE)
    assert os.listdir(tmp_path) == ["tree"]


def test_a_copy_whose_name_is_long_beside_a_link_that_lies_in_wait(tmp_path):
    name = "n" * 250
    (tmp_path / f".{name[:200]}.bitpatch-new").symlink_to(tmp_path)
    copy_baseline(tmp_path / name)
    assert contents(tmp_path / name) == contents(BASELINE)


def test_no_copy_over_something(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BitpatchError, match="expected an empty folder or a free name"):
        copy_baseline(tmp_path)
    assert os.listdir(tmp_path) == ["mine.txt"]
