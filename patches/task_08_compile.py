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
from functools import reduce

from .editing.donor import definitions, donor, is_defined
from .editing.edits import insert_after, insert_before
from .editing.options import Told, taken, told
from .editing.spelling import spelled
from .editing.spent import strayed_backwards
from .reading.compiling import Run, compiled, decided_on_import, run_of, windows
from .reading.frames import Reading
from .reading.nodes import walk
from .reading.source import Source
from .reading.switches import kept_chunks
from .reading.tree import SourceTree
from .reading.updates import updates_of_runs
from .task import Contract, Finding, Task, apart, mend, mended, near_miss

OPTIONS, COMPILE = ("compile", "compile_policy"), "compile_where_supported"
HELPERS = ("EagerFallback", "compile_support", "release", "COMPILE_POLICIES", "PYTHON_BELOW", "leave_windows_eager")
KEPT, KIND = b'getattr(module, "chunk_size", None)', "kind"  # of the reference: what sets a module's chunks


def find(tree: SourceTree) -> Iterator[Finding]:
    """Where each run has its optimizer and has not yet begun to train, and the way of the options to it."""
    given, updates = donor("bit_transformer/training.py"), updates_of_runs(tree.code)
    for file, node in dict.fromkeys(decided_on_import(tree.code)):
        yield near_miss(
            tree.source(file.path).site(node, "whether to compile is decided by an import: ask where a run begins")
        )
    yield from strayed_backwards(tree)
    runs: dict[tuple[ast.AST, int], Run] = {}
    options: dict[ast.AST, list[Told]] = {}
    for update in updates:
        by_hand, wrong = compiled(tree.code, update) or (None, [])
        source = tree.source(by_hand.file.path if by_hand is not None else update.reading.file.path)
        is_ours = by_hand is not None and getattr(getattr(by_hand.node, "func", None), "id", "") == COMPILE
        if by_hand is not None and not (is_ours and is_defined(source, COMPILE)):
            note = "torch.compile in an idiom of its own"
            found = [(tree.source(at.file.path).site(at.node, f"{note}, but {why}")) for at, why in wrong]  # type: ignore[arg-type]
            fine = mended(source.site(by_hand.node, note))  # type: ignore[arg-type]
            yield from apart([by_hand.node], [*map(near_miss, found)] or [fine])
            continue
        for model in update.models:
            run = run_of(tree.code, update, model)
            if run is None:
                note = "backward call, but where a run begins whose model is called itself cannot be told"
                yield from apart([update.backward], [near_miss(source.site(update.backward, note))])
            elif (unit := (run.reading.node, run.model.key)) not in runs:
                runs[unit] = run
                scope = run.reading.node
                options[scope] = options.get(scope) or told(tree, run.reading, given, *OPTIONS)
                yield from apart([unit], _compiled(tree, run, by_hand is not None, options[scope]))
    for scope, every in options.items():
        units = [unit for unit in runs if unit[0] is scope]
        yield from apart(units, (finding for brought in every for finding in brought.findings))
    for path in dict.fromkeys(run.reading.file.path for run in runs.values()):
        units = [unit for unit, run in runs.items() if run.reading.file.path == path]
        yield from apart(units, [_brought(tree, tree.source(path), given)])


def _compiled(tree: SourceTree, run: Run, is_done: bool, options: list[Told]) -> Iterator[Finding]:
    source = tree.source(run.reading.file.path)
    site = source.site(run.at, "model compiled before training" if is_done else "model that is trained as it is")
    model = spelled(run.model, run.reading, run.at)
    if is_done:
        yield mended(site)
    elif model is None:
        yield near_miss(source.site(run.at, "run that begins, but which model it is has no name here: name it"))
    elif (other := _taken(run, options)) is not None:
        yield near_miss(source.site(other, "a name that the patch brings has another meaning here: rename it"))  # type: ignore[arg-type]
    else:
        place = insert_after if run.is_behind else insert_before
        text = f"if {options[0].text}:\n    {COMPILE}({model}, {options[1].text})"
        yield mend(site, [place(source, source.at(run.at), text)])


def _brought(tree: SourceTree, source: Source, given: Source) -> Finding:
    """The functions of the reference, which find what sets a module's chunks where the tree's modules keep it."""
    chunks = list(kept_chunks(tree.code))
    kept = dict.fromkeys(path for _, path in chunks)
    entries = dict.fromkeys(each.reading.node.name for each, _ in chunks)  # type: ignore[attr-defined]
    lost = [each.reading for each, path in chunks if not path or not _is_plain(each.reading) or len(entries) > 1]
    unseen = next(iter(lost if kept else windows(tree.code)), None)
    if unseen is not None:
        note = "attention in chunks, not to be compiled, but in which attribute they are set is not seen: disable that"
        return near_miss(tree.source(unseen.file.path).site(unseen.node, note))  # type: ignore[arg-type]
    nested = (reduce(lambda of, name: f'getattr({of}, "{name}", None)', path.split("."), "module") for path in kept)
    text, entry = " or ".join(nested).encode() or KEPT, f"{KIND}.{next(iter(entries), 'forward')}"
    given = Source(given.path, given.raw.replace(KEPT, text).replace(f"{KIND}.forward".encode(), entry.encode()))
    return definitions(source, given, COMPILE, *HELPERS)


def _is_plain(reading: Reading) -> bool:
    """Whether what cuts windows is a method that another may take the place of in its class."""
    name = reading.node.name  # type: ignore[attr-defined]
    return not reading.node.decorator_list and not name.startswith("__")  # type: ignore[attr-defined]


def _taken(run: Run, options: list[Told]) -> ast.AST | None:
    """The first name of this scope that means something else than what is brought; the builtin compile is one."""
    found = taken(run.reading, dict(zip(OPTIONS, options, strict=True)), [COMPILE])
    uses = (each for each in walk(run.reading.node) if isinstance(each, ast.Name) and each.id in OPTIONS)
    node = next((node for node, _ in found), None)
    return next(uses, None) if node is None and options[0].text == OPTIONS[0] else node


task = Task(
    number=8,
    slug="compile",
    title="torch.compile where it is supported",
    contract=Contract.EXTENDS,
    seam="update",
    option="compile",
    summary="--compile compiles the model in place where torch and Python allow it, else says why not",
    why=__doc__,
    sought="a run of training: a backward in a loop over micro-batches, and the model that it is for",
    find=find,
)
