"""What one turn measures of a tree, and how its answer is read. Nothing of the tree is imported here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

MEASURES = {  # by the name of each: what it is called, and its unit
    "bits_per_second": ("training", "bits/s"),
    "peak_mb": ("peak memory", "MB"),
    "start_seconds": ("start of the data", "s"),
}
LONGEST = 4000  # characters of a reason


@dataclass(frozen=True, slots=True)
class Turn:
    """The figures of a turn by their names, and why the others are not among them."""

    figures: Mapping[str, float] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def failed(cls, reason: str) -> Self:
        """A turn that measured nothing."""
        return cls(lacks=dict.fromkeys(MEASURES, reason))


def read_turn(answer: Mapping[str, Any]) -> Turn:
    """The turn in an answer: for each measure a figure above zero, or a reason; all else measured nothing."""
    if "verdict" in answer:  # the child ended in an error
        return Turn.failed(str(answer.get("detail"))[:LONGEST])
    figures, lacks = answer.get("figures"), answer.get("lacks")
    if not isinstance(figures, dict) or not isinstance(lacks, dict) or {*figures, *lacks} != {*MEASURES}:
        return Turn.failed("the answer is not shaped like a turn")
    wrong = [name for name, each in figures.items() if not (isinstance(each, float) and 0 < each < math.inf)]
    lacks |= {name: f"measured {figures.pop(name)!r}"[:LONGEST] for name in wrong}
    return Turn(figures, {name: str(reason)[:LONGEST] for name, reason in lacks.items()})
