"""Let the user choose the batch size, and count the updates of a run exactly.

The loop cuts the rows in order into micro-batches of 8, and guesses the OneCycle total from the row
count: wrong where the rows do not divide by 8, or where there are extra steps. The patch loads
shuffled micro-batches of `--batch_size` rows, and plans the schedule from the loader's length, extra
steps included, so that each update has its step of the schedule and the last one has its floor.

Contract: fixes, and extends. The schedule ends with the run; the default batch size stays 8.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import libcst as cst

from .donor import definitions, donor
from .editing.options import told
from .editing.spelling import spelled
from .editing.spent import spent
from .edits import insert_before, rewrite, unwrap
from .loops import (
    PLANNED,
    is_update,
    iteration,
    planned_totals,
    scheduling_function,
    steppers,
    strayed,
    taken_name,
    training_function,
    training_loop,
    without_loop,
)
from .reading.counts import Cut, counting, cut_of, is_limit, sliced
from .reading.frames import Reading
from .reading.updates import is_within
from .source import Source
from .task import Contract, Edit, Finding, Task, mend, mended, near_miss
from .tree import SourceTree

LOADER, LOADS = "loader", "row_loader"
OPTIONS = ("batch_size", "num_workers")
EXTRA = "extra_steps"
TOTALS = ("total_steps", "T_max")
WRAPPERS = ("enumerate", "list", "tuple", "iter")


def find(tree: SourceTree) -> Iterator[Finding]:
    """Where micro-batches are cut, where their number is guessed, and where the scheduler's steps stop."""
    given, trained = donor("bit_transformer/training.py"), training_function(tree)
    if trained is None:
        yield from strayed(tree)
        return
    source, function, reading = trained
    found = training_loop(source, function)
    if found is None:
        yield from without_loop(source, function)
        return
    loop = next(each for each in ast.walk(reading.node) if isinstance(each, ast.For) and source.at(each) is found[0])
    made = [call for call in source.walk(cst.Call, inside=function) if source.code(call.func) == LOADS]
    cut = _cut(reading, loop) if not made else None
    if made:
        yield mended(source.site(made[0], "loader of shuffled rows"))
    else:
        yield from _loaded(source, reading, function, loop, cut)
    extra = EXTRA if source.names.bindings(EXTRA, function.body.body[0]) else ""
    yield from planned_totals(source, given, scheduling_function(tree, source, reading), extra)
    for guard in source.walk(cst.If, inside=function):
        if "last_epoch" in source.code(guard.test) and is_update(source, guard, steppers(source, function)):
            yield _guarded(source, reading, guard)
    if cut is not None and isinstance(cut.computed.size, int):
        given = _with_batch_size(cut.computed.size)
    for option in told(tree, reading, given, *OPTIONS):
        yield from option.findings
    yield definitions(source, given, LOADS, PLANNED)


def _guarded(source: Source, reading: Reading, guard: cst.If) -> Finding:
    """Take the scheduler's step out of a condition that only keeps it from passing its total."""
    node = next(each for each in ast.walk(reading.node) if isinstance(each, ast.If) and source.at(each) is guard)
    calls = [each for each in ast.walk(reading.node) if isinstance(each, ast.Call)]
    totals = [
        reading.values[k.value]
        for call in calls
        for k in call.keywords
        if k.arg in TOTALS and k.value in reading.values
    ]
    if not any(is_limit(reading.values[node.test], total) for total in totals):
        return near_miss(source.site(guard, "scheduler's step under a condition that is not its total: step it always"))
    return mend(source.site(guard, "scheduler that stops before the run does"), [unwrap(source, guard)])


@cache
def _with_batch_size(rows: int) -> Source:
    """The donor, its default that of the tree: who does not ask for another batch size keeps theirs."""
    given = donor("bit_transformer/training.py")
    text = given.raw.decode().replace("batch_size: int = 8", f"batch_size: int = {rows}")
    text = text.replace('"--batch_size", type=int, default=8', f'"--batch_size", type=int, default={rows}')
    return Source(given.path, text.encode()) if text.encode() != given.raw else given


