"""Write all changes of a plan or none: a lock, a journal, and files that change places with new ones.

A run notes in its journal what it is about to do, writes every new file beside the old one, and swaps the two, file
by file. What comes out of a swap must be what was read: an edit that landed in between goes back in, and the run is
undone. One rename commits the run: that of what revert is to know. Killed before it, a run is undone by the next
command; killed after it, only what lies around is cleared away. Journal and originals lie in the user's state folder:
nothing that a tree brings along is obeyed.
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
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files.places import MARK, Place, fresh_name, is_of_a_run, leftover, part_of, places, read_regular
from ..task import BitpatchError, Change, Unreadable
from .originals import Originals, state_file, state_folder

BASELINE = Path(__file__).resolve().parents[2] / "baseline"
JOURNAL = "journal.json"
_WRITE_BITS = 0o222
Tell = Callable[[str], None]


def silently(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file of a run: its bytes before, the hash of its bytes after, and the name that the new file has until then."""

    path: str
    staged: str
    before: bytes
    after_hash: str


@dataclass(frozen=True, slots=True)
class _Run:
    """What a journal holds: the files, and the name of the new originals until the run is committed."""

    entries: tuple[_Entry, ...]
    draft: str


@contextlib.contextmanager
def locked(root: Path, *, shared: bool = False, tell: Tell = silently) -> Iterator[None]:
    """Hold the tree's lock, after a killed run was recovered. The lock is the folder itself: no file is left."""
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(root, error) from None
    try:
        needs_recovery = _journal(root) is not None
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

    Raises Unreadable, with the tree as it was, where a file changed since it was read, a folder is read-only, or the
    disk is full; BitpatchError where a path leads out of the tree. What an error says of the tree is so.
    """
    if not changes and originals is None:
        return
    remembered = _remembered(root) if originals is None else originals.encode()
    if not changes and remembered == _remembered(root):
        return
    with _failing(root), places(root, [change.path for change in changes]) as found:
        for place in found.values():
            _require_writable(place)
            _require_nothing_waits(place)
        entries = [_Entry(each.path, fresh_name(), each.before, _hash(each.after)) for each in changes]
        run = _Run(tuple(entries), fresh_name())
        try:
            _begin(root, run, remembered)
            for change, entry in zip(changes, entries, strict=True):
                _stage(found[change.path], entry.staged, change.after)
            for entry in entries:
                _require_unchanged(found[entry.path], entry.before)
            with _uninterrupted():
                _swap_all(found, run)
                _commit(root, run)
                _clear_away(root, found, run, tell)
        except _TidyingError:
            raise
        except BaseException:
            with _uninterrupted():
                _undo(root, found, run, tell)
            raise


def copy_baseline(folder: Path) -> None:
    """Copy the embedded baseline tree to a folder that is empty or does not exist yet; all of it, or nothing."""
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise BitpatchError(
            f"{folder}: expected an empty folder or a free name, found something there; choose another name"
        )
    target, draft = folder.absolute(), None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(target.parent, os.W_OK) or not target.parent.stat().st_mode & _WRITE_BITS:
            raise _read_only(target.parent)
        draft = Path(tempfile.mkdtemp(prefix=MARK, dir=target.parent))
        copy = shutil.copytree(BASELINE, draft / "tree", ignore=shutil.ignore_patterns("__pycache__"))
        os.replace(copy, target)
    except OSError as error:
        raise _unreadable(folder, error, "nothing was made") from None
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)


def _begin(root: Path, run: _Run, remembered: bytes) -> None:
    """Keep the new originals ready, and note what is about to be done."""
    folder = state_folder(root)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in filter(is_of_a_run, os.listdir(folder)):  # of runs that were killed before they had a journal
        (folder / name).unlink()
    _write_new(folder / run.draft, remembered)
    files = [[e.path, e.staged, base64.b64encode(e.before).decode(), e.after_hash] for e in run.entries]
    draft = folder / fresh_name()
    _write_new(draft, json.dumps({"files": files, "draft": run.draft}).encode())
    os.replace(draft, folder / JOURNAL)
    _sync(folder)


def _stage(place: Place, staged: str, content: bytes) -> None:
    part = place.beside(part_of(staged))
    part.create(content, place.status())
    part.rename(staged)


def _swap_all(found: Mapping[str, Place], run: _Run) -> None:
    for entry in run.entries:
        place = found[entry.path]
        place.exchange(entry.staged)
        _require_unchanged(place.beside(entry.staged), entry.before, named=place)
    for place in {place.folder: place for place in found.values()}.values():
        place.sync()


def _commit(root: Path, run: _Run) -> None:
    """One rename decides: from here on the tree is the new one."""
    file = state_file(root)
    os.replace(file.with_name(run.draft), file)


def _clear_away(root: Path, found: Mapping[str, Place], run: _Run, tell: Tell) -> None:
    """Take away what a committed run has left around."""
    try:
        _sync(state_folder(root))
        for entry in run.entries:
            _discard(found[entry.path], entry, (_hash(entry.before), entry.after_hash), tell)
        _forget(root)
    except OSError as error:
        where = error.filename or root
        raise _TidyingError(
            f"{where}: {error.strerror or error}; every file of {root} is written, and the tree is whole. "
            "The next bitpatch command clears away what this run has left around"
        ) from None


def _undo(root: Path, found: Mapping[str, Place], run: _Run, tell: Tell) -> None:
    """Put back what a run replaced, then take away its new files and its journal."""
    try:
        for entry in run.entries:
            _put_back(found[entry.path], entry)
        for entry in run.entries:
            _discard(found[entry.path], entry, (entry.after_hash,), tell)
        for place in {place.folder: place for place in found.values()}.values():
            place.sync()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # no state folder, no journal
            (state_folder(root) / run.draft).unlink(missing_ok=True)
            _forget(root)
    except OSError as error:
        where = error.filename or root
        raise Unreadable(
            f"{where}: {error.strerror or error}; {root} is half changed, and nothing is lost: mend this, and the next "
            "bitpatch command puts the tree back as it was"
        ) from None


def _put_back(place: Place, entry: _Entry) -> None:
    kept, staged = place.beside(leftover(entry.staged)), place.beside(entry.staged)
    if kept.read() is not None:  # swapped one after the other, and killed in between
        if staged.read() is None:
            kept.rename(entry.staged)
        else:
            kept.unlink()
    former, current = staged.read(), place.read()
    if former is None or _hash(former) == entry.after_hash:
        return  # it was never swapped, or is back already
    if current is None:
        staged.rename(place.name)
    elif _hash(current) == entry.after_hash:
        place.exchange(entry.staged)
    else:
        raise Unreadable(
            f"{place.shown}: edited while bitpatch replaced it, or after a run was killed. To keep yours, delete "
            f"{staged.shown}; to go back to what was there before, move {staged.shown} over it; then run any bitpatch "
            "command again"
        )


def _discard(place: Place, entry: _Entry, known: Sequence[str], tell: Tell) -> None:
    """Take away the other file of a swap, unless somebody has written to it meanwhile."""
    for name in (part_of(entry.staged), leftover(entry.staged)):
        place.beside(name).unlink()
    staged = place.beside(entry.staged)
    content = staged.read()
    if content is not None and _hash(content) not in known:
        kept = place.beside(f"edited-{entry.staged.removeprefix(MARK)}")
        staged.rename(kept.name)
        tell(f"warning: {place.shown} was written to by another program while it was replaced; that is in {kept.shown}")
    else:
        staged.unlink()


def _recover(root: Path, tell: Tell) -> None:
    """Take back what a killed run began, or clear away what a committed one left around."""
    journal = _journal(root)
    if journal is None:
        return  # the run that had the lock finished meanwhile
    file = state_folder(root) / JOURNAL
    try:
        content = json.loads(journal)
        entries = [_Entry(path, _marked(name), base64.b64decode(b), h) for path, name, b, h in content["files"]]
        run = _Run(tuple(entries), _marked(content["draft"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Unreadable(
            f"{file}: the journal of a killed run is damaged; compare the tree with its history (git), "
            f"take away files there whose names begin with {MARK}, then delete the journal"
        ) from None
    try:
        with _uninterrupted(), places(root, [entry.path for entry in entries]) as found:
            if (state_folder(root) / run.draft).exists():
                _undo(root, found, run, tell)
            else:
                _clear_away(root, found, run, tell)
    except BitpatchError as error:
        raise Unreadable(f"{error}\n(a run was killed here, and {file} is its journal)") from None
    except OSError as error:
        raise _unreadable(
            root, error, f"a killed run waits for its recovery ({file}): mend this and run any command again"
        ) from None


def _marked(name: str) -> str:
    """A name that a run gave to one of its own files; ValueError for any other."""
    if not is_of_a_run(name):
        raise ValueError
    return name


def _journal(root: Path) -> bytes | None:
    """The journal of a killed run on a tree, if there is one; empty where it cannot be read."""
    try:
        return read_regular(state_folder(root) / JOURNAL)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return b""


def _remembered(root: Path) -> bytes:
    """The state file as it is; empty where there is none, or none that can be read."""
    try:
        return read_regular(state_file(root))
    except OSError:
        return b""


def _write_new(file: Path, content: bytes) -> None:
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as new:
        new.write(content)
        new.flush()
        os.fsync(new.fileno())


def _forget(root: Path) -> None:
    """Take the journal away, and with it an empty state folder."""
    folder, file = state_folder(root), state_file(root)
    if file.exists() and not file.stat().st_size:
        file.unlink()
    (folder / JOURNAL).unlink(missing_ok=True)
    _sync(folder)
    with contextlib.suppress(OSError):  # it is not empty
        folder.rmdir()


def _require_writable(place: Place) -> None:
    """Refuse what somebody made read-only on purpose, also where root could write it all the same."""
    is_writable = os.access(place.name, os.W_OK, dir_fd=place.folder, follow_symlinks=False)
    if not is_writable or not place.status().st_mode & _WRITE_BITS:
        raise _read_only(place.shown)
    if not os.fstat(place.folder).st_mode & _WRITE_BITS or not os.access(".", os.W_OK, dir_fd=place.folder):
        raise _read_only(place.shown.parent)


def _read_only(path: Path) -> Unreadable:
    return Unreadable(
        f"{path}: is read-only; nothing was changed. Make it writable (chmod u+w), then run the command again"
    )


def _require_nothing_waits(place: Place) -> None:
    """Refuse where a run was killed whose journal is not in this state folder: only there it can be undone."""
    for name in os.listdir(place.folder):
        if is_of_a_run(name):
            raise Unreadable(
                f"{place.shown.with_name(name)}: left by a run that was killed, and whose journal is not here; nothing "
                "was changed. Run bitpatch with the HOME or XDG_STATE_HOME of that run, or delete the file"
            )


def _require_unchanged(place: Place, before: bytes, named: Place | None = None) -> None:
    if place.read() != before:
        raise Unreadable(
            f"{(named or place).shown}: changed while bitpatch was working; nothing was written. Run the command again"
        )


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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


class _TidyingError(Unreadable):
    """A run is committed, and could not clear away what it has left around."""


@contextlib.contextmanager
def _failing(root: Path) -> Iterator[None]:
    """Say of an error of the system that nothing was changed: what fails otherwise says so itself."""
    try:
        yield
    except OSError as error:
        raise _unreadable(root, error, "nothing was changed") from None


def _unreadable(path: Path, error: OSError, consequence: str = "") -> Unreadable:
    where = error.filename or path
    return Unreadable(f"{where}: {error.strerror or error}" + (f"; {consequence}" if consequence else ""))
