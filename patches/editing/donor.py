"""Take from reference/ what a patch inserts, and put it where reference/ has it.

Every insertion follows one total order, the order of reference/, so that the order in which
tasks are applied leaves no trace.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import libcst as cst

from ..files.places import read_bytes
from ..reading.bindings import globals_of
from ..reading.nodes import at_once
from ..reading.source import Source
from ..task import Edit, Finding, mend, mended, near_miss
from .edits import in_style_of, insert_item, neighbours
from .imports import TakenError, import_edits, is_import, opens
from .ranks import REFERENCE

_DEFINED = (cst.FunctionDef, cst.ClassDef)
PARSER = ("add_argument",)


@cache
def donor(path: str) -> Source:
    """A file of reference/."""
    return Source(path, read_bytes(REFERENCE / path))


def definitions(target: Source, given: Source, *names: str) -> Finding:
    """Bring top-level definitions of reference/ with all that they need: constants, functions, imports.

    A near miss where one of the names already means something else in the target.
    """
    wanted = _closure(target, given, names)
    try:
        missing = [_definition(given, name) for name in wanted if not has_definition(target, name)]
        edits = [*import_edits(target, given, missing), *_definition_edits(target, given, wanted)]
    except TakenError as taken:
        return near_miss(taken.site)
    place = edits[-1].node if edits else _definition(target, names[0])
    site = target.site(place, f"definition of {', '.join(names)}")
    return mend(site, edits) if edits else mended(site)


def parameter(target: Source, given: Source, function: str, name: str, own: cst.FunctionDef | None = None) -> Finding:
    """Bring a parameter of a function of the reference, with its annotation and default, to one of the target.

    Where calls may go by position it comes last, so that none changes its meaning.
    """
    own = own or _function(target, function)
    site = target.site(own.name, f"parameter {name} of {own.name.value}")
    every = (*own.params.posonly_params, *own.params.params, *own.params.kwonly_params)
    if any(param.name.value == name for param in every):
        return mended(site)
    new = parameter_of(given, function, name)
    is_named = bool(own.params.kwonly_params) or isinstance(own.params.star_arg, cst.Param)
    section = "kwonly_params" if is_named else "params"

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.FunctionDef)
        params = getattr(updated.params, section)
        place = place_among(given, function, name, [each.name.value for each in params], in_order=is_named)
        params = insert_item(params, place, new, enclosed=updated.whitespace_before_params)
        return updated.with_changes(params=updated.params.with_changes(**{section: params}))

    try:
        return mend(site, [*import_edits(target, given, [new]), Edit(target, own, change)])
    except TakenError as taken:
        return near_miss(taken.site)


def parameter_of(given: Source, function: str, name: str) -> cst.Param:
    """A parameter of a function of the reference."""
    own = _function(given, function).params
    return next(param for param in (*own.params, *own.kwonly_params) if param.name.value == name)


def place_among(given: Source, function: str, name: str, names: Sequence[str], *, in_order: bool) -> int:
    """Where a parameter of the reference goes among names that a tree has: the same one, whatever came before it.

    In the reference's order it stands behind the last of the tree's own that come before it; else behind them all.
    """
    order = parameters_of(given, function)
    before = _before(given.path, function)
    brought = [each for each in order if each not in before] if before else [name]
    own = [place for place, each in enumerate(names) if each not in brought and each in order[: order.index(name)]]
    place = max(own) + 1 if own and in_order else len(names)
    while not (own and in_order) and place and names[place - 1] in brought:
        place -= 1
    while place < len(names) and names[place] in brought and order.index(names[place]) < order.index(name):
        place += 1
    return place


@cache
def _before(path: str, function: str) -> list[str]:
    """The parameters that a function had before its patches, by the embedded baseline."""
    file = REFERENCE.parent / "baseline" / path
    known = Source(path, read_bytes(file)) if file.exists() else None
    return parameters_of(known, function) if known is not None and has_definition(known, function) else []


def parameters_of(source: Source, function: str) -> list[str]:
    """What the parameters of a function at a file's top are called."""
    own = _function(source, function).params
    return [each.name.value for each in (*own.params, *own.kwonly_params)]


def flag_of(call: cst.Call) -> str:
    """The long flag that an add_argument call adds."""
    if not isinstance(call.func, cst.Attribute) or call.func.attr.value != "add_argument":
        return ""
    texts = [a.value for a in call.args if a.keyword is None and isinstance(a.value, cst.SimpleString)]
    long = [text.raw_value for text in texts if not text.prefix and text.raw_value.startswith("--")]
    return "--" + long[0][2:].replace("-", "_") if long else ""


def _function(source: Source, name: str) -> cst.FunctionDef:
    found = _definition(source, name)
    assert isinstance(found, cst.FunctionDef)
    return found


def has_definition(target: Source, name: str) -> bool:
    """Whether a file defines a name at its top."""
    return bool(target.names.top_level(name))


