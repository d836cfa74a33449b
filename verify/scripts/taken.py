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
SLIP = 5  # a part may lie over the next one by one in so many of its rows, before they are windows
FEWEST = 3  # parts that lie one as far from the other as the next, before one speaks of a beat


@dataclass(slots=True)
class Order:
    """An order of rows that a script has drawn: each row's place in it, -1 of what is not in it."""

    line: str
    rows: list[int]
    places: Rows
    quiet: int  # losses of evaluation before it
    run: int
    trained: bool | None = None  # whether the next loss after it had a gradient
    is_followed: bool = False


@dataclass(slots=True)
class Source:
    """A tensor whose rows are taken at some line, and the pass over it that is under way."""

    line: str
    size: int
    read: Marks  # of each row, whether it was asked for
    given: Marks  # and whether this pass has given it
    order: Order | None = None
    at: int = 0  # where the part that was taken last begins
    parts: list[int] = field(default_factory=list)  # how long those of this pass are
    rows: list[int] = field(default_factory=list)
    trained: bool = False
    began: int = 0  # backward calls before the pass
    run: int = 0  # that it is of
    beats: Counter[int] = field(default_factory=Counter)  # from the end of a part to the beginning of the next
    passes: list[tuple[Order | None, Pass]] = field(default_factory=list)
    is_mixed: bool = False  # a part goes back, to rows that had no turn
    is_sampled: bool = False  # rows come again before all had their turn


