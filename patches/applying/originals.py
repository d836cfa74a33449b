"""Remember a tree's originals, which revert replays, outside the tree: a patched tree holds nothing of bitpatch's.

One file a tree and user, under $XDG_STATE_HOME/bitpatch (default: ~/.local/state/bitpatch), in a folder
named after the hash of the tree's real path: a tree that is moved or copied is another tree.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path

from ..files.places import read_regular
from ..task import BitpatchError, Line

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Remembered:
    """A file that bitpatch changed: its bytes without any task, and with every task that was applied."""

    original: bytes
    written: bytes


@dataclass(frozen=True, slots=True)
class Originals:
    """What bitpatch remembers of a tree; empty where it has applied nothing that is still there."""

    tasks: frozenset[str] = frozenset()  # the ids of what bitpatch applied
    paths: tuple[str, ...] = ()  # every file of the tree then: what came later is the user's own
    model_path: str = ""
    training_path: str | None = None
    files: Mapping[str, Remembered] = field(default_factory=dict)
    blocked: str = ""  # why the originals can no longer be replayed
    waiting: frozenset[tuple[str, str]] = frozenset()  # (file, name) where a name was used before a task brought it
    at: Mapping[str, tuple[Line, ...]] = field(default_factory=dict)  # of a task not done everywhere: in the originals

    def encode(self) -> bytes:
        """The content of the state file: empty where there is nothing to remember."""
        if not self.tasks:
            return b""
        files = {
            path: [base64.b64encode(raw).decode() for raw in (file.original, file.written)]
            for path, file in sorted(self.files.items())
        }
        content = {
            "version": _VERSION,
            "tasks": sorted(self.tasks),
            "paths": self.paths,
            "model_path": self.model_path,
            "training_path": self.training_path,
            "files": files,
            "blocked": self.blocked,
            "waiting": sorted(self.waiting),
            "at": {task: [astuple(line) for line in lines] for task, lines in sorted(self.at.items())},
        }
        return json.dumps(content).encode()


def load(root: Path) -> Originals:
    """What is remembered of a tree. Raises BitpatchError where that is damaged, or another version's."""
    path = None
    try:
        path = state_file(root)
        content = json.loads(read_regular(path))
        if content.pop("version") != _VERSION:
            raise ValueError
        tasks, paths, files, waiting = (content.pop(name) for name in ("tasks", "paths", "files", "waiting"))
        remembered = {name: Remembered(*(base64.b64decode(raw) for raw in both)) for name, both in files.items()}
        uses = frozenset((str(path), str(name)) for path, name in waiting)
        at = {task: tuple(Line(*line) for line in lines) for task, lines in content.pop("at", {}).items()}
        return Originals(frozenset(tasks), tuple(paths), files=remembered, waiting=uses, at=at, **content)
    except (FileNotFoundError, NotADirectoryError):
        return Originals()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        found = error.strerror if isinstance(error, OSError) else "damaged, or from another version of bitpatch"
        raise BitpatchError(
            f"{path}: what bitpatch remembers of this tree cannot be read ({found}); go back with the tree's own "
            "history (git), or delete that file and bitpatch begins anew"
        ) from None


def state_file(root: Path) -> Path:
    """Where a tree is remembered. Raises FileNotFoundError where there is no home to keep it in."""
    return state_folder(root) / "originals.json"


def state_folder(root: Path) -> Path:
    """Where all that is kept of a tree between two commands lies; raises FileNotFoundError where there is no home."""
    return folder_of(root, "XDG_STATE_HOME", ".local/state")


def folder_of(root: Path, variable: str, default: str) -> Path:
    """A tree's own folder in one of the user's. Raises FileNotFoundError where there is no home to keep it in."""
    base = os.environ.get(variable, "")
    if not os.path.isabs(base):  # the XDG base directory specification: a relative path is ignored
        base = os.path.join(os.environ.get("HOME", ""), default)
    if not os.path.isabs(base):
        raise FileNotFoundError(errno.ENOENT, f"there is no home folder: set HOME or {variable}", f"~/{default}")
    key = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:32]
    return Path(base) / "bitpatch" / key
