"""What is compared takes turns, so that what slows the machine slows all of it alike.

The order changes from round to round. A ratio is taken in each round; their median stands with the interval that
holds it in 95% of bootstrap samples. The same thing against itself (A/A) tells how much of such a ratio is noise.
"""

import math
import random
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

Player = TypeVar("Player")
FEWEST = 3  # rounds, however long they take
SAMPLES = 2000
LEAST = 1.02  # what memory's layout alone may do to a program, which no A/A of one process shows


@dataclass(frozen=True, slots=True)
class Ratio:
    """A median of ratios, and the interval that holds it in 95% of bootstrap samples."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"

    def is_beyond(self, noise: "Ratio", times: int = 1) -> bool:
        """Whether this interval and so many times that of an A/A, or of the least that counts, are apart."""
        return self.low > max(noise.high, LEAST) ** times or self.high < min(noise.low, 1 / LEAST) ** times


def ratio_of(before: Iterable[float], after: Iterable[float]) -> Ratio:
    """How many times `after` goes into `before`, by the pairs of the rounds."""
    ratios, draw = [a / b for a, b in zip(before, after, strict=True)], random.Random(0)  # noqa: S311 - no secret
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(SAMPLES))
    return Ratio(statistics.median(ratios), medians[SAMPLES // 40], medians[-SAMPLES // 40])


def rounds(players: Sequence[Player], most: float = math.inf, most_seconds: float = math.inf) -> Iterator[list[Player]]:
    """The players in the order of each round; after the first rounds, none that would not end within most_seconds."""
    draw, began, number = random.Random(0), time.monotonic(), 0  # noqa: S311 - no secret
    while number < most and players:
        passed = time.monotonic() - began
        if number >= FEWEST and passed + passed / number > most_seconds:
            return
        yield draw.sample(list(players), len(players))
        number += 1
