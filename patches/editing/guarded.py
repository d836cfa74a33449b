"""Put the parts of an update under a condition, where all of them can be moved there."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

import libcst as cst

from ..reading.frames import Reading
from ..reading.nodes import walk
from ..reading.steps import Kind, Part, is_all, parts, statements_of
from ..reading.tree import SourceTree
from ..reading.turns import Level, Turn, block_in, block_of
from ..reading.updates import Update, is_within, models
from ..task import Edit, Finding, mend, mended, near_miss
from .edits import insert_before, move_under, rewrite
from .handed import Obstacle, hand_down
from .spelling import spelled

_LOOSE = "part of an update that is no statement of its own in the loop"


class Movable(NamedTuple):
    """The statements of an update beside its backward, in the scope where optimizers step."""

    level: Level
    behind: list[ast.stmt]
    before: list[ast.stmt]  # zeroings, which come before each backward
    inside: list[tuple[Reading, ast.stmt, Part]]  # the same in what the backward's call calls


def closed(
    tree: SourceTree, update: Update, turn: Turn, names: tuple[str, str], first: str, *, is_grouped: bool
) -> Iterator[Finding]:
    """Put the parts of an update behind its backward under a test, as a loop of groups gives it.

    The names are those of what the loop gives besides: what `first` needs, a statement with {} for the model, and the
    test.
    """
    found, obstacles = movable(update, turn)
    level = found.level if found is not None else turn.outer
    source, model = tree.source(level.reading.file.path), _model(update, level.reading, level.node)
    if is_grouped and (closing := turn.guard()) is not None:
        site, head = source.site(closing, "update that closes a group"), first.partition("(")[0]
        is_whole = any(isinstance(each, ast.Attribute) and ast.unparse(each) == head for each in walk(closing))
        insert = insert_before(source, source.at(closing.body[0]), first.format(model))
        yield mended(site) if is_whole else mend(site, [insert])
        return
    if model is None:
        obstacles.append((level.reading, level.node, "training, but which model it is has no name here: name it"))
    scopes = [each.reading for each in turn.levels]
    innermost = max(level.reading, update.reading, key=scopes.index)
    needed = dict(zip(names, (innermost, level.reading), strict=True))
    edits, more, is_shared = hand_down(tree, turn, needed, dict(zip(names, ("None", "True"), strict=True)))
    obstacles += more
    first = f"if {names[0]} is not None:\n    {first}" if is_shared else first
    if found is not None and not obstacles:
        moved = put_under(tree, turn, found, names[1], first.format(model))
        if not isinstance(moved, tuple):
            counts = [
                edit for each in turn.levels[: scopes.index(level.reading)] for edit in _count(tree, each, names[1])
            ]
            yield mend(source.site(found.behind[0], "update after every micro-batch"), [*moved, *counts, *edits])
            return
        obstacles.append(moved)
    for scope, node, note in obstacles:
        yield near_miss(tree.source(scope.file.path).site(node, note))  # type: ignore[arg-type]


def _count(tree: SourceTree, caller: Level, test: str) -> Iterator[Edit]:
    """Put what counts the calls that update under a test."""
    source = tree.source(caller.reading.file.path)
    if counts := _counts(caller):
        yield from move_under(source, [f"if {test}:"], [source.at(each) for each in counts])


def _counts(caller: Level) -> list[ast.stmt]:
    """What counts calls right behind one."""
    statement = caller.reading.file.statement(caller.node)
    block = block_of(caller.reading.file, statement)
    return list(takewhile(_is_count, block[block.index(statement) + 1 :]))


def _divisors(reading: Reading, statements: Sequence[ast.stmt]) -> Iterator[Obstacle]:
    """What is divided by a count of updates, as a mean over micro-batches would be."""
    counted = {ast.unparse(each.target) for each in statements if isinstance(each, ast.AugAssign) and _is_count(each)}
    quotients = [each for each in walk(reading.node) if isinstance(each, ast.BinOp)]
    for node in (each for each in quotients if isinstance(each.op, (ast.Div, ast.FloorDiv))):
        if counted & {ast.unparse(each) for each in walk(node.right) if isinstance(each, ast.expr)}:
            yield reading, node, "mean over what is counted beside each update: count what it is a mean over apart"


def _is_count(statement: ast.stmt) -> bool:
    match statement:
        case ast.AugAssign(op=ast.Add(), value=ast.Constant(value=1)):
            return True
    return False


def _model(update: Update, reading: Reading, at: ast.AST) -> str | None:
    """The model by the name that a scope has for it."""
    if reading is update.reading:
        return spelled(update.model, reading, at)
    own = models(reading)
    return spelled(own[0], reading, at) if len(own) == 1 else None


def movable(update: Update, turn: Turn) -> tuple[Movable | None, list[Obstacle]]:
    """The statements of an update beside its backward, and all that keeps them from being moved."""
    found = turn.steps()
    if found is None:
        level = turn.outer
        return None, [(level.reading, level.node, "backward call, but no optimizer step behind it in the loop")]
    place, done = found
    level = turn.levels[place]
    reading, statement = level.reading, level.reading.file.statement(level.node)
    block = block_in(level, turn.loop if place == 0 else reading.node)
    if block is None or not _is_alone(statement, level.node, block):
        return None, [(reading, level.node, "backward call, but no statement of its own in a loop over micro-batches")]
    beside = [part for part in done if part.node is not level.node]
    own = statements_of(reading, block, beside)
    own |= {each: [] for each in (*_counters(own, block), *_followers(update, reading, own, block))}
    if place and reading.file.parents[statement] is reading.node:
        own |= {each: [] for each in _ending(block, own)}
    order = sorted(own, key=block.index)
    behind = [each for each in order if block.index(each) > block.index(statement)]
    before = [each for each in order if block.index(each) < block.index(statement)]
    obstacles = [
        (reading, part.node, _LOOSE) for part in beside if not any(is_within(reading.file, part.node, s) for s in own)
    ]
    obstacles += [(reading, each, _LOOSE) for each in order if own[each] and not is_all(reading, each, own[each])]
    for each in before:
        if not isinstance(each, ast.Expr) or any(part.kind is not Kind.ZERO for part in own[each]):
            obstacles.append((reading, each, "part of an update before the backward call: move it behind"))
    if not any(part.kind is Kind.STEP for each in behind for part in own[each]):
        obstacles.append((reading, level.node, "backward call, but no optimizer step behind it in the loop"))
    held = {owner.key for part in done if (owner := part.owner) is not None}
    held |= {each.key for each in (*update.models, *models(reading))}
    obstacles += _foreign(reading, block[block.index(statement) + 1 :], behind, held)
    obstacles += _left(reading, behind)
    for scope, counts in [(reading, behind), *((each.reading, _counts(each)) for each in turn.levels[:place])]:
        obstacles += _divisors(scope, counts)
    if isinstance(behind[-1] if behind else None, ast.Return):
        obstacles += _results(turn.levels[place - 1])
    note = "way out of the loop over micro-batches, which would leave a group open"
    obstacles += [(scope, node, note) for scope, node in turn.ways_out(place)]
    inside = list(_inside(turn, place, [part for part in done if part.node is level.node]))
    for scope, each, part in inside:
        if part.kind is not Kind.ZERO or not isinstance(each, ast.Expr):
            obstacles.append((scope, each, _LOOSE))
    return Movable(level, behind, before, inside), obstacles


def put_under(tree: SourceTree, turn: Turn, found: Movable, test: str, first: str) -> list[Edit] | Obstacle:
    """Put an update under a test, behind a first statement; what zeroed before each backward zeroes at its end.

    What was zeroed before the first backward is zeroed before the loop.
    """
    reading, outer = found.level.reading, turn.outer.reading
    source, above = tree.source(reading.file.path), tree.source(outer.file.path)
    statements = list(dict.fromkeys(source.at(each) for each in found.behind))  # of those in one line, the line
    tail = list(dict.fromkeys(source.at(each) for each in found.before))
    above_loop, ends, gone = list[str](), list[str](), list[Edit]()
    for scope, each, part in [*((reading, each, None) for each in found.before), *found.inside]:
        is_here = part is None and scope is outer
        text = source.code(source.at(each)) if is_here else _respelled(scope, each, part, outer, turn.loop)
        end = _respelled(scope, each, part, reading, found.behind[0]) if part is not None else ""
        if text is None or end is None:
            return scope, each, "part of an update before the backward call: move it behind"
        above_loop.append(text)
        if part is not None:
            target = tree.source(scope.file.path)
            ends.append(end)
            gone.append(Edit(target, target.at(each), lambda _: cst.RemoveFromParent()))
    returns = isinstance(found.behind[-1], ast.Return)
    moved = move_under(
        source, [f"if {test}:"], statements, tail=tail, before=[first], after=ends, behind=["return None"] * returns
    )
    edits = [*moved, *gone]
    hint = getattr(reading.node, "returns", None)
    if returns and hint is not None and "None" not in (text := reading.file.text(hint)):
        edits.append(rewrite(source, source.at(hint), lambda _: f"{text} | None"))  # type: ignore[arg-type]
    if above_loop:
        edits.append(insert_before(above, above.at(turn.loop), *above_loop))
    return edits


def _respelled(scope: Reading, line: ast.stmt, part: Part | None, there: Reading, at: ast.AST) -> str | None:
    """How a method's call that is a statement is written in another scope."""
    call = line.value if isinstance(line, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return None
    owner = scope.values[call.func.value] if part is None or part.owner is None else part.owner
    known = spelled(owner, there, at)
    own, whole = ast.unparse(call.func.value), ast.unparse(call)  # on one line, and its comments stay where it was
    return known + whole[len(own) :] if known is not None else None


def _is_alone(statement: ast.stmt, node: ast.AST, block: Sequence[ast.stmt]) -> bool:
    """Whether a call is all that a statement does, on a line of its own."""
    is_whole = isinstance(statement, (ast.Expr, ast.Assign, ast.AnnAssign)) and statement.value is node
    others = (each for each in block if each is not statement)
    return is_whole and not any(each.lineno <= statement.lineno <= (each.end_lineno or 0) for each in others)


def _counters(own: dict[ast.stmt, list[Part]], block: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """What counts updates: `n += 1` right behind an optimizer's step, or between the parts."""
    steps = [each for each, found in own.items() if any(part.kind is Kind.STEP for part in found)]
    places = [block.index(each) for each in own]
    for place, each in enumerate(block):
        is_between = bool(steps) and block.index(steps[0]) < place < max(places)
        if _is_count(each) and (is_between or block[place - 1] in steps):
            yield each


def _ending(block: Sequence[ast.stmt], own: Collection[ast.stmt]) -> Iterator[ast.stmt]:
    """What ends a function that updates: it counts, and returns what the update alone has set."""
    for each in block[max(map(block.index, own), default=len(block)) + 1 :]:
        uses = {node.id for node in walk(each) if isinstance(node, ast.Name)}
        if _is_count(each) or (isinstance(each, ast.Return) and uses & _set_by(own)):
            yield each


def _results(caller: Level) -> Iterator[Obstacle]:
    """Uses of what a function returns, but for those that put it into a record."""
    file, statement = caller.reading.file, caller.reading.file.statement(caller.node)
    target = statement.targets[0] if isinstance(statement, ast.Assign) and statement.value is caller.node else None
    if not isinstance(statement, ast.Expr) and not isinstance(target, ast.Name):
        yield caller.reading, statement, "use of what an update returns, which a group has only at its end: name it"
    for node in walk(caller.reading.node) if isinstance(target, ast.Name) else ():
        if isinstance(node, ast.Name) and node.id == target.id and isinstance(node.ctx, ast.Load):  # type: ignore[union-attr]
            holder = file.parents[node]
            is_added = isinstance(holder, ast.Call) and getattr(holder.func, "attr", "") == "append"
            if not is_added and not isinstance(holder, (ast.Dict, ast.List, ast.Tuple)):
                yield caller.reading, node, f"use of {node.id}, which a group has only at its end: move it there"


def _followers(
    update: Update, reading: Reading, own: dict[ast.stmt, list[Part]], block: Sequence[ast.stmt]
) -> Iterator[ast.stmt]:
    """What is done to the model itself behind each step: an average of its weights that is kept up to date, say."""
    steps = [block.index(each) for each, found in own.items() if any(part.kind is Kind.STEP for part in found)]
    held = {each.key for each in (*update.models, *models(reading))}
    for each in block[steps[0] + 1 :] if steps else ():
        keys = {reading.values[node].key for node in walk(each) if node in reading.values}
        if each not in own and _sets_no_name(each) and not held.isdisjoint(keys) and update.loss.key not in keys:
            yield each


def _sets_no_name(statement: ast.stmt) -> bool:
    """Whether a statement is calls, and writes to what is there, be it in a loop or a context."""
    match statement:
        case ast.Expr(value=ast.Call()):
            return True
        case (
            ast.Assign(targets=[ast.Attribute() | ast.Subscript()])
            | ast.AugAssign(target=ast.Attribute() | ast.Subscript())
        ):
            return True
        case ast.For(body=body, orelse=[]) | ast.With(body=body):
            return all(map(_sets_no_name, body))
    return False


def _foreign(
    reading: Reading, rest: Sequence[ast.stmt], behind: Sequence[ast.stmt], held: set[int]
) -> Iterator[Obstacle]:
    """The statements between a backward and the last part that could not go before the parts, or behind them."""
    until = rest.index(behind[-1]) if behind else 0
    for place, each in enumerate(rest[:until]):
        if each in behind:
            continue
        values = [reading.values[node].key for node in walk(each) if node in reading.values]
        names = [node.func for node in walk(each) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        is_unknown = any(name in reading.values and reading.values[name].op != "builtin" for name in names)
        is_among = place > rest.index(behind[0])
        if not held.isdisjoint(values) or (is_among and (is_unknown or not isinstance(each, (ast.Expr, ast.Assign)))):
            yield reading, each, "statement between the parts of an update: move it out of them"


def _left(reading: Reading, behind: Sequence[ast.stmt]) -> Iterator[Obstacle]:
    """A use, outside of some statements, of a name that they alone set."""
    inside, names = {node for each in behind for node in walk(each)}, _set_by(behind)
    for node in walk(reading.node):
        if isinstance(node, ast.Name) and node.id in names and isinstance(node.ctx, ast.Load) and node not in inside:
            yield reading, node, f"use of {node.id}, which only an update sets: move it into it"


def _set_by(statements: Collection[ast.stmt]) -> set[str]:
    """The names that some statements set; what they count up has been set before."""
    inside = [node for each in statements for node in walk(each)]
    names = {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    counted = (node.target for node in inside if isinstance(node, ast.AugAssign))
    return names - {target.id for target in counted if isinstance(target, ast.Name)}


def _inside(turn: Turn, place: int, done: Sequence[Part]) -> Iterator[tuple[Reading, ast.stmt, Part]]:
    """What the call that does the backward does of an update besides, by the statements that do it."""
    wanted = {part.effect.at.node for part in done}
    for level in turn.levels[place + 1 :]:
        for part in parts(level.reading):
            if part.effect.at.node in wanted and part.node is not level.node:
                yield level.reading, level.reading.file.statement(part.node), part
