"""A second run of a script, a short one: whether the order of its rows is a function of the seed."""

from dataclasses import dataclass
from typing import Any

from ..running.evidence import Evidence, passed, unproven
from .asking import not_applicable, violated

NAME, PROP = "the-order-is-that-of-the-seed", "a second run with the same seed takes the rows in the same order"


@dataclass(frozen=True, slots=True)
class Order:
    """What a run shows of the order of its rows: passes that are shuffled, by their line, and seeds, by theirs."""

    passes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    seeds: tuple[tuple[str, str], ...] = ()

    def along(self, line: str) -> list[tuple[int, ...]]:
        """The passes of a line."""
        return [rows for own, rows in self.passes if own == line]


NOTHING = Order()


def read_order(answer: dict[str, Any]) -> Order:
    """What a process answered of its order, believed only where it has the right shape."""
    passes, seeds = answer.get("passes"), answer.get("seeds")
    try:
        found = tuple((str(line), tuple(map(int, rows))) for line, rows in passes or ())
        return Order(found, tuple((str(line), str(seed)) for line, seed in seeds or ()))
    except (TypeError, ValueError):
        return NOTHING


def judge_order(first: Order, again: Order) -> Evidence:
    """What two runs of one script say of it."""
    same = 0
    for line in dict.fromkeys(line for line, _ in first.passes):
        for number, (one, other) in enumerate(zip(first.along(line), again.along(line), strict=False), 1):
            until = min(len(one), len(other))
            if one[:until] == other[:until]:
                same += until
                continue
            if not first.seeds:
                return not_applicable(f"the script sets no seed: torch.manual_seed(0) before {line} would be one")
            if first.seeds != again.seeds:
                return not_applicable(f"each run sets another seed ({first.seeds[0][0]})")
            at = next(place for place in range(until) if one[place] != other[place])
            begin = f"pass {number} goes otherwise in a second run, from its row {at + 1} on"
            return violated(f"{begin}, though {first.seeds[0][0]} sets a seed", line)
    if not same:
        return unproven("a second run did not come to the rows that the first one took")
    return passed(f"{same} rows are taken in the same order by a second run")


def nothing_shuffled() -> Evidence:
    """A script whose rows go as they lie, or are not seen, has no order to be looked at again."""
    return not_applicable("no pass over rows was seen to be shuffled")
