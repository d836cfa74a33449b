"""Log full attention maps in chunked runs only where it is asked for.

Chunked attention keeps memory linear in T, until each layer stitches its windows to a [T, T] map
because full_attn_logging is on by default. With the patch the default is None: off where chunk_size
is set, on elsewhere. An explicit value wins, and the configuration keeps what the user gave.

Contract: fixes. Outputs and random numbers are the same, logged or not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import libcst as cst

from .donor import PARSER, flag_of
from .edits import BARE_EQUAL, expression, insert_item, rewrite
from .matchers import calls_builtin
from .members import parameters
from .source import Source
from .task import Contract, Edit, Finding, Task, mend, mended, near_miss
from .tree import SourceTree

LOGGING, CHUNK = "full_attn_logging", "chunk_size"


def find(tree: SourceTree) -> Iterator[Finding]:
    """The defaults of full_attn_logging, and where it is stored for a forward to read."""
    for source in tree.package(having=rb"full_attn_logging"):
        for function in source.walk(cst.FunctionDef, having=(LOGGING,)):
            params = {param.name.value: param for param in parameters(function)}
            if LOGGING in params and CHUNK in params:
                yield from _default(source, params[LOGGING])
                yield from _settings(tree, source, function, params[CHUNK])
        for call in source.walk(cst.Call, having=PARSER):
            if flag_of(call) == f"--{LOGGING}":
                yield _option(source, call)


def _default(source: Source, param: cst.Param) -> Iterator[Finding]:
    """Make the default None: nobody has said."""
    if param.default is None:
        return
    site = source.site(param, f"default of {LOGGING}")
    if source.code(param.default) == "None":
        yield mended(site)
    elif source.code(param.default) == "True":
        yield mend(site, [Edit(source, param, lambda updated: _optional(source, updated))])
    else:
        yield near_miss(source.site(param, f"default of {LOGGING}, but neither True nor None: make it True first"))


def _optional(source: Source, param: cst.CSTNode) -> cst.CSTNode:
    assert isinstance(param, cst.Param)
    if param.annotation is not None:
        kind = source.code(param.annotation.annotation)
        quoted = f"{kind[:-1]} | None{kind[-1]}" if isinstance(param.annotation.annotation, cst.SimpleString) else ""
        optional = param.annotation.with_changes(annotation=expression(source, quoted or f"{kind} | None"))
        param = param if "None" in kind or "Optional" in kind else param.with_changes(annotation=optional)
    return param.with_changes(default=cst.Name("None"))


def _settings(tree: SourceTree, source: Source, function: cst.FunctionDef, chunk: cst.Param) -> Iterator[Finding]:
    """Resolve None where the value is stored as an attribute; what else is done with it must bear None."""
    if chunk.default is not None and source.code(chunk.default) != "None":
        yield near_miss(source.site(chunk, f"default of {CHUNK}, but not None: say what no chunks are by None first"))
        return
    uses = [use for use in source.uses(function.body) if use.value == LOGGING]
    resolved = [use for use in uses if _is_asked_for_none(source, use)]
    if resolved:
        yield mended(source.site(resolved[0], f"{LOGGING} resolved"))
        return
    for use in uses:
        assign = source.parents[use]
        if isinstance(assign, (cst.Assign, cst.AnnAssign)) and assign.value is use:
            target = assign.targets[0].target if isinstance(assign, cst.Assign) else assign.target
            is_alone = not isinstance(assign, cst.Assign) or len(assign.targets) == 1
            if isinstance(target, cst.Attribute) and is_alone and not _is_read(tree, target.attr.value):
                note = (
                    f"{LOGGING} stored, but nothing reads it: it turns nothing off. Make no map where it is False first"
                )
                yield near_miss(source.site(assign, note))
                continue
            if isinstance(target, cst.Attribute) and is_alone:
                text = f"{CHUNK} is None if {LOGGING} is None else {LOGGING}"
                yield mend(
                    source.site(assign, f"{LOGGING} stored"),
                    [rewrite(source, use, lambda _, text=text: text)],  # type: ignore[misc]
                )
                continue
        if not _is_passed_on(source, use):
            yield near_miss(source.site(use, f"use of {LOGGING} that takes None for False: store it as it is first"))


def _is_read(tree: SourceTree, attribute: str) -> bool:
    """Whether code of the package reads an attribute of this name, of whatever object."""
    files = (tree.code.files.file(source.path) for source in tree.package(having=attribute.encode()))
    nodes = (node for file in files if file is not None for node in ast.walk(file.module))
    return any(isinstance(n, ast.Attribute) and n.attr == attribute and isinstance(n.ctx, ast.Load) for n in nodes)


def _is_asked_for_none(source: Source, use: cst.Name) -> bool:
    parent = source.parents[use]
    return isinstance(parent, cst.Comparison) and source.code(parent).endswith((" is None", " is not None"))


def _is_passed_on(source: Source, use: cst.Name) -> bool:
    """Whether a value is handed to a constructor, or kept in a configuration, as it was given."""
    parent = source.parents[use]
    call = source.parents[parent]
    is_argument = isinstance(parent, cst.Arg) and isinstance(call, cst.Call)
    is_own = is_argument and not any(calls_builtin(source, call, name) for name in ("bool", "int", "print", "setattr"))
    return is_own or isinstance(parent, cst.DictElement)


def _option(source: Source, call: cst.Call) -> Finding:
    """Let the command line leave the value open too."""
    site = source.site(call, f"default of --{LOGGING}")
    given = {argument.keyword.value: argument.value for argument in call.args if argument.keyword is not None}
    default = given.get("default")
    if default is not None and source.code(default) == "None":
        return mended(site)
    if default is not None and source.code(default) == "True":
        return mend(site, [rewrite(source, default, lambda _: "None")])
    if default is None and source.code(given.get("action", call)) in ('"store_true"', "'store_true'"):
        return mend(site, [Edit(source, call, _left_open)])
    return near_miss(source.site(call, f"option --{LOGGING}, but its default is neither True nor None"))


def _left_open(call: cst.CSTNode) -> cst.CSTNode:
    assert isinstance(call, cst.Call)
    new = cst.Arg(keyword=cst.Name("default"), value=cst.Name("None"), equal=BARE_EQUAL)
    return call.with_changes(args=insert_item(call.args, len(call.args), new, enclosed=call.whitespace_before_args))


task = Task(
    number=12,
    slug="attention-logging",
    title="Full attention maps off by default in chunked runs",
    contract=Contract.FIXES,
    summary="full_attn_logging=None is off where chunk_size is set, on elsewhere; an explicit value wins",
    why=__doc__,
    sought="a function with the parameters chunk_size and full_attn_logging=True, and where it stores the latter",
    find=find,
)
