"""Training plans: data classes of rows, micro-batches and epochs, and the one that is at hand where code needs it."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from itertools import product
from typing import Any

from .code import Code
from .files import File, Function
from .frames import Reading
from .playing.figures import Figures
from .playing.kinds import Class as Made
from .playing.kinds import Raised, Thing
from .records import all_fields, is_data_class, kept_records, made_class
from .schedules import ENDS
from .tensors import Unknown
from .updates import calls_of
from .values import Value

Class = tuple[str, ast.ClassDef]


def plan_classes(code: Code, files: Sequence[File], fields: set[str]) -> list[Class]:
    """The data classes that have some fields."""
    every = [(file.path, each) for file in files for each in file.module.body if isinstance(each, ast.ClassDef)]
    return [each for each in every if is_data_class(code, *each) and fields <= all_fields(code, *each)]


def holds(code: Code, reading: Reading, plans: Sequence[Class]) -> str:
    """The attribute under which the objects of a scope's class keep a plan."""
    if reading.owner is None:
        return ""
    kept = kept_records(code, reading.file.path, reading.owner)
    return next((name for name, known in kept.items() if known in plans), "")


def plan_at(code: Code, reading: Reading, call: ast.Call, plans: Sequence[Class]) -> tuple[str, str]:
    """The plan of the coming run where a call stands, and what is wrong with it."""
    file, kept = reading.file, holds(code, reading, plans)
    here = file.statement(call)
    env = reading.before.get(here, {})
    own = next((name for name, value in env.items() if value.op == "self"), "")
    local = {name: value for name, value in env.items() if made_class(code, value) in plans}
    sets = [effect for effect in reading.effects if effect.kind == "setattr" and effect.is_own]
    to_be_kept = {each.value["value"].key for each in sets if each.value.data == kept and kept}
    names = [name for name, value in local.items() if value.key in to_be_kept] or list(local)
    if len(names) > 1:
        return "", f"there are several plans at hand: {', '.join(names)}"
    if names:
        return names[0], ""
    if not kept or not own:
        return "", "no training plan is at hand"
    calls = calls_of(code, reading.node) if isinstance(reading.node, Function) else []
    for scope, use in [(reading, call), *calls]:
        later = (e for e in scope.effects if e.kind == "setattr" and e.is_own and e.value.data == kept)
        if any(_is_behind(each.at.node, use) for each in later):
            return "", f"the plan is set only behind it: set {own}.{kept} first"
    return f"{own}.{kept}", ""


def miscounted(code: Code, reading: Reading, total: ast.expr, plans: Sequence[Class]) -> str:
    """What is wrong with a total that is computed of a plan; nothing where it is right, or cannot be computed."""
    env, kept = reading.before.get(reading.file.statement(total), {}), holds(code, reading, plans)
    known = {name: cls for name, value in env.items() if (cls := made_class(code, value)) in plans and cls is not None}
    own = next((name for name, value in env.items() if value.op == "self"), "")
    for rows, size, epochs, extra, accum in product((5, 16), (4,), (1, 3, 200), (0, 2), (1, 2)):
        fields = {"rows": rows, "batch_size": size, "epochs": epochs, "extra_steps": extra, "accum_steps": accum}
        run = Figures(code)
        try:
            things: dict[str, Any] = {name: _made(run, code, cls, fields) for name, cls in known.items()}
            if own and reading.owner is not None and kept:
                cls = kept_records(code, reading.file.path, reading.owner)[kept]
                things[own] = Thing(Made(reading.file.path, reading.owner), {kept: _made(run, code, cls, fields)})
            number = run.expression(reading.file.path, total, things)
        except (Unknown, Raised):
            return ""
        has_groups = any("accum_steps" in all_fields(code, *cls) for cls in plans)
        wanted = epochs * math.ceil((math.ceil(rows / size) + extra) / (accum if has_groups else 1))
        if isinstance(number, (int, float)) and number != wanted:
            done = f"{epochs} epochs of {rows} rows by {size}, and {extra} more steps"
            return f"for {done} it comes to {number:g}, where there are {wanted} updates"
    return ""


def _made(run: Figures, code: Code, cls: Class, fields: dict[str, int]) -> Thing:
    names = all_fields(code, *cls)
    made: Thing = run.call(Made(*cls), **{name: value for name, value in fields.items() if name in names})
    return made


def _is_behind(node: ast.AST, other: ast.AST) -> bool:
    own, others = ((getattr(each, "lineno", 0), getattr(each, "col_offset", 0)) for each in (node, other))
    return own > others


def is_end(test: Value) -> bool:
    """Whether a condition asks how far a schedule has come."""
    return any(part.op == "attr" and part.data in ENDS for part in test.walk())
