"""A tree that is reference/ but for a few edits: one that a judge must refuse, or must let pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mutant:
    """Edits (path, old, new) to reference/, and what is wrong with the tree that they give."""

    name: str
    wrong: str  # of a good tree: what it does in another way
    edits: Sequence[tuple[str, str, str]]

    def apply(self, tree: Path) -> None:
        """Make the edits in a copy of reference/; each old text must occur exactly once."""
        for path, old, new in self.edits:
            text = (tree / path).read_text(encoding="utf-8")
            assert text.count(old) == 1, f"{self.name}: {path} has {text.count(old)} times: {old}"
            (tree / path).write_text(text.replace(old, new), encoding="utf-8")
