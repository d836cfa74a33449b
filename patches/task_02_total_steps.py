"""Schedule the training plan's own number of updates.

The manager makes its OneCycle schedules for 100 updates, whatever it is asked to train: a shorter run
stops at a high rate, a longer one raises. The patch asks the plan, `plan.updates`, which counts by the
function that the training loop uses; what is trained beyond the plan stays at the floor rate. Where no
object is the plan, it asks what the run on request counts by: the rows, epochs and extra steps kept.

Contract: fixes. A run of any length ends at the schedule's floor, and does not raise.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

import libcst as cst

from .editing.classes import class_of, member
from .editing.donor import definitions, donor
from .editing.imports import seen_from
from .editing.requests import ended, planned_by_run, shared_by_runs
from .editing.schedules import told, told_by_callers
from .reading.files import Function
from .reading.frames import Reading
from .reading.keeping import unstepped, uses_of
from .reading.names import parameters
from .reading.plans import Class, holds, is_end, miscounted, plan_at, plan_classes
from .reading.schedules import Schedule, argument, callers, is_kept, schedules
from .reading.tree import SourceTree
from .reading.values import Value
from .task import Contract, Edit, Finding, State, Task, mend, mended, near_miss

TOTAL, UPDATES, COUNT = "total_steps", "updates", "planned_updates"
FIELDS = {"rows", "batch_size", "epochs", "extra_steps"}
SERVERS = re.compile("dashboard|manager|mcp|server", re.IGNORECASE)


def find(tree: SourceTree) -> Iterator[Finding]:
    """The totals of schedules that are kept between requests, and the steps of those whose manager holds a plan."""
    code, files = tree.code, list(tree.modules(having=rb"\w"))
    plans = plan_classes(code, files, FIELDS)
    made = [each for each in schedules(code, files) if is_kept(code, each) or SERVERS.search(each.reading.file.path)]
    by_runs = list[tuple[Schedule, Finding]]()
    found = [finding for each in made for finding in _planned(tree, each, plans, by_runs)]
    scopes = [(reading, each) for each in made for reading in (each.reading, *(r for r, _ in callers(code, each)))]
    managers = {reading.owner: reading for reading, _ in scopes if holds(code, reading, plans)}
    fixed = {reading.owner for reading, each in scopes if each.is_fixed}
    for owner, reading in managers.items():
        found += _steps(tree, reading, holds(code, reading, plans), is_fixed=owner in fixed)
    yield from (*found, *shared_by_runs(tree, by_runs))
    if any(finding.state is State.MISSING for finding in found):
        for path, plan in plans:
            yield from _count(tree, path, plan)


def _count(tree: SourceTree, path: str, plan: ast.ClassDef) -> Iterator[Finding]:
    """Give the plan its number of updates, by the function that the training loop uses."""
    source = tree.source(path)
    if tree.training is None or tree.training_path is None:
        yield near_miss(source.site(plan, "training plan, but there is no train_loop to share its count with"))
        return
    given = seen_from(tree, source, donor("dashboard/manager.py"), "training", tree.training_path)
    own = source.at(plan)
    assert isinstance(own, cst.ClassDef)
    yield member(source, own, given, class_of(given, "TrainingPlan"), UPDATES)
    yield definitions(tree.training, donor("bit_transformer/training.py"), COUNT)


def _planned(
    tree: SourceTree, made: Schedule, plans: Sequence[Class], by_runs: list[tuple[Schedule, Finding]]
) -> Iterator[Finding]:
    """Give a schedule the plan's number of updates; one without a plan that of the run on request that steps it."""
    code, reading = tree.code, made.reading
    source = tree.source(reading.file.path)
    given = argument(made)
    at = given if given is not None else made.call
    by_run = planned_by_run(tree, made) if made.is_asked else None
    if not made.is_fixed or by_run is not None:
        wrong = miscounted(code, reading, given, plans) if given is not None else ""
        if wrong:
            yield near_miss(source.site(at, f"schedule of a length that is computed, but {wrong}"))
        elif holds(code, reading, plans):
            yield mended(source.site(at, "schedule of a length that is computed"))
        elif (by_run := by_run or planned_by_run(tree, made)) is not None:
            by_runs.append((made, by_run))
            yield by_run
        return
    site = source.site(at, "schedule of a fixed length")
    plan, problem = plan_at(code, reading, made.call, plans)
    lifted = _lifted(tree, made, plans) if problem and not made.obstacle else []
    problem = made.obstacle or (problem if not lifted else "")
    if problem and not made.obstacle and (by_run := planned_by_run(tree, made)) is not None:
        by_runs.append((made, by_run))
        yield by_run
    elif problem := problem or unstepped(code, made):
        yield near_miss(source.site(at, f"{site.note}, but {problem}"))
    else:
        yield mend(site, lifted or [told(tree, made, f"{plan}.{UPDATES}")])


def _lifted(tree: SourceTree, made: Schedule, plans: Sequence[Class]) -> list[Edit]:
    """Let a function without a plan be told the total by its callers, if all of them have one."""
    calls = callers(tree.code, made)
    at_hand = [(caller, call, *plan_at(tree.code, caller, call, plans)) for caller, call in calls]
    if not calls or any(problem for *_, problem in at_hand):
        return []
    told_ = [(each, tree.source(each.file.path).at(call), f"{plan}.{UPDATES}") for each, call, plan, _ in at_hand]
    return list(told_by_callers(tree, made, TOTAL, told_))


def _steps(tree: SourceTree, manager: Reading, kept: str, *, is_fixed: bool) -> Iterator[Finding]:
    """The steps of a manager's schedules, which must not go beyond the plan."""
    for reading, kind, call, tests, problem in uses_of(tree.code, manager):
        source = tree.source(reading.file.path)
        if kind == "load_state_dict":
            yield near_miss(source.site(call, "schedule loaded with the length that it was saved with: leave it new"))
        elif not call.args:
            found = _kept_within(tree, reading, call, kept, tests)
            if problem and found.state is State.MISSING:
                found = near_miss(source.site(call, f"step of the schedule, but {problem}"))
            yield from [found] if is_fixed or found.state is not State.MISSING else []


def _kept_within(tree: SourceTree, reading: Reading, step: ast.Call, kept: str, tests: list[Value]) -> Finding:
    guard = [part.number or 0 for test in tests if is_end(test) for part in test.walk()]
    own = parameters(reading.node.args)[0].arg if isinstance(reading.node, Function) else ""
    return ended(tree, reading.file, step, f"{own}.{kept}.{UPDATES}", guard)


task = Task(
    number=2,
    slug="total-steps",
    title="No hard-coded total_steps",
    contract=Contract.FIXES,
    seam="schedule",
    summary="the dashboard's and MCP server's schedules have as many steps as the plan has updates",
    why=__doc__,
    sought="a number given as the total of a schedule that is kept between requests",
    find=find,
)
