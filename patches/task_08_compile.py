"""Compile the model where torch supports it.

`--compile` compiles the model in place, so that checkpoints and scale_up see no wrapper. The rule is
one pure function of the torch version, the Python version and a policy: "strict" wants torch 2.1 or
later and Python below 3.12, "table" goes by what each release of torch supports. Where the answer is
no, one warning says why; where the compiler turns out not to work, training goes on eagerly.

Contract: extends. Without `--compile`, the default, nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from .donor import definitions, donor, forwarded, option, parameter
from .edits import insert_after, insert_before
from .loops import function_named, outermost_loop, training_loop
from .matchers import is_method, operations
from .source import Source, SourceTree
from .task import Contract, Finding, Task, mend, mended, near_miss

OPTIONS, COMPILE = ("compile", "compile_policy"), "compile_where_supported"


def find(tree: SourceTree) -> Iterator[Finding]:
    """Where train_loop has its optimizer and not yet begun to train, and the way of the options to it."""
    source, given = tree.training, donor("bit_transformer/training.py")
    if source is None:
        return
    function = function_named(source, "train_loop")
    found = training_loop(source, function)
    if found is None:
        yield near_miss(source.site(function.name, "train_loop, but without one backward call in a loop"))
        return
    by_hand = [
        made.call for made in operations(source, "compile") if source.names.qualified(made.call.func) == "torch.compile"
    ]
    if by_hand and COMPILE not in {use.value for use in source.uses()}:
        yield mended(source.site(by_hand[0], "torch.compile in an idiom of its own"))
        return
    yield _compiled(source, function, outermost_loop(source, found[0]))
    for name in OPTIONS:
        yield parameter(source, given, "train_loop", name)
        yield from option(source, given, f"--{name}")
        yield from forwarded(source, given, "train_loop", name)
    yield definitions(source, given, COMPILE)


def _compiled(source: Source, function: cst.FunctionDef, loop: cst.For) -> Finding:
    for call in source.walk(cst.Call, inside=function):
        if source.code(call.func) == COMPILE or is_method(call, "compile"):
            return mended(source.site(call, "model compiled before training"))
    text = f"if {OPTIONS[0]}:\n    {COMPILE}({function.params.params[0].name.value}, {OPTIONS[1]})"
    made = [
        statement
        for statement in function.body.body
        if isinstance(statement, cst.SimpleStatementLine) and "configure_optimizer(" in source.code(statement)
    ]
    edit = insert_after(source, made[-1], text) if made else insert_before(source, loop, text)
    return mend(source.site(made[-1] if made else loop, "model that is trained as it is"), [edit])


task = Task(
    number=8,
    slug="compile",
    title="torch.compile where it is supported",
    contract=Contract.EXTENDS,
    summary="--compile compiles the model in place where torch and Python allow it, else says why not",
    why=__doc__,
    sought="a function train_loop with one backward call in a loop",
    find=find,
)
