"""Accumulation by hand: whether several losses are learned from at once, and whether each weighs what it should."""

from __future__ import annotations

import ast

from .frames import Effect
from .updates import Update, made_of
from .values import Value

_OPTIONS = {"parameter", "const", "attr", "setting", "self", "index", "dict"}  # what does not change in a run


def accumulates(update: Update) -> bool:
    """Whether an optimizer steps less often than there are backwards: behind their loop, or by a condition."""
    steps = [each for each in update.reading.effects if each.kind == "step" and _may_be_of_optimizer(each)]
    return bool(steps) and all(_is_rarer(each, update.effect) for each in steps)


def _may_be_of_optimizer(effect: Effect) -> bool:
    """Whether what steps is no schedule, as far as its making tells: a schedule is made of what it steps."""
    func = effect.value.get("func")
    owner = func["of"] if func is not None and func.op == "attr" else None
    made = owner["func"] if owner is not None and owner.op == "call" else None
    return made is None or "lr_scheduler" not in str(made.data)


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


def is_scaled_alone(update: Update) -> bool:
    """Whether a loss is divided by an option, though each is learned from by itself."""
    factors = _factors(update)
    return any(each.op in ("parameter", "attr", "index") for factor in factors for each in factor.walk())


def _factors(update: Update) -> list[Value]:
    """What a loss is multiplied with or divided by, on its way to the backward."""
    is_run, found, value = made_of({each.key for each in update.ran}), [], update.loss
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
