"""Recognise training plans: their classes, who holds one, and which one is at hand where a schedule is made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from .matchers import followed
from .members import assignments, attribute, method_of, parameters
from .source import Source

FIELDS = {"rows", "batch_size", "epochs", "extra_steps"}


def plan_classes(source: Source) -> Iterator[cst.ClassDef]:
    for own in source.walk(cst.ClassDef, having=("extra_steps:", "extra_steps :")):
        lines = [line for line in own.body.body if isinstance(line, cst.SimpleStatementLine)]
        fields = [node.target for line in lines for node in line.body if isinstance(node, cst.AnnAssign)]
        if FIELDS <= {field.value for field in fields if isinstance(field, cst.Name)}:
            yield own


@dataclass(frozen=True, slots=True)
class PlanHolder:
    """A class that holds a training plan, in an attribute of its own where it keeps it."""

    source: Source
    own: cst.ClassDef
    plans: set[str]  # the names of plan classes
    kept: str

    def is_plan(self, node: cst.BaseExpression | None) -> bool:
        """Whether an expression is a plan: made of its class, by replace, or the one that is kept."""
        node = followed(self.source, node) if node is not None else None
        if isinstance(node, cst.Name):
            bound = [binding.node for binding in self.source.names.bindings(node.value, node)]
            annotated = [each.annotation for each in bound if isinstance(each, (cst.Param, cst.AnnAssign))]
            return any(note is not None and _mentions(self.source, note, self.plans) for note in annotated)
        if isinstance(node, cst.Call):
            name = self.source.code(node.func).split(".")[-1]
            return name in self.plans or (name == "replace" and bool(node.args) and self.is_plan(node.args[0].value))
        return bool(self.kept) and attribute(self.source, node) == self.kept


def _mentions(source: Source, annotation: cst.Annotation, names: set[str]) -> bool:
    return bool(set(re.findall(r"\w+", source.code(annotation.annotation))) & names)


def plan_holder(source: Source, own: cst.ClassDef, plans: set[str]) -> PlanHolder:
    bare = PlanHolder(source, own, plans, "")
    kept = [
        attribute(source, target)
        for target, value, node in assignments(source, own)
        if (isinstance(node, cst.AnnAssign) and _mentions(source, node.annotation, plans)) or bare.is_plan(value)
    ]
    return PlanHolder(source, own, plans, next(filter(None, kept), ""))


def plan_at(holder: PlanHolder, call: cst.Call) -> tuple[str, str]:
    """The plan of the coming run where a schedule is made, and what is wrong with it."""
    source, method = holder.source, method_of(holder.source, call)
    if method is None:
        return "", "it is made outside of any method"
    local = _localplan_classes(holder, method, call)
    sets = [
        (v, node) for t, v, node in assignments(source, method) if holder.kept and attribute(source, t) == holder.kept
    ]
    to_be_kept = [
        name for name in local if any(isinstance(value, cst.Name) and value.value == name for value, _ in sets)
    ]
    names = to_be_kept or local
    if len(names) > 1:
        return "", f"there are several plans at hand: {', '.join(names)}"
    if names:
        return names[0], ""
    if not holder.kept:
        return "", "no training plan is at hand"
    own = parameters(method)[0].name.value
    uses = [other for other in source.walk(cst.Call, holder.own) if attribute(source, other.func) == method.name.value]
    for use in [call, *uses]:
        around = method_of(source, use)
        for target, _, node in (
            assignments(source, around) if around is not None and around.name.value != "__init__" else ()
        ):
            if attribute(source, target) == holder.kept and source.order[node] > source.order[use]:
                return "", f"the plan is set only behind it: set {own}.{holder.kept} first"
    return f"{own}.{holder.kept}", ""


def _localplan_classes(holder: PlanHolder, method: cst.FunctionDef, call: cst.Call) -> list[str]:
    """The names that stand for a plan, on every way to a call."""
    source = holder.source
    last: dict[str, bool] = {
        param.name.value: param.annotation is not None and _mentions(source, param.annotation, holder.plans)
        for param in parameters(method)
    }
    above = set(source.ancestors(call))
    for target, value, node in assignments(source, method):
        if isinstance(target, cst.Name) and source.order[node] < source.order[call]:
            last[target.value] = source.parents[source.statement(node)] in above and holder.is_plan(value)
    return [name for name, is_plan in last.items() if is_plan]
