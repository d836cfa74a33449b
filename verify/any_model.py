"""Judge of trees of any model: what tasks 8, 9 and 10 promise, asked of a model, a batch and a loss.

How such a tree trains, its ledger shows (verify/scripts), from which tasks 1 to 4 have their properties.
"""

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from .driving.any_model import LIMITS, AnyModel, difference
from .driving.operations import Operations, Triangle, tensors_in
from .driving.tracing import traced, why_untraceable
from .driving.tree import Tree
from .running.evidence import Evidence, Verdict, at_most, check, failed, passed, unproven
from .scripts.asking import not_applicable
from .scripts.lines import Lines
from .scripts.working_copy import copied

PLACES = 16  # from which on what is read is changed
TIMES = 3  # steps, each with a micro-batch of its own


def driven(tree: Tree) -> tuple[AnyModel, Lines]:
    """A copy of a tree, in which this process is, and its lines."""
    copied(tree.path, Path.cwd())
    os.environ.update(tree.caches)
    own = AnyModel(Path.cwd(), tree.roots)
    own.watch_attention()
    return own, Lines([Path.cwd()])


@check(task=8, prop="what torch.compile makes of the model has the same loss and the same gradients", of_any=True)
def compiled_it_computes_the_same(tree: Tree) -> Evidence:
    """Have it traced, and compare what comes of two micro-batches with the model as it is."""
    if reason := why_untraceable():
        return unproven(f"torch.compile does not work here: {reason}")
    own, _ = driven(tree)
    model, batches, dtype = own.exact()
    worst = 0.0
    with traced() as found:
        compiled = torch.compile(model)
        for batch in batches:
            eager = own.require_same(model, batch, LIMITS[dtype])
            try:
                worst = max(worst, difference(eager, own.step(model, batch, compiled)))
            except TorchDynamoException as error:
                return unproven(f"torch.compile cannot trace it: {str(error).splitlines()[0]}")
        if not found.graphs:
            return unproven("loss(model, batch) does not call the model that it is given: nothing was compiled")
    if worst > LIMITS[dtype] and not torch.equal(own.loss(model, batch), own.loss(model, batch, seed=0)):
        return unproven("the loss draws random numbers, and what is compiled may draw them in another order")
    return at_most(worst, LIMITS[dtype], f"largest relative difference of loss and gradients, {found.graphs} graph(s)")


@check(task=9, prop="attention is that of an explicit softmax over what each query may see", of_any=True)
def attention_is_explicit_attention(tree: Tree) -> Evidence:
    """Have torch's attention computed by hand, whole rows of scores, and compare loss and gradients."""
    own, lines = driven(tree)
    model, (batch, *_), dtype = own.exact()
    at = list[str]()

    def whole(real: Callable[..., Tensor], **given: Any) -> Tensor:
        return real(**given | {"dropout_p": 0.0})

    def by_hand(_: Any, **given: Any) -> Tensor:
        at.append(lines.here())
        return explicit(**given)

    with own.attending(whole):
        fused = own.require_same(model, batch, LIMITS[dtype])
    with own.attending(by_hand):
        found = own.step(model, batch)
    if not at:
        return not_applicable("torch's scaled_dot_product_attention is not called")
    gap, where = difference(fused, found), ", ".join(dict.fromkeys(at))
    return placed(at_most(gap, LIMITS[dtype], f"loss and gradients, relative; {len(at)} calls, {where}"), at[0])


@check(task=9, prop="attention drops weights in training only", of_any=True)
def attention_drops_nothing_in_evaluation(tree: Tree) -> Evidence:
    """Look at the rate that torch's attention is given in evaluation mode."""
    own, lines = driven(tree)
    rates = list[tuple[float, str]]()

    def look(real: Callable[..., Tensor], **given: Any) -> Tensor:
        rates.append((float(given.get("dropout_p", 0.0)), lines.here()))
        return real(**given)

    torch.manual_seed(0)
    model, batch = own.function("model")(), own.batch()
    with own.attending(look):
        own.loss(model.eval(), batch)
    if not rates:
        return not_applicable("torch's scaled_dot_product_attention is not called")
    rate, at = max(rates)
    if rate:
        return placed(failed(f"dropout_p={rate:g} is given in evaluation mode ({at})"), at)
    return passed(f"{len(rates)} calls without dropout")


