"""What a rewrite is, and the table of all of them.

A rewrite changes how a tree is written, or laid out, and keeps what it computes. It is given the folder of
a copy; it raises DoesNotFit where what it rewrites is not there, and never does nothing without a word.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

# In the order in which they can be composed: code first, then where it stands, then the bytes of the files.
STAGES = ("code", "layout", "text")
ASKS = "refused"  # a careful engineer asks first
OPEN = "applied or refused"  # both are right
HELD = "already-applied"  # the rewrite itself does what the task asks
# Where a tree is driven, by the part of it; a rewrite that moves or renames one says so.
PLACES = {
    "root": "",  # what goes on sys.path, under the tree's folder
    "model": "bit_transformer.model:BitTransformerLM",
    "train": "bit_transformer.training:train_loop",
    "main": "bit_transformer.training:main",
    "optimizer": "bit_transformer.optimization:configure_optimizer",
    "gate": "bit_transformer.safety:SafetyGate",
    "gate.allows": "allows",
    "rows": "data.wikitext_schedule:load_rows",
    "schedule": "data.wikitext_schedule:main",
    "manager": "dashboard.manager:ModelManager",
    "app": "dashboard.app:create_app",
    "server": "mcp_server:build_server",
    "requests": "dashboard.requests:SCHEMAS",
    "train.epochs": "epochs",
    "train.extra_steps": "extra_steps",
    "train.compress_prob": "compress_prob",
    "train.direct_prob": "direct_prob",
}


class DoesNotFit(Exception):
    """What a rewrite works on is not in this tree."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One way in which people's trees differ. `expected` holds what a task is to say where it is not "applied"."""

    name: str
    kind: str
    stage: str
    tasks: frozenset[int]  # whose code it touches
    change: Callable[[Path], None]
    moves: dict[str, str] = field(default_factory=dict)
    expected: dict[int, str] = field(default_factory=dict)

    @property
    def says(self) -> str:
        """What a person did, in one line."""
        return (self.change.__doc__ or "").strip()

    def __call__(self, tree: Path, places: dict[str, str] | None = None) -> dict[str, str]:
        """Rewrite the tree in a folder; return where its parts are now. A tree that does not fit may be half changed."""
        before = snapshot(tree)
        self.change(tree)
        after = snapshot(tree)
        changed = [path for path, raw in after.items() if before.get(path) != raw]
        if not changed and after.keys() == before.keys():
            raise DoesNotFit(f"{self.name} changed nothing")
        if self.stage == "code":
            tidy([tree / path for path in changed if path.endswith(".py")])
        return moved(dict(PLACES) if places is None else places, self.moves)


REWRITES: dict[str, Rewrite] = {}


def rewrite(
    kind: str,
    *tasks: int,
    stage: str = "code",
    moves: dict[str, str] | None = None,
    expected: dict[int, str] | None = None,
) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Enter a function in the table, under its own name."""

    def enter(change: Callable[[Path], None]) -> Callable[[Path], None]:
        name = change.__name__
        assert name not in REWRITES, name
        assert change.__doc__, name
        assert stage in STAGES, name
        REWRITES[name] = Rewrite(name, kind, stage, frozenset(tasks), change, moves or {}, expected or {})
        return change

    return enter


def moved(places: dict[str, str], moves: dict[str, str]) -> dict[str, str]:
    """Where the parts of a tree are after moves: of a part, of "module:name", or of a module and what is below it."""

    def follow(part: str, place: str) -> str:
        for old, new in moves.items():
            module, _, name = place.partition(":")
            if part == old or (":" in old and place == old):
                place = new
            elif name and ":" not in old and (module == old or module.startswith(f"{old}.")):
                place = f"{new}{module[len(old) :]}:{name}"
        return place

    return {part: follow(part, place) for part, place in places.items()}


def snapshot(tree: Path) -> dict[str, bytes]:
    """Every file of a tree, by its path in it."""
    return {
        path.relative_to(tree).as_posix(): path.read_bytes()
        for path in sorted(tree.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def code_files(tree: Path) -> list[Path]:
    """The Python files that a tree is made of, without copies and tests beside it."""
    aside = {"tests", "scripts", "old"}
    found = (path for path in sorted(tree.rglob("*.py")) if not aside & set(path.relative_to(tree).parts))
    return [path for path in found if "__pycache__" not in path.parts]


def find(tree: Path, ending: str) -> Path:
    """The one file of a tree whose path ends so."""
    found = [path for path in code_files(tree) if f"/{path.relative_to(tree).as_posix()}".endswith(f"/{ending}")]
    if len(found) != 1:
        raise DoesNotFit(f"{len(found)} files end in {ending}")
    return found[0]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def retext(path: Path, *changes: tuple[str, str]) -> None:
    """Put one text in the place of another, each of which must be there."""
    text = read(path)
    for old, new in changes:
        if old not in text:
            raise DoesNotFit(f"no {old.strip()} in {path.name}")
        text = text.replace(old, new)
    write(path, text)


def ruff() -> str:
    """The formatter's program."""
    beside = [Path(sysconfig.get_path("scripts")) / "ruff", Path(sys.executable).parent / "ruff"]
    found = next((str(path) for path in beside if path.exists()), shutil.which("ruff"))
    if found is None:
        raise FileNotFoundError("the drift needs ruff: pip install bitpatch[dev]")
    return found


def tidy(files: list[Path], *options: str) -> None:
    """Lay files out as their author's formatter would."""
    if files:
        command = [ruff(), "format", "--isolated", "--no-cache", "--quiet", *(options or ("--line-length", "120"))]
        subprocess.run([*command, *map(str, files)], check=True)
