"""Let the user choose the batch size, and count the updates of a run exactly.

The loop cuts the rows in order into micro-batches of 8, and guesses the OneCycle total from the row
count: wrong where the rows do not divide by 8, or where there are extra steps. The patch loads
shuffled micro-batches of `--batch_size` rows, and plans the schedule from the loader's length, extra
steps included, so that each update has its step of the schedule and the last one has its floor.

Contract: fixes, and extends. The schedule ends with the run; the default batch size stays 8.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import libcst as cst

from .donor import definitions, donor
from .editing.options import told
from .edits import insert_before, rewrite, unwrap
from .loops import (
    PLANNED,
    is_update,
    iteration,
    planned_totals,
    schedule_totals,
    scheduling_function,
    steppers,
    strayed,
    taken_name,
    training_function,
    training_loop,
    without_loop,
)
from .matchers import calls_builtin, followed, is_alone, is_inside, is_number, operation, same_code
from .source import Source
from .task import Contract, Edit, Finding, Task, mend, mended, near_miss
from .tree import SourceTree

LOADER, LOADS = "loader", "row_loader"
OPTIONS = ("batch_size", "num_workers")
EXTRA = "extra_steps"
LOADING = ("batch_size", "shuffle", "num_workers", "persistent_workers")
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
    cut = _cut(source, found[0])
    yield from _loaded(source, function, found[0], cut)
    extra = EXTRA if source.names.bindings(EXTRA, function.body.body[0]) else ""
    yield from planned_totals(source, given, scheduling_function(tree, source, reading), extra)
    for guard in source.walk(cst.If, inside=function):
        if "last_epoch" in source.code(guard.test) and is_update(source, guard, steppers(source, function)):
            yield _guarded(source, function, guard)
    size = followed(source, cut.size) if cut is not None else None
    if isinstance(size, cst.Integer):
        given = _with_batch_size(size.evaluated_value)
    for option in told(tree, reading, given, *OPTIONS):
        yield from option.findings
    yield definitions(source, given, LOADS, PLANNED)


def _guarded(source: Source, function: cst.FunctionDef, guard: cst.If) -> Finding:
    """Take the scheduler's step out of a condition that only keeps it from passing its total."""
    test, totals = guard.test, [source.code(total) for total, _ in schedule_totals(source, function)]
    sides = [test.left, test.comparisons[0].comparator] if isinstance(test, cst.Comparison) else []
    operator = test.comparisons[0].operator if isinstance(test, cst.Comparison) else None
    if isinstance(operator, (cst.GreaterThan, cst.GreaterThanEqual)):
        sides.reverse()
    is_limit = isinstance(operator, (cst.LessThan, cst.LessThanEqual, cst.GreaterThan, cst.GreaterThanEqual))
    is_limit = is_limit and len(test.comparisons) == 1 and "last_epoch" in source.code(sides[0])  # type: ignore[attr-defined]
    if not is_limit or source.code(sides[1]) not in totals:
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

    whole: cst.BaseExpression  # what the loop goes through
    rows: cst.BaseExpression
    size: cst.BaseExpression
    slicing: cst.CSTNode | None = None  # the statement that takes the rows of a range's step


def _cut(source: Source, loop: cst.For) -> _Cut | None:
    """`rows.split(8)`, `torch.split(rows, 8)`, a DataLoader of 8, or `rows[start : start + 8]` of a range of 8s."""
    for call in [*source.walk(cst.Call, inside=loop.iter), *_followed_calls(source, loop)]:
        made = operation(source, call)
        size = made.argument(1, "split_size_or_sections") if made is not None and made.name == "split" else None
        dim = made.argument(2, "dim") if made is not None else None
        if made is not None and size is not None:
            is_of_rows = bool(made.operands) and (dim is None or is_number(dim, 0))
            return _Cut(call, made.operands[0], size) if is_of_rows else None
        if made is not None and made.name == "DataLoader":
            size = made.argument(1, "batch_size")
            is_plain = made.keywords.keys() <= {"dataset", *LOADING} and 1 <= len(made.operands) <= 3  # noqa: PLR2004
            return _Cut(call, made.operands[0], size) if size is not None and is_plain else None
    return _sliced(source, loop)


