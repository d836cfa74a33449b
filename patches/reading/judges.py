"""Where a tree's gates are asked, and where they test each loss by itself."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from .code import Code
from .evaluations import evaluations
from .files import File, Function
from .frames import Reading
from .gates import FAR, Gate, Judge, Measured, is_number, is_raw, measured, orders, required
from .names import defaults_of, parameters
from .nodes import walk
from .playing.figures import Figures
from .playing.kinds import Class, Raised
from .tensors import Unknown
from .updates import DEEP, calls_of, is_within, scope_of
from .values import Value

_LOSSES = ("cross_entropy", "nll_loss")
_WORDS = ("loss", "gate", "guard", "safety")
_MOST = 5  # parameters of a function that is given losses


@dataclass(frozen=True, slots=True)
class Test:
    """Where a gate tests a loss: what says that it is over the threshold, or, if `is_over` is false, that it is not."""

    node: ast.expr
    is_over: bool
    is_strict: bool
    loss: ast.expr  # as they are compared, in whatever function
    threshold: ast.expr


class _Step(NamedTuple):
    seen: dict[ast.expr, list[Any]]
    is_over: bool
    has_to: bool  # whether it has to be tested then


def tested(code: Code, judge: Judge, found: Measured) -> Test | None:
    """The widest expression of a judge's own text that says each time whether the loss is over, and nothing else."""
    steps = list(_steps(code, judge, found))
    own = [each for each in walk(judge.node) if isinstance(each, ast.expr)]
    said = {node: sense for node in own for sense in (True, False) if all(_says(node, sense, each) for each in steps)}
    widest = [node for node in said if not any(is_within(judge.file, node, o) for o in said if o is not node)]
    at_edge = Gate(code, judge)
    at_edge.feed(found.threshold)
    if not widest:
        return None
    node = min(widest, key=lambda each: (each.lineno, each.col_offset))
    compared = _compared(code, judge, found, node)
    if compared is None:
        return None
    return Test(node, said[node], at_edge.run.seen[node] == [not said[node]], *compared)


def _says(node: ast.expr, sense: bool, step: _Step) -> bool:
    values = step.seen.get(node)
    if values is None:
        return not step.has_to
    return len(values) == 1 and isinstance(values[0], bool) and values[0] == (step.is_over is sense)


def _steps(code: Code, judge: Judge, found: Measured) -> Iterator[_Step]:
    """Losses by which it can be told what an expression depends on: on what came before, on all that is kept or set."""
    edge, room = found.threshold, max(1.0, abs(found.threshold)) * 1e-6
    for losses in (
        [edge - FAR, edge - room, edge + room],
        [edge + room, edge - room],
        [edge - 1, edge + FAR],
        [edge + 1, 0.0],
    ):
        gate, is_open = Gate(code, judge), True
        for place, loss in enumerate(losses):
            stops = gate.feed(loss) != found.healthy[place]
            yield _Step(gate.run.seen, loss > edge, is_open)
            is_open = is_open and not stops
    gate = Gate(code, judge)
    gate.feed(edge - 1)
    kept = [name for name, value in gate.state.items() if not (is_number(value) and value == edge)]
    for loss in (edge - room, edge + room):
        for name in kept:
            gate = Gate(code, judge)
            gate.vary(name)
            gate.feed(loss)
            yield _Step(gate.run.seen, loss > edge, False)
        for name, default in _defaults(judge.node).items():
            gate = Gate(code, judge)
            gate.feed(loss, **{name: not default if isinstance(default, bool) else default + 1000})
            yield _Step(gate.run.seen, loss > edge, False)


def _defaults(function: Function) -> dict[str, Any]:
    """The numbers and flags that a call may leave out."""
    pairs = defaults_of(function.args).items()
    values = {each.arg: default.value for each, default in pairs if isinstance(default, ast.Constant)}
    return {name: value for name, value in values.items() if isinstance(value, (bool, int, float))}


