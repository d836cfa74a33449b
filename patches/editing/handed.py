"""Hand what a loop has down to a function that it calls: as parameters of it, and as arguments of the one call."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import libcst as cst

from ..reading.code import Code
from ..reading.files import Function, is_test
from ..reading.frames import Reading
from ..reading.source import Source
from ..reading.tree import SourceTree
from ..reading.turns import Turn
from ..reading.updates import aliases_of, is_within, may_be_it, scope_of, updates_of_runs
from ..task import Edit
from .edits import BARE_EQUAL, expression, insert_item

Obstacle = tuple[Reading, ast.AST, str]  # the scope, the node, and what is wrong with it


def hand_down(
    tree: SourceTree, turn: Turn, needed: Mapping[str, Reading], defaults: Mapping[str, str]
) -> tuple[list[Edit], list[Obstacle], bool]:
    """Hand names of a loop's scope down its way, each to the scope that needs it; says whether they may be missing.

    What is called elsewhere too, but in no run, has defaults; other uses are obstacles.
    """
    scopes = [each.reading for each in turn.levels]
    until = {name: scopes.index(reading) for name, reading in needed.items()}
    runs = {each.reading.node for each in updates_of_runs(tree.code)}
    edits, obstacles, is_shared = list[Edit](), list[Obstacle](), False
    for place, inner in enumerate(scopes[1 : max(until.values()) + 1], 1):
        caller, names = turn.levels[place - 1], [name for name, last in until.items() if place <= last]
        others = list(other_uses(tree.code, inner, caller.node))
        note = f"{getattr(inner.node, 'name', '')}, which its loop is to give {names[0]}, is used elsewhere too"
        bound = [each for each in others if not is_call(*each) or each[0].node in runs or inner.node in runs]
        obstacles += [(scope, node, f"{note}: call it there alone") for scope, node in bound]
        is_shared = is_shared or bool(others)
        edits += _handed(
            tree, caller.reading, caller.node, inner, {name: defaults[name] if others else "" for name in names}
        )
    return edits, obstacles, is_shared


def is_call(scope: Reading, node: ast.AST) -> bool:
    """Whether a use of a function is a call of it."""
    call = scope.file.parents[node]
    return isinstance(call, ast.Call) and call.func is node


def _handed(
    tree: SourceTree, caller: Reading, call: ast.Call, called: Reading, names: Mapping[str, str]
) -> Iterator[Edit]:
    source, target = tree.source(caller.file.path), tree.source(called.file.path)
    assert isinstance(called.node, Function)
    own = called.node.args
    by_name = bool(own.kwonlyargs or own.defaults or own.vararg or own.kwarg)
    by_name = by_name or bool(call.keywords) or any(isinstance(each, ast.Starred) for each in call.args)
    yield Edit(target, target.at(called.node), lambda node: _with_parameters(target, node, names, by_name=by_name))
    yield Edit(source, source.at(call), lambda node: _with_arguments(node, list(names), by_name=by_name))


def _with_parameters(target: Source, node: cst.CSTNode, names: Mapping[str, str], *, by_name: bool) -> cst.CSTNode:
    assert isinstance(node, cst.FunctionDef)
    own = node.params
    section = "kwonly_params" if by_name else "params"
    items = list(getattr(own, section))
    for name, default in names.items():
        made = {"default": expression(target, default), "equal": BARE_EQUAL} if default else {}
        new = cst.Param(cst.Name(name), star="", **made)  # type: ignore[arg-type]
        items = insert_item(items, len(items), new, enclosed=node.whitespace_before_params)
    changes: dict[str, object] = {section: items}
    if by_name and not own.kwonly_params and not isinstance(own.star_arg, cst.Param):
        changes["star_arg"] = cst.ParamStar()
    return node.with_changes(params=own.with_changes(**changes))


def _with_arguments(node: cst.CSTNode, names: Sequence[str], *, by_name: bool) -> cst.CSTNode:
    assert isinstance(node, cst.Call)
    args = list(node.args)
    for name in names:
        named: dict[str, Any] = {"keyword": cst.Name(name), "equal": BARE_EQUAL} if by_name else {}
        args = insert_item(args, len(args), cst.Arg(cst.Name(name), **named), enclosed=node.whitespace_before_args)
    return node.with_changes(args=args)


def other_uses(code: Code, called: Reading, call: ast.Call) -> Iterator[tuple[Reading, ast.AST]]:
    """Where else a function may be used than in its one call, with the scope of that."""
    assert isinstance(called.node, Function)
    for name in aliases_of(code, called.node.name):
        for file in code.files.naming(name):
            for node in file.uses.get(name, ()) if not is_test(file.path) else ():
                scope = scope_of(code, file, node)
                if node is not call.func and not is_within(file, node, called.node) and _may_be(scope, called, node):
                    yield scope, node


def _may_be(scope: Reading, called: Reading, node: ast.AST) -> bool:
    """Whether a name or an attribute may stand for a function."""
    name, value = getattr(called.node, "name", ""), scope.values.get(node)
    if called.file.owner(called.node) is not None:  # type: ignore[arg-type]
        return isinstance(node, ast.Attribute)
    if isinstance(node, ast.Attribute):
        return value is not None and value.op == "function" and value.data[1] is called.node
    is_near = scope.file is called.file or any(each.endswith(f".{name}") for each in scope.file.imports)
    return is_near and may_be_it(scope.file, node)