def _followed_calls(source: Source, loop: cst.For) -> Iterator[cst.Call]:
    for use in source.uses(loop.iter):
        value = followed(source, use)
        if isinstance(value, cst.Call):
            yield value


def _sliced(source: Source, loop: cst.For) -> _Cut | None:
    found, first = iteration(source, loop), loop.body.body[0]
    small = first.body[0] if isinstance(first, cst.SimpleStatementLine) and is_alone(first) else None
    if found is None or not calls_builtin(source, found.items, "range") or not isinstance(small, cst.Assign):
        return None
    bounds = [argument.value for argument in found.items.args]  # type: ignore[attr-defined]
    uses = [use for use in source.uses(loop.body) if isinstance(found.item, cst.Name) and use.value == found.item.value]
    cut = small.value.slice[0].slice if isinstance(small.value, cst.Subscript) and len(small.value.slice) == 1 else None
    is_step = isinstance(cut, cst.Slice) and cut.lower is not None and same_code(source, cut.lower, found.item)
    if len(bounds) != 3 or not is_step or any(source.statement(use) is not first for use in uses):  # noqa: PLR2004
        return None
    rows, start, size = source.code(small.value.value), source.code(found.item), source.code(bounds[2])  # type: ignore[attr-defined]
    ends = [f"{start} + {size}", f"{size} + {start}"]
    lengths = [f"len({rows})", f"{rows}.size(0)", f"{rows}.shape[0]"]
    is_whole = is_number(bounds[0], 0) and source.code(bounds[1]) in lengths
    if not is_whole or cut.step is not None or cut.upper is None or source.code(cut.upper) not in ends:  # type: ignore[union-attr]
        return None
    return _Cut(found.items, small.value.value, bounds[2], first)  # type: ignore[attr-defined]


def _loaded(source: Source, function: cst.FunctionDef, loop: cst.For, cut: _Cut | None) -> Iterator[Finding]:
    """Go through a loader of shuffled rows, and take its length for the number of micro-batches."""
    made = [call for call in source.walk(cst.Call, inside=function) if source.code(call.func) == LOADS]
    if made:
        yield mended(source.site(made[0], "loader of shuffled rows"))
        return
    if cut is None or not isinstance(cut.rows, cst.Name):
        problem = "loop over micro-batches, but where the rows are cut cannot be told: go through rows.split(8)"
        yield near_miss(source.site(loop, problem))
        return
    problems = list(dict.fromkeys(_problems(source, function, loop, cut)))
    if problems:
        for problem in problems:
            yield near_miss(source.site(cut.whole, f"micro-batches of a fixed size, but {problem}"))
        return
    site = source.site(cut.whole, "micro-batches of a fixed size")
    loads = f"{LOADS}({source.code(cut.rows)}, {', '.join(OPTIONS)})"
    guesses = list(_guesses(source, function, cut))
    assigned = source.parents[cut.whole]
    if isinstance(assigned, cst.Assign) and isinstance(assigned.targets[0].target, cst.Name):
        name = assigned.targets[0].target.value  # the user's own loader keeps its name
        edits = [rewrite(source, cut.whole, lambda _: loads)]
    elif source.names.is_bound(LOADER, loop):
        yield near_miss(source.site(loop, f"loop over micro-batches, but the name {LOADER} is taken: rename yours"))
        return
    else:
        name = LOADER
        top = [each for each in function.body.body if guesses and is_inside(source, guesses[0], each)]
        outer = next(s for s in function.body.body if is_inside(source, loop, s))
        edits = [insert_before(source, [*top, outer][0], f"{LOADER} = {loads}"), *_through(source, loop, cut)]
    yield mend(site, edits)
    for guess in guesses:
        yield mend(source.site(guess, "guess at the number of micro-batches"), [_counted(source, guess, name)])


