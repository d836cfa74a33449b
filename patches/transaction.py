"""Write all changes of a plan or none: a lock, a journal, and files that are replaced whole.

A run stages every new file beside the old one, commits by renaming its journal, and only then
replaces files. Killed before the commit it leaves the old tree, killed after it the next command
finishes the new one from the journal. Nothing but a journal and staged files is ever left behind.
What revert needs is kept outside the tree, and written while the journal still stands.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .originals import Originals, state_file
from .task import BitpatchError, Change, Unreadable

BASELINE = Path(__file__).resolve().parent.parent / "baseline"
JOURNAL = ".bitpatch-journal.json"
STAGED = ".{}.bitpatch-new"
_DRAFT = JOURNAL + ".tmp"
_WRITE_BITS = 0o222
Tell = Callable[[str], None]


def silently(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One file of a journal: its bytes before, and the hash of its bytes after."""

    path: str
    before: bytes
    after_hash: str


@dataclass(frozen=True, slots=True)
class _Run:
    """What a journal holds: the files, and what is remembered of the tree before and after."""

    entries: tuple[_Entry, ...]
    before: bytes
    after: bytes


@contextlib.contextmanager
def locked(root: Path, *, shared: bool = False, tell: Tell = silently) -> Iterator[None]:
    """Hold the tree's lock, after a killed run was recovered. The lock is the folder itself: no file is left."""
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(root, error) from None
    try:
        needs_recovery = any((root / name).exists() for name in (JOURNAL, _DRAFT))
        mode = fcntl.LOCK_SH if shared and not needs_recovery else fcntl.LOCK_EX
        try:
            fcntl.flock(folder, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"waiting for another run on {root}")
            fcntl.flock(folder, mode)
        if needs_recovery:
            _recover(root, tell)
        yield
    finally:
        os.close(folder)


def write(root: Path, changes: Sequence[Change], originals: Originals | None = None, *, tell: Tell = silently) -> None:
    """Replace the files of a plan, all or none, and remember the originals if any; the caller holds the lock.

    Raises Unreadable, with the tree as it was, where a file changed since it was read, a folder is
    read-only, or the disk is full. Where only the originals cannot be kept, it says so and goes on.
    """
    before = _remembered(root)
    after = before if originals is None else originals.encode()
    if not changes:
        _remember(root, after, tell)
        return
    for change in changes:
        _require_writable(root, change.path)
    _require_writable(root, "")
    entries = tuple(_Entry(change.path, change.before, _hash(change.after)) for change in changes)
    run = _Run(entries, before, after)
    try:
        _write_journal(root, "staging", run)
        for change in changes:
            _stage(root, change.path, change.after)
        for change in changes:
            _require_unchanged(root, change.path, change.before)
        with _uninterrupted():
            _write_journal(root, "committed", run)
            _replace_all(root, run, tell)
    except BaseException as error:
        with _uninterrupted():
            _undo(root, run, tell)
        if isinstance(error, OSError):
            raise _unreadable(root, error, "nothing was changed") from None
        raise


