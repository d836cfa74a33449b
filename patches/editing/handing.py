"""Hand what is known in one place down the calls that lead to another, as a parameter of each function on the way."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence

import libcst as cst

from ..reading.origins import Hop, is_bound
from ..reading.parsers import Flag, settings
from ..reading.settings import Entry, Setting
from ..reading.source import Source
from ..reading.tree import SourceTree
from ..task import Edit, Finding, mend, mended, near_miss
from .classes import more_parameters
from .edits import BARE_EQUAL, expression, insert_item, parse_statement, rewrite

NEITHER = "but its default is neither True nor None: make it True first"


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


def left_open(tree: SourceTree, asked: Setting | Flag | Entry) -> Iterator[Finding]:
    """Let nobody have said: a default of None."""
    source = tree.source(asked.file.path)
    if isinstance(asked, Flag):
        yield _option(tree, source, asked)
        return
    default = asked.value if isinstance(asked, Entry) else asked.default
    if default is None:
        return
    name = asked.name if isinstance(asked, Setting) else "entry"
    site, value = source.site(default, f"default of {name}"), tree.code.module(asked.file.path).expr(default)
    if value.is_const(None):
        yield mended(site)
    elif value.is_const(True):
        edits = [rewrite(source, source.at(default), lambda _: "None")]  # type: ignore[arg-type]
        hint = asked.annotation if isinstance(asked, Setting) else None
        if hint is not None and "None" not in ast.unparse(hint) and "Optional" not in ast.unparse(hint):
            edits.append(rewrite(source, source.at(hint), _optional))  # type: ignore[arg-type]
        yield mend(site, edits)
    else:
        yield near_miss(source.site(default, f"default of {name}, {NEITHER}"))


def _optional(kind: str) -> str:
    return f"{kind[:-1]} | None{kind[-1]}" if kind[-1] in "\"'" else f"{kind} | None"


def _option(tree: SourceTree, source: Source, flag: Flag) -> Finding:
    """Let the command line leave the value open too."""
    site = source.site(flag.node, f"default of {flag.texts[0]}")
    given = settings(flag)
    default, action = given.get("default"), ast.unparse(given["action"]).strip("'\"") if "action" in given else ""
    value = tree.code.module(flag.file.path).expr(default) if default is not None else None
    if value is not None and value.is_const(None):
        return mended(site)
    if value is not None and default is not None and value.is_const(True):
        if not isinstance(default, ast.Constant):  # a field's, which is None by now
            return mended(site)
        return mend(site, [rewrite(source, source.at(default), lambda _: "None")])  # type: ignore[arg-type]
    if default is None and action in ("store_true", "store_false") and isinstance(flag.node, ast.Call):
        return mend(site, [Edit(source, source.at(flag.node), _left_open)])
    return near_miss(source.site(flag.node, f"option {flag.texts[0]}, {NEITHER}"))


def _left_open(call: cst.CSTNode) -> cst.CSTNode:
    assert isinstance(call, cst.Call)
    new = cst.Arg(keyword=cst.Name("default"), value=cst.Name("None"), equal=BARE_EQUAL)
    return call.with_changes(args=insert_item(call.args, len(call.args), new, enclosed=call.whitespace_before_args))