def _compared(code: Code, judge: Judge, found: Measured, node: ast.expr) -> tuple[ast.expr, ast.expr] | None:
    """The loss and the threshold in an expression, or else where they are compared, in whatever function."""
    seen = dict[float, dict[ast.expr, list[Any]]]()
    for loss in (found.threshold - 0.125, found.threshold + 0.125):
        gate = Gate(code, judge)
        gate.feed(loss)
        seen[loss] = gate.run.seen
    for top in (node, *(each for each in gate.run.seen if isinstance(each, ast.Compare))):
        inside = [each for each in walk(top) if isinstance(each, ast.expr)]
        losses = [each for each in inside if all(values.get(each) == [loss] for loss, values in seen.items())]
        limits = [each for each in inside if all(values.get(each) == [found.threshold] for values in seen.values())]
        within = {part for each in limits for part in walk(each) if part is not each}
        if losses and len({ast.unparse(each) for each in limits if each not in within}) == 1:
            return losses[0], limits[0]
    return None


@lru_cache(maxsize=4096)
def _orders(node: ast.AST) -> bool:
    """Whether anything is put in order in a function or a class."""
    return any(map(orders, walk(node)))


def judges(code: Code, files: Iterator[File]) -> Iterator[Judge]:
    """The functions of some files that may be given losses."""
    for file in files:
        for node, owner in file.functions:
            if not _orders(owner or node):
                continue
            if isinstance(node, ast.AsyncFunctionDef) or file.function(node) is not None or len(required(node)) > _MOST:
                continue
            if owner is not None and node.name != "__init__":
                yield Judge(file, node, "object", Class(file.path, owner))
            elif owner is None:
                yield from _of_module(code, file, node)


def _of_module(code: Code, file: File, node: Function) -> Iterator[Judge]:
    first = parameters(node.args)[:1]
    hint = first[0].annotation if first else None
    known = Figures(code).member(file.path, hint.id) if isinstance(hint, ast.Name) else None
    if isinstance(known, Class):
        yield Judge(file, node, "record", known)
    elif first:
        yield Judge(file, node, "module")
        own = (
            [Class(file.path, each) for each in file.module.body if isinstance(each, ast.ClassDef)]
            if hint is None
            else []
        )
        yield from (Judge(file, node, "record", each) for each in own if len(required(node)) > 1)


@dataclass(frozen=True, slots=True)
class Found:
    """A gate of a tree: where it is asked, what it does, and where it tests each loss by itself, if it does."""

    judge: Judge
    measured: Measured
    is_raw: bool
    test: Test | None


def gates(code: Code, files: Iterator[File]) -> list[Found]:
    """What is given losses and stops a run; of those that ask each other the outermost that tests them."""
    found: dict[Function, Found] = {}
    for judge in judges(code, files):
        with suppress(Unknown, Raised):
            made = measured(code, judge) if judge.losses and judge.node not in found else None
            if made is not None and _is_of_losses(code, judge, made):
                raw = is_raw(code, judge, made)
                if raw and made.is_floor:
                    continue
                found[judge.node] = Found(judge, made, raw, tested(code, judge, made) if raw else None)
    inner = {each: _entered(code, found[each]) & found.keys() for each in found}
    vain = {each for each, others in inner.items() if found[each].is_raw and found[each].test is None and others}
    hidden = {other for each, others in inner.items() if each not in vain for other in others}
    return [found[each] for each in found if each not in vain | hidden]


def untended(code: Code) -> Iterator[tuple[File, ast.expr]]:
    """Where a loss that a run measures is tested in no gate: by the run, or by what is given of what a run returns."""
    for evaluation in [each for each, _ in evaluations(code)]:
        function = evaluation.reading.node
        for caller, call in calls_of(code, function) if isinstance(function, Function) else ():
            run = scope_of(code, caller.file, call, DEEP)
            yield from _tests(run, run.values[call].key)
            for asking, start in calls_of(code, run.node) if isinstance(run.node, Function) else ():
                for other, called in scope_of(code, asking.file, start, DEEP).calls.items():
                    given = [part for value in _given(asking, other) for part in value.walk() if part.op == "function"]
                    if any(part.data[1] is run.node for part in given) and isinstance(called, Function):
                        judge = code.reading(code.files.of(called), called, code.files.of(called).owner(called))
                        for own in {each.key for each in judge.values.values() if each.op == "parameter"}:
                            yield from _tests(judge, own)


def _tests(reading: Reading, loss: int) -> Iterator[tuple[File, ast.expr]]:
    """Where a scope compares a loss, as it is or as it is kept, with a threshold that it is told."""
    for node, value in reading.values.items():
        sides = value.items if isinstance(node, ast.Compare) and value.op in ("lt", "le", "gt", "ge") else ()
        for one, other in (sides, sides[::-1]) if len(sides) == 2 else ():  # noqa: PLR2004
            parts = {part.key: part.op for part in other.walk()}
            is_told = {"parameter", "setting"} & {*parts.values()} and "carried" not in parts.values()
            is_loss = one.key == loss or (one.op in ("index", "attr") and any(part.key == loss for part in one.walk()))
            if is_told and is_loss and loss not in parts and isinstance(node, ast.expr):
                yield reading.file, node


