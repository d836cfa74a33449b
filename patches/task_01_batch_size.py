"""Let the user choose the batch size, and count the updates of a run exactly.

The loop cuts the rows in order into micro-batches of 8, and guesses the OneCycle total from the row
count: wrong where the rows do not divide by 8, or where there are extra steps. The patch loads
shuffled micro-batches of `--batch_size` rows, and plans the schedule from the loader's length, extra
steps included, so that each update has its step of the schedule and the last one has its floor.

Contract: fixes, and extends. The schedule ends with the run; the default batch size stays 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from .donor import definitions, donor, forwarded, option, parameter
from .edits import insert_before, rewrite, unwrap
from .loops import PLANNED, function_named, is_update, iteration, planned_totals, steppers, training_loop
from .matchers import calls_builtin, followed, is_alone, operation, same_code
from .source import Source, SourceTree
from .task import Contract, Edit, Finding, Task, mend, mended, near_miss

LOADER, LOADS = "loader", "row_loader"
OPTIONS = ("batch_size", "num_workers")
EXTRA = "extra_steps"


def find(tree: SourceTree) -> Iterator[Finding]:
    """Where micro-batches are cut, where their number is guessed, and where the scheduler's steps stop."""
    source, given = tree.training, donor("bit_transformer/training.py")
    if source is None:
        return
    function = function_named(source, "train_loop")
    found = training_loop(source, function)
    if found is None:
        yield near_miss(source.site(function.name, "train_loop, but without one backward call in a loop"))
        return
    cut = _cut(source, found[0])
    yield from _loaded(source, function, found[0], cut)
    yield from planned_totals(source, given, function, EXTRA)
    for guard in source.walk(cst.If, inside=function):
        if "last_epoch" in source.code(guard.test) and is_update(source, guard, steppers(source, function)):
            yield mend(source.site(guard, "scheduler that stops before the run does"), [unwrap(source, guard)])
    for name in OPTIONS:
        yield parameter(source, given, "train_loop", name)
        yield from option(source, given, f"--{name}")
        yield from forwarded(source, given, "train_loop", name)
    yield definitions(source, given, LOADS, PLANNED)


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
        if made is not None and size is not None:
            return _Cut(call, made.operands[0], size)
        if made is not None and made.name == "DataLoader":
            size = made.argument(1, "batch_size")
            return _Cut(call, made.operands[0], size) if size is not None else None
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
    return _Cut(found.items, small.value.value, bounds[2], first)  # type: ignore[attr-defined]


def _loaded(source: Source, function: cst.FunctionDef, loop: cst.For, cut: _Cut | None) -> Iterator[Finding]:
    """Go through a loader of shuffled rows, and take its length for the number of micro-batches."""
    made = [call for call in source.walk(cst.Call, inside=function) if source.code(call.func) == LOADS]
    if made:
        yield mended(source.site(made[0], "loader of shuffled rows"))
        return
    if cut is None or not isinstance(cut.rows, cst.Name):
        yield near_miss(source.site(loop, "loop over micro-batches, but where the rows are cut cannot be told"))
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
        top = [each for each in function.body.body if guesses and _holds(source, each, guesses[0])]
        outer = next(s for s in function.body.body if _holds(source, s, loop))
        edits = [insert_before(source, [*top, outer][0], f"{LOADER} = {loads}"), *_through(source, loop, cut)]
    yield mend(site, edits)
    for guess in guesses:
        yield mend(source.site(guess, "guess at the number of micro-batches"), [_counted(source, guess, name)])


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


def _holds(source: Source, outer: cst.CSTNode, inner: cst.CSTNode) -> bool:
    return inner is outer or outer in source.ancestors(inner)


def _guesses(source: Source, function: cst.FunctionDef, cut: _Cut) -> Iterator[cst.BaseExpression]:
    """The widest expressions that count micro-batches: made of the rows' length and the size, and nothing else."""
    known = {source.code(cut.rows), "len", "max", "min", "int", "math", "ceil", "math.ceil", source.code(cut.size)}
    for length in source.walk(cst.Call, inside=function):
        if not calls_builtin(source, length, "len") or not same_code(source, length.args[0].value, cut.rows):
            continue
        widest: cst.BaseExpression = length
        for each in source.ancestors(length):
            is_known = isinstance(each, cst.BaseExpression) and {use.value for use in source.uses(each)} <= known
            if is_known and isinstance(each, cst.BaseExpression):
                widest = each
            elif not isinstance(each, cst.Arg):
                break
        sizes = [node for node in source.walk(cst.BaseExpression, inside=widest) if same_code(source, node, cut.size)]  # type: ignore[type-abstract]
        if sizes and not _holds(source, cut.whole, widest):
            yield widest


task = Task(
    number=1,
    slug="batch-size",
    title="Configurable batch size, honest OneCycle accounting",
    contract=Contract.FIXES,
    summary="--batch_size loads shuffled micro-batches; the schedule's total is that of the run",
    why=__doc__,
    sought="a loop of train_loop over rows cut into micro-batches of a fixed size, and the total of its schedule",
    find=find,
)
