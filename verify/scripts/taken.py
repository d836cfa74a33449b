"""The rows that a script takes by hand: along an order that it has drawn, or one part after the other."""

import contextlib
import functools
import random
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from torch import Tensor

from .lines import Lines
from .seen import Pass, Seen

Rows = numpy.ndarray[Any, numpy.dtype[numpy.int64]]
Marks = numpy.ndarray[Any, numpy.dtype[numpy.bool_]]
OPEN, MOST_DRAWN = 4, 64  # orders that are followed at once, and that are remembered
MOST_SOURCES, MOST_SLICES = 64, 256
LARGEST = 1 << 20  # rows of an order, or of a tensor, that are followed
MOST_ROWS = 2_000_000  # of all passes, that are remembered
FEWEST = 3  # parts that lie one as far from the other as the next, before one speaks of a beat


@dataclass(slots=True)
class Order:
    """An order of rows that a script has drawn: each row's place in it, -1 of what is not in it."""

    line: str
    rows: list[int]
    places: Rows
    quiet: int  # losses of evaluation before it
    trained: bool | None = None  # whether the next loss after it had a gradient
    is_followed: bool = False


@dataclass(slots=True)
class Source:
    """A tensor whose rows are taken at some line, and the pass over it that is under way."""

    line: str
    size: int
    read: Marks  # of each row, whether it was asked for
    order: Order | None = None
    at: int = 0  # where the part that was taken last begins
    parts: list[int] = field(default_factory=list)  # how long those of this pass are
    rows: list[int] = field(default_factory=list)
    trained: bool = False
    began: int = 0  # backward calls before the pass
    beats: Counter[int] = field(default_factory=Counter)  # from the end of a part to the beginning of the next
    passes: list[tuple[Order | None, Pass]] = field(default_factory=list)
    is_sampled: bool = False  # rows come again before all had their turn


