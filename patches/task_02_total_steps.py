"""Schedule the training plan's own number of updates.

The manager makes its OneCycle schedules for 100 updates, whatever it is asked to train: a shorter run
stops at a high rate, a longer one raises. The patch asks the plan, `plan.updates`, which counts by the
function that the training loop uses; what is trained beyond the plan stays at the floor rate.

Contract: fixes. A run of any length ends at the schedule's floor, and does not raise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from .donor import definitions, donor
from .edits import move_under, rewrite
from .matchers import calls_builtin, elements, followed, is_alone, is_inside, is_method
from .members import assignments, attribute, class_of, member, method_of, parameters, seen_from, shipped
from .plans import PlanHolder, plan_at, plan_classes, plan_holder
from .source import Source
from .task import Contract, Finding, State, Task, mend, mended, near_miss
from .tree import SourceTree

TOTAL, UPDATES, COUNT = "total_steps", "updates", "planned_updates"
SCHEDULES = (TOTAL, "OneCycleLR", "configure_optimizer")
SERVERS = re.compile("dashboard|manager|mcp|server", re.IGNORECASE)


def find(tree: SourceTree) -> Iterator[Finding]:
    """The totals that schedules are made with where a class holds the plan, and the steps of those schedules."""
    plans = [(source, own) for source in shipped(tree, having=rb"extra_steps") for own in plan_classes(source)]
    found: list[Finding] = []
    for source in shipped(tree, having=rb"total_steps|OneCycleLR|configure_optimizer"):
        if source.path != tree.training_path:
            for own in source.walk(cst.ClassDef, having=SCHEDULES):
                found += _of_class(source, own, {plan.name.value for _, plan in plans})
            found += _outside(source)
    yield from found
    if any(finding.state is State.MISSING for finding in found):
        for source, plan in plans:
            yield from _count(tree, source, plan)


def _count(tree: SourceTree, source: Source, plan: cst.ClassDef) -> Iterator[Finding]:
    """Give the plan its number of updates, by the function that the training loop uses."""
    if tree.training is None or tree.training_path is None:
        yield near_miss(source.site(plan.name, "training plan, but there is no train_loop to share its count with"))
        return
    given = seen_from(tree, source, donor("dashboard/manager.py"), "training", tree.training_path)
    yield member(source, plan, given, class_of(given, "TrainingPlan"), UPDATES)
    yield definitions(tree.training, donor("bit_transformer/training.py"), COUNT)


def _outside(source: Source) -> Iterator[Finding]:
    """Fixed totals in functions of a server that belong to no class."""
    for call in source.walk(cst.Call, having=SCHEDULES) if SERVERS.search(source.path) else ():
        total = _total(call)
        if total is not None and source.enclosing(call, cst.ClassDef) is None and _is_fixed(source, None, total):
            yield near_miss(source.site(call, "schedule of a fixed length, but no training plan is at hand"))


def _of_class(source: Source, own: cst.ClassDef, plans: set[str]) -> Iterator[Finding]:
    holder = plan_holder(source, own, plans)
    fixed = False
    for call in source.walk(cst.Call, inside=own):
        total = _total(call)
        if total is None or source.enclosing(call, cst.ClassDef) is not own:
            continue
        if _is_fixed(source, own, total):
            fixed = True
            yield _planned(holder, call, total)
        elif holder.kept:
            yield mended(source.site(total, "schedule of a length that is computed"))
    if holder.kept and fixed:
        yield from _steps(holder)


def _total(call: cst.Call) -> cst.BaseExpression | None:
    """The total that a call gives to a schedule."""
    named = [
        argument.value for argument in call.args if argument.keyword is not None and argument.keyword.value == TOTAL
    ]
    function = call.func.attr if isinstance(call.func, cst.Attribute) else call.func
    place = {"configure_optimizer": 3, "OneCycleLR": 2}.get(getattr(function, "value", ""), len(call.args))
    bare = [argument.value for argument in call.args if argument.keyword is None and not argument.star]
    return next(iter([*named, *bare[place:]]), None)


def _is_fixed(source: Source, own: cst.ClassDef | None, total: cst.BaseExpression) -> bool:
    """Whether a total is a number, by itself, by a constant or a parameter's default, or with a limit that is one."""
    total = followed(source, total)
    if isinstance(total, cst.Name):
        bound = [binding.node for binding in source.names.bindings(total.value, total)]
        return any(isinstance(each, cst.Param) and isinstance(each.default, cst.Integer) for each in bound)
    if calls_builtin(source, total, "max") or calls_builtin(source, total, "min"):
        assert isinstance(total, cst.Call)
        numbers = [followed(source, argument.value) for argument in total.args]
        return any(isinstance(number, cst.Integer) and number.evaluated_value > 1 for number in numbers)
    name = attribute(source, total)
    if name and own is not None:
        values = [value for target, value, _ in assignments(source, own) if _attribute_set(source, target) == name]
        return bool(values) and all(isinstance(value, cst.Integer) for value in values)
    return isinstance(total, cst.Integer)


