"""The total of a schedule for a run that is made on request, by what is kept between requests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

import libcst as cst

from ..reading.files import File, Function
from ..reading.nodes import walk
from ..reading.requests import Asked, asked, asks_the_end, may_be_none, miscounted, unplanned, writes
from ..reading.schedules import Schedule, argument, callers
from ..reading.tree import SourceTree
from ..reading.trials import trials
from ..task import Finding, State, mend, mended, near_miss
from .classes import class_of, methods, node_of, put_before
from .donor import definitions, donor
from .edits import move_under
from .imports import TakenError, import_edits, seen_from
from .ranks import TRAINING
from .schedules import told
from .spelling import spelled

TOTAL, COUNT = "total_steps", "planned_updates"
LONGEST = 87  # that stands in a line with what it is told to
_ROLES = {"extra": "extra_steps", "accumulated": "accum_steps"}  # by what they do, what planned_updates calls them


class _NotAtHand(Exception):
    """What a run counts by is not known where its schedule is made."""


def planned_by_run(tree: SourceTree, made: Schedule) -> Finding | None:
    """A schedule's total by the run on request that steps it; nothing where there is no such run."""
    run, reading, given = asked(tree.code, made), made.reading, argument(made)
    if run is None:
        return None
    source, at = tree.source(reading.file.path), given if given is not None else made.call
    if not made.is_fixed or made.is_asked:
        site = source.site(at, "schedule of the length of a run")
        wrong = miscounted(tree.code, made, run) if run.is_counted and "epochs" in run.roles else None
        if wrong:
            return near_miss(source.site(at, f"{site.note}, but {wrong}"))
        return mended(site) if wrong is not None else None
    site = source.site(at, "schedule of a fixed length")
    try:
        text = _total(tree, made, run)
    except _NotAtHand as problem:
        return near_miss(source.site(at, f"{site.note}, but {problem}"))
    if reading.file.scopes[reading.node].is_taken(TOTAL):
        return mend(site, [told(tree, made, text)])
    line = node_of(source, reading.file.statement(made.call))
    return mend(site, [put_before(source, line, f"{TOTAL} = {text}"), told(tree, made, TOTAL)])


def shared_by_runs(tree: SourceTree, schedules: Sequence[tuple[Schedule, Finding]]) -> Iterator[Finding]:
    """What schedules need whose totals are those of runs on request: the count of updates, and steps that end."""
    runs = [run for each, _ in schedules if not each.is_curve and (run := asked(tree.code, each)) is not None]
    files = ((each.reading.file, found.state is State.MISSING) for each, found in schedules)
    for file in dict.fromkeys(file for file, is_missing in files if is_missing or COUNT in file.uses):
        yield from _counted(tree, file)
    for step in dict.fromkeys(step for run in runs for step in run.steps()):
        file = tree.code.files.of(step)
        tests = [each.test for each in file.ancestors(step) if isinstance(each, (ast.If, ast.While))]
        ends = [part for test in tests if asks_the_end(test) for part in walk(test)]
        guard = [each.value if isinstance(getattr(each, "value", None), int) else 0 for each in ends]  # type: ignore[attr-defined]
        yield ended(tree, file, step, f"{file.text(step.func.value)}.{TOTAL}", guard)  # type: ignore[attr-defined]


def _total(tree: SourceTree, made: Schedule, run: Asked) -> str:
    """The updates of the run, as text. Raises _NotAtHand."""
    if "epochs" not in run.roles:
        raise _NotAtHand("how many epochs the run on request makes is not seen")
    if not run.is_counted:
        raise _NotAtHand("the run on request makes other updates than its epochs and rows come to")
    texts = {role: _at_hand(tree, made, run, path) for role, path in run.roles.items()}
    size = texts.get("size", str(run.trial.size))
    more = "".join(f", {name}={texts[role]}" for role, name in _ROLES.items() if role in texts)
    text, key = f"{texts['epochs']}, math.ceil(len({texts['rows']}) / {size}){more}", run.key(run.roles["rows"])
    is_open = key is not None and may_be_none(made, key[0]) and made.number is not None
    unless = f"{made.number} if {texts['rows']} is None else {COUNT}" if is_open else COUNT
    return f"{unless}({text})" if len(unless + text) < LONGEST else f"{unless}(\n    {text}\n)"