def _entered(code: Code, found: Found) -> set[ast.AST]:
    gate, entered = Gate(code, found.judge), set[ast.AST]()
    for _ in range(found.measured.burn_in + 2):
        gate.feed(found.measured.edge)
        entered |= {*gate.run.entered}
    return entered - {found.judge.node}


def _is_of_losses(code: Code, judge: Judge, found: Measured) -> bool:
    """Whether what a function is given are losses, by what it is given, or else by what it is called."""
    words = [judge.node.name, judge.cls.node.name if judge.cls is not None else ""]
    is_named = any(word in each.lower() for each in words for word in _WORDS[1:])
    stops = True if _says_which(code, judge, found) else _stops(code, judge, found)
    if stops is False or (stops is None and not is_named):
        return False
    handed = [value for reading, call in calls_of(code, judge.node) for value in _given(reading, call)]
    parts = [part for value in handed for part in value.walk()]
    if not found.is_floor and any(part.op in _LOSSES for part in parts):
        return True
    if any(part.op == "call" and str(part["func"].data).endswith("grad_norm_") for part in parts):
        return False
    is_sure = not found.is_floor and not math.isnan(found.threshold)
    return is_named or (is_sure and any(_WORDS[0] in each.lower() for each in (*words, *judge.losses)))


def _says_which(code: Code, judge: Judge, found: Measured) -> bool:
    """Whether a gate says by itself which losses are bad: by raising, or by what it keeps."""
    bad = Gate(code, judge)
    found.first(bad, [found.edge + FAR] * found.burn_in)
    said, raises, flags = bad.feed(-FAR if found.is_floor else FAR)
    return bool(raises or flags != found.healthy[0][2])


def _stops(code: Code, judge: Judge, found: Measured) -> bool | None:
    """Whether those that ask stop a run by what bad losses come to; None where that is not seen."""
    bad = Gate(code, judge)
    answer = bad.feed(-FAR if found.is_floor else FAR)[0]
    for reading, call in calls_of(code, judge.node):
        around = reading.file.parents[call]
        is_not = isinstance(around, ast.UnaryOp) and isinstance(around.op, ast.Not)
        choice = reading.file.parents[around] if is_not else around
        if isinstance(choice, ast.If) and (call is choice.test or around is choice.test):
            ends = any(isinstance(each, (ast.Raise, ast.Break, ast.Return)) for each in walk(choice))
            return ends and list(answer) == [not is_not]
    return None


def _given(reading: Reading, call: ast.Call) -> Iterator[Value]:
    for each in (*call.args, *(keyword.value for keyword in call.keywords)):
        if each in reading.values:
            yield reading.values[each]


def again(code: Code, judge: Judge) -> Judge | None:
    """The same function in another version of its file."""
    file = code.files.file(judge.file.path)
    for node, owner in file.functions if file is not None else ():
        name = judge.cls.node.name if judge.cls is not None and judge.kind == "object" else ""
        if node.name == judge.node.name and (owner.name if owner is not None else "") == name and file is not None:
            own = [each for each in file.classes if judge.cls is not None and each.name == judge.cls.node.name]
            return Judge(file, node, judge.kind, Class(file.path, own[0]) if own else judge.cls)
    return None


def made_anew(code: Code, judge: Judge) -> Iterator[tuple[File, ast.expr]]:
    """Where a gate is made for the loss that it is asked about: in the same function, and in the same loops."""
    for reading, call in calls_of(code, judge.node) if judge.kind == "object" else ():
        owner = reading.values.get(call.func.value) if isinstance(call.func, ast.Attribute) else None
        made = owner.at.node if owner is not None and owner.op == "instance" and owner.at is not None else None
        file = reading.file
        is_here = isinstance(made, ast.Call) and made in reading.values and isinstance(reading.node, Function)
        if is_here and _loops(file, made) == _loops(file, call):  # type: ignore[arg-type]
            yield file, made  # type: ignore[misc]


def _loops(file: File, node: ast.AST) -> list[ast.AST]:
    return [each for each in file.ancestors(node) if isinstance(each, (ast.For, ast.While))]
