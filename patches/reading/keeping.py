"""Where the objects of a class keep their schedules: under names, in pairs, in mappings; and what steps these."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from .code import Code
from .frames import Effect, Reading
from .schedules import WRITES, Schedule, callers, is_pair, is_schedule, total_of
from .values import Value, walked

Spot = tuple[str, ...]  # of something that self keeps: its name, and the keys and places in that


class Use(NamedTuple):
    """Something that is done with a kept schedule."""

    reading: Reading
    kind: str  # "step", "load_state_dict"
    call: ast.Call
    tests: list[Value]  # the conditions that it stands under
    problem: str  # why it cannot be told to end with a plan, if it cannot


def uses_of(code: Code, manager: Reading) -> Iterator[Use]:
    """What the methods of a class do with the schedules that its objects keep, there and in what they call."""
    readings = _methods(code, manager)
    kept = {spot for reading in readings for effect in reading.effects for spot in _kept(code, effect)}
    done = dict[ast.Call, list[tuple[Reading, Effect]]]()
    for reading in readings:
        for effect in reading.effects:
            if effect.kind in ("step", "load_state_dict") and isinstance(effect.at.node, ast.Call):
                done.setdefault(effect.at.node, []).append((reading, effect))
    for call, every in done.items():
        own = [each for each in every if each[1].is_own]
        are_kept = [is_schedule(leaf) or _spot(leaf) in kept for _, effect in own for leaf in _receivers(effect)]
        reading, effect = next(iter(own or every))
        tests = [each.value for each in effect.under if each.kind in ("if", "else", "while")]
        if are_kept and all(are_kept):
            yield Use(reading, effect.kind, call, tests, "")
        elif any(_may_be_kept(leaf, kept) for _, each in every for leaf in _receivers(each)):
            problem = "among others, or in a function without a plan: step it by itself where the plan is kept"
            yield Use(reading, effect.kind, call, tests, problem)


def unstepped(code: Code, made: Schedule) -> str:
    """What is wrong with a schedule that nothing steps; nothing where something does, or may do."""
    managers = list[Reading]()
    for reading, through in ((made.reading, made.call), *callers(code, made)):
        own = [each for each in reading.effects if each.through is through and total_of(each) is not None]
        keys = {each.value.key for each in own}
        used = [each for each in reading.effects if each not in own and _has(each.value, keys)]
        writes = [each for each in used if each.kind in WRITES]
        unread = [value for value in reading.values.values() if value.op == "opaque" and _has(value, keys)]
        is_returned = reading.returned is not None and _shows(code, reading.returned)
        is_given = [each for each in used if _gives_or_steps(code, each, keys)]
        of_self = [any(part.op == "self" for part in next(iter(each.value.items)).walk()) for each in writes]
        if is_given or (unread and not writes) or not all(of_self):
            return ""
        if is_returned and (reading is not made.reading or not callers(code, made)):
            return ""
        managers += [reading] if writes else []
    if any(use.kind == "step" for each in managers for use in uses_of(code, each)):
        return ""
    return "no step of it is seen: keep it under the name by which it is stepped"


def _methods(code: Code, manager: Reading) -> list[Reading]:
    """The methods of a class, of those that it is made of, and of those that are made of it."""
    owner = manager.owner
    if owner is None:
        return []
    below = [(code.files.of(each).path, each) for each in code.subclasses(owner)]
    files = [(code.files.file(path), cls) for path, cls in (*code.bases(manager.file.path, owner), *below)]
    return [code.reading(f, n, cls) for f, cls in files if f is not None for n, own in f.functions if own is cls]


def _kept(code: Code, effect: Effect) -> Iterator[Spot]:
    """Where something that is done puts schedules into what self keeps."""
    value = effect.value
    match effect.kind:
        case "setattr" if (at := _spot(value["of"])) is not None:
            yield from _schedules(code, value["value"], (*at, value.data))
        case "setitem" if (at := _spot(value["input"])) is not None:
            yield from _schedules(code, value["value"], (*at, *(str(each.data) for each in value.items[1:-1])))
        case "update" if value["func"].op == "attr" and (at := _spot(value["func"]["of"])) is not None:
            for name, each in value.args.items():
                yield from _schedules(code, each, at if name.isdigit() else (*at, name)) if name != "func" else ()


def _schedules(code: Code, value: Value, at: Spot) -> Iterator[Spot]:
    """Where in a value that is kept at a spot there are schedules."""
    if is_schedule(value):
        yield at
    elif is_pair(value):
        yield from ((*at, "1"), (*at, "-1"))
    elif value.op == "phi":
        for side in ("yes", "no"):
            yield from _schedules(code, value[side], at)
    elif value.op in ("tuple", "list", "dict", "instance", "call"):
        path, cls = value.data if value.op == "instance" else ("", None)
        for name, each in code.attributes(path, cls, value).items() if cls is not None else ():
            yield from _schedules(code, each, (*at, name))
        for place, (name, each) in enumerate(value.args.items()):
            in_order = {str(place), str(place - len(value.args))} if value.op != "dict" else set[str]()
            for key in {name, *in_order}:
                yield from _schedules(code, each, (*at, key))


def _spot(value: Value) -> Spot | None:
    """Where self keeps a value; None of what it does not keep, or nobody knows where."""
    func = value.get("func")
    match value.op:
        case "self":
            return ()
        case "attr" | "part":
            inner, key = _spot(value["of"]), value.data
        case "index" if all(each.op == "const" for each in value.items[1:]):
            inner, key = _spot(value["input"]), value.items[-1].data
        case "call" if func is not None and func.op == "attr" and func.data == "get" and "0" in value.args:
            inner, key = _spot(func["of"]), value["0"].data
        case _:
            return None
    return (*inner, str(key)) if inner is not None else None


def _receivers(effect: Effect) -> list[Value]:
    """What a method may be called of."""
    func = effect.value.get("func")
    owners = [func["of"]] if func is not None and func.op == "attr" else []
    either = walked(owners, lambda each: (each["yes"], each["no"]) if each.op == "phi" else ())
    return [each for each in either if each.op != "phi" and not each.is_const(None)]


def _may_be_kept(value: Value, kept: set[Spot]) -> bool:
    """Whether a value is a kept schedule, or come by in some way from what has one in it."""
    if _spot(value) is not None or value.op not in ("item", "part", "index", "call"):
        return _spot(value) in kept
    spots = {spot for part in value.walk() if (spot := _spot(part))}
    return any(each[: len(spot)] == spot for spot in spots for each in kept)


def _has(value: Value, keys: set[int]) -> bool:
    return any(part.key in keys for part in value.walk())


def _gives_or_steps(code: Code, effect: Effect, keys: set[int]) -> bool:
    """Whether something that is done steps a schedule, or gives it to what may step it."""
    if effect.kind in WRITES:
        return False
    owners = [each for each in _receivers(effect) if _has(each, keys) and (each.op != "part" or is_schedule(each))]
    if any(effect.kind == "step" or not is_schedule(each) for each in owners):
        return True
    return any(_shows(code, each) for name, each in effect.value.args.items() if name != "func")


def _shows(code: Code, value: Value) -> bool:
    return next(_schedules(code, value, ()), None) is not None