@check(task=9, prop="what is said of a position depends on no later one", of_any=True)
def no_position_sees_a_later_one(tree: Tree) -> Evidence:
    """Change what is read, from each position on, and look at what is said of those before."""
    own, _ = driven(tree)
    if not own.says("causal"):
        lines = (
            "def causal(model, batch): return READ, SAID  # [B, T] of the batch, and what the model says: [B, T, ...]"
        )
        return not_applicable(f"nothing says that it is causal; settle it: {lines}")
    model, (batch, _), dtype = own.exact()
    model.eval()
    with torch.no_grad():
        read, said = own.function("causal")(model, batch)
        length, before, seen = read.shape[1], read.clone(), 0
        others = before.roll(1, 0).flip(1)  # of what is read, at other places
        for position in range(0, length - 1, max(1, length // PLACES)):
            read[:, position + 1 :] = others[:, position + 1 :]
            now = own.function("causal")(model, batch)[1]
            read.copy_(before)
            gap = float((now[:, : position + 1] - said[:, : position + 1]).abs().max())
            if not gap <= LIMITS[dtype]:
                return at_most(
                    gap, LIMITS[dtype], f"what is said of positions up to {position} changes with later ones"
                )
            seen += not torch.equal(now, said)
    if not seen:
        return unproven("what the model says does not depend on what is read, or the batch is the same everywhere")
    return passed(f"{length} positions")


@check(task=10, prop="a causal mask that was built is not built again", of_any=True)
def a_mask_is_built_once(tree: Tree) -> Evidence:
    """Make a few steps, and follow each triangle to the operation that it was born of."""
    own, lines = driven(tree)
    model, batches, _ = own.exact(range(TIMES))
    with Births(lines) as operations:
        for tensor in tensors_in(batches):
            tensor.view_as(tensor)  # a mask that comes with the data is no other's doing
        for number, batch in enumerate(batches, 1):
            operations.step = number
            own.step(model, batch)
    for kind, steps in operations.steps.items():
        if len(steps - {0}) > 1:
            words = f"a triangle of {kind.rows} x {kind.columns} is built in {len(steps - {0})} of {TIMES} steps"
            at = operations.lines[kind]
            return placed(failed(f"{words} ({at})"), at)
    if not operations.used:
        return not_applicable("no causal mask is built or used")
    return passed(f"{len(operations.steps)} built in {TIMES} steps, none of them twice")


class Births(Operations):  # type: ignore[no-untyped-call]
    """Notes of each triangle that is built, by its kind, in which steps, and at which line."""

    def __init__(self, lines: Lines) -> None:
        self.used = 0
        super().__init__(self._count)
        self.step, self._places = 0, lines
        self.steps: dict[Triangle, set[int]] = {}
        self.lines: dict[Triangle, str] = {}

    def _count(self, _: Tensor) -> None:
        self.used += 1

    def _note(self, tensor: Tensor, born: bool) -> None:
        before = len(self.births)
        super()._note(tensor, born)
        for kind in self.births[before:]:
            self.steps.setdefault(kind, set()).add(self.step)
            self.lines.setdefault(kind, self._places.here())


def explicit(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    **_: Any,
) -> Tensor:
    """softmax(q k^T) v over what each query sees, without dropout; the last query stands where the last key does."""
    if enable_gqa:
        key, value = (each.repeat_interleave(query.shape[-3] // key.shape[-3], -3) for each in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(scores.shape[-1] - scores.shape[-2] + 1)
        scores = scores.masked_fill(hidden.to(scores.device), -math.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    blind = (scores == -math.inf).all(-1, keepdim=True)  # a row that sees nothing is 0
    weights = scores.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0)
    return weights @ value


def placed(evidence: Evidence, at: str) -> Evidence:
    """Evidence with the user's line, where it is red."""
    return replace(evidence, at=at) if evidence.verdict is Verdict.FAIL else evidence
