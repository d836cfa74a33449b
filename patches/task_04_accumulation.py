"""Accumulate gradients over micro-batches.

`--accum_steps n` makes one optimizer update of n micro-batches. Each loss weighs as many bits as it
is a mean over, padding apart, so that the gradient is that of the mean loss over all that is scored
in the group, as of one batch of it all; the last, shorter group of an epoch makes an update of its own.

How much a micro-batch scores, only its forward tells: gradients pile up in units of the group's
first, and are divided by the group's sum before they are clipped.

Contract: extends. With accum_steps=1 every weight is 1.0, and training is bit-identical.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .editing.donor import definitions, donor, is_another
from .editing.grouping import regrouped
from .editing.guarded import closed
from .editing.options import Told, told
from .editing.scored import WEIGHED, scored, weighed
from .editing.spent import strayed_backwards
from .editing.totals import PLANNED, gathered_total, planned_for, site_of
from .reading.groups import IGNORED, accumulates, is_scaled_alone, is_weighed, problem
from .reading.nodes import walk
from .reading.source import Source
from .reading.tree import SourceTree
from .reading.trials import trial_of
from .reading.turns import Turn, is_learned_from, is_number, turn_of
from .reading.updates import DEEP, Update, scope_of, updates_of_runs
from .task import Contract, Finding, State, Task, apart, mend, mended, near_miss

STEPS, GROUPS, COUNT, SCORED = "accum_steps", "accumulation_groups", "scored_bits", "scored"
SHARES, CLOSES = "shares", "closes"


def find(tree: SourceTree) -> Iterator[Finding]:
    """Each update of a run: the loop over its micro-batches, the total of its schedule, and the way of the option."""
    given = donor("bit_transformer/training.py")
    yield from strayed_backwards(tree)
    updates = updates_of_runs(tree.code)
    turns = {update.backward: turn_of(tree.code, update) for update in updates}
    for update in updates:
        turn = turns[update.backward]
        scope = turn.outer.reading if turn is not None else update.reading  # updates of one function go together
        yield from apart([scope.owner or scope.node], _update(tree, given, update, turn))


def _update(tree: SourceTree, given: Source, update: Update, turn: Turn | None) -> Iterator[Finding]:
    source = tree.source(update.reading.file.path)
    grouped = accumulates(*(turn.outer[::2] if turn is not None else (update.reading, update.effect)))
    if (turn is None or not _names(turn)) and (grouped or is_scaled_alone(update)):
        why = problem(update) if grouped else "each micro-batch is an update of its own"
        note = f"accumulation in an idiom of its own{', but ' if why else ''}{why}"
        yield near_miss(source.site(update.backward, note)) if why else mended(source.site(update.backward, note))
    elif turn is None or turn.header is None:
        yield near_miss(source.site(update.backward, "backward call, but in no `for` loop over micro-batches"))
    elif len(found := turn.backwards()) > 1:
        yield near_miss(source.site(update.backward, f"backward; expected one in a loop, found {len(found)}"))
    else:
        yield from _accumulated(tree, given, update, turn, grouped)


def _accumulated(tree: SourceTree, given: Source, update: Update, turn: Turn, grouped: bool) -> Iterator[Finding]:
    reading = turn.outer.reading
    source, own = tree.source(reading.file.path), tree.source(update.reading.file.path)
    (option,) = told(tree, reading, given, STEPS)
    shares, closes = names = _names(turn) or (SHARES, CLOSES)
    yield from _grouped(source, update, turn, option.text)
    needed = {source.path: [GROUPS]}
    yield from _scaled(tree, own, update, turn, shares, needed)
    yield from closed(tree, update, turn, names, f"{shares}.average({{}})", is_grouped=grouped)
    yield from _planned(tree, given, update, turn, option, needed)
    yield from option.findings
    yield from (definitions(tree.source(path), given, *wanted) for path, wanted in needed.items())


def _names(turn: Turn) -> tuple[str, str] | None:
    """What a loop calls the shares of a group and its end, if it goes through groups as this patch makes them."""
    items, item, *_ = turn.header or (None, None)
    called = turn.outer.reading.calls.get(items) if isinstance(items, ast.Call) else None
    if getattr(called, "name", "") != GROUPS or not isinstance(item, ast.Tuple):
        return None
    return ast.unparse(item.elts[-2]), ast.unparse(item.elts[-1])


def _grouped(source: Source, update: Update, turn: Turn, steps: str) -> Iterator[Finding]:
    reading, site = turn.outer.reading, source.site(turn.loop, "loop over micro-batches")
    if _names(turn):
        yield mended(site)
        return
    scopes = [level.reading.file.scopes[level.reading.node] for level in turn.levels]
    for name in (name for name in (SHARES, CLOSES) if any(scope.owner(name) is not None for scope in scopes)):
        yield near_miss(source.site(turn.loop, f"loop over micro-batches, but the name {name} is taken: rename yours"))
    each = reading.values.get(turn.header.item) if turn.header is not None else None
    if each is not None and is_number(each) and not is_learned_from(turn, update, each):
        yield near_miss(source.site(turn.loop, "loop with a backward call, but not over micro-batches"))
    yield mend(site, regrouped(source, turn, f"{GROUPS}({{}}, {steps})", (SHARES, CLOSES)))


def _scaled(
    tree: SourceTree, source: Source, update: Update, turn: Turn, shares: str, needed: dict[str, list[str]]
) -> Iterator[Finding]:
    if _names(turn) and is_weighed(update):
        yield mended(source.site(update.backward, WEIGHED))
        needed.setdefault(source.path, []).extend([COUNT] if COUNT in update.reading.file.uses else [])
        return
    batch = [each for each in walk(turn.header.item) if isinstance(each, ast.Name)] if turn.header is not None else []
    count = scored(tree, update, (COUNT, SCORED), IGNORED, batch if update.reading is turn.outer.reading else ())
    for path in sorted(count.paths):
        needed.setdefault(path, []).append(COUNT)
    yield weighed(source, update, f"{{}} * {shares}.weigh({count.text})", count)


def _planned(
    tree: SourceTree, given: Source, update: Update, turn: Turn, option: Told, needed: dict[str, list[str]]
) -> Iterator[Finding]:
    """The total of the schedule that steps with each update, if one does."""
    trial = trial_of(tree.code, update.effect.at.node)
    if not turn.schedules and not (trial is not None and trial.is_scheduled):
        return
    node = planned_for(tree.code, trial) if trial is not None else None
    if trial is None or node is None:
        made = trial.made if trial is not None else turn.loop
        yield near_miss(site_of(tree, made, "schedule, but no total of it that could be planned"))
        return
    file = tree.code.files.of(node)
    scope = scope_of(tree.code, file, node, DEEP)
    here = option if scope is turn.outer.reading else told(tree, scope, given, STEPS)[0]
    found = gathered_total(tree, trial, node, {STEPS: here.text})
    known = [each.site for each in option.findings]
    yield from (each for each in here.findings if each.site not in known)
    is_ours = PLANNED in file.uses and not is_another(tree.source(file.path), given, PLANNED)
    needed.setdefault(file.path, []).extend([PLANNED] if is_ours or found.state is State.MISSING else [])
    yield found


task = Task(
    number=4,
    slug="accumulation",
    title="Gradient accumulation",
    contract=Contract.EXTENDS,
    seam="update",
    option="accum_steps",
    summary="--accum_steps n makes one update of n micro-batches, each weighed by its scored bits",
    why=__doc__,
    sought="a training loop over micro-batches with one backward call",
    find=find,
)
