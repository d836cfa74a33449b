"""Schedules of a length: where they are made, which total reaches them, and where they are kept and stepped."""

from __future__ import annotations

import ast
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .code import Code
from .files import File, Function
from .frames import Effect, Reading
from .names import defaults_of, parameters
from .nodes import walk
from .updates import DEEP, calls_of, reading_of, scope_of
from .values import Value

KINDS = {"OneCycleLR": (2, "total_steps"), "CosineAnnealingLR": (1, "T_max")}  # where each is given its length
CURVE = "LambdaLR"  # whose length is told to the function that it is given
ENDS = ("last_epoch", "total_steps", "_step_count")  # by which one asks how far a schedule has come
CALLS = ("call", "opaque")  # the second with arguments that are not all known
WRITES = ("setattr", "setitem", "update")  # what is done by which something is kept
_TOTAL, BY_EPOCH = "total_steps", "steps_per_epoch"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A call in a scope's own text by which a schedule is made, and the total that it is made with."""

    reading: Reading
    call: ast.Call
    total: Value
    made: Value  # the schedule
    parameter: str  # of what is called, that the total is
    is_default: bool = False  # whether the total is a parameter of the scope's own, for which a number stands

    @property
    def number(self) -> int | float | None:
        """The number that the total is, whatever is trained; None of one that is computed."""
        if self.total.number is not None:
            return self.total.number
        return _constant(self.total)

    @property
    def is_curve(self) -> bool:
        """Whether a function says its rate, which may be asked beyond its end."""
        return _kind(self.made) == CURVE

    @property
    def limit(self) -> bool:
        """Whether the total is a number at times, or never more or less than one."""
        either = self.total.op in ("phi", "max", "min")
        sides = [each for name, each in self.total.args.items() if name != "test"] if either else []
        return any((each.number or 0) > 1 for each in sides)

    @property
    def is_asked(self) -> bool:
        """Whether the total is asked of something that may be nothing, such as the rows."""
        return self.total.op == "phi" and self.total["test"].op in ("is", "isnot")

    @property
    def is_fixed(self) -> bool:
        """Whether the total is a number, or has one in it, whatever is trained."""
        return self.number is not None or self.limit or self.is_default

    @property
    def obstacle(self) -> str:
        """Why another number cannot take its place, if it cannot."""
        if self.limit:
            return "its fixed number is a limit: give the plan's number alone"
        if BY_EPOCH in self.made.args:
            return f"it is told by the epoch: give {_TOTAL}, the plan's number"
        return "its fixed number is a default: give the plan's number alone" if self.is_default else ""


def callers(code: Code, made: Schedule) -> list[tuple[Reading, ast.Call]]:
    """Who asks for a schedule to be made."""
    return calls_of(code, made.reading.node) if isinstance(made.reading.node, Function) else []


def schedules(code: Code, files: list[File]) -> Iterator[Schedule]:
    """The schedules of some files, each where its total is told: in the innermost scope that is not given it."""
    for reading in _making(code, files):
        for effect in reading.effects:
            total = total_of(effect)
            if total is None or effect.through is None:
                continue
            if _is_own_parameter(reading, total):
                if _default(total) is not None and _keeps(reading, effect.value):
                    yield Schedule(reading, effect.through, total, effect.value, total.data[2], True)
                continue
            inner = _called(code, reading, effect.through)
            told = [] if inner is None else [own for each in inner.effects if (own := total_of(each)) is not None]
            names = [each.data[2] for each in told if _is_own_parameter(inner, each)]  # type: ignore[arg-type]
            if len(names) == len(told):
                name = names[0] if names else KINDS.get(effect.kind, (-1, _TOTAL))[1]
                yield Schedule(reading, effect.through, total, effect.value, name)


def _making(code: Code, files: list[File]) -> list[Reading]:
    """The scopes by which schedules are made, and those that call them as long as these are given the total."""
    pending, done, found = [*KINDS, CURVE, _TOTAL], set[str](), dict[ast.AST, Reading]()
    while pending:
        name = pending.pop(0)
        if name in done:
            continue
        done.add(name)
        for file in files:
            aliases = re.findall(rf"\b{name} as (\w+)".encode(), code.files.raw(file.path))
            pending += [each.decode() for each in aliases]
            calls = file.keywords.get(name, []) if name == _TOTAL else []
            for node in (*file.uses.get(name, ()), *calls):
                reading = found.setdefault(scope_of(code, file, node, DEEP).node, scope_of(code, file, node, DEEP))
                totals = [total for each in reading.effects if (total := total_of(each)) is not None]
                if not isinstance(reading.node, Function):
                    targets = getattr(file.statement(node), "targets", ())
                    pending += [each.id for each in targets if isinstance(each, ast.Name)]
                elif any(_is_own_parameter(reading, each) for each in totals):
                    pending.append(reading.node.name)
    return list(found.values())


def total_of(effect: Effect) -> Value | None:
    """The total that a schedule is made with."""
    if effect.value.op not in CALLS:
        return None
    if effect.kind == CURVE:
        return _length(effect.value.get("lr_lambda") or effect.value.get("1"))
    place, name = KINDS.get(effect.kind, (-1, _TOTAL))
    known = _with_unpacked(effect.value)
    return known.get(name) or known.get(str(place)) or known.get(BY_EPOCH)


