"""Log full attention maps in chunked runs only where it is asked for.

Chunked attention keeps memory linear in T, until each layer stitches its windows to a [T, T] map
because full_attn_logging is on by default. With the patch the default is None: off where chunk_size
is set, on elsewhere. An explicit value wins, and the configuration keeps what the user gave.

Contract: fixes. Outputs and random numbers are the same, logged or not.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from .donor import flag_of
from .edits import BARE_EQUAL, expression, insert_item, rewrite
from .source import Source, SourceTree
from .task import Contract, Edit, Finding, Task, mend, mended, near_miss

LOGGING, CHUNK = "full_attn_logging", "chunk_size"


def find(tree: SourceTree) -> Iterator[Finding]:
    """The defaults of full_attn_logging, and where it is stored for a forward to read."""
    for source in tree.package(having=rb"full_attn_logging"):
        for function in source.walk(cst.FunctionDef):
            params = {param.name.value: param for param in (*function.params.params, *function.params.kwonly_params)}
            if LOGGING in params and CHUNK in params:
                yield from _default(source, params[LOGGING])
                yield from _settings(source, function)
        for call in source.walk(cst.Call):
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
        optional = param.annotation.with_changes(annotation=expression(source, f"{kind} | None"))
        param = param if "None" in kind or "Optional" in kind else param.with_changes(annotation=optional)
    return param.with_changes(default=cst.Name("None"))


def _settings(source: Source, function: cst.FunctionDef) -> Iterator[Finding]:
    """Resolve None where the value is stored as an attribute."""
    for assign in source.walk(cst.Assign, inside=function):
        target, value = assign.targets[0].target, assign.value
        if not isinstance(target, cst.Attribute) or LOGGING not in source.code(value):
            continue
        site = source.site(assign, f"{LOGGING} stored")
        if isinstance(value, cst.Name):
            text = f"{CHUNK} is None if {LOGGING} is None else {LOGGING}"
            yield mend(site, [rewrite(source, value, lambda _, text=text: text)])  # type: ignore[misc]
        elif isinstance(value, cst.IfExp):
            yield mended(site)


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
