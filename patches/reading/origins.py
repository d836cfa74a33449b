"""Origins: the expressions, up the calls, in which a probability is written that a drawn number is compared with."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from .code import Code
from .draws import Draw
from .files import File, Function
from .frames import Reading
from .nodes import walk
from .ramps import Ramp, ramp_within
from .updates import DEEP, MOST_CALLERS, Update, calls_of, results, scope_of

Shows = Callable[[File, ast.AST], object]  # whether a scope has it anyway

_ITEM_BY_ITEM = ("enumerate", "iter", "zip")
_SCOPES = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda)


class Spot(NamedTuple):
    """An expression in the text of a scope."""

    reading: Reading
    node: ast.expr


def compared(code: Code, draw: Draw) -> Spot | None:
    """What a drawn number is compared with, where that is done by an operator."""
    file, node = draw.place
    if not isinstance(node, ast.Compare) or len(node.ops) != 1:
        return None
    is_first = draw.test["input"] is draw.number
    return Spot(scope_of(code, file, node, DEEP), node.comparators[0] if is_first else node.left)


def ramp_of(code: Code, draw: Draw) -> Ramp | None:
    """The ramp that a draw's probability is on; of an attribute that a loop changes, as the draw's own scope has it."""
    ramp, spot = ramp_within(draw.threshold, draw.compresses_below), compared(code, draw)
    own = spot.reading.values.get(spot.node) if spot is not None else None
    is_lost = ramp is not None and ramp.clock.op == "opaque" and own is not None
    return (ramp_within(own, draw.compresses_below) if is_lost and own is not None else None) or ramp


def origins(code: Code, spot: Spot, draw: Draw, scopes: Collection[ast.AST], known: Sequence[str]) -> list[Spot]:
    """Where a draw's probability comes from that scopes hand on: arguments in them, or what a function reads itself.

    Of a sum it is the part that is not one of some other probabilities, by their texts. Nothing where a function is
    handed several, and which of them is the draw's cannot be told.
    """
    reading, node = spot.reading, _part(spot.node, known)
    spot = Spot(reading, node)
    value = reading.values.get(node)
    is_own = value is not None and value.op == "parameter" and value.data[1] is reading.node
    if not is_own or not isinstance(node, ast.Name) or reading.node in scopes:
        return [spot]
    every = hops(code, reading.file, reading.node, lambda _, scope: scope in scopes)
    calls = [(hop, argument(hop, node.id)) for hop in every if hop.function is reading.node]
    given = [Spot(scope_of(code, hop.caller.file, hop.call, DEEP), each) for hop, each in calls if each is not None]
    if not given or len(given) < len(calls):
        return [spot]
    ways = [origins(code, each, draw, scopes, []) for each in given]
    if len({(each.reading, _key(each)) for each in given}) > len({each.reading for each in given}):
        ways = [way for way in ways if draw.threshold.key in map(_key, way)]
    return [each for way in ways for each in way]


def _key(spot: Spot) -> int | None:
    value = spot.reading.values.get(spot.node)
    return None if value is None else value.key


def _part(node: ast.expr, known: Sequence[str]) -> ast.expr:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        rest = [each for each in (node.left, node.right) if ast.unparse(each) not in known]
        if len(rest) == 1:
            return rest[0]
    return node


def is_kept_in(file: File, node: ast.expr) -> bool:
    """Whether an expression goes by names of a comprehension or of a lambda around it."""
    names = names_read(node)
    scopes = [file.scopes[each] for each in file.ancestors(node) if isinstance(each, _SCOPES)]
    return any(names & scope.bound.keys() for scope in scopes)


def ahead(file: File, node: ast.expr, names: Collection[str]) -> ast.stmt | None:
    """The statement before which something can be computed for an expression; None where its turn comes later.

    It is made of some names, and stands outside of contexts that give it none of them.
    """
    statement = file.statement(node)
    while (isinstance(parent := file.parents[statement], ast.If) and _is_elif(file, statement)) or (
        isinstance(parent, (ast.With, ast.AsyncWith)) and names_set(parent).isdisjoint(names)
    ):
        statement = parent
    is_again = isinstance(statement, ast.While) and node in walk(statement.test)
    is_function = isinstance(statement, (Function, ast.ClassDef))
    lambdas = [each for each in file.ancestors(node) if isinstance(each, ast.Lambda)]
    is_later = any(not isinstance(file.parents[each], ast.Call) for each in lambdas)
    return None if is_again or is_function or is_later or is_kept_in(file, node) else statement


def is_made_at_need(reading: Reading, node: ast.expr, loop: ast.AST) -> bool:
    """Whether an expression stands in a generator that nothing but a loop goes through, and item by item."""
    file, parts = reading.file, walk(loop.iter) if isinstance(loop, (ast.For, ast.AsyncFor)) else []
    made = next((each for each in file.ancestors(node) if isinstance(each, ast.GeneratorExp)), None)
    uses = list[ast.Name]()
    match file.parents[made] if made is not None else None:
        case ast.Assign(targets=[ast.Name(id=name)]):
            uses = [each for each in walk(reading.node) if isinstance(each, ast.Name) and each.id == name]
    calls = [each for each in parts if isinstance(each, ast.Call) and ast.unparse(each.func) not in _ITEM_BY_ITEM]
    is_alone = all(each in parts for each in uses if isinstance(each.ctx, ast.Load)) if uses else made in parts
    return is_alone and all(each in reading.calls and _is_lazy(reading.calls[each]) for each in calls)


def _is_lazy(function: ast.AST) -> bool:
    """Whether a function gives item by item what it goes through, as far as one sees."""
    names = {getattr(each, "id", "") for each in walk(function)}
    return any(isinstance(each, ast.Yield) for each in walk(function)) and not names & {"list", "tuple", "sorted"}


def names_set(node: ast.AST) -> set[str]:
    """The names that a statement gives a meaning."""
    return {each.id for each in walk(node) if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load)}


def names_read(node: ast.AST) -> set[str]:
    """The names that an expression is made of."""
    return {each.id for each in walk(node) if isinstance(each, ast.Name)}


def _is_elif(file: File, statement: ast.stmt) -> bool:
    return file.lines[statement.lineno - 1][statement.col_offset :].startswith(b"elif")


def texts_of(code: Code, draw: Draw) -> list[str]:
    """How the probability of a draw is written where it is compared."""
    spot = compared(code, draw)
    return [ast.unparse(spot.node)] if spot is not None else []


def used_elsewhere(
    code: Code, updates: Sequence[Update], draw: Draw, shows: Shows
) -> Iterator[tuple[File, ast.AST, str]]:
    """Uses of a draw that sees what lasts, for something else than an update: in an evaluation, say."""
    file, node = draw.place
    scope = scope_of(code, file, node, DEEP)
    if not shows(file, scope.node) or _is_in_training(scope, draw):
        return
    pending, seen = [scope], set[ast.AST]()
    while pending:
        reading = pending.pop()
        own = [each for each in updates if each.reading.node is reading.node]
        if reading.node in seen or own or not isinstance(reading.node, Function):
            continue
        seen.add(reading.node)
        for caller, call in calls_of(code, reading.node):
            known = [each for each in updates if each.reading.node is caller.node]
            made = {part.key for each in known for part in each.loss.walk()}
            around = known[0].reading if known else scope_of(code, caller.file, call, DEEP)  # as its loss was read
            is_called = isinstance(caller.node, Function) and bool(calls_of(code, caller.node))
            is_update = any(each.key in made for each in results(around.values[call]))
            if not is_update and (known or not is_called):
                yield caller.file, call, "call for something else than an update, that draws whether it compresses too"
            pending.append(around)


def _is_in_training(scope: Reading, draw: Draw) -> bool:
    """Whether a draw decides something only while a model trains."""
    node = draw.place.node
    around = [each for each in scope.file.ancestors(node) if isinstance(each, (ast.BoolOp, ast.If, ast.IfExp))]
    tests = [each.values if isinstance(each, ast.BoolOp) else [each.test] for each in around]
    return any(isinstance(test, ast.Attribute) and test.attr == "training" for some in tests for test in some)


class Hop(NamedTuple):
    """A call on the way, and what it calls."""

    caller: Reading
    call: ast.Call
    file: File
    function: ast.FunctionDef


def hops(code: Code, file: File, scope: ast.AST, shows: Shows) -> list[Hop]:
    """The calls that lead to a scope from those that have something; none where that is not seen."""
    found: list[Hop] = []
    pending, seen = [(file, scope)], set[ast.AST]()
    while pending:
        where, function = pending.pop()
        if function in seen or shows(where, function) or not isinstance(function, ast.FunctionDef):
            continue
        seen.add(function)
        for caller, call in calls_of(code, function):
            if _leads(code, caller.file, caller.node, shows):
                found.append(Hop(caller, call, where, function))
                pending.append((caller.file, caller.node))
    return found


def _leads(code: Code, file: File, scope: ast.AST, shows: Shows, depth: int = 0) -> bool:
    if shows(file, scope):
        return True
    callers = calls_of(code, scope) if isinstance(scope, Function) and depth < MOST_CALLERS else []
    return any(_leads(code, caller.file, caller.node, shows, depth + 1) for caller, _ in callers)


def argument(hop: Hop, name: str) -> ast.expr | None:
    """What a call gives for a parameter."""
    named = [keyword.value for keyword in hop.call.keywords if keyword.arg == name]
    order = [each.arg for each in (*hop.function.args.posonlyargs, *hop.function.args.args)]
    placed = order[is_bound(hop) :]
    at = placed.index(name) if name in placed else len(hop.call.args)
    starred = any(isinstance(each, ast.Starred) for each in hop.call.args)
    given = [] if starred else hop.call.args[at : at + 1]
    return next(iter([*named, *given]), None)


def is_bound(hop: Hop) -> bool:
    """Whether a call is of a method of an object, which is its first argument."""
    value = hop.caller.values.get(hop.call.func)
    return value is not None and value.op == "bound"
