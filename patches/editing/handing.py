"""Hand what is known in one place down the calls that lead to another, as a parameter of each function on the way."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence

import libcst as cst

from ..edits import BARE_EQUAL, expression, insert_item, parse_statement
from ..reading.hops import Hop, is_bound
from ..source import Source
from ..task import Edit, Finding, mend, near_miss
from ..tree import SourceTree
from .classes import more_parameters


def handed(
    tree: SourceTree,
    way: Sequence[Hop],
    name: str,
    brought: Callable[[Source, cst.FunctionDef], Finding],
    text: Callable[[Hop], str | None],
) -> Iterator[Finding]:
    """Give each function on a way a parameter, and each call an argument: a text, or the caller's own parameter."""
    functions = {hop.function: hop for hop in way}
    for function, hop in functions.items():
        target = tree.source(hop.file.path)
        scope = hop.file.scopes[function]
        own = target.at(function)
        if name in scope.bound or not isinstance(own, cst.FunctionDef):
            note = f"{function.name}, which is to be handed {name}, but that is taken: hand it on by hand"
            yield near_miss(target.site(function, note))
            continue
        yield brought(target, own)
    for hop in way:
        source = tree.source(hop.caller.file.path)
        given = text(hop) if hop.caller.node not in functions else name
        if given is None:
            yield near_miss(source.site(hop.call, f"call that is to hand on {name}, but which is not known here"))
        else:
            yield mend(source.site(hop.call, f"{name} handed over"), [_passed(source, hop, name, given)])


def _passed(source: Source, hop: Hop, name: str, text: str) -> Edit:
    """One more argument, by its place where all are given so."""
    arguments = hop.function.args
    count = len(arguments.posonlyargs) + len(arguments.args) - is_bound(hop)
    is_starred = any(isinstance(each, ast.Starred) for each in hop.call.args)
    is_full = len(hop.call.args) == count and not hop.call.keywords and not is_starred
    is_named = not is_full or bool(arguments.kwonlyargs) or arguments.vararg is not None

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.Call)
        value = expression(source, text)
        new = cst.Arg(value, keyword=cst.Name(name), equal=BARE_EQUAL) if is_named else cst.Arg(value)
        args = insert_item(updated.args, len(updated.args), new, enclosed=updated.whitespace_before_args)
        return updated.with_changes(args=args)

    return Edit(source, source.at(hop.call), change)


def parameter_from(text: str) -> Callable[[Source, cst.FunctionDef], Finding]:
    """What brings a function a parameter that is written so, behind its own."""

    def brought(target: Source, function: cst.FunctionDef) -> Finding:
        made = parse_statement(target, f"def made({text}): ...")
        assert isinstance(made, cst.FunctionDef)
        edit = more_parameters(target, function, made.params.params)
        return mend(target.site(function.name, f"parameter of {function.name.value}"), [edit])

    return brought
