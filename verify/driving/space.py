"""Where a property is said to hold: the axes, and the points at which it is tried. In child processes only.

A check names the axes that its property quantifies over. A covering array lets each pair of their values occur; where
an axis is a span, some random points follow, and where a check is given time (`verify --thorough`), they fill it. What
the tree does not take is no axis of it.
"""

import functools
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from allpairspy import AllPairs

from ..running.evidence import Evidence
from .training_runs import shows_streams
from .tree import Tree

DRAWN = 12  # random points of a check one of whose axes is a span


class Span(tuple[Any, ...]):
    """Whole numbers between two bounds, of which any may be drawn, and the values that a covering array holds."""

    bounds: tuple[int, int]

    def __new__(cls, low: int, high: int, *usual: Any) -> "Span":
        """The numbers from low to high, and what is tried in any case: some of them, or others."""
        span = super().__new__(cls, usual)
        span.bounds = low, high
        return span


MODEL: dict[str, tuple[Any, ...]] = {  # axes of a model
    "num_layers": (1, 2),
    "width": ((8, 2), (6, 6), (32, 2), (16, 1)),  # d_model and nhead: heads of 4, 1, 16
    "windows": ((None, 0), (4, 2), (5, 0), (3, 4)),  # chunk_size and overlap
    "reversible": (False, True),
    "use_act": (False, True),
    "use_checkpoint": (False, True),
    "full_attn_logging": (None, False, True),
}
LOOP: dict[str, tuple[Any, ...]] = {  # axes of a training loop
    "accum_steps": Span(1, 7, 1, 2, 3),
    "amp": ("off", "bf16"),
    "batch_size": Span(1, 40, 4, 1, 8),
    "compile": (False, True),
    "epochs": (1, 2, 4),
    "extra_steps": (0, 1, 3),
    "compress_prob": (0.0, 1.0),
    "direct_prob": (0.0, 1.0),
    "global_step": Span(0, 60, 0, 7),
    "num_workers": (0, 2),
    "warmup_steps": (1000, 0, 3),
}
OTHERS: dict[str, tuple[Any, ...]] = {  # axes of what is done with them
    "seed": (0, 1, 7),
    "rows": Span(1, 48, 1, 5, 24),
    "data": ("a tensor", "a data set"),
    "length": (18, 1, 2, 17, 33),  # bits of a row
    "dropout": (0.0, 0.2),
    "training": (True, False),
    "causal": (True, False),
}
SPREAD = {"width": ("d_model", "nhead"), "windows": ("chunk_size", "overlap")}  # axes of two arguments


@dataclass(frozen=True, slots=True)
class Point:
    """One value of each axis."""

    values: dict[str, Any]

    def __getitem__(self, axis: str) -> Any:
        """The value of an axis."""
        return self.values[axis]

    def __str__(self) -> str:
        return ", ".join(f"{axis}={value!r}" for axis, value in self.values.items())

    @property
    def config(self) -> dict[str, Any]:
        """The arguments of the model."""
        given: dict[str, Any] = {}
        for axis in MODEL.keys() & self.values.keys():
            names = SPREAD.get(axis, (axis,))
            given |= dict(zip(names, self[axis] if axis in SPREAD else (self[axis],), strict=True))
        return given

    @property
    def options(self) -> dict[str, Any]:
        """The options of a run of the training loop: its own, and whether it is given its rows as a data set."""
        data_set = {"data_set": True} if self.values.get("data") == "a data set" else {}
        return {axis: self[axis] for axis in LOOP if axis in self.values} | data_set


