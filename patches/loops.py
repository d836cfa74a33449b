"""Recognise a training loop: its micro-batches, the parts of an update, the totals of its schedules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from .matchers import calls_builtin, elements, followed, is_inside, is_method, operation
from .source import Source


@dataclass(frozen=True, slots=True)
class Iteration:
    """The parts of `for item in items`, taken out of an enumerate if there is one."""

    items: cst.BaseExpression
    item: cst.BaseExpression
    counted: bool


def iteration(source: Source, loop: cst.For) -> Iteration | None:
    """What a loop goes through; None where an enumerate's target is not a pair."""
    if not calls_builtin(source, loop.iter, "enumerate"):
        return Iteration(loop.iter, loop.target, counted=False)
    pair = elements(loop.target)
    assert isinstance(loop.iter, cst.Call)
    return Iteration(loop.iter.args[0].value, pair[1], counted=True) if len(pair) == 2 else None  # noqa: PLR2004


def counts(source: Source, items: cst.BaseExpression) -> bool:
    """Whether what a loop goes through are numbers: a range, an arange or a randperm, perhaps in a progress bar."""
    items = followed(source, items)
    if calls_builtin(source, items, "range"):
        return True
    made = operation(source, items)
    if made is not None and made.name in ("arange", "randperm"):
        return True
    is_wrapper = isinstance(items, cst.Call) and isinstance(items.func, cst.Name) and bool(items.args)
    return is_wrapper and counts(source, items.args[0].value)  # type: ignore[attr-defined]


def is_only_indexed(source: Source, loop: cst.For, item: cst.BaseExpression) -> bool:
    """Whether a loop's item is a record whose fields are taken: `sample[0]`, `sample["bits"]`."""
    uses = [use for use in source.uses(loop.body) if isinstance(item, cst.Name) and use.value == item.value]
    return bool(uses) and all(_is_field(source, use) for use in uses)


def _is_field(source: Source, use: cst.Name) -> bool:
    parent = source.parents[use]
    if not isinstance(parent, cst.Subscript) or parent.value is not use or len(parent.slice) != 1:
        return False
    index = parent.slice[0].slice
    return isinstance(index, cst.Index) and isinstance(index.value, (cst.Integer, cst.SimpleString))


def steppers(source: Source, function: cst.FunctionDef) -> set[str]:
    """The optimizers, schedulers and scalers of a function, as they are written where they step."""
    calls = [call for call in source.walk(cst.Call, inside=function) if isinstance(call.func, cst.Attribute)]
    found = {source.code(call.func.value) for call in calls if is_method(call, "zero_grad", "get_last_lr", "scale")}  # type: ignore[attr-defined]
    for assign in source.walk(cst.Assign, inside=function):
        made, target = assign.value, assign.targets[0].target
        names = {source.code(part) for part in elements(target) or [target]}
        name = source.names.qualified(made.func) or source.code(made.func) if isinstance(made, cst.Call) else ""
        is_made = name.startswith("torch.optim") or name.endswith("configure_optimizer")
        given = [source.code(argument.value) for argument in made.args] if isinstance(made, cst.Call) else []
        if is_made or (len(names) > 1 and names & found) or (found & set(given) and "sched" in name.lower()):
            found |= names
    return found


def is_update(source: Source, statement: cst.CSTNode, receivers: set[str]) -> bool:
    """Whether a statement is part of an optimizer update: clip, step, zero_grad, or a scheduler's step under an if."""
    if isinstance(statement, cst.If):
        lines = [statement.body] if isinstance(statement.body, cst.SimpleStatementSuite) else statement.body.body
        is_optimizers = "zero_grad" in source.code(statement) or "backward" in source.code(statement)
        return statement.orelse is None and not is_optimizers and all(is_update(source, s, receivers) for s in lines)
    if not isinstance(statement, (cst.SimpleStatementLine, cst.SimpleStatementSuite)):
        return False
    return all(_is_part(source, small, receivers) for small in statement.body)


def _is_part(source: Source, small: cst.CSTNode, receivers: set[str]) -> bool:
    if not isinstance(small, (cst.Expr, cst.Assign, cst.AnnAssign)) or small.value is None:
        return False
    if _clips(source, small.value):
        return True
    is_call = isinstance(small, cst.Expr) and is_method(small.value, "step", "zero_grad", "unscale_", "update")
    return is_call and (is_method(small.value, "zero_grad") or source.code(small.value.func.value) in receivers)  # type: ignore[attr-defined]


