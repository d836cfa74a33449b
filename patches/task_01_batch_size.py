"""Let the user choose the batch size, and count the updates of a run exactly.

The loop cuts the rows in order into micro-batches of 8, and guesses the OneCycle total from the row
count: wrong where the rows do not divide by 8, or where there are extra steps. The patch loads
shuffled micro-batches of `--batch_size` rows, and plans the schedule from the loader's length, extra
steps included, so that each update has its step of the schedule and the last one has its floor.

Contract: fixes, and extends. The schedule ends with the run; the default batch size stays 8.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

from .editing.donor import definitions, donor, is_another
from .editing.edits import rewrite
from .editing.loading import Place, at_hand, loaded, place_for, problems
from .editing.options import Told, taken, told
from .editing.spent import strayed_backwards
from .editing.totals import PLANNED, planned_total, site_of, total_of, unguarded
from .reading.cuts import Cut, cuts, guesses, piece, unsure
from .reading.files import File
from .reading.frames import Reading
from .reading.source import Source
from .reading.tree import SourceTree
from .reading.trials import Trial, trials, unseen
from .reading.updates import DEEP, scope_of, updates_of_runs
from .task import Contract, Finding, State, Task, mend, mended, near_miss

LOADS = "row_loader"
OPTIONS = ("batch_size", "num_workers")
MORE = {"extra": "extra_steps", "accumulated": "accum_steps"}  # by what they do, what planned_updates calls them


def find(tree: SourceTree) -> Iterator[Finding]:
    """Where micro-batches are cut, where their number is guessed, and where the scheduler's steps stop."""
    for trial in trials(tree.code):
        yield from _of_run(tree, trial)
    for file, node in unseen(tree.code):
        problem = "micro-batches of a fixed size, but what they are made of, and how often, is not seen"
        yield near_miss(tree.source(file.path).site(node, problem))  # type: ignore[arg-type]
    for update in updates_of_runs(tree.code) if not trials(tree.code) else ():
        problem = "loop over micro-batches, but where the rows are cut cannot be told: go through rows.split(8)"
        yield near_miss(tree.source(update.reading.file.path).site(update.backward, problem))
    yield from strayed_backwards(tree)


def _of_run(tree: SourceTree, trial: Trial) -> Iterator[Finding]:
    for node in unsure(trial):
        yield near_miss(site_of(tree, node, "condition on which updates depend, but whether it holds is not known"))
    found = cuts(tree.code, trial)
    if len(found) != 1:
        problem = "loop over micro-batches, but where the rows are cut cannot be told: go through rows.split(8)"
        yield near_miss(site_of(tree, piece(trial), problem))
        return
    (cut,) = found
    planned_for = total_of(tree.code, trial, lambda node: at_hand(tree.code, trial, cut, node) is not None)
    counted = [node for node in guesses(trial) if at_hand(tree.code, trial, cut, node) is not None]
    if cut.is_loaded(trial):
        yield mended(site_of(tree, cut.node, "loader of shuffled rows"))
        place = at_hand(tree.code, trial, cut, planned_for or cut.node)
    else:
        place = place_for(tree.code, trial, cut, [node for node in (planned_for, *counted) if node is not None])
    if place is None:
        problem = (
            "micro-batches of a fixed size, but no place is seen where a loader of all their rows could be made once"
        )
        yield near_miss(site_of(tree, cut.node, problem))
        return
    options = dict(zip(OPTIONS, told(tree, _scope(tree, place), _with_batch_size(trial.size), *OPTIONS), strict=True))
    if not cut.is_loaded(trial):
        yield from _loads(tree, trial, cut, place, options)
    for node in counted:
        source = tree.source(tree.code.files.of(node).path)
        edit = rewrite(source, source.at(node), lambda _: f"len({place.name})")  # type: ignore[arg-type]
        yield mend(source.site(node, "guess at the number of micro-batches"), [edit])
    totals = list(planned_total(tree, trial, planned_for, counted, MORE, place.name))
    yield from totals
    yield from unguarded(tree, trial, place.is_near)
    names = [LOADS] if not cut.is_loaded(trial) or _calls(place.file, LOADS) else []
    for option in options.values() if names else ():
        yield from option.findings
    source, given = tree.source(place.file.path), donor("bit_transformer/training.py")
    is_ours = _calls(place.file, PLANNED) and not is_another(source, given, PLANNED)
    names += [PLANNED] if is_ours or any(each.state is State.MISSING for each in totals) else []
    if names:
        yield definitions(source, given, *names)


def _scope(tree: SourceTree, place: Place) -> Reading:
    return scope_of(tree.code, place.file, place.at, DEEP)


def _calls(file: File, name: str) -> bool:
    return any(isinstance(file.parents[each], ast.Call) for each in file.uses.get(name, ()))


@cache
def _with_batch_size(rows: int) -> Source:
    """The donor, its default that of the tree: who does not ask for another batch size keeps theirs."""
    given = donor("bit_transformer/training.py")
    text = given.raw.decode().replace("batch_size: int = 8", f"batch_size: int = {rows}")
    text = text.replace('"--batch_size", type=int, default=8', f'"--batch_size", type=int, default={rows}')
    return Source(given.path, text.encode()) if text.encode() != given.raw else given


def _loads(tree: SourceTree, trial: Trial, cut: Cut, place: Place, options: dict[str, Told]) -> Iterator[Finding]:
    """Go through a loader of shuffled rows, and take its length for the number of micro-batches."""
    note = "micro-batches of a fixed size"
    texts = [options[name].text for name in OPTIONS]
    brought = {name: option for name, option in options.items() if option.findings[0].state is not State.APPLIED}
    found: list[tuple[ast.AST, str]] = [
        (cut.node, f"{note}, but {problem}") for problem in problems(trial, cut, place, texts[0])
    ]
    hidden = taken(_scope(tree, place), brought, [LOADS, PLANNED])
    found += [(node, f"a name that the patch brings has another meaning: {why}") for node, why in hidden]
    yield from (near_miss(site_of(tree, node, problem)) for node, problem in dict.fromkeys(found))
    if found:
        return
    loads = f"{LOADS}({place.rows}, {', '.join(texts)})"
    yield mend(site_of(tree, cut.node, note), loaded(tree, place, cut, loads))


task = Task(
    number=1,
    slug="batch-size",
    title="Configurable batch size, honest OneCycle accounting",
    contract=Contract.FIXES,
    seam="update",
    option="batch_size",
    summary="--batch_size loads shuffled micro-batches; the schedule's total is that of the run",
    why=__doc__,
    sought="a training loop over rows cut into micro-batches of a fixed size, and the total of its schedule",
    find=find,
)