def _at_hand(tree: SourceTree, made: Schedule, run: Asked, path: str) -> str:
    """How something that the run counts by is written where the schedule is made."""
    file, found = made.reading.file, run.key(path)
    if found is None:
        home, _, name = path.rpartition(":")
        if not home:
            raise _NotAtHand(f"{name} is told by each request: keep it")
        known = tree.code.module(file.path).env.get(name)
        is_seen = home == file.path or (known is not None and known.op == "import" and known.data == (home, name))
        return name if is_seen else str(run.trial.base.leaves[path])
    if problem := unplanned(tree.code, made, run, *found):
        raise _NotAtHand(problem)
    quote = "'" if file.raw.count(b"'") > file.raw.count(b'"') else '"'
    return (_kept(tree, made, run, found[0]) or run.kept + found[0].replace('"', quote)) + found[1].replace('"', quote)


def _kept(tree: SourceTree, made: Schedule, run: Asked, key: str) -> str | None:
    """How what is kept under a key, or is about to be, is written where the schedule is made, if not by the key."""
    reading, file = made.reading, made.reading.file
    line = file.statement(made.call)
    later = [
        each for each in writes(reading.node) if each[:2] == (run.kept, key) and each.statement.lineno > line.lineno
    ]
    calls = callers(tree.code, made)
    beyond = [
        each
        for caller, call in calls
        for each in writes(caller.node)
        if each.key == key and each.statement.lineno > call.lineno
    ]
    values = [
        value for each in later if each.value is not None and (value := reading.values.get(each.value)) is not None
    ]
    text = next((text for value in values if (text := spelled(value, reading, made.call)) is not None), None)
    is_sure = len(later) <= 1 and all(file.parents[each.statement] is file.parents[line] and text for each in later)
    if beyond or not is_sure:
        raise _NotAtHand(f"{run.kept}{key} is set only behind it: set it first")
    return text


def _counted(tree: SourceTree, file: File) -> Iterator[Finding]:
    """The function that counts updates: where the training loop is, or here where that is in a script."""
    homes = [each.start.file for each in trials(tree.code) if isinstance(each.start.node, Function)]
    known = tree.code.files.file(tree.training_path) if tree.training_path is not None else None
    home = known or (homes[0] if homes else file)
    source = tree.source(file.path)
    if home is not file:
        given = seen_from(tree, source, donor("dashboard/manager.py"), "training", home.path)
        own = next(each for each in methods(class_of(given, "TrainingPlan")) if COUNT in given.code(each))
        try:
            edits = list(import_edits(source, given, [own]))
        except TakenError as taken:
            yield near_miss(taken.site)
            return
        site = source.site(file.module.body[0], f"import of {COUNT}")
        yield mend(site, edits) if edits else mended(site)
    yield definitions(tree.source(home.path), donor(TRAINING), COUNT)


def ended(tree: SourceTree, file: File, step: ast.Call, total: str, guard: Sequence[float]) -> Finding:
    """A step of a schedule, which must not go beyond a total; `guard` are the numbers in what keeps it from that."""
    source = tree.source(file.path)
    site = source.site(step, "step of the schedule, however many updates are planned")
    if guard:
        note = "step of the schedule up to a fixed number: compare with the plan's"
        return near_miss(source.site(step, note)) if any(each > 1 for each in guard) else mended(site)
    line = source.statement(source.at(step))
    is_alone = isinstance(line, cst.SimpleStatementLine) and len(line.body) == 1
    if not is_alone or file.function(step) is None or not isinstance(step.func, ast.Attribute):
        return near_miss(source.site(step, "step of the schedule, but no statement of its own"))
    found = re.search(r"\bif .*last_epoch.*", donor("dashboard/manager.py").raw.decode())
    assert found is not None
    head = found[0].replace("self.scheduler", file.text(step.func.value)).replace("self.plan.updates", total)
    return mend(site, move_under(source, [head], [line]))