@dataclass(frozen=True, slots=True)
class _Cut:
    """Where rows are cut into micro-batches of a fixed size."""

    computed: Cut
    whole: ast.expr  # what is replaced by a loader
    rows: ast.Name
    size: str  # as it is written
    counts: Sequence[ast.expr]  # the expressions that count micro-batches, or guess at their number
    kept: ast.Assign | None = None  # the statement at the function's top that gives them a name
    slicing: ast.stmt | None = None  # the statement that takes the rows of a range's step


def _cut(reading: Reading, loop: ast.For) -> _Cut | None:
    """The expression that gives rows in micro-batches, by what it is, or `rows[start : start + 8]` of a range of 8s."""
    cut, slicing = cut_of(reading, loop), None
    if cut is None:
        cut, slicing = sliced(reading, loop) or (None, None)
    if cut is None:
        return None
    named = [each for each in _assigns(reading, cut.node) if each in reading.node.body]  # type: ignore[attr-defined]
    whole = named[-1].value if named else cut.node
    inside = [*_assigns(reading, cut.node), cut.node, *([slicing] if slicing is not None else [])]
    names = [each for outer in inside for each in ast.walk(outer) if isinstance(each, ast.Name)]
    rows = next((each for each in names if each in reading.values and reading.values[each].key == cut.rows.key), None)
    if rows is None:
        return None
    size = str(cut.size) if isinstance(cut.size, int) else spelled(cut.size, reading, loop) or "unknown"
    return _Cut(cut, whole, rows, size, counting(reading, cut, whole), named[-1] if named else None, slicing)


def _assigns(reading: Reading, node: ast.expr) -> list[ast.Assign]:
    """The statements that give a name its value."""
    every = (each for each in ast.walk(reading.node) if isinstance(each, ast.Assign) and len(each.targets) == 1)
    return [each for each in every if isinstance(node, ast.Name) and getattr(each.targets[0], "id", "") == node.id]


def _loaded(
    source: Source, reading: Reading, function: cst.FunctionDef, loop: ast.For, cut: _Cut | None
) -> Iterator[Finding]:
    """Go through a loader of shuffled rows, and take its length for the number of micro-batches."""
    if cut is None:
        problem = "loop over micro-batches, but where the rows are cut cannot be told: go through rows.split(8)"
        yield near_miss(source.site(loop, problem))
        return
    gone = spent(reading, [cut.whole], None) if cut.kept is None else []
    problems = list(dict.fromkeys(_problems(source, reading, function, loop, cut, gone)))
    if problems:
        for problem in problems:
            yield near_miss(source.site(cut.whole, f"micro-batches of a fixed size, but {problem}"))
        return
    loads = f"{LOADS}({cut.rows.id}, {', '.join(OPTIONS)})"
    name = LOADER if cut.kept is None else cut.kept.targets[0].id  # type: ignore[attr-defined]
    edits = [rewrite(source, source.at(cut.whole), lambda _: loads if cut.kept is not None else LOADER)]  # type: ignore[arg-type]
    if cut.kept is None:
        edits.insert(0, insert_before(source, source.at(_top(reading, loop, cut)), f"{LOADER} = {loads}"))
        edits += [Edit(source, source.at(each), lambda _: cst.RemoveFromParent()) for each in gone]
    if cut.slicing is not None:
        batch = cut.slicing.targets[0].id  # type: ignore[attr-defined]
        edits.append(rewrite(source, source.at(loop.target), lambda _: batch))  # type: ignore[arg-type]
        edits.append(Edit(source, source.at(cut.slicing), lambda _: cst.RemoveFromParent()))
    yield mend(source.site(cut.whole, "micro-batches of a fixed size"), edits)
    for guess in cut.counts:
        counted = rewrite(source, source.at(guess), lambda _: f"len({name})")  # type: ignore[arg-type]
        yield mend(source.site(guess, "guess at the number of micro-batches"), [counted])


def _top(reading: Reading, loop: ast.For, cut: _Cut) -> ast.stmt:
    """The statement of the function's own block before which its loader is made."""
    first: ast.AST = [*cut.counts, loop][0]
    body: list[ast.stmt] = reading.node.body  # type: ignore[attr-defined]
    return next(each for each in body if is_within(reading.file, first, each))