class Taken:
    """Watches what is drawn and taken; `backwards` says how many gradients were made so far."""

    def __init__(self, lines: Lines, seen: Seen, backwards: Callable[[], int]) -> None:
        self._lines, self._seen, self._backwards = lines, seen, backwards
        self._orders: deque[Order] = deque(maxlen=MOST_DRAWN)
        self._sources: dict[tuple[str, int, int], Source] = {}
        self._read: dict[tuple[int, int], Marks] = {}
        self._slices: dict[int, tuple[tuple[int, int], int, int, int]] = {}  # by where they lie
        self._ranks: dict[str, dict[int, int]] = {}  # of things, by the line that puts them in an order
        self._left = MOST_ROWS
        self._last: Rows = numpy.zeros(0, numpy.int64)
        self._watch()

    def _watch(self) -> None:
        self._on(torch, "randperm", lambda result, *_, **__: self._draw(result.tolist()))
        self._on(torch, "randint", self._note_chance)
        self._on(random, "shuffle", lambda _, of, *__, **___: self._draw(of))
        self._on(random.Random, "shuffle", lambda _, __, of, *___, **____: self._draw(of))
        self._on(random, "sample", lambda result, of, *_, **__: self._draw(result if len(result) == len(of) else ()))
        self._on(numpy.random, "permutation", lambda result, *_, **__: self._draw(result.tolist()))
        self._on(numpy.random, "shuffle", lambda _, of, *__, **___: self._draw(list(of)))
        self._on(Tensor, "__getitem__", self._take)

    def _on(self, owner: Any, name: str, tell: Callable[..., object]) -> None:
        """Have a function told of that the script itself calls, and no library."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def told(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if not torch.compiler.is_compiling() and self._lines.name(sys._getframe(1).f_code.co_filename):
                with contextlib.suppress(RuntimeError):  # of tensors that lie nowhere
                    tell(result, *args, **kwargs)
            return result

        setattr(owner, name, told)

    def _note_chance(self, result: Tensor, *_: Any, **__: Any) -> None:
        if result.dim() == 1 and torch.is_grad_enabled() and not self._seen.chance:
            self._seen.chance = self._lines.here()

    def _draw(self, values: Sequence[Any]) -> None:
        """Note an order: of numbers, else of things, which stay what they are."""
        if not 1 < len(values) <= LARGEST or not torch.is_grad_enabled():
            return
        line, are_rows = self._lines.here(), all(type(each) is int for each in values)
        rows = list(values) if are_rows else self._ranked(line, values)
        places = numpy.zeros(0, numpy.int64)
        if are_rows and min(rows) >= 0 and max(rows) < LARGEST and len(set(rows)) == len(rows):
            places = numpy.full(max(rows) + 1, -1, numpy.int64)
            places[rows] = numpy.arange(len(rows))
        self._orders.append(Order(line, rows, places, self._seen.quiet_forwards))

    def _ranked(self, line: str, things: Sequence[Any]) -> list[int]:
        """Numbers for things: as they lay the first time, from last to first, as that was an order too."""
        ranks = self._ranks.setdefault(line, {})
        return [ranks.setdefault(id(each), -len(ranks)) for each in things]

    def note_backward(self) -> None:
        """A gradient is about to be made: what was drawn since the last one was drawn for it, or for an evaluation."""
        for order in reversed(self._orders):
            if order.trained is not None:
                break
            order.trained = order.quiet == self._seen.quiet_forwards

    def note_target(self, target: Any) -> None:
        """What a loss compares with: where that is a part of a tensor, its rows are taken now."""
        found = self._slices.get(target.data_ptr()) if isinstance(target, Tensor) else None
        if found is None:
            return
        key, elements, first, last = found
        if elements // key[1] * (last - first) == target.numel():
            self._go_on(key, numpy.arange(first, last))

    def _take(self, result: Tensor, tensor: Tensor, index: Any) -> None:
        """Note the rows of a tensor that are asked for by their numbers, or as a part."""
        if tensor.requires_grad or not tensor.dim() or not 1 < len(tensor) <= LARGEST or not torch.is_grad_enabled():
            return
        key = (tensor.data_ptr(), len(tensor))
        if isinstance(index, slice):
            first, last, step = index.indices(len(tensor))
            if step == 1 and first < last:
                if len(self._slices) >= MOST_SLICES:
                    self._slices.clear()
                self._slices[result.data_ptr()] = (key, tensor.numel(), first, last)
                self._read_of(key)[first:last] = True
            return
        rows = _numbers(index)
        if rows is not None and rows.min() >= 0:
            self._read_of(key)[rows] = True
            self._go_on(key, rows)

    def _read_of(self, key: tuple[int, int]) -> Marks:
        """Of each row of a tensor, whether it was asked for."""
        if key not in self._read and len(self._read) >= MOST_SOURCES:
            return numpy.zeros(key[1], numpy.bool_)
        return self._read.setdefault(key, numpy.zeros(key[1], numpy.bool_))

    def _go_on(self, tensor: tuple[int, int], rows: Rows) -> None:
        """Count rows to the pass that they are part of."""
        line = self._lines.here()
        key = (line, *tensor)
        source = self._sources.get(key)
        is_new = source is None or not source.parts
        if is_new and numpy.array_equal(rows, self._last):
            return  # of another tensor, the same
        if source is None:
            if len(self._sources) >= MOST_SOURCES:
                return
            source = self._sources[key] = Source(line, tensor[1], self._read_of(tensor))
        self._last, self._left = rows, self._left - len(rows)
        if source.is_sampled or self._left < 0:
            return
        order, place = self._place(source, rows)
        if place is None:
            if self._comes_again(source, rows):
                return
        elif source.parts and (order is not source.order or place <= source.at):
            self._close(source)
        elif source.parts and order is None:
            source.beats[place - source.at - source.parts[-1]] += 1
        if not source.parts:
            source.began, source.order = self._backwards(), order
        source.trained |= self._backwards() > source.began
        source.at = -1 if place is None else place
        source.parts.append(len(rows))
        source.rows += rows.tolist()

    def _comes_again(self, source: Source, rows: Rows) -> bool:
        """Of rows in an order that nobody knows: whether they are drawn as they come, and no pass is made."""
        source.order = None
        if not source.parts or not set(rows.tolist()) & set(source.rows):
            return False
        if source.size - len(source.rows) >= source.parts[0]:
            source.is_sampled = True
            return True
        self._close(source)
        return False

    def _close(self, source: Source, *, is_complete: bool = True) -> None:
        """A pass has come to its end: another begins, or the script ends."""
        order, size = source.order, source.size if source.order is None else len(source.order.rows)
        source.trained |= order is not None and self._backwards() > source.began + 1  # of rows that are taken at once
        given = len(set(source.rows))
        is_all = size - given < source.parts[0]  # but for a last part that would be a short one
        line = source.line if order is None else order.line
        made = Pass(line, given, source.parts[0], False, source.rows, is_all and is_complete, source.trained)
        made.is_known, made.is_cut = source.at >= 0, source.parts[-1] < source.parts[0]
        made.left_out = size - given if is_all and is_complete else 0
        source.passes.append((order, made))
        source.parts, source.rows, source.trained, source.at = [], [], False, 0

    def _place(self, source: Source, rows: Rows) -> tuple[Order | None, int | None]:
        """The order that rows are a part of, and where in it; no order is that of the data."""
        is_beside = bool((numpy.diff(rows) == 1).all())
        if is_beside and (len(rows) > 1 or source.at >= 0) and (len(rows) > 2 or source.order is None):  # noqa: PLR2004
            return None, int(rows[0])
        open_ones = [each for each in list(self._orders)[-OPEN:] if len(each.places)]
        for order in sorted(open_ones, key=lambda each: each is not source.order):
            if int(rows.max()) < len(order.places):
                places = order.places[rows]
                if places[0] >= 0 and (numpy.diff(places) == 1).all():
                    order.is_followed = True
                    return order, int(places[0])
        return (None, int(rows[0])) if is_beside else (None, None)

    def tell(self, *, is_whole: bool) -> None:
        """Add the passes that were seen, now that the script has ended."""
        for source in self._sources.values():
            if source.parts:
                self._close(source, is_complete=is_whole)
            beat, beats = next(iter(source.beats), 0), sum(source.beats.values())
            if source.is_sampled:
                self._seen.chance = self._seen.chance or source.line
            elif len(source.beats) <= 1 and (beat == 0 or beats >= FEWEST):
                _judge_missing(source)
                self._seen.passes += [each for _, each in source.passes]
        for order in self._orders:
            if order.trained and not order.is_followed:
                self._seen.passes.append(Pass(order.line, None, 0, False, order.rows, True, True))


def _numbers(index: Any) -> Rows | None:
    """Rows that are asked for by number, one at least; None of another index."""
    if isinstance(index, Tensor):
        index = index.detach().numpy() if index.device.type == "cpu" and index.dtype == torch.int64 else None
    elif isinstance(index, list):
        index = numpy.array(index) if index and all(type(each) is int for each in index) else None
    is_list = isinstance(index, numpy.ndarray) and index.ndim == 1 and len(index) and index.dtype == numpy.int64
    return index.copy() if is_list else None


def _judge_missing(source: Source) -> None:
    """Rows that no pass gives, though its last part is a short one, or though there are some on both sides of them."""
    beat = next(iter(source.beats), 0)
    if beat < 0 and -beat * 2 >= max((each.batch for _, each in source.passes), default=0):
        source.passes.clear()  # windows that lie over each other
    orders = {id(order) for order, _ in source.passes}
    for order, each in source.passes:
        unread = numpy.flatnonzero(~source.read)
        if order is None and each.is_known:
            low, high = min(each.rows), max(each.rows)
            inner = unread[(unread > low) & (unread < high)]
            each.left_out = len(unread)
            if len(inner) or (each.is_cut and each.is_complete):
                each.expected = (each.expected or 0) + len(unread)
        elif order is not None and each.is_cut and len(orders) == len(source.passes) > 1:
            each.expected = (each.expected or 0) + each.left_out
