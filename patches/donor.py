"""Take from reference/ what a patch inserts, and put it where reference/ has it.

Every insertion follows one total order, the order of reference/, so that the order in which
tasks are applied leaves no trace.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import libcst as cst

from .edits import BARE_EQUAL, expression, in_style_of, insert_after, insert_before, insert_item, neighbours
from .imports import TakenError, import_edits
from .matchers import calls_to
from .places import read_bytes
from .source import Source
from .task import Edit, Finding, mend, mended, near_miss

PARSER = ("add_argument",)
REFERENCE = Path(__file__).resolve().parent.parent / "reference"


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


def parameter(target: Source, given: Source, function: str, name: str) -> Finding:
    """Bring a parameter of a top-level function, with its annotation and default."""
    own, ours = _function(target, function), _function(given, function)
    site = target.site(own.name, f"parameter {name} of {function}")
    if any(param.name.value == name for param in (*own.params.params, *own.params.kwonly_params)):
        return mended(site)
    both = (*ours.params.params, *ours.params.kwonly_params)
    order = [param.name.value for param in both]
    new = next(param for param in both if param.name.value == name)
    section = "kwonly_params" if own.params.kwonly_params else "params"

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.FunctionDef)
        params = getattr(updated.params, section)
        earlier = order[: order.index(name)]
        index = max((i + 1 for i, param in enumerate(params) if param.name.value in earlier), default=len(params))
        bare = (i + 1 for i, param in enumerate(params) if param.default is None and section == "params")
        index = max(index, *bare, 0)  # what has a default comes behind what has none
        params = insert_item(params, index, new, enclosed=updated.whitespace_before_params)
        return updated.with_changes(params=updated.params.with_changes(**{section: params}))

    try:
        return mend(site, [*import_edits(target, given, [new]), Edit(target, own, change)])
    except TakenError as taken:
        return near_miss(taken.site)


def option(target: Source, given: Source, flag: str) -> Iterator[Finding]:
    """Bring a command-line option behind the nearest one before it that the target has; nothing without a parser."""
    own = {flag_of(call): call for call in target.walk(cst.Call, having=PARSER) if flag_of(call)}
    if not own:
        return
    ours = {flag_of(call): call for call in given.walk(cst.Call, having=PARSER) if flag_of(call)}
    if flag in own:
        yield mended(target.site(own[flag], f"option {flag}"))
        return
    order = list(ours)
    before = [other for other in order[: order.index(flag)] if other in own]
    anchor = own[before[-1]] if before else next(iter(own.values()))
    assert isinstance(anchor.func, cst.Attribute)
    statement = given.statement(ours[flag])
    parser = target.code(anchor.func.value)
    text = re.sub(r"^\w+", parser, given.module.code_for_node(statement).strip())
    place = insert_after if before else insert_before
    yield mend(target.site(anchor, f"option {flag}"), [place(target, target.statement(anchor), text)])


def forwarded(target: Source, given: Source, function: str, name: str) -> Iterator[Finding]:
    """Forward a parsed option to a function, in each call that forwards others."""
    for call in calls_to(target, function):
        parsed = next(filter(None, (_namespace(target, argument.value) for argument in call.args)), None)
        if parsed is None:
            continue
        site = target.site(call, f"{name} forwarded to {function}")
        if any(
            argument.star or (argument.keyword is not None and argument.keyword.value == name) for argument in call.args
        ):
            yield mended(site)
            continue
        new = cst.Arg(keyword=cst.Name(name), value=expression(target, f"{parsed}.{name}"), equal=BARE_EQUAL)
        yield mend(site, [Edit(target, call, _with_argument(new, given, function))])


def _with_argument(new: cst.Arg, given: Source, function: str) -> Callable[[cst.CSTNode], cst.CSTNode]:
    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.Call)
        assert new.keyword is not None
        calls = [call for call in given.walk(cst.Call, having=(function,)) if given.code(call.func) == function]
        order = [argument.keyword.value for call in calls for argument in call.args if argument.keyword is not None]
        earlier = order[: order.index(new.keyword.value)]
        places = [
            i + 1 for i, arg in enumerate(updated.args) if arg.keyword is not None and arg.keyword.value in earlier
        ]
        index = max(places, default=len(updated.args))
        return updated.with_changes(args=insert_item(updated.args, index, new, enclosed=updated.whitespace_before_args))

    return change


def _namespace(target: Source, value: cst.BaseExpression) -> str | None:
    """The name of the parsed command line, if a value is one of its options: `args` of `args.epochs`."""
    if not isinstance(value, cst.Attribute) or not isinstance(value.value, cst.Name):
        return None
    bindings = target.names.bindings(value.value.value, value)
    made = bindings[-1].node.value if bindings and isinstance(bindings[-1].node, cst.Assign) else None
    is_method = isinstance(made, cst.Call) and isinstance(made.func, cst.Attribute)
    is_parsed = is_method and made.func.attr.value.startswith("parse_")  # type: ignore[union-attr]
    return value.value.value if is_parsed else None


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
        for use in given.uses(_definition(given, name)):
            is_global = given.names.bindings(use.value, use) is given.names.top_level(use.value)
            if is_global and _defined(given, use.value) and not has_definition(target, use.value):
                pending.append(use.value)
    return wanted


def _defined(source: Source, name: str) -> bool:
    return any(not binding.imported for binding in source.names.top_level(name))


def _definition(source: Source, name: str) -> cst.CSTNode:
    return source.statement(source.names.top_level(name)[-1].node)


def _definition_edits(target: Source, given: Source, wanted: Sequence[str]) -> Iterator[Edit]:
    order = [
        name for part in given.parts for name in ([part.name] if part.name else _names_of(given.opened(part).statement))
    ]
    inserted: dict[tuple[cst.CSTNode, bool], list[cst.CSTNode]] = {}
    for name in sorted(wanted, key=order.index):
        if has_definition(target, name):
            _refuse_other(target, given, name)
            continue
        rank = order.index(name)
        before = [other for other in order[:rank] if _defined(target, other)]
        after = [other for other in order[rank + 1 :] if _defined(target, other)]
        if before:
            place = (_definition(target, before[-1]), True)
        elif after:
            place = (_definition(target, after[0]), False)
        else:
            last = target.module.body[-1]
            place = (last, not isinstance(last, cst.If))  # `if __name__ == "__main__"` stays last
        inserted.setdefault(place, []).append(_definition(given, name))
    for (anchor, behind), nodes in inserted.items():
        yield Edit(target, anchor, neighbours(target, nodes, behind))


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
    own, ours = _definition(target, name), _definition(given, name)
    if own is not ours and not _styled(target, ours).deep_equals(own.with_changes(leading_lines=())):
        raise TakenError(target.site(own, f"another definition of {name}: rename it, or make it that of the reference"))


def _styled(target: Source, node: cst.CSTNode) -> cst.CSTNode:
    return in_style_of(target, node).with_changes(leading_lines=())
