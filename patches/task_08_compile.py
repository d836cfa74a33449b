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
from .loops import function_named, outermost_loop, taken_name, trained_model, training_loop, without_loop
from .matchers import operations
from .source import Source
from .task import Contract, Finding, Task, mend, mended, near_miss
from .tree import SourceTree

OPTIONS, COMPILE = ("compile", "compile_policy"), "compile_where_supported"
HELPERS = ("EagerFallback", "compile_support", "release", "COMPILE_POLICIES", "PYTHON_BELOW")


def find(tree: SourceTree) -> Iterator[Finding]:
    """Where train_loop has its optimizer and not yet begun to train, and the way of the options to it."""
    source, given = tree.training, donor("bit_transformer/training.py")
    if source is None:
        return
    function = function_named(source, "train_loop")
    found = training_loop(source, function)
    if found is None:
        yield from without_loop(source, function)
        return
    model = trained_model(source, function)
    if model is None:
        yield near_miss(source.site(function.name, "train_loop, but which parameter is the model cannot be told"))
        return
    if COMPILE not in {use.value for use in source.uses()}:
        by_hand = [made.call for made in operations(source, "compile") if _compiles(source, made.call, model)]
        if by_hand:
            yield mended(source.site(by_hand[0], "torch.compile in an idiom of its own"))
            return
        taken = taken_name(source, function, OPTIONS, [COMPILE]) or _used(source, function)
        if taken is not None:
            yield near_miss(source.site(taken, "a name that the patch gives train_loop has another meaning: rename it"))
            return
    yield _compiled(source, function, outermost_loop(source, found[0]), model)
    for name in OPTIONS:
        yield parameter(source, given, "train_loop", name)
        yield from option(source, given, f"--{name}")
        yield from forwarded(source, given, "train_loop", name)
    yield definitions(source, given, COMPILE, *HELPERS)


def _compiles(source: Source, call: cst.Call, model: str) -> bool:
    return source.names.qualified(call.func) == "torch.compile" or source.code(call.func) == f"{model}.compile"


def _used(source: Source, function: cst.FunctionDef) -> cst.CSTNode | None:
    """Where train_loop means the builtin compile, or has an option of that name for something else."""
    every = function.params
    params = [*every.posonly_params, *every.params, *every.kwonly_params]
    own = [param for param in params if param.name.value in OPTIONS]
    return next((use for use in source.uses(function.body) if use.value in OPTIONS), own[0] if own else None)


def _compiled(source: Source, function: cst.FunctionDef, loop: cst.For | cst.While, model: str) -> Finding:
    for call in source.walk(cst.Call, inside=function):
        if source.code(call.func) == COMPILE:
            return mended(source.site(call, "model compiled before training"))
    text = f"if {OPTIONS[0]}:\n    {COMPILE}({model}, {OPTIONS[1]})"
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
