"""Where a run of training begins, and whether its model is compiled before."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .classes import constructor_of
from .code import Code
from .files import File, Function, is_test
from .frames import Effect, Reading
from .updates import MOST_CALLERS, SHALLOW, Update, calls_of, is_repeated, is_within, mentions, models, scope_of
from .values import Place, Value

_ORDERS = ("lt", "le", "gt", "ge")
_OF_TORCH = "torch.__version__"
_VERSIONS = (_OF_TORCH, "platform.python_version", "platform.python_version_tuple", "sys.version")


@dataclass(frozen=True, slots=True)
class Run:
    """Where a run begins: a statement behind which, or before which, its model may be compiled."""

    reading: Reading
    model: Value
    at: ast.stmt
    is_behind: bool


def compiled(code: Code, update: Update) -> tuple[Place, list[tuple[Place, str]]] | None:
    """The call by which the model of an update is compiled, in its scope or in one that leads to it; what is wrong."""
    setup = _own_constructor(code, update.reading)
    is_handed = setup is not None and _constructor(code, update.reading, update.model) is not None
    pending: list[tuple[Reading, ast.Call | None]] = [(setup, None)] if setup is not None else []
    pending.append((update.reading, update.backward))
    seen = set[ast.AST]()
    while pending and len(seen) < MOST_CALLERS:
        reading, at = pending.pop(0)
        seen.add(reading.node)
        for effect in reading.effects:
            if effect.kind == "compile" and effect.through is not None and _is_of_torch(effect.value.get("func")):
                given = update.models if at is update.backward else _given(reading, at)
                kept = _kept_as(reading, effect, update.models)
                keys = {part.key for each in given or () for part in each.walk()}
                is_its = effect.value["func"].op == "attr" or given is None or effect.value.key in keys
                if kept or (is_its and (reading is not setup or is_handed)):
                    place, why = Place(reading.file, effect.through), _misplaced(update, reading, effect.through, at)
                    wrong = [(place, why)] if why else []
                    return place, [*wrong, *_ill_decided(effect), *_renaming(code, effect, kept)]
        if reading.file.function(reading.node) is not None:
            pending.append((scope_of(code, reading.file, reading.node), None))
        if isinstance(reading.node, Function):
            callers = {caller.node: (caller, call) for caller, call in calls_of(code, reading.node)}
            pending += [caller for node, caller in callers.items() if node not in seen]
    return None


def _kept_as(reading: Reading, effect: Effect, of: Iterable[Value]) -> str:
    """The attribute that is a model of an update, and is set to what a call makes; nothing where there is none."""
    names = {each.data for each in of if each.op == "attr"}
    stores = [each.value for each in reading.effects if each.kind == "setattr" and each.value.data in names]
    own = effect.value.key
    return next((str(each.data) for each in stores if any(part.key == own for part in each["value"].walk())), "")


def _ill_decided(effect: Effect) -> Iterator[tuple[Place, str]]:
    """The conditions of a call that compare versions as what they are not; torch.__version__ itself compares as one."""
    for guard in effect.under:
        for test in (each for each in guard.value.walk() if each.op in _ORDERS):
            sides = [test["input"], test["other"]]
            told = [
                each for each in sides if any(part.data in _VERSIONS for part in each.walk() if part.op == "global")
            ]
            parts = [part for each in sides for part in (each.items if each.op in ("tuple", "list") else (each,))]
            is_torch = any(each.op == "global" and each.data == _OF_TORCH for each in told)
            if told and not is_torch and any(isinstance(part.data, str) for part in parts if part.is_const()):
                yield guard.at, 'it compares versions as texts, by which "3.9" is not below "3.12": compare numbers'
            elif any(part.op == "float" for each in told for part in each.walk()):
                yield guard.at, "it compares versions as one number, by which 2.10 is 2.1: compare tuples of numbers"


def _renaming(code: Code, effect: Effect, name: str) -> Iterator[tuple[Place, str]]:
    """What is made of a model and takes its place, where that is asked for its state."""
    files = code.files.naming("state_dict") if name else ()
    asked = (getattr(node, "value", None) for file in files for node in file.uses.get("state_dict", ()))
    if any(getattr(each, "attr", "") == name for each in asked):
        yield effect.at, "it takes the model's place, whose checkpoints then name _orig_mod: compile in place"


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
    setup = _own_constructor(code, reading)
    is_given = setup is not None and model.op == "parameter" and model.data[1] is setup.node
    return setup if is_given else None


def _own_constructor(code: Code, reading: Reading) -> Reading | None:
    owner = reading.owner if reading.attributes else None
    setup = constructor_of(owner) if owner is not None else None
    return code.reading(reading.file, setup, owner) if setup is not None else None


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
