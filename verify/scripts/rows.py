"""The rows that a script goes through, by index: each pass of a loader, or along a permutation that it draws."""

import functools
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, RandomSampler, WeightedRandomSampler
from torch.utils.data.dataloader import DataLoader, _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from .lines import Lines
from .seen import MOST_UPDATES, Pass

MOST_ROWS = 2_000_000  # of all passes, that are remembered


OPEN = 4  # permutations that are followed at once


@dataclass(slots=True)
class Drawn:
    """A permutation of a script's own, and the pass along it that is under way."""

    line: str
    order: Tensor
    of: int = 0  # where the tensor lies whose rows it names
    part: tuple[int, int] = (0, 0)  # the part of it that was asked for last: where it lies, and how long it is
    current: Pass | None = None
    began: int = 0  # backward calls before the pass


class Rows:
    """Watches loaders, and permutations; `backwards` says how many gradients were made so far."""

    def __init__(self, lines: Lines, passes: list[Pass], backwards: Callable[[], int]) -> None:
        self._lines, self._passes, self._backwards, self._left = lines, passes, backwards, MOST_ROWS
        self._drawn: deque[Drawn] = deque(maxlen=OPEN)
        self._watch_loaders()
        self._watch_permutations()

    def _watch_permutations(self) -> None:
        draw, take = torch.randperm, Tensor.__getitem__

        @functools.wraps(draw)
        def randperm(*args: Any, **kwargs: Any) -> Tensor:
            drawn = draw(*args, **kwargs)
            if self._lines.name(sys._getframe(1).f_code.co_filename):  # and not in a sampler
                self._drawn.append(Drawn(self._lines.here(), drawn))
            return drawn

        @functools.wraps(take)
        def getitem(tensor: Tensor, index: Any) -> Any:
            if self._drawn and isinstance(index, Tensor) and index.dtype == torch.int64:
                self._take(tensor, index)
            return take(tensor, index)

        torch.randperm = randperm
        Tensor.__getitem__ = getitem  # type: ignore[method-assign, assignment]

    def _take(self, tensor: Tensor, index: Tensor) -> None:
        """Note the rows that a part of a permutation names, of the first tensor that it is asked of."""
        for each in self._drawn:
            part = index.data_ptr(), len(index)
            if each.order.untyped_storage().data_ptr() != index.untyped_storage().data_ptr() or part == each.part:
                continue
            each.of = each.of or tensor.data_ptr()
            if each.of != tensor.data_ptr() or len(self._passes) >= MOST_UPDATES:
                continue
            if each.current is None or each.current.is_complete or part[0] < each.part[0]:  # from its beginning again
                each.current, each.began = Pass(each.line, len(each.order), len(index), True), self._backwards()
                self._passes.append(each.current)
            each.part = part
            each.current.trained |= self._backwards() > each.began
            self._give(each.current, index.tolist())
            each.current.is_complete = len(each.current.rows) >= len(each.order)

    def _watch_loaders(self) -> None:
        every: Any = _BaseDataLoaderIter
        parallel: Any = _MultiProcessingDataLoaderIter
        make, again, following = every.__init__, parallel._reset, every._next_index

        @functools.wraps(make)
        def made(iterator: Any, loader: Any) -> None:
            make(iterator, loader)
            self._begin(iterator, loader)

        @functools.wraps(again)
        def reset(iterator: Any, loader: Any, *args: Any, **kwargs: Any) -> None:
            self._begin(iterator, loader)  # before, as it asks for rows ahead
            again(iterator, loader, *args, **kwargs)

        @functools.wraps(following)
        def next_index(iterator: Any) -> Any:
            current, began = vars(iterator).get("_bitpatch_pass", (None, 0))
            if current is None:
                return following(iterator)
            current.trained |= self._backwards() > began
            try:
                index = following(iterator)
            except StopIteration:
                current.is_complete = True
                raise
            self._give(current, index)
            return index

        every.__init__, parallel._reset, every._next_index = made, reset, next_index

    def _begin(self, iterator: Any, loader: DataLoader[Any]) -> None:
        before, _ = vars(iterator).get("_bitpatch_pass", (None, 0))
        if before is not None and not before.rows:
            return
        batches = loader.batch_sampler
        sampler: Any = getattr(batches, "sampler", loader.sampler)
        is_drawn = isinstance(sampler, WeightedRandomSampler) or (
            isinstance(sampler, RandomSampler) and (sampler.replacement or sampler._num_samples is not None)
        )
        is_known = batches is None or type(batches) is BatchSampler
        if is_drawn or not is_known or not hasattr(sampler, "__len__") or len(self._passes) >= MOST_UPDATES:
            return
        drops_last = bool(getattr(batches, "drop_last", False))
        current = Pass(self._lines.here(), len(sampler), int(loader.batch_size or 1), drops_last)
        self._passes.append(current)
        iterator._bitpatch_pass = (current, self._backwards())

    def _give(self, current: Pass, index: Any) -> None:
        rows = index if isinstance(index, list) else [index]
        if all(isinstance(each, int) for each in rows) and len(rows) <= self._left:
            current.rows += rows
            self._left -= len(rows)
        else:
            current.expected = None  # no numbers, or too many
