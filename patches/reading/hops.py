"""Hops: the calls that lead from scopes that have something to one that is to have it too."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import NamedTuple

from .code import Code
from .files import File, Function
from .frames import Reading
from .updates import MOST_CALLERS, calls_of

Shows = Callable[[File, ast.AST], bool]  # whether a scope has it anyway


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