def _problems(
    source: Source, reading: Reading, function: cst.FunctionDef, loop: ast.For, cut: _Cut, gone: list[ast.stmt]
) -> Iterator[str]:
    """Why a loader of shuffled rows could not stand for the rows as they are cut."""
    taken, file = taken_name(source, function, OPTIONS, [LOADS, PLANNED]), reading.file
    if taken is not None:
        yield f"line {source.site(taken, '').line} gives a name another meaning that the patch needs: rename it"
    if not isinstance(cut.computed.size, int) and cut.size != OPTIONS[0]:
        yield f"their size is {cut.size}: make it a number, or a parameter {OPTIONS[0]}"
    held = {id(each) for statement in gone for each in ast.walk(statement)}
    names = [each for each in ast.walk(reading.node) if isinstance(each, ast.Name) and id(each) not in held]
    if cut.kept is None and any(each.id == LOADER for each in names if each is not cut.whole):
        yield f"the name {LOADER} is taken: rename yours"
    own = cut.kept.targets[0].id if cut.kept is not None else getattr(cut.computed.node, "id", "")  # type: ignore[attr-defined]
    reads = [each for each in names if each.id == own and isinstance(each.ctx, ast.Load)]
    iterated = [each for each in reads if is_within(file, each, loop.iter)]
    if [each for each in reads if each not in iterated and not _is_counted(reading, each)]:
        yield "they are read elsewhere too, and a loader has no rows to index"
    whole: list[ast.expr] = [*iterated] or [cut.computed.node]
    for node in whole:
        if not _is_wrapped(source, source.at(node), source.at(loop.iter)):
            yield "they pass through something that a loader of shuffled rows cannot: go through them alone"
    found = iteration(source, source.at(loop))  # type: ignore[arg-type]
    counter = (
        loop.target.elts[0] if found is not None and found.counted and isinstance(loop.target, ast.Tuple) else None
    )
    if counter is not None and any(each.id == ast.unparse(counter) for each in names if _is_index(reading, each)):
        yield "the loop's counter finds rows by their place, and they come shuffled: zip them into one data set"
    top, counts = cut.kept or _top(reading, loop, cut), cut.counts
    known = reading.before.get(top, {}).get(cut.rows.id)
    if known is None or known.key != cut.computed.rows.key or top not in reading.node.body:  # type: ignore[attr-defined]
        yield f"{cut.rows.id} is set too late for a loader made once: set it at the top of {function.name.value}"
    if not counts and len(reads) == len(iterated):
        yield f"the total of the schedule does not count them: write len({cut.rows.id}) // {cut.size}"


def _is_counted(reading: Reading, name: ast.Name) -> bool:
    """Whether a name is only asked for its length."""
    call = reading.file.parents[name]
    return isinstance(call, ast.Call) and ast.unparse(call) == f"len({name.id})"


def _is_index(reading: Reading, name: ast.Name) -> bool:
    """Whether a name finds something by its place."""
    around = reading.file.parents[name]
    return isinstance(around, ast.Subscript) and around.slice is name


def _is_wrapped(source: Source, node: cst.CSTNode, outermost: cst.CSTNode) -> bool:
    """Whether what a loop goes through are micro-batches alone, perhaps counted, in a list, or with a progress bar."""
    while node is not outermost:
        argument, call = source.parents[node], source.parents[source.parents[node]]
        if not isinstance(call, cst.Call) or call.args[0] is not argument or argument.star:
            return False
        qualified = source.names.qualified(call.func) or source.code(call.func)
        is_builtin = hasattr(builtins, qualified) and qualified not in WRAPPERS
        if is_builtin or qualified.split(".")[0] in ("itertools", "random", "numpy"):
            return False
        node = call
    return True


task = Task(
    number=1,
    slug="batch-size",
    title="Configurable batch size, honest OneCycle accounting",
    contract=Contract.FIXES,
    summary="--batch_size loads shuffled micro-batches; the schedule's total is that of the run",
    why=__doc__,
    sought="a training loop over rows cut into micro-batches of a fixed size, and the total of its schedule",
    find=find,
)
