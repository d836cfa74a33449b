"""The way from a loop over micro-batches to an update: the scopes on it, and where in them the update is made.

And the statements by which a model runs and its loss is made.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .code import Code
from .files import File, Function
from .frames import Effect, Reading
from .nodes import walk
from .steps import Kind, Part, parts
from .updates import DEEP, MOST_CALLERS, Update, calls_of, is_of, is_within, made_of, reading_of, results, scope_of
from .values import Value

_NUMBERS = ("range", "arange", "randperm")
Loop = ast.For | ast.AsyncFor | ast.While


class Level(NamedTuple):
    """A scope on the way, and what in its own text does the backward: that itself, or the call that leads to it."""

    reading: Reading
    node: ast.Call
    effect: Effect  # the backward


class Header(NamedTuple):
    """What a loop goes through, what it calls each, whether it counts them, and statements that ask for the next."""

    items: ast.expr
    item: ast.expr
    is_counted: bool = False
    asks: tuple[ast.stmt, ...] = ()


class Turn(NamedTuple):
    """The loop that an update is made in, and the scopes from that of the loop to that of the backward."""

    loop: Loop
    levels: tuple[Level, ...]

    @property
    def outer(self) -> Level:
        """Where the loop stands."""
        return self.levels[0]

    @property
    def header(self) -> Header | None:
        """What the loop goes through; None where that is not seen."""
        match self.loop:
            case ast.For(iter=ast.Call(args=[items, *_]) as source, target=ast.Tuple(elts=[_, item])) if (
                self.outer.reading.values[source].op == "enumerate"
            ):
                return Header(items, item, is_counted=True)
            case ast.For(iter=items, target=item):
                return Header(items, item)
            case ast.While():
                return _asked(self.outer.reading, self.loop) or _counted(self.outer.reading, self.loop)
        return None

    @property
    def sieve(self) -> ast.If | None:
        """What leaves items of the loop out before anything else, each by itself alone."""
        match self.loop, self.header:
            case ast.For(body=[ast.If(body=[ast.Continue()], orelse=[]) as first, _, *_]), Header(
                is_counted=False
            ) as own:
                return first if _is_of(first.test, own.item, self.loop) else None
        return None

    def guard(self) -> ast.If | None:
        """The condition of a scope on the way under which optimizers step."""
        place, done = self.steps() or (0, [])
        guards = [guard.at.node for part in done for guard in part.effect.under if guard.kind == "if"]
        own = self.levels[place].reading.file.parents
        return next((each for each in guards if isinstance(each, ast.If) and each in own), None)

    def steps(self) -> tuple[int, list[Part]] | None:
        """The scope in which optimizers step beside the backward, by its place on the way, and what it does there."""
        for place, level in enumerate(self.levels):
            inside = self.loop if place == 0 else level.reading.node
            done = [part for part in parts(level.reading) if is_within(level.reading.file, part.node, inside)]
            steps = [part for part in done if part.kind is Kind.STEP]
            if any(part.node is not level.node for part in steps):
                return place, done
        return None

    @property
    def schedules(self) -> bool:
        """Whether more than one optimizer steps with each update, or a rate is set by hand."""
        wanted = (Kind.STEP, Kind.SCHEDULE, Kind.GRADIENT)
        _, done = self.steps() or (0, [])
        return sum(part.kind in wanted for part in done) > 1

    def backwards(self) -> list[ast.AST]:
        """What does a backward in the loop, in its scope's own text."""
        done = [each.through for each in self.outer.reading.effects if each.kind == "backward"]
        file = self.outer.reading.file
        return [each for each in dict.fromkeys(done) if each is not None and is_within(file, each, self.loop)]

    def ways_out(self, last: int) -> Iterator[tuple[Reading, ast.AST]]:
        """What may leave a turn before its end, in the scopes down to one of them."""
        for place, level in enumerate(self.levels[: last + 1]):
            inside = self.loop if place == 0 else level.reading.node
            for node in walk(inside):
                goes = [
                    self.sieve,
                    *(self.header.asks if self.header is not None else ()),
                ]  # which are no part of a turn
                is_gone = any(each is not None and is_within(level.reading.file, node, each) for each in goes)
                if not is_gone and _leaves(level.reading, node, inside, is_loop=place == 0):
                    yield level.reading, node


