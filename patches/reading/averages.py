"""What is wrong with the average by which a gate decides, if anything: told by what it does with a few losses."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from .code import Code
from .files import Function
from .gates import FAR, Gate, Judge, Measured, flags_of, is_number, required
from .playing.kinds import Function as Routine
from .playing.kinds import Raised
from .tensors import Unknown

Method = tuple[str, ast.ClassDef | None, Function]  # the path of its module, its class and itself


def wrong_with(code: Code, judge: Judge, found: Measured) -> Iterator[str]:
    """What is wrong with the average by which a gate decides."""
    if math.isnan(found.threshold):
        yield "from what loss on it stops a run is no threshold of its average"
        return
    if found.burn_in == 0:
        yield "it has no burn-in: the first losses of a run may stop it"
    start, edge, good = found.burn_in, found.edge, found.edge - 1.0

    def first(*losses: float) -> int | None:
        return found.first(Gate(code, judge), losses)

    decays = {each for each in _numbers(found, Gate(code, judge)) if 0 < each < 1}
    fitting = [each for each in sorted(decays | {1 - each for each in decays}) if _is_average(found, each, first)]
    if fitting and fitting[-1] <= 0.5:  # noqa: PLR2004 - half of the weight
        yield f"the newest loss weighs {1 - fitting[-1]:.2g}, more than all before it: its decay is swapped"
    elif not fitting:
        yield _other_average(found, first)
    if first(*[good] * (start + 2), math.nan) is None or first(*[good] * (start + 2), math.inf) is None:
        yield "a loss that is not a number, or infinite, does not stop it"
    if start and first(math.nan, *[good] * (start - 1)) is not None:
        yield "a loss that is not a number stops it in the burn-in too"
    equal = Gate(code, judge)
    at = found.first(equal, [edge] * (start + 1))
    if at is not None and not found.is_floor and _meet(equal, edge):
        yield "at the threshold itself it stops too"
    if _recovers(code, judge, found):
        yield "once it has stopped a run it lets it go on by itself"
    for function, is_clear in reopens(code, judge, found):
        if not is_clear:
            yield f"{function.name} opens it again and keeps its average, or its count of losses"
    if not is_kept(code, judge, found):
        yield "what it averages is not saved and loaded with it"


def _numbers(found: Measured, gate: Gate) -> set[float]:
    """The numbers that a gate goes by."""
    found.first(gate, [found.edge - 1.0] * (found.burn_in + 2))
    return {float(value) for each in gate.run.seen.values() for value in each if is_number(value)}


def _is_average(found: Measured, decay: float, first: Callable[..., int | None]) -> bool:
    """Whether a gate stops where an exponential moving average would stop it, that begins with the first loss."""
    start, edge, good, spike = found.burn_in, found.edge, found.edge - 1.0, 1 / (1 - decay)
    tried = [
        [edge + 1e-3] * (start + 2),
        [edge + 100.0, *[good] * (start + 40)],
        [*[good] * start, edge + 100.0, *[good] * 40],
        [*[edge + 9.0] * start, *[good] * 5],
        [*[good] * (start + 2), good + 0.9 * spike, *[good] * 3],
        [*[good] * (start + 3), good + 1.1 * spike],
        [*[good] * (start + 3), edge + 1e-3],
        [*[good] * (start + 5), *[edge + 1.0] * 30],
        *([edge + (turn * 7919 * shift % 13 - 7.5) for turn in range(start + 30)] for shift in (1, 3, 5)),
    ]
    forms = [True, False]
    for losses in tried:
        stops = first(*losses)
        forms = [begins for begins in forms if _stopped(losses, decay, start, edge, begins) == stops]
        if not forms:
            break
    return bool(forms)


def _stopped(losses: Sequence[float], decay: float, burn_in: int, edge: float, begins: bool) -> int | None:
    """Where an average stops a run: one that begins with the first loss, or at zero, corrected for that."""
    average, room = losses[0] if begins else 0.0, 1e-9
    for place, loss in enumerate(losses):
        average = loss if begins and not place else decay * average + (1 - decay) * loss
        unbiased = average if begins else average / (1 - decay ** (place + 1))
        if place >= burn_in and not unbiased <= edge + room:
            return place
    return None


def _other_average(found: Measured, first: Callable[..., int | None]) -> str:
    start, edge, good = found.burn_in, found.edge, found.edge - 1.0
    if first(*[good] * (start + 20), edge + 1e-3) is not None:
        return "it is the last loss that it tests, and no average"
    if found.is_slow:
        return "a steady loss over the threshold does not stop it at once: begin the average with the first loss"
    if first(*[edge + 1e5] * start, good) is None:
        return "the losses of the burn-in are left out of its average"
    return "what it tests is no exponential moving average of the losses"


def _functions(code: Code, judge: Judge) -> Iterator[Method]:
    """What else a gate can be asked: its methods, or the functions beside it."""
    every: list[tuple[str, ast.ClassDef | None, ast.stmt]]
    if judge.kind == "object" and judge.cls is not None:
        every = [(path, cls, each) for path, cls in code.bases(judge.cls.path, judge.cls.node) for each in cls.body]
    else:
        every = [(judge.file.path, None, each) for each in judge.file.module.body]
    seen = {judge.node.name}
    for path, cls, each in every:
        if isinstance(each, ast.FunctionDef) and each.name not in seen and not each.name.startswith("__"):
            seen.add(each.name)
            yield path, cls, each


def reopens(code: Code, judge: Judge, found: Measured) -> Iterator[tuple[Function, bool]]:
    """The functions that open a gate again that has stopped a run, and whether all that it was told is forgotten."""
    for function in _functions(code, judge):
        gate, new = Gate(code, judge), Gate(code, judge)
        bad = [found.edge + FAR] * (found.burn_in + 1)
        is_shut = found.first(gate, bad) is not None and flags_of(gate.state) != flags_of(new.state)
        if is_shut and len(required(function[2])) == (judge.kind != "module"):
            with suppress(Unknown, Raised):
                gate.take(gate.ask(function))
                if flags_of(gate.state) == flags_of(new.state):
                    is_clear = found.first(gate, [found.edge - 1.0] * (found.burn_in + 5)) is None
                    yield function[2], is_clear and _begins_anew(code, judge, found, function)


def _begins_anew(code: Code, judge: Judge, found: Measured, function: Method) -> bool:
    """Whether a gate that a function has opened again stops a run no sooner than a new one does."""
    gate, bad = Gate(code, judge), [found.edge + FAR] * (found.burn_in + 1)
    found.first(gate, bad)
    gate.take(gate.ask(function))
    gate.clock = 0  # which is its caller's, where it has one
    return found.first(gate, bad) == found.first(Gate(code, judge), bad)


def _recovers(code: Code, judge: Judge, found: Measured) -> bool:
    """Whether a gate that remembers to have stopped a run forgets that."""
    gate, new = Gate(code, judge), Gate(code, judge)
    is_shut = found.first(gate, [found.edge + 50.0] * (found.burn_in + 1)) is not None
    if not is_shut or flags_of(gate.state) == flags_of(new.state):
        return False
    return any(found.first(gate, [found.edge - 1.0]) is None for _ in range(100))


def is_kept(code: Code, judge: Judge, found: Measured) -> bool:
    """Whether a gate that is made from what another hands out goes on where that one is."""
    if judge.kind == "module":
        one, other = Gate(code, judge), Gate(code, judge)
        found.first(other, [found.edge] * 2)
        tops = [each.run.walk.module(judge.file.path).names for each in (one, other)]
        return not any(is_number(each) and each != tops[0].get(name) for name, each in tops[1].items())
    if kept_by(code, judge, found) is not None:
        return True
    return judge.kind == "record" and not any(_saved(Gate(code, judge), each) for each in _functions(code, judge))


def kept_by(code: Code, judge: Judge, found: Measured) -> tuple[Method, Method] | None:
    """What hands out all that a gate knows, and what takes it up again; None where there are none that do."""
    functions = list(_functions(code, judge))
    for save in functions:
        for load in functions if _saved(Gate(code, judge), save) is not None else ():
            with suppress(Unknown, Raised):
                if load[2] is not save[2] and all(_goes_on(code, judge, found, save, load, bad) for bad in range(3)):
                    return save, load
    return None


def keeps_itself(code: Code, judge: Judge, save: Method) -> bool:
    """Whether a function hands out whatever a gate keeps."""
    gate = Gate(code, judge)
    if gate.thing is not None:
        gate.thing.own["probe"] = 1.0
    return "probe" in (_saved(gate, save) or {})


def _saved(gate: Gate, save: Method) -> dict[Any, Any] | None:
    """What a function hands out of a gate, if that is a dict."""
    if len(required(save[2])) != (gate.judge.kind != "module"):
        return None
    try:
        made = gate.ask(save)
    except (Unknown, Raised):
        return None
    return dict(made) if isinstance(made, dict) else None


def _goes_on(code: Code, judge: Judge, found: Measured, save: Method, load: Method, case: int) -> bool:
    """Whether a new gate goes on as one of which it is told: amid its burn-in, behind it, or stopped."""
    start, edge = found.burn_in, found.edge
    before = ([edge + 7.0] * (start // 2 + 1), [edge - 1.0] * (start + 2), [edge + 7.0] * (start + 1))[case]
    for later in [edge + 3.0, *[edge + 0.5] * (start + 2)], [edge - 100.0] * 5:
        one, other = Gate(code, judge), Gate(code, judge)
        found.first(one, before)
        state, extra, other.clock = _saved(one, save), len(required(load[2])) - 1, one.clock
        if extra == 0 and judge.kind == "record":
            other.take(other.run.call(Routine(load[0], load[2]), state))
        elif extra == 1:
            other.take(other.ask(load, state))
        else:
            return False
        if found.first(one, later) != found.first(other, later):
            return False
    return True


def _meet(gate: Gate, edge: float) -> bool:
    """Whether what was compared last was the threshold itself with it."""
    seen = gate.run.seen
    compared = [node for node in seen if isinstance(node, ast.Compare)]
    sides = [[seen[each][-1] for each in (node.left, *node.comparators) if each in seen] for node in compared]
    return any(len(each) > 1 and all(is_number(side) and side == edge for side in each) for each in sides)
