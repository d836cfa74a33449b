"""A commit's files beside the working tree's, as git's own objects and index tell: nothing that a tree sets up runs.

Git reads trees and blobs, and lists names. It never compares the working tree, for which it would run the filters of
a repository's configuration; it fetches nothing that is missing, starts no monitor, hook or pager, and asks no files of
the user's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...patches.files.places import read_regular
from ...patches.task import BitpatchError

LINK, SUBMODULE = "120000", "160000"  # modes of git's trees
ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "",  # for a git that does not know the line above
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
}
SETTINGS = ("core.fsmonitor=false", "core.untrackedCache=false", f"core.hooksPath={os.devnull}")


class NotCompared(BitpatchError):
    """A tree has no such commit to be compared with; the message says why, and what to do."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class History:
    """The files of a repository at a commit, and now; paths are relative to its top, with forward slashes."""

    ref: str
    top: Path
    tree: str  # the path of the tree in the repository, with a slash at its end; "" where it is all of it
    before: dict[str, tuple[str, str]]  # mode and id of each file at the commit
    now: frozenset[str]  # what is there, but for what .gitignore leaves out
    changed: frozenset[str]  # what differs in a byte, is new, or is gone

    def shown(self, path: str) -> str:
        """A path as seen from the tree."""
        return os.path.relpath(path, self.tree or ".")

    def at(self, paths: Iterable[str]) -> dict[str, bytes]:
        """The content at the commit of those of some files that it has. Raises NotCompared."""
        known = {path: self.before[path][1] for path in paths if path in self.before}
        asked, found = "".join(f"{each}\n" for each in known.values()), {}
        raw = _git(self.top, "cat-file", "--batch", given=asked, may_fail=True)
        for path in known:
            head, _, raw = raw.partition(b"\n")
            if not head.rpartition(b" ")[2].isdigit():
                then = "git fetch --refetch --no-filter"
                raise NotCompared(f"{self.ref}: this clone lacks {path} as it was; get it with {then}", then=then)
            size = int(head.split()[-1])
            found[path], raw = raw[:size], raw[size + 1 :]
        return found

    def read(self, path: str) -> bytes | None:
        """The content of a file now; None where there is none that can be read."""
        return content(self.top / path)


def content(path: Path) -> bytes | None:
    """The content of a file, or where a link leads; None of all else, and of what is larger than any code."""
    try:
        return os.fsencode(os.readlink(path)) if path.is_symlink() else read_regular(path)
    except OSError:
        return None


def repository_around(root: Path) -> Path:
    """The top of the repository that a folder is in; the folder itself where that is none."""
    real = Path(os.path.realpath(root))
    return next((each for each in (real, *real.parents) if (each / ".git").exists()), real)


def history(root: Path, ref: str) -> History:
    """The files of the repository around a tree, at a commit and now. Raises NotCompared."""
    real, top = Path(os.path.realpath(root)), repository_around(root)
    if not _git(top, "rev-parse", "--git-dir", may_fail=True):
        then = "bitpatch verify --all"
        raise NotCompared(f"{root}: --since needs a git repository, found none; judge all of it: {then}", then=then)
    commit = (
        b"" if ref[:1] in ("-", "^") else _git(top, "rev-parse", "-q", "--verify", f"{ref}^{{commit}}", may_fail=True)
    )
    if not commit:
        is_shallow = _git(top, "rev-parse", "--is-shallow-repository").strip() == b"true"
        then = f"git fetch {'--depth=1 ' * is_shallow}origin {ref.removeprefix('origin/')}"
        if is_shallow and set("~^@:") & set(ref):  # what no other repository calls a commit
            then = "git fetch --unshallow"
        clone = "this clone is shallow, and has no such commit" if is_shallow else "there is no such commit here"
        raise NotCompared(f"--since {ref}: {clone}; fetch it with {then}", then=then)
    before = {}
    for line in _git(top, "ls-tree", "-r", "-z", "--full-tree", commit.decode().strip()).split(b"\0")[:-1]:
        about, _, name = line.partition(b"\t")
        mode, _, identity = about.decode().split()
        before[os.fsdecode(name)] = (mode, identity)
    listed = _git(top, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--full-name").split(b"\0")
    now = frozenset(path for name in listed if os.path.lexists(top / (path := os.fsdecode(name)))) - {""}
    same = frozenset(path for path in now & before.keys() if _is_same(top / path, *before[path]))
    inside = os.path.relpath(real, top)
    return History(ref, top, "" if inside == "." else f"{inside}/", before, now, (now | before.keys()) - same)


def _is_same(path: Path, mode: str, identity: str) -> bool:
    """Whether a file has the content, and is of the kind, that git has under an id."""
    if mode == SUBMODULE or (mode == LINK) != path.is_symlink() or (raw := content(path)) is None:
        return False
    make = hashlib.sha1 if len(identity) == 40 else hashlib.sha256  # noqa: PLR2004
    return make(b"blob %d\0" % len(raw) + raw).hexdigest() == identity


def _git(top: Path, *words: str, given: str = "", may_fail: bool = False) -> bytes:
    """What git prints; nothing where it fails and may. Raises NotCompared."""
    folders = [each for each in os.environ.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(each)]
    environment = ENVIRONMENT | {"PATH": os.pathsep.join(folders)}
    environment |= {"GIT_DIR": str(top / ".git"), "GIT_WORK_TREE": str(top)}  # whatever its configuration says
    git = shutil.which("git", path=environment["PATH"])
    if git is None:
        raise NotCompared("--since needs git, found none on the PATH; install it", then="install git")
    settings = [word for each in SETTINGS for word in ("-c", each)]
    command = [git, "--no-pager", *settings, "-C", str(top), *words]
    done = subprocess.run(command, input=given.encode(), capture_output=True, env=environment, check=False)
    if done.returncode and not may_fail:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise NotCompared(f"{top}: git {words[0]} failed ({said[0]}); mend the repository", then="git fsck")
    return b"" if done.returncode else done.stdout
