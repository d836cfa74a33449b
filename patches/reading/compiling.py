"""Where a run of training begins, and whether its model is compiled before."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from .classes import constructor_of
from .code import Code
from .files import File, Function, is_test
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


def compiled(code: Code, update: Update) -> tuple[Place, str] | None:
    """The call by which the model of an update is compiled, in its scope or in one that leads to it; what is wrong."""
    setup = _constructor(code, update.reading, update.model)
    pending: list[tuple[Reading, ast.Call | None]] = [(setup, None)] if setup is not None else []
    pending.append((update.reading, update.backward))
    seen = set[ast.AST]()
    while pending and len(seen) < MOST_CALLERS:
        reading, at = pending.pop(0)
        seen.add(reading.node)
        for effect in reading.effects:
            if effect.kind == "compile" and effect.through is not None and _is_of_torch(effect.value.get("func")):
                given = update.models if at is update.backward else _given(reading, at)
                keys = {part.key for each in given or () for part in each.walk()}
                if effect.value["func"].op == "attr" or given is None or effect.value.key in keys:
                    return Place(reading.file, effect.through), _misplaced(update, reading, effect.through, at)
        if reading.file.function(reading.node) is not None:
            pending.append((scope_of(code, reading.file, reading.node), None))
        if isinstance(reading.node, Function):
            callers = {caller.node: (caller, call) for caller, call in calls_of(code, reading.node)}
            pending += [caller for node, caller in callers.items() if node not in seen]
    return None


def _given(reading: Reading, call: ast.Call | None) -> list[Value] | None:
    """What a call is made of that leads to an update; None where it is not seen."""
    nodes = [call.func, *call.args, *(each.value for each in call.keywords)] if call is not None else []
    return [reading.values[node] for node in nodes if node in reading.values] or None


def _misplaced(update: Update, reading: Reading, call: ast.Call, at: ast.Call | None) -> str:
    """Why a call does not compile a model once, before it is trained."""
    around = [each for each in reading.file.ancestors(call) if isinstance(each, ast.For | ast.While)]
    if at is None:
        return ""
    if any(is_within(reading.file, at, each) for each in around):
        return "it is done anew in each turn of a loop of its training" if reading is update.reading else ""
    is_behind = (call.lineno, call.col_offset) > (at.lineno, at.col_offset)
    return "it is done behind the training that it is for" if is_behind else ""


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
    model = of if is_nested or reading is update.reading else _counterpart(code, update, of, reading)
    statements, makers, at = reading.node.body, list[ast.stmt](), None  # type: ignore[attr-defined]
    while model is not None and any(is_within(reading.file, node, each) for each in statements):
        place = next(place for place, each in enumerate(statements) if is_within(reading.file, node, each))
        at, known = statements[place], {each: _assigned(reading, each) for each in statements[:place]}
        makers += [each for each, values in known.items() if any(_makes_optimizer(value, model) for value in values)]
        statements = at.body if isinstance(at, ast.With) else []  # it may be a lock that guards the model
    if model is None or at is None:
        return None
    return Run(reading, model, makers[-1], is_behind=True) if makers else Run(reading, model, at, is_behind=False)


def _counterpart(code: Code, update: Update, of: Value, reading: Reading) -> Value | None:
    """What a model of an update, or a part of one, is in a scope that leads to it."""
    known, chain = {each.key for each in models(update.reading)}, _owners(of)
    names = [each.data for place, each in enumerate(chain) if any(outer.key in known for outer in chain[place + 1 :])]
    there = models(reading)
    keys = {each.key for each in there}
    model = next((each for each in there if not any(outer.key in keys for outer in _owners(each)[1:])), None)
    for name in reversed(names):
        model = code.graph.value("attr", {"of": model}, name) if model is not None else None
    return model


def _owners(value: Value) -> list[Value]:
    """A value, and what it is an attribute of, from the inside out."""
    found = [value]
    while found[-1].op == "attr":
        found.append(found[-1]["of"])
    return found


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


def windows(code: Code) -> Iterator[Reading]:
    """The scopes that cut windows of a tensor, which may overlap, and are not kept from being compiled."""
    for reading in mentions(code, "unfold"):
        marks = [ast.unparse(each) for each in getattr(reading.node, "decorator_list", ())]
        is_eager = is_test(reading.file.path) or any(each.endswith("compiler.disable") for each in marks)
        if not is_eager and any(value.op == "unfold" for value in reading.values.values()):
            yield reading