def _problems(source: Source, function: cst.FunctionDef, loop: cst.For, cut: _Cut) -> Iterator[str]:
    """Why a loader of shuffled rows could not stand for the rows as they are cut."""
    taken = taken_name(source, function, OPTIONS, [LOADS, PLANNED])
    if taken is not None:
        yield f"line {source.site(taken, '').line} gives a name another meaning that the patch needs: rename it"
    if not isinstance(followed(source, cut.size), cst.Integer) and source.code(cut.size) != OPTIONS[0]:
        yield f"their size is {source.code(cut.size)}: make it a number, or a parameter {OPTIONS[0]}"
    own = source.parents[cut.whole]
    kept = own.targets[0].target if isinstance(own, cst.Assign) else None
    named = [use for use in source.uses(function) if isinstance(kept, cst.Name) and use.value == kept.value]
    reads = [use for use in named if use is not kept]
    iterated = [use for use in reads if is_inside(source, use, loop.iter)]
    if [
        use
        for use in reads
        if use not in iterated and source.code(source.parents[source.parents[use]]) != f"len({use.value})"
    ]:
        yield "they are read elsewhere too, and a loader has no rows to index"
    for node in (cut.whole, *iterated):
        if not _is_wrapped(source, node, loop.iter if node in iterated or kept is None else cut.whole):
            yield "they pass through something that a loader of shuffled rows cannot: go through them alone"
    found = iteration(source, loop)
    counter = loop.target.elements[0].value if found is not None and found.counted else None  # type: ignore[attr-defined]
    if counter is not None and any(use.value == source.code(counter) for use in _indices(source, loop)):
        yield "the loop's counter finds rows by their place, and they come shuffled: zip them into one data set"
    rows = cut.rows
    guesses = list(_guesses(source, function, cut))
    first: cst.CSTNode = guesses[0] if guesses else loop
    top: cst.CSTNode = next(each for each in function.body.body if is_inside(source, first, each))
    top = source.statement(own) if kept is not None else top
    bound = source.names.bindings(rows.value, rows)  # type: ignore[attr-defined]
    late = [b for b in bound if not isinstance(b.node, cst.Param) and source.order[b.node] >= source.order[top]]
    late = [b for b in late if is_inside(source, b.node, function)]
    if late or source.names.bindings(rows.value, top) is not bound or source.parents[top] is not function.body:  # type: ignore[attr-defined]
        yield f"{source.code(rows)} is set too late for a loader that is made once: set it at the top of train_loop"
    if not guesses and not [use for use in reads if use not in iterated]:
        yield (
            f"the total of the schedule does not count them: write len({source.code(rows)}) // {source.code(cut.size)}"
        )


def _indices(source: Source, loop: cst.For) -> Iterator[cst.Name]:
    for element in source.walk(cst.SubscriptElement, inside=loop.body):
        yield from source.uses(element)


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


def _through(source: Source, loop: cst.For, cut: _Cut) -> Iterator[Edit]:
    yield rewrite(source, cut.whole, lambda _: LOADER)
    if cut.slicing is not None:
        found = iteration(source, loop)
        batch = cut.slicing.body[0].targets[0].target  # type: ignore[attr-defined]
        assert found is not None
        yield rewrite(source, found.item, lambda _: source.code(batch))
        yield Edit(source, cut.slicing, lambda _: cst.RemoveFromParent())


def _counted(source: Source, guess: cst.BaseExpression, name: str) -> Edit:
    return rewrite(source, guess, lambda _: f"len({name})")


def _guesses(source: Source, function: cst.FunctionDef, cut: _Cut) -> Iterator[cst.BaseExpression]:
    """The widest expressions that count micro-batches: made of the rows' length and the size, and nothing else."""
    known = {source.code(cut.rows), "len", "max", "min", "int", "math", "ceil", "math.ceil", source.code(cut.size)}
    for length in source.walk(cst.Call, inside=function):
        if (
            not calls_builtin(source, length, "len")
            or not length.args
            or not same_code(source, length.args[0].value, cut.rows)
        ):
            continue
        widest: cst.BaseExpression = length
        for each in source.ancestors(length):
            is_known = isinstance(each, cst.BaseExpression) and {use.value for use in source.uses(each)} <= known
            if is_known and isinstance(each, cst.BaseExpression):
                widest = each
            elif not isinstance(each, cst.Arg):
                break
        sizes = [node for node in source.walk(cst.BaseExpression, inside=widest) if same_code(source, node, cut.size)]  # type: ignore[type-abstract]
        if sizes and not is_inside(source, widest, cut.whole):
            yield widest


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
