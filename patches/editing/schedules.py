"""Give a schedule another total: where a call tells it, where it leaves a default, or by way of those that call."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

import libcst as cst

from ..reading.files import Function
from ..reading.frames import Reading
from ..reading.schedules import Schedule, argument, entries
from ..reading.tree import SourceTree
from ..task import Edit
from .classes import more_arguments, more_parameters
from .edits import rewrite


def told(tree: SourceTree, made: Schedule, text: str) -> Edit:
    """Tell a schedule its total where it is made."""
    source, given = tree.source(made.reading.file.path), argument(made)
    spread = next((each.value for each in made.call.keywords if _tells(made, each)), None) if given is None else None
    node = source.at(given or spread or made.call)
    assert isinstance(node, cst.BaseExpression)
    if spread is not None:
        return rewrite(source, node, lambda whole: f'({whole} | {{"{made.parameter}": {text}}})')
    if isinstance(node, cst.Call) and given is None:
        return more_arguments(source, node, {made.parameter: text})
    return rewrite(source, node, lambda _: text)


def told_by_callers(
    tree: SourceTree, made: Schedule, name: str, callers: Sequence[tuple[Reading, cst.CSTNode, str]]
) -> Iterator[Edit]:
    """Let a function be told the total, under a name, by all that call it; nothing where that cannot be told."""
    reading, function = made.reading, made.reading.node
    if not isinstance(function, Function) or argument(made) is None or reading.file.scopes[function].is_taken(name):
        return
    own = tree.source(reading.file.path).at(function)
    uses = [use for file in tree.modules(having=function.name.encode()) for use in file.uses.get(function.name, ())]
    if len(uses) != len(callers) or not isinstance(own, cst.FunctionDef):
        return
    yield more_parameters(tree.source(reading.file.path), own, [cst.Param(cst.Name(name))])
    yield told(tree, made, name)
    for caller, call, text in callers:
        assert isinstance(call, cst.Call)
        yield more_arguments(tree.source(caller.file.path), call, {name: text})


def _tells(made: Schedule, keyword: ast.keyword) -> bool:
    """Whether a call is given the total in a mapping."""
    given = made.reading.values.get(keyword.value)
    return keyword.arg is None and given is not None and made.parameter in entries(given)
