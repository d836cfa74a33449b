"""Defaults of None in place of True: of parameters, fields of data classes, entries of dicts, and options."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import libcst as cst

from ..edits import BARE_EQUAL, insert_item, rewrite
from ..reading.parsers import Flag, settings
from ..reading.settings import Entry, Setting
from ..source import Source
from ..task import Edit, Finding, mend, mended, near_miss
from ..tree import SourceTree

NEITHER = "but its default is neither True nor None: make it True first"


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
