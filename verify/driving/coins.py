"""Runs of a tree's train_loop on a model that costs nothing, with the draws fixed. In child processes only."""

import contextlib
import functools
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..running.evidence import Evidence, Picture, failed, passed
from .arguments import form_of
from .pictures import curves, if_possible
from .short_fit import half_cosine
from .space import MODEL
from .spies import Ledger
from .training_runs import train, watching
from .tree import Tree

NEAR = 1e-6  # how close to p the draws come that must fall on either side of it; draws in float32 have 6e-8
HALF = 0.5
HALVINGS = 10  # by which a probability is found that is shown


@dataclass(frozen=True, slots=True)
class Toss:
    """A micro-batch [rows, L] as it entered the model, in which form, and the updates that the run had made."""

    form: str  # raw, compressed or direct
    updates: int
    bits: Tensor


class Draws:
    """Uniform draws of Python's random and of torch, which a check may fix. Make it before the tree is imported."""

    def __init__(self) -> None:
        self.value: Callable[[], float] | None = None  # what is drawn, if it is fixed
        draws, original = self, random.Random

        class Fixable(original):  # type: ignore[misc, valid-type]
            def random(self) -> float:
                return super().random() if draws.value is None else draws.value()

            def getrandbits(self, k: int, /) -> int:  # or else shuffles would come from random()
                return int(super().getrandbits(k))

        stream = Fixable(1)
        for name, function in list(vars(random).items()):
            if isinstance(getattr(function, "__self__", None), original):
                setattr(random, name, getattr(stream, name))
        random.Random = Fixable  # type: ignore[misc]
        for owner, name in ((torch, "rand"), (Tensor, "uniform_")):
            setattr(owner, name, self._fixable(getattr(owner, name)))

    def _fixable(self, draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def drawn(*args: Any, **kwargs: Any) -> Tensor:
            out = draw(*args, **kwargs)
            return out if self.value is None else out.fill_(self.value())

        return drawn


class Coins:
    """A tree's train_loop on a model that computes next to nothing; one row makes all micro-batches if not told."""

    def __init__(self, tree: Tree, ledger: Ledger, draws: Draws) -> None:
        self.tree, self.ledger, self.draws = tree, ledger, draws
        self.call = "train_loop(...)"
        self.odd: Picture | None = None  # rates of runs that the ramp does not give

    @property
    def entered(self) -> int:
        """How many micro-batches have entered the model in this run."""
        return sum(event.bits is not None for event in self.ledger.events)

    @property
    def updates(self) -> int:
        """How many updates this run has made."""
        return sum(event.kind == "step" for event in self.ledger.events)

    def run(self, rows: int = 1, *, draw: Callable[[], float] | None = None, **options: Any) -> list[Toss]:
        """Train, with a seed, or with each draw fixed at the moment at which it is made."""
        config = {name: options.pop(name) for name in MODEL if name in options}
        options = {name: value for name, value in options.items() if name == "seed" or self.tree.loop_takes(name)}
        with self.fixed(draw):
            run = train(self.tree, self.ledger, rows, light=True, config=config, **{"compress_prob": None} | options)
        self.call, self.data, self.last = run.call, run.data, run
        tosses, made = [], 0
        for event in run.events:
            made += event.kind == "step"
            if event.bits is not None:
                tosses.append(Toss(form_of(event, run), made, event.bits))
        return tosses

    @contextlib.contextmanager
    def fixed(self, draw: Callable[[], float] | None) -> Iterator[None]:
        """Fix draws, or leave them be."""
        self.draws.value = draw
        try:
            yield
        finally:
            self.draws.value = None

    @functools.cached_property
    def fixable(self) -> bool:
        """Whether a fixed draw below p is what compresses, for each micro-batch apart."""
        values = [0.25, 0.75, 0.75, 0.25, 0.75, 0.25, 0.25, 0.75]
        options: dict[str, Any] = {"extra_steps": 11, "compress_prob": HALF, "warmup_steps": 0}
        tosses = self.run(draw=lambda: values[self.entered % 8], **options)
        late = [toss.form == "compressed" for toss in tosses[4:]]  # where a ramp that is a little wrong has ended too
        return late == [value < HALF for value in values[4:] + values[:4]]

    def follow(self, cases: Iterable[dict[str, Any]], runs: int = 100) -> Evidence:
        """Compare runs, by their options, with the ramp: exactly, or by the rates of many runs of the first few."""
        tried = 0
        for options in cases if self.fixable else itertools.islice(cases, 2):
            tried += 1
            wrong = self.miss(options) if self.fixable else self._odd_rate(options, runs)
            if wrong:
                return failed(wrong, self.call, picture=self.ramp_shown(options) if self.fixable else self.odd)
        how = f"draws {NEAR} below and above p" if self.fixable else f"rates of {runs} runs, as no draw can be fixed"
        return passed(f"{tried} runs: {how}")

    def miss(self, options: dict[str, Any], sides: Sequence[float] = (-NEAR, NEAR)) -> str | None:
        """What is wrong with the forms of runs whose draws are beside the ramp, on either side."""
        for side in sides:
            for toss in self.run(draw=functools.partial(self._beside, side, options), **options):
                p = ramp(toss.updates, options)
                if 0 <= p + side < 1 and toss.form != ("compressed" if side < 0 else "raw"):
                    return f"after {toss.updates} updates p={p:.6f}, but a draw of {p + side:.6f} gives {toss.form}"
        return None

    @if_possible
    def ramp_shown(
        self, options: dict[str, Any], around: Callable[[], contextlib.AbstractContextManager[Any]] = nullcontext
    ) -> Picture | None:
        """The probability after each number of updates, found by halving between draws that compress or not."""
        low, high, places = dict[int, float](), dict[int, float](), list[int]()

        def middle(updates: int) -> float:
            return (low.get(updates, 0.0) + high.get(updates, 1.0)) / 2

        for _ in range(HALVINGS):
            with around():
                tosses = self.run(draw=lambda: middle(self.updates), **options)
            first = {toss.updates: toss for toss in reversed(tosses)}
            places = sorted(first)
            for at, drawn in [(at, middle(at)) for at in places]:
                (low if first[at].form == "compressed" else high)[at] = drawn
        found = [0.0 if at not in low else middle(at) if at in high else 1.0 for at in places]
        return curves("p of each update, beside the ramp", found, [ramp(at, options) for at in places], y="p")

    def _beside(self, side: float, options: dict[str, Any]) -> float:
        return min(max(ramp(self.updates, options) + side, 0.0), 1 - 2**-24)  # as a uniform draw may be

    def _odd_rate(self, options: dict[str, Any], runs: int) -> str | None:
        tosses = [*zip(*(self.run(**options | {"seed": seed}) for seed in range(runs)), strict=True)]
        found = [sum(toss.form == "compressed" for toss in same) / runs for same in tosses]
        wanted = [ramp(same[0].updates, options) for same in tosses]
        self.odd = curves(f"share of {runs} runs that compress, beside the ramp", found, wanted, x="micro-batch", y="p")
        for same in tosses:
            p, hits = ramp(same[0].updates, options), [toss.form == "compressed" for toss in same]
            if off_by(hits, runs * [p]) > 4.5:  # noqa: PLR2004 - sigmas; there are some dozen of these
                return f"after {same[0].updates} updates p={p:.6f}, but {sum(hits)} of {runs} runs compress"
        return None


def tossing(*options: str) -> Callable[[Callable[..., Evidence]], Callable[..., Evidence]]:
    """Give a check coins whose draws it can fix; fail where train_loop lacks an option or raises an error."""

    def decorate(function: Callable[..., Evidence]) -> Callable[..., Evidence]:
        @functools.wraps(function)
        def judge(tree: Tree) -> Evidence:
            draws = Draws()

            @watching(*options)
            def toss(tree: Tree, ledger: Ledger) -> Evidence:
                return function(tree, Coins(tree, ledger, draws))

            return toss(tree)

        return judge

    return decorate


def ramp(updates: int, options: dict[str, Any]) -> float:
    """The probability of a micro-batch, given the updates before it and the options of its run."""
    step, warmup_steps = updates + options.get("global_step", 0), options["warmup_steps"]
    given = options.get("compress_prob")
    end: float = HALF if given is None else given
    return end if step >= warmup_steps else half_cosine(0.0, end, step / warmup_steps)


def shares_shown(hits: Sequence[bool], chances: Sequence[float]) -> Picture | None:
    """The share of micro-batches that were compressed so far, beside what their chances give."""
    sides = ([total / at for at, total in enumerate(itertools.accumulate(each), 1)] for each in (hits, chances))
    return curves("share that is compressed so far", *sides, x="micro-batch", y="share")


def off_by(hits: list[bool], chances: list[float]) -> float:
    """How many sigmas the number of hits is off what their chances give."""
    return abs(sum(hits) - sum(chances)) / math.sqrt(max(sum(p * (1 - p) for p in chances), 1e-6))
