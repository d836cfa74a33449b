"""Accumulate gradients over micro-batches.

`--accum_steps n` makes one optimizer update of n micro-batches. Each loss weighs as many bits as it
is a mean over, padding apart, so that the gradient is that of the mean loss over all that is scored
in the group, as of one batch of it all; the last, shorter group of an epoch makes an update of its own.

How much a micro-batch scores, only its forward tells: gradients pile up in units of the group's
first, and are divided by the group's sum before they are clipped.

Contract: extends. With accum_steps=1 every weight is 1.0, and training is bit-identical.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from .donor import definitions, donor
from .editing.options import told
from .edits import insert_before, move_under, operand, rewrite
from .loops import (
    PLANNED,
    counts,
    is_only_indexed,
    is_update,
    iteration,
    leaves,
    planned_totals,
    scheduling_function,
    steppers,
    strayed,
    touches,
    trained_model,
    training_function,
    update_parts,
    used_outside,
)
from .losses import COUNT, scored
from .matchers import elements, is_alone, is_method
from .reading.groups import accumulates, is_scaled_alone, problem
from .reading.updates import updates_of_runs
from .source import Source
from .task import Contract, Finding, Site, Task, mend, mended, near_miss
from .tree import SourceTree

STEPS, GROUPS = "accum_steps", "accumulation_groups"
SHARES, CLOSES = "shares", "closes"


def find(tree: SourceTree) -> Iterator[Finding]:
    """The loop over micro-batches, the total of its schedule, and the way of the option to them."""
    given, trained = donor("bit_transformer/training.py"), training_function(tree)
    if trained is None:
        yield from strayed(tree)
        return
    source, function, reading = trained
    by_hand = [each for each in updates_of_runs(tree.code) if each.reading.node is reading.node]
    for update in by_hand:
        grouped = accumulates(update)
        if not _is_ours(source, function) and (grouped or is_scaled_alone(update)):
            why = problem(update) if grouped else "each micro-batch is an update of its own"
            note = f"accumulation in an idiom of its own{', but ' if why else ''}{why}"
            yield near_miss(source.site(update.backward, note)) if why else mended(source.site(update.backward, note))
            return
    backwards = [call for call in source.walk(cst.Call, having=("backward",)) if is_method(call, "backward")]
    inside = [call for call in backwards if source.function(call) is function]
    if len(inside) != 1:
        note = f"backward; expected one in {function.name.value} itself, found {len(inside)}"
        for place in dict.fromkeys([*(source.at(each.backward) for each in by_hand), *backwards]):
            yield near_miss(source.site(place, note))
        return
    model = trained_model(source, function)
    if model is None:
        yield near_miss(source.site(function.name, "training, but which parameter is the model cannot be told"))
        return
    (option,) = told(tree, reading, given, STEPS)
    yield from _loop(source, inside[0], steppers(source, function), model, option.text)
    scheduling = scheduling_function(tree, source, reading)
    text = option.text if scheduling is function or "." not in option.text else STEPS
    yield from planned_totals(source, given, scheduling, STEPS, text)
    yield from option.findings
    yield definitions(source, given, GROUPS, PLANNED, COUNT)


def _is_ours(source: Source, function: cst.FunctionDef) -> bool:
    """Whether a function goes through groups as this patch makes them."""
    return any(use.value == GROUPS for use in source.uses(function.body))


@dataclass(frozen=True, slots=True)
class _Header:
    """The parts of a loop over micro-batches, grouped already or not."""

    batches: cst.BaseExpression
    batch: cst.BaseExpression
    target: str
    grouped: bool
    shares: str = SHARES
    closes: str = CLOSES


def _loop(source: Source, backward: cst.Call, receivers: set[str], model: str, steps: str) -> Iterator[Finding]:
    loop, line = source.enclosing(backward, cst.For), source.statement(backward)
    if loop is None or source.parents[line] is not loop.body or not is_alone(line):
        yield near_miss(
            source.site(backward, "backward call, but no statement of its own in a loop over micro-batches")
        )
        return
    header = _header(source, loop)
    if header is None:
        yield near_miss(source.site(loop, "loop with a backward call, but not over micro-batches by one name for each"))
        return
    for name in (SHARES, CLOSES) if not header.grouped else ():
        if source.names.is_bound(name, backward):
            yield near_miss(source.site(loop, f"loop over micro-batches, but the name {name} is taken: rename yours"))
    yield _grouped(source, loop, header, steps)
    yield _scaled(source, backward, loop, header)
    yield from _closing(source, loop, line, header, receivers, model)


def _header(source: Source, loop: cst.For) -> _Header | None:
    found = iteration(source, loop)
    if found is None or counts(source, found.items) or is_only_indexed(source, loop, found.item):
        return None
    parts = elements(found.item)
    if isinstance(found.items, cst.Call) and source.code(found.items.func) == GROUPS and len(parts) == 3:  # noqa: PLR2004
        return _Header(found.items, parts[0], "", True, source.code(parts[1]), source.code(parts[2]))
    if not isinstance(found.item, cst.Name):
        return None
    target = f"{found.item.value}, {SHARES}, {CLOSES}"
    return _Header(found.items, found.item, f"({target})" if found.counted else target, False)


def _grouped(source: Source, loop: cst.For, header: _Header, steps: str) -> Finding:
    site = source.site(loop, "loop over micro-batches")
    if header.grouped:
        return mended(site)
    items = rewrite(source, header.batches, lambda code: f"{GROUPS}({code}, {steps})")
    return mend(site, [items, rewrite(source, header.batch, lambda _: header.target)])


def _scaled(source: Source, backward: cst.Call, loop: cst.For, header: _Header) -> Finding:
    assert isinstance(backward.func, cst.Attribute)
    loss = backward.func.value
    if backward.args and not all(argument.keyword for argument in backward.args):
        return near_miss(source.site(backward, "backward call that is given the loss: write loss.backward()"))
    site = source.site(backward, "backward of a micro-batch's loss")
    if header.shares in {use.value for use in source.uses(loss)}:
        return mended(site)
    count, problem = scored(source, loss, loop, source.code(header.batch))
    if problem:
        return near_miss(source.site(loss, f"loss of a micro-batch, but {problem}"))
    text = operand(source, loss)
    return mend(site, [rewrite(source, loss, lambda _: f"({text} * {header.shares}.weigh({count}))")])


def _closing(
    source: Source, loop: cst.For, backward: cst.CSTNode, header: _Header, receivers: set[str], model: str
) -> Iterator[Finding]:
    """Clip, step, schedule and zero once a group: the statements behind the backward call."""
    statements = list(loop.body.body)
    place, averages = statements.index(backward), f"{header.shares}.average({model})"
    closing = next(
        (s for s in statements[place:] if isinstance(s, cst.If) and source.code(s.test) == header.closes), None
    )
    if closing is not None:
        site = source.site(closing, "update that closes a group")
        first = closing.body.body[0]
        is_whole = any(source.code(each).strip() == averages for each in closing.body.body)
        yield mended(site) if is_whole else mend(site, [insert_before(source, first, averages)])
        return
    update = [statement for statement in statements[place:] if is_update(source, statement, receivers)]
    zeroing = [statement for statement in statements[:place] if is_update(source, statement, receivers)]
    obstacles = list(_obstacles(source, loop, backward, update, zeroing, receivers))
    yield from (near_miss(obstacle) for obstacle in obstacles)
    if obstacles:
        return
    edits = list(move_under(source, [f"if {header.closes}:"], update, tail=zeroing, before=[averages]))
    if zeroing:  # what was zeroed before each backward is zeroed before the loop, then once a group
        edits.append(insert_before(source, loop, *(source.code(statement) for statement in zeroing)))
    yield mend(source.site(update[0], "update after every micro-batch"), edits)


def _obstacles(
    source: Source,
    loop: cst.For,
    backward: cst.CSTNode,
    update: list[cst.CSTNode],
    zeroing: list[cst.CSTNode],
    receivers: set[str],
) -> Iterator[Site]:
    """All that keeps an update from being made once a group."""
    statements = list(loop.body.body)
    place = statements.index(backward)
    rest = [s for s in statements if s is not backward and s not in update and s not in zeroing]
    if not any(".step(" in source.code(statement) for statement in update):
        yield source.site(backward, "backward call, but no optimizer step behind it in the loop")
    foreign = [s for s in statements[place : statements.index(update[-1])] if s in rest] if update else []
    for each in foreign:
        if statements.index(each) > statements.index(update[0]) or touches(source, each, receivers):
            yield source.site(each, "statement between the parts of an update: move it out of them")
    for loose in (node for statement in rest for node in update_parts(source, statement, receivers)):
        yield source.site(loose, "part of an update that is no statement of its own in the loop")
    for left in leaves(source, loop):
        yield source.site(left, "way out of the loop over micro-batches, which would leave a group open")
    leftover = used_outside(source, update)
    if leftover is not None:
        yield source.site(leftover, f"use of {leftover.value}, which only an update sets: move it into it")
    for each in zeroing:
        if "zero_grad" not in source.code(each):
            yield source.site(each, "part of an update before the backward call: move it behind")


task = Task(
    number=4,
    slug="accumulation",
    title="Gradient accumulation",
    contract=Contract.EXTENDS,
    summary="--accum_steps n makes one update of n micro-batches, each weighed by its scored bits",
    why=__doc__,
    sought="a training loop over micro-batches with one backward call",
    find=find,
)
