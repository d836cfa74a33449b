"""Law 4: all or nothing, whatever happens, and nothing left behind."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
from samples import BASELINE, contents

from bitpatch.patches import transaction
from bitpatch.patches.originals import Originals, Remembered, load
from bitpatch.patches.task import BitpatchError, Change, Unreadable
from bitpatch.patches.transaction import copy_baseline, locked, write

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
    assert failure is None or "No space left on device; nothing was changed" in failure
    failed = failure is not None
    assert (failed or bool(told)) == (seen >= call)
    assert contents(root) == (OLD if failed else NEW)
    assert load(root) in (Originals(), ORIGINALS)
    assert told or load(root) == (Originals() if failed else ORIGINALS)


def killed_at(root, point, changes=CHANGES, originals=ORIGINALS):
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

        for name in ("replace", "fsync", "unlink", "open", "mkdir", "rmdir"):
            setattr(transaction.os, name, counted(getattr(os, name)))
        with locked(root):
            write(root, changes, originals)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_moment_the_next_run_finds_the_old_tree_or_the_new(root, point):
    """And remembers what belongs to it."""
    was_killed = killed_at(root, point)
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


def test_recovery_does_not_overwrite_a_later_edit_by_hand(root):
    point = next(p for p in POINTS if killed_at(root, p) and _is_committed(root))
    (root / "a.py").write_bytes(b"mine\n")
    with pytest.raises(Unreadable, match="changed by hand after a run was killed"), locked(root):
        pass
    assert (root / "a.py").read_bytes() == b"mine\n", point


def _is_committed(root):
    journal = root / transaction.JOURNAL
    if journal.exists() and b'"committed"' in journal.read_bytes():
        return True
    with locked(root):
        for path, raw in OLD.items():
            (root / path).write_bytes(raw)
    return False


def test_a_damaged_journal_is_named(root):
    (root / transaction.JOURNAL).write_text("{")
    with pytest.raises(Unreadable, match="journal of a killed run is damaged"), locked(root):
        pass


SECOND_RUN = """
import sys
from pathlib import Path
from bitpatch.patches.transaction import locked
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


def test_no_copy_over_something(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BitpatchError, match="expected an empty folder or a free name"):
        copy_baseline(tmp_path)
    assert os.listdir(tmp_path) == ["mine.txt"]
