"""Pictures of what was found beside what should be; none where nothing is to be seen. In child processes only.

An answer must fit into a pipe: long curves are thinned, maps and events are cut to where they first differ.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, ParamSpec

import torch
from torch import Tensor

from ..running.answers import LINE
from ..running.evidence import Picture
from .short_fit import one_cycle
from .spies import Event

P = ParamSpec("P")
POINTS, SIDE, EVENTS = 800, 48, 100  # of a curve, of a map, and how many there are
BEFORE = 10  # events that are shown before the first that differs
PAGES = ("layer", "row", "head")  # what the dimensions of maps are before query and key
SEEN = 1e-9  # difference of two entries of a map


def if_possible(make: Callable[P, Picture | None]) -> Callable[P, Picture | None]:
    """A picture, or none where it cannot be made: what a check says does not hang on it."""

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> Picture | None:
        try:
            return make(*args, **kwargs)
        except Exception:  # whatever a tree gives, or raises
            return None

    return made


def picture(kind: str, title: str, found: list[Any], wanted: list[Any], x: str = "", y: str = "") -> Picture | None:
    """A picture, if its two sides differ."""
    return None if found == wanted else Picture(kind, title[:LINE], found, wanted, x, y[:LINE])


def numbers(values: Iterable[Any], digits: int) -> list[float | None]:
    """Numbers with so many digits; None for what is not finite."""
    tensor = values.detach() if isinstance(values, Tensor) else torch.tensor([*values], dtype=torch.float64)
    found: list[float] = tensor.double().flatten().tolist()
    return [float(f"{each:.{digits}g}") if math.isfinite(each) else None for each in found]


@if_possible
def curves(
    title: str, found: Iterable[Any], wanted: Iterable[Any], *, x: str = "update", y: str = "learning rate"
) -> Picture | None:
    """Two curves of numbers."""
    a, b = (numbers(each, 9) for each in (found, wanted))
    step = -(-max(1, len(a), len(b)) // POINTS)
    title += f" (one in {step})" if step > 1 else ""
    return picture("curves", title, a[::step], b[::step], x, y)


@if_possible
def maps(title: str, found: Tensor, wanted: Tensor) -> Picture | None:
    """The first page [T, T] of two maps [..., T, T] that differs."""
    found, wanted = found.detach().double(), wanted.detach().double()
    off = (~((found - wanted).abs() <= SEEN)).nonzero() if found.shape == wanted.shape else torch.empty(0)
    if not len(off):
        return None
    *page, query, key = off[0].tolist()
    begin = [max(0, min(at - SIDE // 2, size - SIDE)) for at, size in zip((query, key), found.shape[-2:], strict=True)]
    title += "".join(f", {name} {at}" for name, at in zip(PAGES[-len(page) :], page, strict=False))
    title += f", from query {begin[0]}, key {begin[1]} on" if any(begin) else ""
    cut = (*page, *(slice(at, at + SIDE) for at in begin))
    a, b = ([numbers(row, 4) for row in each[cut]] for each in (found, wanted))
    return picture("maps", title, a, b, "key", "query")


def events(title: str, found: Sequence[str], wanted: Sequence[str]) -> Picture | None:
    """Two lists of what happened."""
    at = next((at for at, pair in enumerate(zip_longest(found, wanted)) if pair[0] != pair[1]), 0)
    begin = max(0, at - BEFORE)
    title += f", from event {begin} on" if begin else ""
    a, b = ([event[:LINE] for event in each[begin : begin + EVENTS]] for each in (found, wanted))
    return picture("events", title, a, b)


@if_possible
def decisions(losses: Sequence[float], found: Sequence[bool], wanted: Sequence[bool]) -> Picture | None:
    """What a gate says of the losses that it is told."""
    a, b = (
        [f"loss {loss:.5g}: {'allowed' if each else 'refused'}" for loss, each in zip(losses, side, strict=False)]
        for side in (found, wanted)
    )
    return events("what a gate says of the losses that it is told", a, b)


def one_cycle_curves(rates: Sequence[float], updates: int, peak: float) -> Picture | None:
    """The rates of a run, beside OneCycle's over so many updates."""
    wanted = [one_cycle(at, updates, peak) for at in range(updates)]
    return curves(f"learning rates, beside OneCycle's over {updates} updates", rates, wanted)


@if_possible
def ledgers(found: Sequence[Event], sizes: Sequence[int]) -> Picture | None:
    """What a loop did, beside what it does whose updates take so many micro-batches."""
    kinds = {event.kind for event in found}
    ends = [kind for kind in ("clip", "step", "schedule") if kind != "clip" or kind in kinds]
    ends = ends if "scheduler" in kinds else ends[:-1]  # rates may be set by hand, and gradients clipped so
    wanted = [event for size in sizes for event in (*taken(size), *ends)]
    return events("what the loop did, beside what was planned", [*in_words(found)], wanted)


def taken(size: int) -> Iterator[str]:
    """The events of so many micro-batches of one update."""
    for number in range(1, size + 1):
        yield from (f"micro-batch {number}/{size}", f"backward {number}/{size}")


def in_words(found: Sequence[Event]) -> Iterator[str]:
    """Events from the first micro-batch on, in words; what an update has many of is numbered."""
    kinds = [event.kind for event in found if event.kind != "zero-grad"]
    kinds = kinds[kinds.index("micro-batch") :] if "micro-batch" in kinds else kinds
    while kinds:
        end = kinds.index("step") + 1 if "step" in kinds else len(kinds)
        part, kinds = kinds[:end], kinds[end:]
        for at, kind in enumerate(part):
            number = f" {part[: at + 1].count(kind)}/{part.count(kind)}" if kind in ("micro-batch", "backward") else ""
            yield kind.replace("scheduler", "schedule") + number
