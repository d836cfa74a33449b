"""Accumulation by hand: whether several losses are learned from at once, and whether each weighs what it should."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from .frames import Effect, Reading
from .steps import Kind, parts
from .updates import Update
from .values import Value

_MEANS = ("cross_entropy", "nll_loss")
_LAYOUT = {"flatten", "reshape", "view", "contiguous", "cast", "swap", "permute", "mT", "clone", "detach", "unflatten"}
_PLAIN = ("weight", "size_average", "reduce")  # settings without which a loss is a plain mean
IGNORED = -100  # the target that torch ignores where it is not told another

_CUTS = {"int", "float", "bool", "item", "detach", "size", "len", "eq", "ne", "lt", "le", "gt", "ge"}  # to no gradient
_OPTIONS = {"parameter", "const", "attr", "setting", "self", "index", "dict"}  # what does not change in a run


def accumulates(reading: Reading, backward: Effect) -> bool:
    """Whether an optimizer steps less often than there are backwards: behind their loop, or by a condition."""
    steps = [part.effect for part in parts(reading) if part.kind is Kind.STEP]
    return bool(steps) and all(_is_rarer(each, backward) for each in steps)


def _is_rarer(step: Effect, backward: Effect) -> bool:
    loops, own = (
        [guard.at.node for guard in each.under if guard.kind in ("for", "while")] for each in (backward, step)
    )
    tests = [guard.at.node for guard in backward.under]
    more = [guard for guard in step.under if guard.kind in ("if", "else") and guard.at.node not in tests]
    return loops[: len(own)] == own and (len(own) < len(loops) or bool(more))


def problem(update: Update) -> str:
    """What is wrong with the weight of a loss in its group, if it shows."""
    factors = _factors(update)
    if not factors:
        return "its losses are added up, each whole: weigh each by its share of what is scored"
    if all(each.op in _OPTIONS for factor in factors for each in factor.walk()):
        return "each loss is divided by the same number, in a shorter group and for a smaller micro-batch too"
    return ""


def is_weighed(update: Update) -> bool:
    """Whether a loss is multiplied with something on its way to the backward."""
    return bool(_factors(update))


def is_scaled_alone(update: Update) -> bool:
    """Whether a loss is divided by an option, though each is learned from by itself."""
    factors = _factors(update)
    return any(each.op in ("parameter", "attr", "index") for factor in factors for each in factor.walk())


def _factors(update: Update) -> list[Value]:
    """What a loss is multiplied with or divided by, on its way to the backward."""
    is_run, found, value = _learned_from({each.key for each in update.ran}), list[Value](), update.loss
    while True:
        sides = [each for name, each in value.args.items() if name != "func"]
        runs = [each for each in sides if is_run(each)]
        if value.op in ("mul", "div") and len(runs) == 1:
            found += [each for each in sides if each is not runs[0]]
        elif (
            value.op not in ("call", "phi")
            or len(runs) != 1
            or not isinstance(value.at.node if value.at else None, ast.Call)
        ):
            return found
        value = runs[0]


def _learned_from(keys: set[int]) -> Callable[[Value], bool]:
    """What tells whether a gradient flows from a value to one of some."""
    known: dict[int, bool] = dict.fromkeys(keys, True)

    def flows(value: Value) -> bool:
        if value.key not in known:
            known[value.key] = value.op not in _CUTS and any(map(flows, value.items))
        return known[value.key]

    return flows


def means(loss: Value) -> list[Value]:
    """The cross-entropies that a loss is made of."""
    return [each for each in loss.walk() if each.op in _MEANS and "target" in each.args]


def is_plain(mean: Value) -> bool:
    """Whether a cross-entropy is the plain mean over its targets."""
    reduction = mean.get("reduction")
    is_mean = reduction is None or reduction.is_const("mean")
    return is_mean and all(mean[name].is_const(None) for name in _PLAIN if name in mean.args)


def unlaid(value: Value) -> Value:
    """A tensor before it was laid out anew, or moved to another device or dtype."""
    return value.beneath(_LAYOUT)


def ignored(mean: Value) -> int | None:
    """The target that a cross-entropy ignores; None where that is no number that is known."""
    value = mean.get("ignore_index")
    number = IGNORED if value is None else value.number
    return number if isinstance(number, int) else None


def pads(loss: Value) -> Iterator[Value]:
    """What a loss is made of that fills rows up."""
    return (each for each in loss.walk() if each.op in ("masked_fill", "pad", "where"))
