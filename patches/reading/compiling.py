"""Where a run of training begins, and whether its model is compiled before."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from .classes import constructor_of
from .code import Code
from .files import File, Function
from .frames import Reading
from .updates import MOST_CALLERS, SHALLOW, Update, calls_of, is_repeated, is_within, mentions, models, scope_of
from .values import Place, Value


@dataclass(frozen=True, slots=True)
class Run:
    """Where a run begins: a statement behind which, or before which, its model may be compiled."""

    reading: Reading
    model: Value
    at: ast.stmt
    is_behind: bool


def compiled(code: Code, update: Update) -> Place | None:
    """The call by which the model of an update is compiled, in its scope or in one that leads to it."""
    setup = _constructor(code, update.reading, update.model)
    pending, seen = [*([setup] if setup is not None else []), update.reading], set[ast.AST]()
    while pending and len(seen) < MOST_CALLERS:
        reading = pending.pop(0)
        seen.add(reading.node)
        for effect in reading.effects:
            if effect.kind == "compile" and effect.through is not None and _is_of_torch(effect.value.get("func")):
                return Place(reading.file, effect.through)
        if reading.file.function(reading.node) is not None:
            pending.append(scope_of(code, reading.file, reading.node))
        if isinstance(reading.node, Function):
            callers = {caller.node: caller for caller, _ in calls_of(code, reading.node)}
            pending += [caller for node, caller in callers.items() if node not in seen]
    return None


def _is_of_torch(func: Value | None) -> bool:
    """Whether what is called is torch.compile, or a model's compile; that of a library of its own is none."""
    if func is None or func.op != "attr":
        return func is not None and func.data == "torch.compile"
    return func["of"].op not in ("opaque", "global", "package", "file")


def decided_on_import(code: Code) -> Iterator[tuple[File, ast.stmt]]:
    """The conditions at the top of a module by which a name is torch.compile, or is not."""
    for reading in mentions(code, "compile", SHALLOW):
        if isinstance(reading.node, ast.Module):
            for node, value in reading.values.items():
                around = [each for each in reading.file.ancestors(node) if isinstance(each, (ast.If, ast.Try))]
                if value.op == "global" and value.data == "torch.compile" and around:
                    yield reading.file, around[0]


def run_of(code: Code, update: Update, of: Value) -> Run | None:
    """Where the run of an update begins for one of its models: behind its optimizer, or before its outermost loop."""
    reading, node = update.reading, update.backward
    if not update.calls(of):
        return None
    is_nested = reading.file.function(reading.node) is not None
    if is_nested:  # a function in a function: the run begins in that
        reading, node = scope_of(code, reading.file, reading.node), reading.node  # type: ignore[assignment]
    for _ in range(MOST_CALLERS):
        callers = calls_of(code, reading.node) if isinstance(reading.node, Function) else []
        near = [
            (caller, call)
            for caller, call in callers
            if caller.file is reading.file and is_repeated(caller.file, caller.node, call)
        ]
        if not near:
            break
        if len({caller.node for caller, _ in near}) > 1:
            return None
        reading, node = near[0]
    setup = _constructor(code, reading, of)
    if setup is not None:
        return Run(setup, of, setup.node.body[-1], is_behind=True)  # type: ignore[attr-defined]
    model = of if is_nested or reading is update.reading else next(iter(models(reading)), None)
    body = reading.node.body  # type: ignore[attr-defined]
    place = next((place for place, each in enumerate(body) if is_within(reading.file, node, each)), None)
    if model is None or place is None:
        return None
    makers = [
        each for each in body[:place] if any(_makes_optimizer(value, model) for value in _assigned(reading, each))
    ]
    return (
        Run(reading, model, makers[-1], is_behind=True) if makers else Run(reading, model, body[place], is_behind=False)
    )


def _constructor(code: Code, reading: Reading, model: Value) -> Reading | None:
    """The constructor that is given the model, where the loop stands in a method of the same class."""
    owner = reading.owner if reading.attributes else None
    setup = constructor_of(owner) if owner is not None else None
    if setup is None or model.op != "parameter" or model.data[1] is not setup:
        return None
    return code.reading(reading.file, setup, owner)


def _assigned(reading: Reading, statement: ast.stmt) -> list[Value]:
    return (
        [reading.values[statement.value]]
        if isinstance(statement, ast.Assign) and statement.value in reading.values
        else []
    )


def _makes_optimizer(value: Value, model: Value) -> bool:
    """Whether a value is made of a model's parameters."""
    funcs = (each["func"] for each in value.walk() if "func" in each.args)
    return any(func.op == "attr" and func.data == "parameters" and func["of"].key == model.key for func in funcs)