class Points:
    """The points at which a property is tried on a tree, and which of them were."""

    def __init__(self, tree: Tree, axes: dict[str, Sequence[Any]], allowed: Callable[[dict[str, Any]], bool]) -> None:
        self.seconds = tree.seconds
        self.axes = {axis: found for axis, values in axes.items() if (found := kept(tree, axis, values))}
        is_narrow = False in self.axes.get("causal", ()) and not tree.looks_ahead[1]
        self.allowed = (lambda values: allowed(values) and not beyond(values)) if is_narrow else allowed
        self.done: list[Point] = []

    def __iter__(self) -> Iterator[Point]:
        """Each point in turn; it counts as tried when the next one is asked for. Nothing is compiled meanwhile."""
        with uncompiled() if "compile" in self.axes else nullcontext():
            for point in itertools.chain(self._covering(), self._drawn()):
                yield point
                self.done.append(point)

    def _covering(self) -> Iterator[Point]:
        """Points in which each pair of values of two axes occurs that may be together."""
        many = {axis: values for axis, values in self.axes.items() if len(values) > 1}
        only = {axis: values[0] for axis, values in self.axes.items() if len(values) == 1}
        if len(many) < 3:  # noqa: PLR2004 - each pair is a point
            rows: Any = itertools.product(*many.values())
        else:
            rows = AllPairs(list(many.values()), filter_func=lambda row: self._may_be(only, list(many), row))
        for row in rows:
            if self._may_be(only, list(many), row):
                found = only | dict(zip(many, row, strict=True))
                yield Point({axis: found[axis] for axis in self.axes})

    def _may_be(self, only: dict[str, Any], names: Sequence[str], row: Sequence[Any]) -> bool:
        return self.allowed(only | dict(zip(names, row, strict=False)))

    def _drawn(self) -> Iterator[Point]:
        """Random points: some where an axis is a span, and as many as there is processor time for."""
        stream, began = random.Random(0), time.process_time()  # noqa: S311 - no secret
        left = DRAWN if any(isinstance(values, Span) for values in self.axes.values()) else 0
        while left > 0 or time.process_time() - began < self.seconds:
            values = {axis: drawn(values, stream) for axis, values in self.axes.items()}
            left -= 1
            if self.allowed(values):
                yield Point(values)

    def covered(self) -> dict[str, Any]:
        """What was tried: the values of each axis, and how many pairs of declared values occurred, of how many."""
        declared = {axis: [repr(value) for value in values] for axis, values in self.axes.items()}
        known = [{axis: repr(value) for axis, value in point.values.items()} for point in self.done]
        seen = {
            pair
            for point in known
            for pair in itertools.combinations([item for item in point.items() if item[1] in declared[item[0]]], 2)
        }
        possible = sum(len(a) * len(b) for a, b in itertools.combinations(declared.values(), 2))
        return {
            "points": len(self.done),
            "axes": {axis: self._tried(axis, {point[axis] for point in known}) for axis in declared},
            "pairs": len(seen),
            "of_pairs": possible,
        }

    def _tried(self, axis: str, found: set[str]) -> list[str]:
        """The values of an axis that were tried; of a span's others only how many there were."""
        values = self.axes[axis]
        usual = found & {repr(value) for value in values}
        others = len(found - usual)
        between = "{} to {}".format(*values.bounds) if isinstance(values, Span) else ""
        return sorted(usual) + ([f"{others} more of {between}"] if others else [])


def drawn(values: Sequence[Any], stream: random.Random) -> Any:
    """One value of an axis."""
    return stream.randint(*values.bounds) if isinstance(values, Span) else stream.choice(values)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Have torch.compile leave everything as it is: what it makes of a model is task-8's to say, and takes its time."""
    compiler = torch.compile

    def as_it_is(model: Any = None, **_: Any) -> Any:
        return as_it_is if model is None else model

    torch.compile = as_it_is
    try:
        yield
    finally:
        torch.compile = compiler


def kept(tree: Tree, axis: str, values: Sequence[Any]) -> Sequence[Any]:
    """The values of an axis that a tree may have; none where it has not what the axis is about."""
    if axis in MODEL and not all(tree.model_takes(name) for name in SPREAD.get(axis, (axis,))):
        return ()
    if axis == "data":  # elsewhere a loop may take what it likes
        return values if tree.loop_takes("batch_size") and tree.seams.found is None else ()
    if (axis in LOOP or axis == "log") and not tree.loop_takes(axis):
        return ()
    if not tree.seams.is_told:
        return values
    if axis not in tree.asked and tree.states.get(axis, "applied") != "applied":
        return ()  # an option that another task has not brought yet, or not well
    if axis == "width":
        return [each for each in values if is_made(tree, *each)]
    if axis == "causal":
        return [each for each in values if each or tree.looks_ahead[0]]
    if axis in ("direct_prob", "form") and not (tree.loop_takes("direct_prob") and shows_streams(tree)):
        return [each for each in values if each in (0.0, "raw", "compressed")]
    return values


def is_made(tree: Tree, d_model: int, nhead: int) -> bool:
    """Whether a tree makes models so wide, whatever they then do."""
    with suppress(Exception):
        return bool(tree.model(d_model=d_model, nhead=nhead))
    return False


def beyond(values: dict[str, Any]) -> bool:
    """Whether windows are to hide nothing of what is to come."""
    chunk = values.get("windows", (None,))[0] or values.get("sizes", (0, None))[1]
    return values.get("causal") is False and chunk is not None


def always(_: dict[str, Any]) -> bool:
    """Let all values be together."""
    return True


def over(
    *axes: str, allowed: Callable[[dict[str, Any]], bool] = always, **own: Sequence[Any]
) -> Callable[[Callable[..., Evidence]], Callable[..., Evidence]]:
    """Give a check points as its last argument: of declared axes by their names, and of others with their values.

    `allowed` says of the values of some axes, perhaps not yet of all, whether they may be together.
    """
    declared = MODEL | LOOP | OTHERS
    chosen = {axis: declared[axis] for axis in axes} | own

    def decorate(function: Callable[..., Evidence]) -> Callable[..., Evidence]:
        @functools.wraps(function)
        def judge(tree: Tree, *others: Any) -> Evidence:
            points = Points(tree, chosen, allowed)
            found = function(tree, *others, points)
            return replace(found, covered=points.covered())

        judge.axes = tuple(chosen)  # type: ignore[attr-defined]
        return judge

    return decorate