def copy_baseline(folder: Path) -> None:
    """Copy the embedded baseline tree to a folder that is empty or does not exist yet; all of it, or nothing."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BitpatchError(
            f"{folder}: expected an empty folder or a free name, found something there; choose another name"
        )
    draft = folder.absolute().with_name(f".{folder.absolute().name}.bitpatch-new")
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        _require_writable(draft.parent, "")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(BASELINE, draft, ignore=shutil.ignore_patterns("__pycache__"))
        os.replace(draft, folder)
    except OSError as error:
        raise _unreadable(folder, error, "nothing was made") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _replace_all(root: Path, run: _Run, tell: Tell) -> None:
    for entry in run.entries:
        _require_unchanged(root, entry.path, entry.before)
        os.replace(_staged(root, entry.path), _target(root, entry.path))
    for folder in {_target(root, entry.path).parent for entry in run.entries}:
        _sync(folder)
    _remember(root, run.after, tell)
    _forget(root)


def _undo(root: Path, run: _Run, tell: Tell) -> None:
    """Take back what a failed run replaced and remembered, then its staged files and its journal."""
    done = [entry for entry in run.entries if _hash_of(root, entry.path) == entry.after_hash]
    if done:
        _write_journal(root, "undone", run)
    for entry in done:
        _stage(root, entry.path, entry.before)
        os.replace(_staged(root, entry.path), _target(root, entry.path))
    for entry in run.entries:
        _staged(root, entry.path).unlink(missing_ok=True)
    _remember(root, run.before, tell)
    _forget(root)


def _remembered(root: Path) -> bytes:
    """The state file as it is; empty where there is none, or none that can be read."""
    try:
        return state_file(root).read_bytes()
    except OSError:
        return b""


def _remember(root: Path, content: bytes, tell: Tell) -> None:
    """Write the state file whole, or take it away; a failure is told and costs no more than a later revert."""
    if content == _remembered(root):
        return
    try:
        file = state_file(root)
        if content:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_whole(file, file.with_name(file.name + ".tmp"), content)
        else:
            shutil.rmtree(file.parent)
    except OSError as error:
        tell(
            f"warning: {error.filename or 'the state folder'}: {error.strerror}; the originals cannot be kept there, "
            "so a later revert will be refused; XDG_STATE_HOME names another place"
        )


def _recover(root: Path, tell: Tell) -> None:
    """Finish or take back what a killed run began."""
    (root / _DRAFT).unlink(missing_ok=True)
    journal = root / JOURNAL
    if not journal.exists():
        return  # the run that had the lock finished meanwhile
    try:
        content = json.loads(journal.read_bytes())
        phase = content["phase"]
        entries = [_Entry(e["path"], base64.b64decode(e["before"]), e["after_hash"]) for e in content["files"]]
        run = _Run(tuple(entries), *(base64.b64decode(raw) for raw in content["remembered"]))
    except (ValueError, KeyError, TypeError):
        raise Unreadable(
            f"{journal}: the journal of a killed run is damaged; compare the tree with its history, then delete it"
        ) from None
    except OSError as error:
        raise _unreadable(journal, error) from None
    try:
        if phase == "committed":
            _finish(root, run, tell)
        else:
            _undo(root, run, tell)
    except OSError as error:
        raise _unreadable(
            root, error, "a killed run waits for its recovery: mend this and run any command again"
        ) from None


def _finish(root: Path, run: _Run, tell: Tell) -> None:
    for entry in run.entries:
        current, staged = _hash_of(root, entry.path), _staged(root, entry.path)
        if current not in (_hash(entry.before), entry.after_hash):
            raise Unreadable(
                f"{root / entry.path}: changed by hand after a run was killed. To keep yours, delete {root / JOURNAL} "
                f"and {staged}; to take what bitpatch wrote, move {staged} over it; then run the command again"
            )
        if current != entry.after_hash and (not staged.exists() or _hash(staged.read_bytes()) != entry.after_hash):
            raise Unreadable(
                f"{staged}: the file that a killed run staged is gone or damaged; "
                f"restore {entry.path} from its history, then delete {root / JOURNAL}"
            )
    for entry in run.entries:
        if _hash_of(root, entry.path) != entry.after_hash:
            os.replace(_staged(root, entry.path), _target(root, entry.path))
        _staged(root, entry.path).unlink(missing_ok=True)
    _remember(root, run.after, tell)
    _forget(root)


def _stage(root: Path, path: str, content: bytes) -> None:
    target, staged = _target(root, path), _staged(root, path)
    with open(staged, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    shutil.copymode(target, staged)
    with contextlib.suppress(PermissionError):
        os.chown(staged, target.stat().st_uid, target.stat().st_gid)


def _write_journal(root: Path, phase: str, run: _Run) -> None:
    files = [{"path": e.path, "before": _text(e.before), "after_hash": e.after_hash} for e in run.entries]
    content = {"phase": phase, "files": files, "remembered": [_text(run.before), _text(run.after)]}
    _write_whole(root / JOURNAL, root / _DRAFT, json.dumps(content).encode())


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _write_whole(file: Path, draft: Path, content: bytes) -> None:
    """Write a file so that a kill at any moment leaves the old one or the new one."""
    with open(draft, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(draft, file)
    _sync(file.parent)


def _forget(root: Path) -> None:
    for name in (_DRAFT, JOURNAL):
        (root / name).unlink(missing_ok=True)
    _sync(root)


def _require_writable(root: Path, path: str) -> None:
    """Refuse what somebody made read-only on purpose, also where root could write it all the same."""
    target = _target(root, path) if path else root
    for place in {target, target.parent} if path else {target}:
        if not os.access(place, os.W_OK) or not place.stat().st_mode & _WRITE_BITS:
            raise Unreadable(
                f"{place}: is read-only; nothing was changed. Make it writable (chmod u+w), then run the command again"
            )


def _require_unchanged(root: Path, path: str, before: bytes) -> None:
    if _target(root, path).read_bytes() != before:
        raise Unreadable(
            f"{root / path}: changed while bitpatch was working; nothing was written. Run the command again"
        )


def _target(root: Path, path: str) -> Path:
    return Path(os.path.realpath(root / path))


def _staged(root: Path, path: str) -> Path:
    target = _target(root, path)
    return target.with_name(STAGED.format(target.name))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _hash_of(root: Path, path: str) -> str:
    target = _target(root, path)
    return _hash(target.read_bytes()) if target.exists() else ""


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C and a polite kill waiting while files are replaced: milliseconds."""
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    old = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _unreadable(path: Path, error: OSError, consequence: str = "") -> Unreadable:
    where = error.filename or path
    return Unreadable(f"{where}: {error.strerror or error}" + (f"; {consequence}" if consequence else ""))
