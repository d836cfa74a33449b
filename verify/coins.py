"""Runs of a tree's train_loop on a model that costs nothing, with the draws fixed. In child processes only."""

import contextlib
import functools
import inspect
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from .evidence import Evidence, failed, passed
from .sanity_fit import half_cosine
from .spies import Ledger
from .training_runs import LENGTH, Run, train, watching
from .tree import Tree

NEAR = 1e-6  # how close to p the draws come that must fall on either side of it; draws in float32 have 6e-8
HALF = 0.5


class Stopped(Exception):
    """The tree cannot be judged further: what is wrong, and the call that shows it."""


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
    """A tree's train_loop on a model that costs next to nothing; one row makes all micro-batches if not told."""

    def __init__(self, tree: Tree, ledger: Ledger, draws: Draws) -> None:
        self.tree, self.ledger, self.draws = tree, ledger, draws
        self.noisy = False  # whether a forward draws from the global streams
        self.tosses: list[Toss] = []
        self.form: str | None = None  # of the micro-batch that is about to enter, if it is known
        self.updates = 0
        self.options = inspect.signature(tree.module("training").train_loop).parameters
        self.ledger.sgd_lr = 0.0
        self.model = self._model()
        register_optimizer_step_post_hook(self._count)

    def run(
        self, rows: int = 1, *, draw: Callable[[], float] | None = None, seed: int = 1, **options: Any
    ) -> list[Toss]:
        """Train, with a seed, or with each draw fixed at the moment at which it is made."""
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        self.tosses, self.updates, self.data = [], 0, self.tree.bits(rows, LENGTH)
        self.call = f"train_loop(model, bits({rows}, {LENGTH}), {', '.join(f'{k}={v}' for k, v in options.items())})"
        with self.fixed(draw, self.call):
            self.tree.module("training").train_loop(self.model, self.data, **{"direct_prob": 0.0} | options)
        if not self.tosses or not self.updates:
            raise Stopped("train_loop makes no update", self.call)
        return self.tosses

    def train(self, rows: int, **options: Any) -> Run:
        """Train a real model, in the same way."""
        with self.fixed(None, f"train_loop(model, bits({rows}, {LENGTH}), {options})"):
            return train(self.tree, self.ledger, rows, **options)

    @contextlib.contextmanager
    def fixed(self, draw: Callable[[], float] | None, call: str) -> Iterator[None]:
        """Fix draws, or leave them be, during a call that should end well."""
        self.draws.value = draw
        try:
            yield
        except Exception as error:
            raise Stopped(f"{type(error).__name__}: {error}", call) from error
        finally:
            self.draws.value = None

    @functools.cached_property
    def fixable(self) -> bool:
        """Whether a fixed draw below p is what compresses, for each micro-batch apart."""
        values = [0.25, 0.75, 0.75, 0.25, 0.75, 0.25, 0.25, 0.75]
        options: dict[str, Any] = {"extra_steps": 11, "compress_prob": HALF, "warmup_steps": 0}
        tosses = self.run(draw=lambda: values[len(self.tosses) % 8], **options)
        late = [toss.form == "compressed" for toss in tosses[4:]]  # where a ramp that is a little wrong has ended too
        return late == [value < HALF for value in values[4:] + values[:4]]

    def follow(self, *cases: dict[str, Any], runs: int = 100) -> Evidence:
        """Compare runs, by their options, with the ramp: exactly, or by the rates of many runs of the first."""
        for options in cases if self.fixable else cases[:1]:
            wrong = self._miss(options) if self.fixable else self._odd_rate(options, runs)
            if wrong:
                return failed(wrong, self.call)
        how = f"draws {NEAR} below and above p" if self.fixable else f"rates of {runs} runs, as no draw can be fixed"
        return passed(f"{len(cases)} runs: {how}")

    def _miss(self, options: dict[str, Any]) -> str | None:
        for side in (-NEAR, NEAR):
            for toss in self.run(draw=functools.partial(self._beside, side, options), **options):
                p = ramp(toss.updates, options)
                if 0 <= p + side < 1 and toss.form != ("compressed" if side < 0 else "raw"):
                    return f"after {toss.updates} updates p={p:.6f}, but a draw of {p + side:.6f} gives {toss.form}"
        return None

    def _beside(self, side: float, options: dict[str, Any]) -> float:
        return min(max(ramp(self.updates, options) + side, 0.0), 1 - 2**-24)  # as a uniform draw may be

    def _odd_rate(self, options: dict[str, Any], runs: int) -> str | None:
        tosses = [self.run(seed=seed, **options) for seed in range(runs)]
        for same in zip(*tosses, strict=True):
            p, hits = ramp(same[0].updates, options), [toss.form == "compressed" for toss in same]
            if off_by(hits, runs * [p]) > 4.5:  # noqa: PLR2004 - sigmas; there are some dozen of these
                return f"after {same[0].updates} updates p={p:.6f}, but {sum(hits)} of {runs} runs compress"
        return None

    def _model(self) -> nn.Module:
        coins, kind = self, self.tree.module("model").BitTransformerLM

        class Coin(kind):  # type: ignore[misc, valid-type]
            def forward(self, bits: Tensor, *_: Any, **__: Any) -> Any:
                coins.note(bits)
                return self.coin.expand(*bits.shape, 2), {}

            def forward_compressed(self, *args: Any, **kwargs: Any) -> Any:
                coins.form = "compressed"
                return super().forward_compressed(*args, **kwargs)

        model: nn.Module = Coin(d_model=4, nhead=2, num_layers=1, dim_feedforward=4, max_seq_len=64)
        for name in dict(model.named_children()):
            setattr(model, name, nn.Identity())
        model.coin = nn.Parameter(torch.zeros(2))
        return model

    def note(self, bits: Tensor) -> None:
        """Add a micro-batch that enters the model; if it was not compressed, its bits say whether it is raw."""
        known = {tuple(row) for row in self.data.tolist()}
        uncompressed = "raw" if known.issuperset(map(tuple, bits.tolist())) else "direct"
        self.tosses.append(Toss(self.form or uncompressed, self.updates, bits.clone()))
        self.form = None
        if self.noisy:
            random.getrandbits(32), np.random.random(), torch.randint(2, ())

    def _count(self, *_: Any) -> None:
        self.updates += 1


def tossing(*options: str) -> Callable[[Callable[[Coins], Evidence]], Callable[[Tree], Evidence]]:
    """Give a check coins whose draws it can fix; fail where train_loop lacks an option or raises an error."""

    def decorate(function: Callable[[Coins], Evidence]) -> Callable[[Tree], Evidence]:
        def judge(tree: Tree) -> Evidence:
            draws = Draws()

            @watching(*options)
            def toss(tree: Tree, ledger: Ledger) -> Evidence:
                return function(Coins(tree, ledger, draws))

            try:
                return toss(tree)
            except Stopped as stopped:
                return failed(*stopped.args)

        judge.__name__ = function.__name__
        return judge

    return decorate


def ramp(updates: int, options: dict[str, Any]) -> float:
    """The probability of a micro-batch, given the updates before it and the options of its run."""
    step, warmup_steps = updates + options.get("global_step", 0), options["warmup_steps"]
    end: float = options.get("compress_prob", HALF)
    return end if step >= warmup_steps else half_cosine(0.0, end, step / warmup_steps)


def off_by(hits: list[bool], chances: list[float]) -> float:
    """How many sigmas the number of hits is off what their chances give."""
    return abs(sum(hits) - sum(chances)) / math.sqrt(max(sum(p * (1 - p) for p in chances), 1e-6))
