"""The rows that a script goes through, by index: each pass of a loader."""

import functools
from collections.abc import Callable
from typing import Any

from torch.utils.data import BatchSampler, RandomSampler, WeightedRandomSampler
from torch.utils.data.dataloader import DataLoader, _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from .lines import Lines
from .seen import MOST_UPDATES, Pass, Seen

MOST_ROWS = 2_000_000  # of all passes, that are remembered


class Rows:
    """Watches loaders; `backwards` says how many gradients were made so far."""

    def __init__(self, lines: Lines, seen: Seen, backwards: Callable[[], int]) -> None:
        self._lines, self._seen, self._backwards, self._left = lines, seen, backwards, MOST_ROWS
        self._watch_loaders()

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
            full = (current.expected or 0) - len(current.rows)  # who knows how many there are asks for no more
            current.is_complete = full <= 0 or (current.drops_last and full < current.batch)
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
        if is_drawn or not is_known or not hasattr(sampler, "__len__") or len(self._seen.passes) >= MOST_UPDATES:
            return
        drops_last = bool(getattr(batches, "drop_last", False))
        current = Pass(self._lines.here(), len(sampler), int(loader.batch_size or 1), drops_last, run=self._seen.runs)
        self._seen.passes.append(current)
        iterator._bitpatch_pass = (current, self._backwards())

    def _give(self, current: Pass, index: Any) -> None:
        rows = index if isinstance(index, list) else [index]
        if all(isinstance(each, int) for each in rows) and len(rows) <= self._left:
            current.rows += rows
            self._left -= len(rows)
        else:
            current.expected = None  # no numbers, or too many
