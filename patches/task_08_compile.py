"""Compile the model where torch supports it.

`--compile` compiles the model in place, so that checkpoints and scale_up see no wrapper. The rule is
one pure function of the torch version, the Python version and a policy: "strict" wants torch 2.1 or
later and Python below 3.12, "table" goes by what each release of torch supports. Where the answer is
no, one warning says why; where the compiler turns out not to work, training goes on eagerly.

Contract: extends. Without `--compile`, the default, nothing changes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .donor import definitions, donor
from .editing.options import Told, told
from .editing.spelling import spelled
from .edits import insert_after, insert_before
from .reading.compiling import Run, compiled, decided_on_import, run_of
from .reading.updates import strays, updates_of_runs
from .source import Source
from .task import Contract, Finding, State, Task, mend, mended, near_miss
from .tree import SourceTree

OPTIONS, COMPILE = ("compile", "compile_policy"), "compile_where_supported"
HELPERS = ("EagerFallback", "compile_support", "release", "COMPILE_POLICIES", "PYTHON_BELOW")


def find(tree: SourceTree) -> Iterator[Finding]:
    """Where each run has its optimizer and has not yet begun to train, and the way of the options to it."""
    given, updates = donor("bit_transformer/training.py"), updates_of_runs(tree.code)
    for file, node in dict.fromkeys(decided_on_import(tree.code)):
        yield near_miss(
            tree.source(file.path).site(node, "whether to compile is decided by an import: ask where a run begins")
        )
    for file, call, why in strays(tree.code) if not updates else ():
        yield near_miss(tree.source(file.path).site(call, f"backward call, but {why}"))
    runs: dict[tuple[ast.AST, int], Run] = {}
    options: dict[ast.AST, list[Told]] = {}
    for update in updates:
        by_hand = compiled(tree.code, update)
        source = tree.source(by_hand.file.path if by_hand is not None else update.reading.file.path)
        if by_hand is not None and not _is_ours(source, by_hand.node):
            yield mended(source.site(by_hand.node, "torch.compile in an idiom of its own"))  # type: ignore[arg-type]
            continue
        for model in update.models:
            run = run_of(tree.code, update, model)
            if run is None:
                note = "backward call, but where a run begins whose model is called itself cannot be told"
                yield near_miss(source.site(update.backward, note))
            elif (run.reading.node, run.model.key) not in runs:
                runs[run.reading.node, run.model.key] = run
                scope = run.reading.node
                options[scope] = options.get(scope) or told(tree, run.reading, given, *OPTIONS)
                yield from _compiled(tree, run, by_hand is not None, options[scope])
    for brought in (option for each in options.values() for option in each):
        yield from brought.findings
    for path in dict.fromkeys(run.reading.file.path for run in runs.values()):
        yield definitions(tree.source(path), given, COMPILE, *HELPERS)


def _is_ours(source: Source, call: ast.AST) -> bool:
    """Whether a model is compiled by the function that this patch brings, in a file that has it."""
    return (
        isinstance(call, ast.Call)
        and getattr(call.func, "id", "") == COMPILE
        and any(not each.imported for each in source.names.top_level(COMPILE))
    )


def _compiled(tree: SourceTree, run: Run, is_done: bool, options: list[Told]) -> Iterator[Finding]:
    source = tree.source(run.reading.file.path)
    site = source.site(run.at, "model compiled before training" if is_done else "model that is trained as it is")
    model = spelled(run.model, run.reading, run.at)
    if is_done:
        yield mended(site)
    elif model is None:
        yield near_miss(source.site(run.at, "run that begins, but which model it is has no name here: name it"))
    elif (taken := _taken(run, options)) is not None:
        yield near_miss(source.site(taken, "a name that the patch brings has another meaning here: rename it"))  # type: ignore[arg-type]
    else:
        place = insert_after if run.is_behind else insert_before
        text = f"if {options[0].text}:\n    {COMPILE}({model}, {options[1].text})"
        yield mend(site, [place(source, source.at(run.at), text)])


def _taken(run: Run, options: list[Told]) -> ast.AST | None:
    """Where a scope gives a name that is brought another meaning, or has an option of that name for something else."""
    scope, file = run.reading.file.scopes[run.reading.node], run.reading.file
    if any(option.findings[0].state is State.APPLIED for option in options):
        return run.reading.node if isinstance(run.reading.node, ast.stmt) else file.module.body[0]
    for name in (*(each for each, option in zip(OPTIONS, options, strict=True) if option.text == each), COMPILE):
        owner = scope.owner(name)
        if owner is not None and (owner.parent is not None or name != COMPILE):
            return owner.bound[name][0]
    uses = (each for each in ast.walk(run.reading.node) if isinstance(each, ast.Name) and each.id in OPTIONS)
    return next(uses, None) if options[0].text == OPTIONS[0] else None


task = Task(
    number=8,
    slug="compile",
    title="torch.compile where it is supported",
    contract=Contract.EXTENDS,
    summary="--compile compiles the model in place where torch and Python allow it, else says why not",
    why=__doc__,
    sought="a run of training: a backward in a loop over micro-batches, and the model that it is for",
    find=find,
)
