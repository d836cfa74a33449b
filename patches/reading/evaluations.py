"""Evaluations: where a run of updates measures a loss from which nothing is learned."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace

from .code import Code, once
from .files import Function
from .frames import Reading
from .names import parameters
from .updates import DEEP, MOST_CALLERS, Update, calls_of, is_in_a_run, is_within, scope_of, update_of, updates_of_runs
from .values import Value

_WITHOUT = ("no_grad", "inference_mode", "set_grad_enabled", "eval")  # what says that nothing is learned
_PARTS = {"attr", "index", "part"}
_LOSS = re.compile("loss|entropy|log_softmax|logsumexp|criteri", re.IGNORECASE)


def evaluations(code: Code) -> Iterator[tuple[Update, list[Update]]]:
    """The losses that runs measure alone, as updates by the call that makes the loss, and the updates of their runs."""
    found: dict[ast.AST, tuple[Update, list[Update]]] = {}
    for update in updates_of_runs(code):
        own = {reading.owner for reading in _scopes(code, update).values()} - {None}
        for reading, region in _without_gradient(code):
            if reading.owner in own or is_in_run_of(code, update, reading.node):
                for each in _measured(code, update, reading, region):
                    of = found.setdefault(each.backward, (each, []))[1]
                    of += [update] * (update not in of)
    return iter(found.values())


@once
def _scopes(code: Code, update: Update) -> dict[ast.AST, Reading]:
    """The scope of an update, and those around that repeat it with an optimizer that it is given, or has."""
    found, pending = dict[ast.AST, Reading](), [update.reading]
    for reading in pending:
        found[reading.node] = reading
        funcs = [each.value["func"] for each in reading.effects if each.kind == "step" and "func" in each.value.args]
        owners = [func["of"].beneath(_PARTS) for func in funcs if func.op == "attr"]
        if isinstance(reading.node, Function) and all(each.op in ("parameter", "self") for each in owners):
            callers = [each for each in calls_of(code, reading.node) if is_in_a_run(code, each[0].file, each[1])]
            pending += [scope_of(code, r.file, call, DEEP) for r, call in callers if r.node not in found]
    return found


def is_in_run_of(code: Code, update: Update, node: ast.AST, depth: int = 0) -> bool:
    """Whether a scope is one of those of an update, or is called from one."""
    if node in _scopes(code, update) or not isinstance(node, Function) or depth > MOST_CALLERS:
        return node in _scopes(code, update)
    return any(is_in_run_of(code, update, caller.node, depth + 1) for caller, _ in calls_of(code, node))


@once
def _without_gradient(code: Code) -> list[tuple[Reading, ast.AST]]:
    """The functions, and the bodies of contexts, that say that they do without a gradient; each with its scope."""
    found: dict[ast.AST, Reading] = {}
    kinds = (ast.withitem, ast.FunctionDef, ast.AsyncFunctionDef)
    for mode in _WITHOUT:
        for file in filter(lambda each: code.is_importable(each.path), code.files.naming(mode)):
            for use in (use for name in {mode, *file.aliases.get(mode, ())} for use in file.uses.get(name, ())):
                around = next((each for each in file.ancestors(use) if isinstance(each, kinds)), file.module)
                region = file.parents[around] if isinstance(around, ast.withitem) else around
                found[region] = scope_of(code, file, region.body[0] if isinstance(region, Function) else region, DEEP)
    return [(reading, region) for region, reading in found.items()]


def _measured(code: Code, update: Update, reading: Reading, region: ast.AST) -> Iterator[Update]:
    """The losses that are made in a region from forwards in it, other than those of updates."""
    learned = {run for each in updates_of_runs(code) for run in each.runs}
    callees = {each["func"].key for each in update.loss.walk() if "func" in each.args} - {update.model.key}
    calls = [each for each in reading.values if isinstance(each, ast.Call) and is_within(reading.file, each, region)]
    losses = {each.key: each for node in calls for each in reading.values[node].walk() if _is_loss(each, callees)}
    last: dict[ast.Call, Update] = {}  # of the losses of one forward
    for loss in losses.values():
        made = [node for node in calls if any(each.key == loss.key for each in reading.values[node].walk())]
        inner = [node for node in made if not any(o is not node and is_within(reading.file, o, node) for o in made)]
        found = update_of(code, reading, inner[0], update.effect, loss)
        runs = tuple(each for each in (found.runs if found else ()) if each in calls and each not in learned)
        if found and runs and (runs[0] not in last or last[runs[0]].backward.lineno <= inner[0].lineno):
            last[runs[0]] = replace(found, runs=runs, learns=False)
    yield from last.values()


def _is_loss(value: Value, callees: set[int]) -> bool:
    """Whether a value is a loss by what computes it."""
    func = value.get("func")
    names = [value.op] if func is None else [value.op, str(func.data).rpartition(".")[2]]
    return any(map(_LOSS.search, names)) or (func is not None and func.key in callees)


def is_at_hand(option: str, here: Reading, there: Reading) -> bool:
    """Whether one scope can read an option as another does."""
    known = _known(here, option)
    return here.node is there.node or (here.file is there.file and known is not None and known is _known(there, option))


def _known(reading: Reading, option: str) -> object:
    """What an option is read from: a class by its self, a function whose parameter it is to be, or a scope."""
    root = re.split(r"[.\[]", option)[0]
    functions = [each for each in (reading.node, *reading.file.ancestors(reading.node)) if isinstance(each, Function)]
    if root == option:
        return functions[-1] if functions else None
    is_own = reading.owner is not None and [each.arg for each in parameters(functions[0].args)[:1]] == [root]
    return reading.owner if is_own else reading.file.scopes[reading.node].owner(root)