class Taken:
    """Watches what is drawn and taken; `backwards` says how many gradients were made so far."""

    def __init__(self, lines: Lines, seen: Seen, backwards: Callable[[], int]) -> None:
        self._lines, self._seen, self._backwards = lines, seen, backwards
        self._orders: deque[Order] = deque(maxlen=MOST_DRAWN)
        self._sources: dict[tuple[str, int, int], Source] = {}
        self._read: dict[tuple[int, int], Marks] = {}
        self._slices: dict[int, tuple[tuple[int, int], int, int, int, int]] = {}  # by where they lie
        self._ranks: dict[
            str, tuple[dict[int, int], list[Any]]
        ] = {}  # of things, by the line that puts them in an order
        self._index: Any = None
        self._last_of = (0, 0)  # what was asked for last, and of which tensor
        self._left = MOST_ROWS
        self._last, self._since = numpy.zeros(0, numpy.int64), 0  # what was taken last, after how many backward calls
        self._watch()

    def _watch(self) -> None:
        self._on(torch, "randperm", lambda result, *_, **__: self._draw(_listed(result)))
        self._on(random, "sample", lambda drawn, of, *_, **__: self._draw(drawn if len(drawn) == len(of) else (), of))
        self._on(numpy.random, "permutation", lambda result, *_, **__: self._draw(_listed(result)))
        for owner, place in ((random, 0), (random.Random, 1), (numpy.random, 0)):
            self._watch_shuffles(owner, place)
        self._on(Tensor, "__getitem__", self._take)
        self._watch_generators()

    def _watch_shuffles(self, owner: Any, place: int) -> None:
        """Note the order of what is put in one where it lies, as the argument at some place."""
        shuffle = owner.shuffle

        @functools.wraps(shuffle)
        def told(*args: Any, **kwargs: Any) -> None:
            is_own = len(args) > place and bool(self._lines.name(sys._getframe(1).f_code.co_filename))
            before = _listed(args[place]) if is_own else []
            shuffle(*args, **kwargs)
            self._draw(_listed(args[place]) if before else [], before)

        owner.shuffle = told

    def _watch_generators(self) -> None:
        """Have numpy make generators that tell what they draw."""
        make, draw, lines = numpy.random.default_rng, self._draw, self._lines

        class Generator(numpy.random.Generator):
            def permutation(self, *args: Any, **kwargs: Any) -> Any:
                result = super().permutation(*args, **kwargs)
                draw(_listed(result))
                return result

            def shuffle(self, x: Any, *args: Any, **kwargs: Any) -> None:
                is_own = lines.name(sys._getframe(1).f_code.co_filename)  # and not a part of a permutation
                before = _listed(x) if is_own else []
                super().shuffle(x, *args, **kwargs)
                draw(_listed(x) if is_own else [], before)

        def default_rng(seed: Any = None) -> numpy.random.Generator:
            made = make(seed)
            return Generator(made.bit_generator) if type(made) is numpy.random.Generator else made

        numpy.random.default_rng = functools.wraps(make)(default_rng)

    def _on(self, owner: Any, name: str, tell: Callable[..., object]) -> None:
        """Have a function told of that the script itself calls, and no library."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def told(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if not torch.compiler.is_compiling() and self._lines.name(sys._getframe(1).f_code.co_filename):
                with contextlib.suppress(Exception):  # what cannot be followed is not: no script fails of being watched
                    tell(result, *args, **kwargs)
            return result

        setattr(owner, name, told)

    def _draw(self, values: Sequence[Any], before: Sequence[Any] = ()) -> None:
        """Note an order: of numbers, else of things, which lay otherwise before."""
        if not 1 < len(values) <= LARGEST or not torch.is_grad_enabled():
            return
        line, are_rows = self._lines.here(), all(type(each) is int for each in values)
        rows = [*values] if are_rows else self._ranked(line, values, before)
        places = numpy.zeros(0, numpy.int64)
        if are_rows and min(rows) >= 0 and max(rows) < LARGEST and len(set(rows)) == len(rows):
            places = numpy.full(max(rows) + 1, -1, numpy.int64)
            places[rows] = numpy.arange(len(rows))
        self._orders.append(Order(line, rows, places, self._seen.quiet_forwards, self._seen.runs))
        while sum(len(each.rows) for each in self._orders) > MOST_ROWS:
            self._orders.popleft()

    def _ranked(self, line: str, things: Sequence[Any], before: Sequence[Any]) -> list[int]:
        """Numbers for things: as they lay before the first time, from last to first, as that was an order too."""
        ranks, _ = self._ranks.get(line, ({}, ()))
        if ranks.keys() != {id(each) for each in things}:
            ranks = {id(each): -place for place, each in enumerate(before or things)}
            self._ranks[line] = (ranks, list(things))
        return [ranks.get(id(each), 1) for each in things]

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
        key, elements, first, last, _ = found
        if elements // key[1] * (last - first) == target.numel():
            self._go_on(key, numpy.arange(first, last))

    def _take(self, result: Tensor, tensor: Tensor, index: Any) -> None:
        """Note the rows of a tensor that are asked for by their numbers, or as a part."""
        if tensor.requires_grad or not tensor.dim() or not 1 < len(tensor) <= LARGEST:
            return
        key = (tensor.data_ptr(), len(tensor))
        if isinstance(index, slice):
            first, last, step = index.indices(len(tensor))
            if step == 1 and first < last:
                if len(self._slices) >= MOST_SLICES:
                    self._slices.clear()
                self._slices[result.data_ptr()] = (key, tensor.numel(), first, last, self._backwards())
                self._read_of(key)[first:last] = True
                if isinstance(index.start, Tensor) and torch.is_grad_enabled():
                    self._seen.chance = self._seen.chance or self._lines.here()
            return
        if index is self._index and self._backwards() == self._since and self._last_of != key:
            return  # of another tensor, the same
        rows = _numbers(index)
        if rows is not None and rows.min() >= 0:
            self._read_of(key)[rows] = True
            is_part = (
                self._slices.get(key[0], (key, 0, 0, 0, 0))[-1] == self._backwards() > 0
            )  # of a batch, as mixtures are
            if torch.is_grad_enabled() and not is_part:
                self._go_on(key, rows)
                self._index, self._last_of = index, key

    def _read_of(self, key: tuple[int, int]) -> Marks:
        """Of each row of a tensor, whether it was asked for."""
        read = self._read.get(key)
        if read is None:
            read = numpy.zeros(key[1], numpy.bool_)
            if len(self._read) < MOST_SOURCES:
                self._read[key] = read
        return read

    def _go_on(self, tensor: tuple[int, int], rows: Rows) -> None:
        """Count rows to the pass that they are part of."""
        line = self._lines.here()
        key = (line, *tensor)
        source = self._sources.get(key)
        is_new = source is None or not source.parts
        if (is_new or self._backwards() == self._since) and numpy.array_equal(rows, self._last):
            return  # of another tensor, or for another use
        if source is None:
            if len(self._sources) >= MOST_SOURCES:
                return
            source = self._sources[key] = Source(
                line, tensor[1], self._read_of(tensor), numpy.zeros(tensor[1], numpy.bool_)
            )
        self._last, self._since, self._left = rows, self._backwards(), self._left - len(rows)
        if source.is_sampled or self._left < 0:
            return
        order, place = self._place(source, rows)
        if order is None and source.order is None and source.parts and place is not None:
            goes_back = place <= source.at and not source.given[rows].any()
            source.is_mixed |= goes_back
            place = None if goes_back or source.at < 0 else place
        if place is None:
            if self._comes_again(source, rows):
                return
        elif source.parts and (order is not source.order or place <= source.at):
            self._close(source)
        elif source.parts and order is None:
            source.beats[place - source.at - source.parts[-1]] += 1
            source.is_sampled = len(source.beats) > FEWEST and not source.is_mixed
        if not source.parts:
            source.began, source.order, source.run = self._backwards(), order, self._seen.runs
        source.trained |= self._backwards() > source.began
        source.at = -1 if place is None else place
        source.parts.append(len(rows))
        source.rows += rows.tolist()
        source.given[rows] = True

    def _comes_again(self, source: Source, rows: Rows) -> bool:
        """Of rows in an order that nobody knows: whether they are drawn as they come, and no pass is made."""
        if len(set(rows.tolist())) < len(rows):
            source.is_sampled = True
            return True
        if not source.parts or not source.given[rows].any():
            return False
        if source.size - source.given.sum() >= source.parts[0]:
            source.is_sampled = True
            return True
        self._close(source)
        return False

    def _close(self, source: Source, *, is_complete: bool = True) -> None:
        """A pass has come to its end: another begins, or the script ends."""
        order, size = source.order, source.size if source.order is None else len(source.order.rows)
        source.trained |= order is not None and self._backwards() > source.began + 1  # of rows that are taken at once
        given = int(source.given.sum())
        is_all = size - given < source.parts[0]  # but for a last part that would be a short one
        line = source.line if order is None else order.line
        made = Pass(
            line, given, source.parts[0], False, source.rows, is_all and is_complete, source.trained, source.run
        )
        made.is_ended = is_complete
        made.is_found = order is None and source.at < 0
        made.is_known, made.is_cut = source.at >= 0, source.parts[-1] < source.parts[0]
        made.left_out = size - given if is_all and is_complete else 0
        source.passes.append((order, made))
        source.parts, source.rows, source.trained, source.at = [], [], False, 0
        source.given[:] = False

    def _place(self, source: Source, rows: Rows) -> tuple[Order | None, int | None]:
        """The order that rows are a part of, and where in it; no order is that of the data."""
        if source.order is not None and source.parts:
            onward = source.at + source.parts[-1]
            if source.order.rows[onward : onward + len(rows)] == rows.tolist():
                return source.order, onward
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
        owner: dict[int, Source] = {}  # of an order, as one may be gone along in several tensors
        for source in self._sources.values():
            if source.parts:
                self._close(source, is_complete=is_whole)
            beat, beats = next(iter(source.beats), 0), sum(source.beats.values())
            if source.is_sampled:
                self._seen.chance = self._seen.chance or source.line
            elif source.is_mixed or (len(source.beats) <= 1 and (beat == 0 or beats >= FEWEST)):
                _judge_missing(source)
                owners = [owner.setdefault(id(order or each), source) for order, each in source.passes]
                self._seen.passes += [
                    each for (_, each), own in zip(source.passes, owners, strict=True) if own is source
                ]
        for order in self._orders:
            if order.trained and not order.is_followed:
                self._seen.passes.append(Pass(order.line, None, 0, False, order.rows, True, True, order.run))


def _listed(values: Any) -> list[Any]:
    """What is in an order, one dimension of it; nothing where that is too long."""
    if not hasattr(values, "__len__") or len(values) > LARGEST:
        return []
    return list(values.tolist() if isinstance(values, (Tensor, numpy.ndarray)) else values)


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
    beat = 0 if source.is_mixed else next(iter(source.beats), 0)
    if -beat * SLIP > max((each.batch for _, each in source.passes), default=0):
        source.passes.clear()  # windows that lie over each other
    orders, unread = {id(order) for order, _ in source.passes}, numpy.flatnonzero(~source.read)
    for order, each in source.passes:
        each.is_found |= order is None and source.is_mixed
        if order is None and each.is_known and not each.is_found:
            inner = unread[(unread > min(each.rows)) & (unread < max(each.rows))]
            each.is_complete |= bool(len(inner)) and each.is_ended
            if len(inner) or (each.is_cut and each.is_complete):
                each.expected = (each.expected or 0) + len(unread)
        elif order is not None and each.is_cut and len(orders) == len(source.passes) > 1:
            each.expected = (each.expected or 0) + each.left_out
        each.left_out = len(unread) if each.is_complete else 0