def turn_of(code: Code, update: Update) -> Turn | None:
    """The way to an update; None where no loop, or more than one call, leads to it."""
    levels = [Level(update.reading, update.backward, update.effect)]
    while (loop := _loop(levels[0])) is None:
        reading = levels[0].reading
        callers = calls_of(code, reading.node) if isinstance(reading.node, Function) else []
        level = _level(code, *callers[0]) if len(callers) == 1 and len(levels) < MOST_CALLERS else None
        if level is None:
            return None
        levels.insert(0, level)
    while (called := levels[-1].reading.calls.get(levels[-1].node)) is not None and len(levels) < 2 * MOST_CALLERS:
        inner = reading_of(code, called)
        own = [each for each in inner.effects if each.kind == "backward"] if inner is not None else []
        if inner is None or len(own) != 1 or own[0].through is None:
            return None
        levels.append(Level(inner, own[0].through, own[0]))
    return Turn(loop, tuple(levels))


def _asked(reading: Reading, loop: ast.While) -> Header | None:
    """What a loop gets with `next`, in its test, first of all, or in front of it and last of all, and not besides."""
    file, block, asks = reading.file, block_of(reading.file, loop), tuple[ast.stmt, ...]()
    match loop.test, loop.body:
        case ast.Compare(left=ast.NamedExpr(target=item, value=call), ops=[ast.IsNot()], comparators=[end]), _:
            calls = [call]
        case ast.Compare(left=ast.Name() as item, ops=[ast.IsNot()], comparators=[end]), _ if loop is not block[0]:
            asks = (block[block.index(loop) - 1], loop.body[-1])
            sets = [each for each in asks if isinstance(each, ast.Assign) and file.text(each.targets[0]) == item.id]
            calls = [each.value for each in sets] if len(sets) == len(asks) else []
        case ast.Constant(value=True), [
            ast.Assign(targets=[ast.Name() as item], value=call) as first,
            ast.If(
                test=ast.Compare(left=left, ops=[ast.Is()], comparators=[end]), body=[ast.Break()], orelse=[]
            ) as last,
            *_,
        ] if file.text(left) == item.id:
            asks, calls = (first, last), [call]
        case _:
            return None
    if getattr(end, "value", ...) is not None:
        return None
    gone = {node for each in (loop.test, *asks) for node in walk(each)}
    names = [each for each in walk(reading.node) if isinstance(each, ast.Name) and each not in gone]
    items = [_next_of(reading, each) for each in calls]
    if not items or items[0] is None or {ast.unparse(each) for each in items if each} != {getattr(items[0], "id", "")}:
        return None
    is_alone = all(each.id != item.id or is_within(file, each, loop) for each in names)
    is_alone = is_alone and not any(each.id == items[0].id and is_within(file, each, loop) for each in names)
    return Header(items[0], item, asks=asks) if is_alone and None not in items else None


def _counted(reading: Reading, loop: ast.While) -> Header | None:
    """What a loop counts up from in front of it to an end that stays, where nothing asks for the count behind that."""
    file, block = reading.file, block_of(reading.file, loop)
    match loop.test, block[block.index(loop) - 1 :]:
        case (
            ast.Compare(left=ast.Name() as item, ops=[ast.Lt()], comparators=[end]),
            [ast.Assign(targets=[ast.Name(id=first)], value=ast.Constant() as start) as sets, *_],
        ) if first == item.id:
            steps = [
                each for each in loop.body if isinstance(each, ast.AugAssign) and file.text(each.target) == item.id
            ]
        case _:
            return None
    if len(steps) != 1 or not isinstance(steps[0].op, ast.Add):
        return None
    fixed, step = [*walk(start), *walk(end), *walk(steps[0].value)], steps[0]
    gone = {*fixed, *walk(loop.test), *walk(sets), *walk(step)}

    def stays(each: ast.Name) -> bool:
        if each.id == item.id:
            return is_within(file, each, loop) and each.lineno < step.lineno
        is_read = isinstance(each.ctx, ast.Load) and not isinstance(file.parents[each], ast.Attribute)
        return is_read or each.id not in _names(fixed) or not is_within(file, each, loop)

    names = (each for each in walk(reading.node) if isinstance(each, ast.Name) and each not in gone)
    if not all(map(stays, names)) or not all(map(_is_whole, fixed)):
        return None
    by, some = file.text(step.value), [file.text(each) for each in (start, end)]
    text = ", ".join([*some, by] if by != "1" else some[some[0] == "0" :])
    return Header(ast.parse(f"range({text})", mode="eval").body, item, asks=(sets, step))


