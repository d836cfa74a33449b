"""A backward that runs a model again does so under the autocast of its forward."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import partial

import libcst as cst

from ..reading.code import Code
from ..reading.files import File, Function
from ..reading.names import parameters
from ..reading.nodes import walk
from ..reading.tree import SourceTree
from ..task import Edit, Finding, mend, near_miss
from .donor import definitions, donor
from .edits import expression, insert_before, insert_item

_AGAIN = {"enable_grad", "set_grad_enabled"}  # what a backward asks for to run anything again
_REPLAYED = {"autocast", "custom_bwd"}


def replayed(tree: SourceTree) -> Iterator[Finding]:
    """Keep the state of autocast in each forward whose backward runs it again, and enter it where that does so."""
    for file, forward, backward in _recomputing(tree.code):
        source, own = tree.source(file.path), [each.arg for each in parameters(forward.args)]
        saved = [
            each for each in walk(forward) if isinstance(each, ast.Call) and _named(each.func) == "save_for_backward"
        ]
        names = [each.id for call in saved for each in call.args if isinstance(each, ast.Name) and each.id in own]
        again = [
            each
            for each in walk(backward)
            if isinstance(each, ast.With) and _AGAIN & set(map(_named, walk(each.items[-1])))
        ]
        if not names or not again:
            note = "backward that runs its model again, but not how, or where: enter autocast there as its forward did"
            yield near_miss(source.site(backward, note))
            continue
        state, context = "autocast_state", source.names.spelled("torch.autocast") or "torch.autocast"
        new = cst.WithItem(expression(source, f"{context}(**{parameters(backward.args)[0].arg}.autocast)"))
        first = source.at(forward.body[ast.get_docstring(forward) is not None])
        edits = [insert_before(source, first, f"{own[0]}.autocast = {state}({names[0]}.device)")]
        edits += [Edit(source, source.at(each), partial(_entered, new)) for each in again]
        yield mend(source.site(backward, "backward that runs its model again"), edits)
        yield definitions(source, donor("bit_transformer/reversible.py"), state)


def _entered(new: cst.WithItem, node: cst.CSTNode) -> cst.CSTNode:
    assert isinstance(node, cst.With)
    return node.with_changes(items=insert_item(node.items, len(node.items), new, enclosed=node.whitespace_before_colon))


def _recomputing(code: Code) -> Iterator[tuple[File, Function, Function]]:
    """The forward and backward of each autograd function that runs something again, and not under its autocast."""
    for file in filter(lambda each: code.is_importable(each.path), code.files.naming("backward")):
        for backward, owner in file.functions:
            own = {each.name: each for each in getattr(owner, "body", ()) if isinstance(each, Function)}
            kinds = [code.module(file.path).expr(each).data for each in owner.bases] if owner is not None else []
            if backward is own.get("backward") and "forward" in own and "torch.autograd.Function" in kinds:
                called = code.reading(file, backward, owner).calls.values()
                names = {_named(each) for function in (owner, *called) for each in walk(function)}
                if names & _AGAIN and not names & _REPLAYED:
                    yield file, own["forward"], backward


def _named(node: ast.AST) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))