def _with_unpacked(call: Value) -> Mapping[str, Value]:
    """What a call is given, with what it unpacks."""
    spread = (entries(each) for name, each in call.args.items() if name.startswith("**"))
    return ChainMap(dict(call.args), *map(dict, spread))


def entries(mapping: Value) -> Mapping[str, Value]:
    """What is at first in a dict, in one that is an entry of a module's dict, or in both of two."""
    if mapping.op == "or":
        return {**entries(mapping["input"]), **entries(mapping["other"])}
    if mapping.op == "index" and mapping["input"].op == "dict" and mapping.items[-1].is_const():
        mapping = mapping["input"].get(str(mapping.items[-1].data), mapping)  # type: ignore[assignment]
    return mapping.args if mapping.op == "dict" else {}


def _length(curve: Value | None) -> Value | None:
    """What a schedule's curve reads of what the function around it is told, where that is one number."""
    if curve is None or curve.op != "function" or curve.data[2] is None:
        return None
    _, node, around = curve.data
    own = {each.arg for each in parameters(node.args)}
    told = {each.id: around.env.get(each.id) for each in walk(node) if isinstance(each, ast.Name)}
    found = [each for name, each in told.items() if name not in own and each is not None and each.op != "function"]
    return found[0] if len(found) == 1 else None


def _is_own_parameter(reading: Reading, total: Value) -> bool:
    return total.op == "parameter" and total.data[1] is reading.node


def _default(parameter: Value) -> int | None:
    """The number that stands for a parameter that is not given."""
    _, function, name = parameter.data
    found = next((default for each, default in defaults_of(function.args).items() if each.arg == name), None)
    return found.value if isinstance(found, ast.Constant) and isinstance(found.value, int) else None


def _called(code: Code, reading: Reading, call: ast.Call) -> Reading | None:
    """The function of the tree that a call is of, read by itself."""
    callee = reading.values.get(call.func)
    while callee is not None and callee.op in ("bound", "partial"):
        callee = callee["func"]
    return reading_of(code, callee.data[1]) if callee is not None and callee.op == "function" else None


def _constant(value: Value) -> int | float | None:
    """The number of an attribute that is set to nothing else in all of its class, or of a module's setting."""
    if value.op != "attr" or value["of"].op not in ("self", "class"):
        return None
    found = set()
    for node in ast.walk(value["of"].data[1]):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [
            getattr(each, "attr", getattr(each, "id", ""))
            for each in targets
            if isinstance(each, (ast.Attribute, ast.Name))
        ]
        if value.data in names:
            given = getattr(node, "value", None)
            found.add(given.value if isinstance(given, ast.Constant) and isinstance(given.value, int) else None)
    return next(iter(found)) if len(found) == 1 else None


def argument(made: Schedule) -> ast.expr | None:
    """The expression by which a call tells the total; None where it leaves that to a default."""
    call, reading, name = made.call, made.reading, made.parameter
    callee = reading.values.get(call.func)
    place = (
        -1 if callee is None or callee.op != "global" else KINDS.get(str(callee.data).rpartition(".")[2], (-1, ""))[0]
    )
    inner = callee["func"] if callee is not None and callee.op == "bound" else callee
    if inner is not None and inner.op == "function":
        own = [each.arg for each in (*inner.data[1].args.posonlyargs, *inner.data[1].args.args)]
        place = own.index(name) - (inner is not callee) if name in own else -1
    if 0 <= place < len(call.args) and not any(isinstance(each, ast.Starred) for each in call.args):
        return call.args[place]
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
        for display in ast.walk(reading.node) if keyword.arg is None else ():  # **settings
            keys = [reading.values[each].key for each in (display, keyword.value) if each in reading.values]
            if isinstance(display, ast.Dict) and len(keys) == 2 and keys[0] == keys[1]:  # noqa: PLR2004
                entries = zip(display.keys, display.values, strict=True)
                return next((each for key, each in entries if getattr(key, "value", None) == name), None)
    return None


def is_schedule(value: Value) -> bool:
    """Whether a value is what a schedule is made by, or the second of what makes one with its optimizer."""
    if value.op == "part" and value.data == 1:
        return is_pair(value["of"])
    return value.op == "call" and _kind(value) in KINDS


def is_pair(value: Value) -> bool:
    """Whether a value is what makes a schedule with its optimizer, as far as is known."""
    return value.op in CALLS and _TOTAL in _with_unpacked(value) and _kind(value) not in KINDS


def _kind(made: Value) -> str:
    func = made.get("func")
    return str(func.data).rpartition(".")[2] if func is not None else ""


def is_kept(code: Code, made: Schedule) -> bool:
    """Whether a schedule is kept for later requests, by the scope that makes it, or by one that asks it to."""
    if _keeps(made.reading, made.made):
        return True
    for reading, call in callers(code, made):
        values = (each.value for each in reading.effects if each.through is call and total_of(each) is not None)
        if any(_keeps(reading, each) for each in values):
            return True
    return False


def _keeps(reading: Reading, value: Value) -> bool:
    kept = [each.value for each in reading.effects if each.kind in WRITES]
    return any(part.key == value.key for each in kept for part in each.walk())