def _is_whole(node: ast.AST) -> bool:
    """Whether a part of a number leaves it whole, as far as one sees."""
    match node:
        case ast.Call(func=func):
            return getattr(func, "id", "") == "len"
        case ast.BinOp(op=op):
            return not isinstance(op, ast.Div)
    return not isinstance(node, ast.Constant) or isinstance(node.value, int)


def _next_of(reading: Reading, call: ast.expr) -> ast.Name | None:
    """The name of what a call asks for its next, or for None at its end."""
    match call:
        case ast.Call(func=ast.Name(id="next") as func, args=[ast.Name() as items, ast.Constant(value=None)]) if (
            reading.values[func].op == "builtin"
        ):
            return items
    return None


def is_number(item: Value) -> bool:
    """Whether what a loop gets in each turn is a number."""
    source = item.get("of")
    while source is not None and source.op not in _NUMBERS:
        if source.op == "call" and str(source["func"].data).rpartition(".")[2] in _NUMBERS:
            return True
        source = source.get("0") if source.op in ("call", "opaque") else None  # in a progress bar, perhaps
    is_count = item.op == "carried" and item["start"].number is not None
    return item.op == "counted" or is_count or source is not None


def is_learned_from(turn: Turn, update: Update, item: Value) -> bool:
    """Whether a loss is made of what a loop gets in each turn."""
    if turn.outer.reading is update.reading:
        return any(each.key == item.key for each in update.loss.walk())
    given = (turn.outer.reading.values[each] for each in turn.outer.node.args if each in turn.outer.reading.values)
    return any(part.key == item.key for each in given for part in each.walk())


def _is_of(test: ast.expr, item: ast.expr, loop: Loop) -> bool:
    """Whether a test asks what a loop gets each time, and what nothing else there knows, and does nothing else."""
    inside, own = walk(test), _names(walk(item))
    others = _names(inside) - own - {"len"}
    called = [each.func for each in inside if isinstance(each, ast.Call)]
    asks = all(isinstance(each, ast.Attribute) or getattr(each, "id", "") == "len" for each in called)
    is_known = others.isdisjoint(_names([each for each in walk(loop) if each not in inside]))
    is_plain = not any(isinstance(each, (ast.NamedExpr, ast.Await, ast.Lambda, ast.comprehension)) for each in inside)
    is_own = not any(_names(walk(each)) & others for each in called)
    return asks and is_own and is_plain and is_known and not own.isdisjoint(_names(inside))


def _names(nodes: Sequence[ast.AST]) -> set[str]:
    return {each.id for each in nodes if isinstance(each, ast.Name)}


def _level(code: Code, caller: Reading, call: ast.Call) -> Level | None:
    reading = scope_of(code, caller.file, call, DEEP)
    own = [each for each in reading.effects if each.kind == "backward" and each.through is call]
    return Level(reading, call, own[0]) if len(own) == 1 else None


def _loop(level: Level) -> Loop | None:
    """The innermost loop in a scope around what does the backward there."""
    for around in level.reading.file.ancestors(level.node):
        if around is level.reading.node:
            return None
        if isinstance(around, Loop):
            return around
    return None