def _closure(target: Source, given: Source, names: Iterable[str]) -> list[str]:
    """The definitions that are wanted, and those of the reference that they use and the target lacks."""
    wanted: list[str] = []
    pending = list(names)
    while pending:
        name = pending.pop()
        if name in wanted:
            continue
        wanted.append(name)
        used = sorted(globals_of(given.code(_definition(given, name))))
        pending += [each for each in used if is_defined(given, each) and not has_definition(target, each)]
    return wanted


def is_defined(source: Source, name: str) -> bool:
    """Whether a file sets a name at its top, or defines it."""
    return any(not binding.imported for binding in source.names.top_level(name))


def _definition(source: Source, name: str) -> cst.CSTNode:
    return source.opened(source.names.top_level(name)[-1].part).statement


def _definition_edits(target: Source, given: Source, wanted: Sequence[str]) -> Iterator[Edit]:
    order = [
        name for part in given.parts for name in ([part.name] if part.name else _names_of(given.opened(part).statement))
    ]
    inserted: dict[tuple[cst.CSTNode, bool], list[cst.CSTNode]] = {}
    for name in sorted(wanted, key=order.index):
        if has_definition(target, name):
            _refuse_other(target, given, name)
            continue
        rank, new = order.index(name), _definition(given, name)
        alike = [other for other in order if is_defined(target, other) and _is_alike(_definition(target, other), new)]
        before = [other for other in alike if order.index(other) < rank]
        after = [other for other in alike if order.index(other) > rank]
        if before:
            place = (_definition(target, before[-1]), True)
        elif after:
            place = (_definition(target, after[0]), False)
            is_first = place not in inserted and not isinstance(new, _DEFINED)
            new = _set_off(new, 0) if is_first else new  # it takes the blank lines of what it comes before
        else:
            place = _without_neighbours(target, new)
            is_next = place in inserted and not isinstance(new, _DEFINED)  # constants of one task stand together
            new = new if is_next else _set_off(new, 2 if isinstance(new, _DEFINED) else 1)
        used = {each.id for each in at_once(ast.parse(given.code(new))) if isinstance(each, ast.Name)}
        needed = [(_definition(target, each), True) for each in used if is_defined(target, each)]
        needed += [each for each, nodes in inserted.items() if used & {n for node in nodes for n in _names_of(node)}]
        place = max([place, *needed], key=lambda each: (target.order[each[0]], each[1]))
        inserted.setdefault(place, []).append(new)
    for (anchor, behind), nodes in inserted.items():
        yield Edit(target, anchor, neighbours(target, nodes, behind))


def _is_alike(one: cst.CSTNode, other: cst.CSTNode) -> bool:
    """Whether both are constants, or neither is: where the one goes, the other does not, whichever comes first."""
    return isinstance(one, _DEFINED) == isinstance(other, _DEFINED)


def _set_off(definition: cst.CSTNode, count: int) -> cst.CSTNode:
    """A definition with a number of blank lines above it."""
    lines = [line for line in definition.leading_lines if line.comment is not None]  # type: ignore[attr-defined]
    return definition.with_changes(leading_lines=[cst.EmptyLine(indent=False)] * count + lines)


def _without_neighbours(target: Source, definition: cst.CSTNode) -> tuple[cst.CSTNode, bool]:
    """Where a definition without neighbours goes: last, but first if it is a constant, or the file a script."""
    body = list(target.module.body)
    is_script = any(isinstance(each, (cst.For, cst.While, cst.With)) for each in body)
    if is_script or not isinstance(definition, _DEFINED):
        heads = [each for each in body if opens(target, each) or is_import(each)]
        return (heads[-1], True) if heads else (body[0], False)
    return body[-1], not isinstance(body[-1], cst.If)  # `if __name__ == "__main__"` stays last


def _names_of(statement: cst.CSTNode) -> list[str]:
    """The names that a top-level definition gives: none for an import or a bare expression."""
    if isinstance(statement, (cst.FunctionDef, cst.ClassDef)):
        return [statement.name.value]
    if not isinstance(statement, cst.SimpleStatementLine):
        return []
    targets: list[cst.CSTNode] = []
    for small in statement.body:
        if isinstance(small, cst.Assign):
            targets += [target.target for target in small.targets]
        elif isinstance(small, cst.AnnAssign):
            targets.append(small.target)
    return [target.value for target in targets if isinstance(target, cst.Name)]


def _refuse_other(target: Source, given: Source, name: str) -> None:
    """Refuse where the target's own definition of a name is not the one that would be inserted."""
    if is_another(target, given, name):
        own = _definition(target, name)
        raise TakenError(target.site(own, f"another definition of {name}: rename it, or make it that of the reference"))


def is_another(target: Source, given: Source, name: str) -> bool:
    """Whether a file gives a name of the reference another meaning at its top."""
    if not has_definition(target, name):
        return False
    own, ours = (each.with_changes(leading_lines=()) for each in (_definition(target, name), _definition(given, name)))
    return not in_style_of(target, ours).deep_equals(own)