def _attribute_set(source: Source, target: cst.BaseExpression) -> str:
    in_class = isinstance(target, cst.Name) and source.function(target) is None
    return target.value if isinstance(target, cst.Name) and in_class else attribute(source, target)


def _planned(holder: PlanHolder, call: cst.Call, total: cst.BaseExpression) -> Finding:
    source = holder.source
    site = source.site(total, "schedule of a fixed length")
    plan, problem = plan_at(holder, call)
    value = followed(source, total)
    if isinstance(value, (cst.Call, cst.Name)):
        kind = "limit" if isinstance(value, cst.Call) else "default"
        problem = f"its fixed number is a {kind}: give the plan's number alone"
    if problem:
        return near_miss(source.site(total, f"{site.note}, but {problem}"))
    return mend(site, [rewrite(source, total, lambda _: f"{plan}.{UPDATES}")])


def _steps(holder: PlanHolder) -> Iterator[Finding]:
    """The steps of the manager's schedules, which must not go beyond the plan."""
    source = holder.source
    made = [
        source.enclosing(call, cst.Assign) for call in source.walk(cst.Call, holder.own) if _total(call) is not None
    ]
    targets = [assign.targets[0].target for assign in made if assign is not None]
    schedules = {attribute(source, (elements(target) or [target])[-1]) for target in targets} - {""}
    for call in source.walk(cst.Call, inside=holder.own):
        owner = call.func.value if isinstance(call.func, cst.Attribute) else None
        if owner is None or attribute(source, followed(source, owner)) not in schedules:
            continue
        if is_method(call, "load_state_dict"):
            yield near_miss(source.site(call, "schedule loaded with the length that it was saved with: leave it new"))
        elif is_method(call, "step") and not call.args:
            yield _kept_within(holder, call, owner)


def _kept_within(holder: PlanHolder, step: cst.Call, schedule: cst.BaseExpression) -> Finding:
    source, line = holder.source, holder.source.statement(step)
    site = source.site(step, "step of the schedule, however many updates are planned")
    tests = [each.test for each in source.ancestors(step) if isinstance(each, (cst.If, cst.While))]
    guard = next((test for test in tests if re.search(r"\blast_epoch\b|\btotal", source.code(test))), None)
    method = method_of(source, step)
    if guard is not None:
        numbers = [followed(source, name) for kind in (cst.Name, cst.Integer) for name in source.walk(kind, guard)]
        if any(isinstance(number, cst.Integer) and number.evaluated_value > 1 for number in numbers):
            return near_miss(source.site(guard, "step of the schedule up to a fixed number: compare with the plan's"))
        return mended(site)
    if not is_alone(line) or method is None or not is_inside(source, line, method.body):
        return near_miss(source.site(step, "step of the schedule, but no statement of its own"))
    head = _guard().replace("self.scheduler", source.code(schedule))
    own = parameters(method)[0].name.value
    return mend(site, move_under(source, [head.replace("self.plan", f"{own}.{holder.kept}")], [line]))


def _guard() -> str:
    """The condition that the reference steps its schedule under."""
    found = re.search(rb"\bif .*last_epoch.*", donor("dashboard/manager.py").raw)
    assert found is not None
    return found[0].decode()


task = Task(
    number=2,
    slug="total-steps",
    title="No hard-coded total_steps",
    contract=Contract.FIXES,
    summary="the dashboard's and MCP server's schedules have as many steps as the plan has updates",
    why=__doc__,
    sought="a number given as total_steps in a class that keeps a plan (rows, batch_size, epochs, extra_steps)",
    find=find,
)