def _leaves(reading: Reading, node: ast.AST, inside: ast.AST, *, is_loop: bool) -> bool:
    around = list(reading.file.ancestors(node))
    around = around[: around.index(inside) + 1] if inside in around else []
    if isinstance(node, ast.Return):
        body = getattr(inside, "body", [None])
        is_own = not any(isinstance(each, Function) for each in around[:-1])
        return is_own and (is_loop or node is not body[-1])
    if isinstance(node, (ast.Break, ast.Continue)) and is_loop:
        loops = [each for each in around if isinstance(each, Loop)]
        return bool(loops) and loops[0] is inside and node not in getattr(inside, "orelse", ())
    return False


def block_in(level: Level, inside: ast.AST) -> list[ast.stmt] | None:
    """The statements beside a backward, if no condition stands between them and what holds them."""
    file = level.reading.file
    statement = file.statement(level.node)
    for around in file.ancestors(statement):
        if around is inside:
            return block_of(file, statement)
        is_tried = isinstance(around, ast.Try) and all(isinstance(each.body[-1], ast.Raise) for each in around.handlers)
        if not is_tried and not isinstance(around, (ast.With, ast.AsyncWith)):
            return None
    return block_of(file, statement) if inside is file.module else None


def forward_and_loss(update: Update) -> tuple[list[ast.stmt], bool]:
    """The neighbouring statements that run the model and make its loss, and whether the backward is the last of them.

    They stand in one block, that of the backward or one around it.
    """
    reading, file = update.reading, update.reading.file
    backward = file.statement(update.backward)
    block = block_of(file, backward)
    while not all(any(is_within(file, run, each) for each in block) for run in update.runs):
        backward = file.parents[backward]  # type: ignore[assignment]
        block = block_of(file, backward)
    end = block.index(backward)
    parts, ran = {each.key for each in update.loss.walk()}, {each.key for each in update.ran}
    ran = ran or {each.key for run in update.runs for each in results(reading.values[run])} & parts
    is_run = made_of(ran)
    made = [node for node, value in reading.values.items() if value.key in parts and is_run(value)]
    made += update.runs
    places = [place for place, each in enumerate(block[: end + 1]) if any(is_within(file, node, each) for node in made)]
    if not update.learns:
        return block[min([*places, end]) : end + 1], False
    before = [place for place in places if place < end]
    return (block[before[0] : before[-1] + 1], False) if before else ([block[end]], True)


def block_of(file: File, statement: ast.stmt) -> list[ast.stmt]:
    """The statements among which one stands."""
    parent = file.parents[statement]
    blocks = (getattr(parent, name, None) for name in ("body", "orelse", "finalbody"))
    return next(block for block in blocks if isinstance(block, list) and statement in block)


def unmovable(reading: Reading, update: Update, statements: Sequence[ast.stmt]) -> Iterator[tuple[ast.AST, str]]:
    """What stands among forward and loss and is not to run under autocast, or shares a line with them."""
    file = reading.file
    for statement in statements:
        for node in walk(statement):
            if isinstance(node, (ast.Yield, ast.YieldFrom, ast.Await)):
                yield node, "yield between forward and loss: who goes on from here would be under autocast too"
        siblings = block_of(file, statement)
        if any(
            each is not statement and each.lineno <= statement.lineno <= (each.end_lineno or 0) for each in siblings
        ):
            yield statement, "forward and loss share a line: give each statement its own"
    for effect in _effects_in(reading, statements):
        func = effect.value.get("func", effect.value)
        is_own = effect.at.node in update.forwards or effect.through in update.runs
        if func is not None and effect.through is not None and is_of(func, update.model) and not is_own:
            yield effect.through, "another forward between forward and loss: move it out of them"


def done_in(reading: Reading, statements: Sequence[ast.stmt]) -> set[str]:
    """What some statements of a scope do."""
    return {effect.kind for effect in _effects_in(reading, statements)}


def _effects_in(reading: Reading, statements: Sequence[ast.stmt]) -> Iterator[Effect]:
    inside = {node for each in statements for node in ast.walk(each)}
    return (effect for effect in reading.effects if effect.through in inside)