def _clips(source: Source, node: cst.CSTNode) -> bool:
    made = operation(source, node)
    return made is not None and made.name.startswith("clip_grad")


def update_parts(source: Source, statement: cst.CSTNode, receivers: set[str]) -> Iterator[cst.CSTNode]:
    """What belongs to an update in a statement that is none: a step in a branch, a clip in a sum, gradients by hand."""
    for node in source.walk(cst.CSTNode, inside=statement):  # type: ignore[type-abstract]
        if isinstance(node, cst.Attribute) and node.attr.value in ("grad", "param_groups"):
            yield node
        if _clips(source, node):
            yield node
        if is_method(node, "step", "zero_grad", "unscale_"):
            owner = source.code(node.func.value)  # type: ignore[attr-defined]
            if owner in receivers or is_method(node, "zero_grad") or not _is_profiler(source, node, owner):
                yield node


def _is_profiler(source: Source, step: cst.CSTNode, name: str) -> bool:
    items = source.walk(cst.WithItem, inside=source.function(step))
    opened = {source.code(item.asname.name) for item in items if item.asname is not None}
    return name in opened or "prof" in name


def touches(source: Source, statement: cst.CSTNode, receivers: set[str]) -> bool:
    """Whether a statement hands a whole model, or what steps it, to something that might change gradients."""
    handed = [source.code(argument.value) for call in source.walk(cst.Call, inside=statement) for argument in call.args]
    return bool({"model", *receivers} & set(handed)) or any(text.endswith(".parameters()") for text in handed)


def leaves(source: Source, loop: cst.For) -> Iterator[cst.CSTNode]:
    """The statements that leave a turn of a loop before its end."""
    for node in source.walk(cst.CSTNode, inside=loop.body):  # type: ignore[type-abstract]
        is_jump = isinstance(node, (cst.Continue, cst.Break))
        is_return = isinstance(node, cst.Return)
        if (is_jump and source.enclosing(node, cst.For, cst.While) is loop) or (
            is_return and source.function(node) is source.function(loop)
        ):
            yield node


def used_outside(source: Source, statements: list[cst.CSTNode]) -> cst.Name | None:
    """A use, outside of some statements, of a name that they set."""
    kinds = (cst.Assign, cst.AnnAssign)
    assigns = [node for statement in statements for kind in kinds for node in source.walk(kind, inside=statement)]
    for assign in assigns:
        target = assign.targets[0].target if isinstance(assign, cst.Assign) else assign.target  # type: ignore[attr-defined]
        for use in source.uses(source.function(assign)):
            is_same = isinstance(target, cst.Name) and use.value == target.value
            if is_same and not any(is_inside(source, use, statement) for statement in statements):
                return use
    return None


def schedule_totals(source: Source, function: cst.FunctionDef) -> Iterator[tuple[cst.BaseExpression, bool]]:
    """The totals that a function gives to schedules, and whether each is that of one epoch."""
    for call in source.walk(cst.Call, inside=function):
        for argument in call.args:
            name = argument.keyword.value if argument.keyword is not None else ""
            if name in ("total_steps", "T_max", "steps_per_epoch"):
                yield argument.value, name == "steps_per_epoch"
        is_positional = len(call.args) == 4 and call.args[3].keyword is None  # noqa: PLR2004
        if is_positional and source.code(call.func).endswith("configure_optimizer"):
            yield call.args[3].value, False


def factor_beside_range(
    source: Source, function: cst.FunctionDef, product: cst.BaseExpression
) -> cst.BaseExpression | None:
    """The other factor of a product with the length of one of the function's ranges: `steps` of `epochs * steps`.

    `max(1, epochs * steps)` is seen through.
    """
    if isinstance(product, cst.Call) and (
        calls_builtin(source, product, "max") or calls_builtin(source, product, "int")
    ):
        inner = [argument.value for argument in product.args if not isinstance(argument.value, cst.Integer)]
        return factor_beside_range(source, function, inner[0]) if len(inner) == 1 else None
    ranges = [c for loop in source.walk(cst.For, inside=function) for c in source.walk(cst.Call, inside=loop.iter)]
    ends = [c.args[:2][-1].value for c in ranges if calls_builtin(source, c, "range") and c.args]
    lengths = {source.code(end) for end in ends}
    if isinstance(product, cst.BinaryOperation) and isinstance(product.operator, cst.Multiply):
        if source.code(product.left) in lengths:
            return product.right
        if source.code(product.right) in lengths:
            return product.left
    return None
