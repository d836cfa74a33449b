"""The parts of an update: what is done beside a backward to learn from it, found by what is done."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from .frames import Effect, Reading
from .nodes import walk
from .updates import is_within
from .values import Value

_LAYERS = ("index", "item", "part", "attr", "phi", "carried", "after", "kept")  # what an object may come out of
_SCHEDULES = ("get_last_lr", "last_epoch", "base_lrs", "get_lr")  # what only a schedule has
_IN_PLACE = ("clamp_", "mul_", "div_", "add_", "sub_", "zero_", "copy_", "nan_to_num_")


class Kind(StrEnum):
    """What a part of an update does."""

    STEP = "step"  # of an optimizer
    SCHEDULE = "schedule"  # a step of a learning-rate schedule
    CLIP = "clip"
    ZERO = "zero"  # gradients are set to zero, or to None
    SCALER = "scaler"  # of a GradScaler: unscale_, update
    GRADIENT = "gradient"  # anything else that is done to gradients, or to an optimizer's groups


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an update, as a scope shows it: `node` is what does it in the scope's own text."""

    kind: Kind
    effect: Effect
    node: ast.AST

    @property
    def owner(self) -> Value | None:
        """The optimizer, schedule or scaler whose method it is."""
        return _owner(self.effect)


def parts(reading: Reading) -> list[Part]:
    """The parts of updates that a scope does, itself or by what it calls, in order."""
    schedules = {owner.key for owner in _asked(reading) if owner is not None}
    found = []
    for effect in reading.effects:
        node = effect.at.node if effect.is_own else effect.through
        kind = _kind(effect, schedules)
        if kind is not None and node is not None:
            found.append(Part(kind, effect, node))
    return found


def unclipped(reading: Reading) -> ast.AST | None:
    """A step whose backwards are not followed by a clip, in a scope that clips before others."""
    done, is_clipped, bare, clips = {id(part.effect): part for part in parts(reading)}, False, list[ast.AST](), 0
    for effect in reading.effects:
        part = done.get(id(effect))
        if effect.kind == "backward":
            is_clipped = False
        elif part is not None and part.kind in (Kind.CLIP, Kind.GRADIENT):
            is_clipped, clips = True, clips + 1
        elif part is not None and part.kind is Kind.STEP and not is_clipped:
            bare.append(part.node)
    return bare[0] if bare and clips else None


def _kind(effect: Effect, schedules: set[int]) -> Kind | None:
    owner = _owner(effect)
    name = effect.kind
    if name == "step" and owner is not None:
        if _is_profiler(owner):
            return None
        return Kind.SCHEDULE if owner.key in schedules or "lr_scheduler" in _maker(owner) else Kind.STEP
    if name.startswith("clip_grad"):
        return Kind.CLIP
    if name == "zero_grad":
        return Kind.ZERO
    if owner is not None and name in ("unscale_", "update") and _maker(owner).endswith("GradScaler"):
        return Kind.SCALER
    if name.startswith("_foreach_"):
        return Kind.GRADIENT
    if name == "setattr" and effect.value.data == "grad":
        return Kind.ZERO if effect.value["value"].is_const(None) else Kind.GRADIENT
    owners = (owner, *owner.bases(_LAYERS)) if name in _IN_PLACE and owner is not None else ()
    if any(each.op == "attr" and each.data == "grad" for each in owners):
        return Kind.ZERO if name == "zero_" else Kind.GRADIENT
    base = effect.value.get("input") if name == "setitem" else None
    if base is not None and any(
        each.op == "attr" and each.data == "param_groups" for each in (base, *base.bases(_LAYERS))
    ):
        return Kind.GRADIENT
    return None


def _owner(effect: Effect) -> Value | None:
    """The object whose method an effect is a call of."""
    func = effect.value.get("func")
    if func is not None and func.op == "attr":
        return func["of"]
    return effect.value.get("input") if func is None else None


def _maker(value: Value) -> str:
    """What an object is made by, as far as it shows."""
    func = value.get("func")
    return str(func.data) if func is not None else ""


def _is_profiler(owner: Value) -> bool:
    """Whether what steps is a profiler: made by one, entered, or handed in under such a name."""
    name = owner.data[-1] if owner.op == "parameter" else owner.data if owner.op in ("attr", "global", "opaque") else ""
    return owner.op == "enter" or any("prof" in str(each) for each in (_maker(owner), name))


def _asked(reading: Reading) -> Iterator[Value | None]:
    """What is asked for what only a schedule has."""
    for value in reading.values.values():
        if value.op == "attr" and value.data in _SCHEDULES:
            yield value.get("of")


def statements_of(reading: Reading, block: list[ast.stmt], done: list[Part]) -> dict[ast.stmt, list[Part]]:
    """The statements of a block that do parts of an update, in order, with what each does."""
    found: dict[ast.stmt, list[Part]] = {}
    for statement in block:
        own = [part for part in done if is_within(reading.file, part.node, statement)]
        if own:
            found[statement] = own
    return found


def is_all(reading: Reading, statement: ast.stmt, own: list[Part]) -> bool:
    """Whether parts of an update are all that a statement does, or what one call of the tree's does that it makes."""
    through = {part.node for part in own}
    if isinstance(statement, (ast.Expr, ast.Assign, ast.AnnAssign)) and len(through) == 1:
        (node,) = through
        return statement.value is node
    if isinstance(statement, ast.If) and statement.orelse:
        return False
    simple = [each for each in walk(statement) if isinstance(each, ast.stmt) and not hasattr(each, "body")]
    done = [each for each in simple if any(is_within(reading.file, node, each) for node in through)]
    return all(each in done or isinstance(each, ast.Pass) for each in simple)
