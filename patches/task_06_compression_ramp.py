"""Raise the share of compressed micro-batches along half a cosine.

A model that has learned nothing yet gets half of its micro-batches run-length encoded. With the
patch the probability rises from 0 to compress_prob over `--warmup_steps` optimizer updates, and the
draws come from a generator of their own, so that they shift no other random numbers.

A run has one clock: where train_loop is called in rounds, each goes on from the updates of those before.

Contract: fixes. From warmup_steps on, the probability is what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import libcst as cst

from .donor import definitions, donor, parameter
from .editing.options import told
from .edits import BARE_EQUAL, insert_after, insert_before, insert_item, rewrite
from .loops import (
    CLOCK,
    optimizer_step,
    outermost_loop,
    strayed,
    taken_name,
    training_function,
    training_loop,
    without_loop,
)
from .matchers import is_method
from .members import shipped
from .source import Source
from .task import Contract, Edit, Finding, Task, mend, mended, near_miss
from .tree import TRAIN_LOOP, SourceTree

RAMP, PROBABILITY, RAMPED, WARMUP = "cosine_ramp", "compress_prob", "ramped_prob", "warmup_steps"
DRAWS, DRAW = "draws", "draw"
READ = (
    cst.Comparison,
    cst.ComparisonTarget,
    cst.Arg,
    cst.BinaryOperation,
    cst.UnaryOperation,
    cst.FormattedStringExpression,
)
TESTED = (cst.If, cst.IfExp, cst.While, cst.BooleanOperation, cst.UnaryOperation)
UNIFORM = ("random.random", "torch.rand", "numpy.random.rand", "numpy.random.random")


def find(tree: SourceTree) -> Iterator[Finding]:
    """Where the loop uses the probability, where it draws, and where an update ends."""
    given, trained = donor("bit_transformer/training.py"), training_function(tree)
    if trained is None:
        yield from strayed(tree)
        return
    source, function, reading = trained
    found = training_loop(source, function)
    if found is None:
        yield from without_loop(source, function)
        return
    step = optimizer_step(source, found[0])
    if step is None:
        yield near_miss(source.site(found[0], "loop over micro-batches, but what steps the optimizer cannot be told"))
        return
    calls = [call for call in source.walk(cst.Call, inside=found[0]) if source.code(call.func) == RAMP]
    if calls:
        yield mended(source.site(calls[0], "probability on a ramp"))
    else:
        yield from _ramped(source, function, found[0], step)
    for option in told(tree, reading, given, WARMUP):
        yield from option.findings
    yield parameter(source, given, TRAIN_LOOP, CLOCK, function)
    yield definitions(source, given, RAMP)
    yield from _one_clock(tree, source, function)


def _ramped(source: Source, function: cst.FunctionDef, loop: cst.For, step: cst.Call) -> Iterator[Finding]:
    uses = [use for use in source.uses(loop.body) if use.value == PROBABILITY]
    generator, seed = source.names.spelled("random.Random"), source.names.spelled("random.getrandbits")
    taken = [name for name in (RAMPED, DRAWS, CLOCK, WARMUP) if source.names.is_bound(name, loop)]
    hidden = taken_name(source, function, inserted=[RAMP, "random" if generator is None else generator.split(".")[0]])
    line = source.statement(step)
    problems = {
        f"no use of {PROBABILITY} in it": not uses,
        f"the name {', '.join(taken)} is taken: rename yours": bool(taken),
        f"{source.code(hidden) if hidden is not None else ''} gives a name another meaning that the patch needs: "
        "rename it": hidden is not None,
        f"{PROBABILITY} is set in it: take its own schedule out": not all(
            isinstance(source.parents[use], READ) for use in uses
        ),
        "the optimizer's step is on the line of a condition: give it a line of its own": not isinstance(
            line, cst.SimpleStatementLine
        ),
        "random is not imported by a name: import random": generator is None or seed is None,
    }
    found = [problem for problem, is_so in problems.items() if is_so]
    if found:
        for problem in found:
            yield near_miss(source.site(loop, f"loop over micro-batches, but {problem}"))
        return
    draws = list(_own_draws(source, uses))
    first = next(s for s in loop.body.body if any(s in source.ancestors(use) for use in uses))
    ramp = f"{RAMPED} = {RAMP}({CLOCK}, start=0.0, end={PROBABILITY}, total_steps={WARMUP})"
    outer = outermost_loop(source, loop)
    edits = [
        insert_before(source, first, ramp),
        *(rewrite(source, use, lambda _: RAMPED) for use in uses),
        insert_before(source, outer, f"{DRAWS} = {generator}({seed}(64))"),
        insert_after(source, line, f"{CLOCK} += 1"),
    ]
    yield mend(source.site(first, f"micro-batches compressed with a probability that is always {PROBABILITY}"), edits)
    yield from draws


def _own_draws(source: Source, uses: list[cst.Name]) -> Iterator[Finding]:
    """Draw from a generator of its own: here, or in the function that is given the probability."""
    inside = [node for use in uses for node in source.ancestors(use) if isinstance(node, cst.Comparison)]
    drawn = [draw for comparison in inside for draw in _uniform(source, comparison)]
    if drawn:
        for draw in drawn:
            yield mend(
                source.site(draw, "draw from a generator that others use"),
                [rewrite(source, draw, lambda _: f"{DRAWS}.random()")],
            )
        return
    for use in uses:
        call = source.enclosing(use, cst.Call)
        helper = source.names.top_level(source.code(call.func)) if call is not None else []
        function = helper[-1].node if helper and isinstance(helper[-1].node, cst.FunctionDef) else None
        drawn = list(_uniform(source, function)) if function is not None else []
        if call is None or function is None or not drawn:
            yield near_miss(source.site(use, f"use of {PROBABILITY}, but no draw that it is compared with"))
            return
        if len(function.params.params) + len(function.params.kwonly_params) != len(call.args) or _has_stars(function):
            yield near_miss(
                source.site(call, "call of a function that draws, but of other parameters: hand it the draws by hand")
            )
            return
        yield mend(source.site(call, "draws handed over"), [Edit(source, call, _handing)])
        yield from _drawing(source, function, drawn)


def _uniform(source: Source, inside: cst.CSTNode) -> Iterator[cst.Call]:
    """The draws of one uniform number: random.random(), torch.rand(1).item(), a torch.rand(1) tested at once."""
    for call in source.walk(cst.Call, inside=inside):
        inner = call.func.value if is_method(call, "item") else call  # type: ignore[attr-defined]
        if not isinstance(inner, cst.Call) or source.names.qualified(inner.func) not in UNIFORM:
            continue
        around = source.parents[source.parents[inner]]
        is_tensor = source.names.qualified(inner.func) == "torch.rand" and inner is call
        is_tested = isinstance(source.parents[inner], (cst.Comparison, cst.ComparisonTarget))
        comparison = source.enclosing(inner, cst.Comparison)
        is_tested = is_tested and comparison is not None and isinstance(source.parents[comparison], TESTED)
        is_one = [source.code(argument) for argument in inner.args] in ([], ["1"], ["()"], ["[]"], ["(1,)"])
        if is_one and (is_tested or not is_tensor) and not (inner is call and is_method(around, "item")):
            yield call


def _has_stars(function: cst.FunctionDef) -> bool:
    params = function.params
    return isinstance(params.star_arg, cst.Param) or params.star_kwarg is not None or bool(params.posonly_params)


def _handing(call: cst.CSTNode) -> cst.CSTNode:
    assert isinstance(call, cst.Call)
    named = any(argument.keyword is not None for argument in call.args)
    value = cst.Attribute(cst.Name(DRAWS), cst.Name("random"))
    new = cst.Arg(value, keyword=cst.Name(DRAW), equal=BARE_EQUAL) if named else cst.Arg(value)
    return call.with_changes(args=insert_item(call.args, len(call.args), new, enclosed=call.whitespace_before_args))


def _drawing(source: Source, function: cst.FunctionDef, drawn: list[cst.Call]) -> Iterator[Finding]:
    """Give a function the generator to draw from."""
    given = donor("bit_transformer/training.py")
    yield (
        parameter(source, given, "draw_form", DRAW)
        if function.name.value == "draw_form"
        else near_miss(
            source.site(function.name, "function that draws, but not called draw_form: hand it the draws by hand")
        )
    )
    for draw in drawn:
        yield mend(
            source.site(draw, "draw from a generator that others use"), [rewrite(source, draw, lambda _: f"{DRAW}()")]
        )


def _one_clock(tree: SourceTree, source: Source, function: cst.FunctionDef) -> Iterator[Finding]:
    """Callers that train in rounds: each round starts at the updates that the one before has returned."""
    name = function.name.value
    rounds = [(caller, call) for caller in shipped(tree, having=name.encode()) for call in _in_rounds(caller, name)]
    record = _record(source, function)
    for caller, call in rounds:
        yield _started(caller, call, record is not None, [other for _, other in rounds if other is not call])
    if rounds and record is not None:
        site = source.site(record, "record of an epoch")
        key = cst.DictElement(cst.SimpleString(f'"{CLOCK}"'), cst.Name(CLOCK))
        has_key = any(isinstance(each, cst.DictElement) and _text(each.key) == CLOCK for each in record.elements)
        yield mended(site) if has_key else mend(site, [Edit(source, record, _appended("elements", key))])


def _in_rounds(caller: Source, called: str) -> Iterator[cst.Call]:
    for call in caller.walk(cst.Call):
        name = caller.names.qualified(call.func) or caller.code(call.func)
        if name.split(".")[-1] == called and caller.enclosing(call, cst.For, cst.While) is not None:
            yield call


def _record(source: Source, function: cst.FunctionDef) -> cst.Dict | None:
    """The record of an epoch: the dictionary that is appended to what train_loop returns."""
    returned = {source.code(each.value) for each in source.walk(cst.Return, inside=function) if each.value is not None}
    for call in source.walk(cst.Call, inside=function.body):
        first = call.args[0].value if is_method(call, "append") and call.args else None
        if isinstance(first, cst.Dict) and source.code(call.func.value) in returned:  # type: ignore[attr-defined]
            return first
    return None


def _started(caller: Source, call: cst.Call, is_recorded: bool, others: list[cst.Call]) -> Finding:
    site = caller.site(call, "training loop called in rounds")
    if any(each.star or (each.keyword is not None and each.keyword.value == CLOCK) for each in call.args):
        return mended(site)
    line, loop = caller.statement(call), caller.enclosing(call, cst.For, cst.While)
    assign = line.body[0] if isinstance(line, cst.SimpleStatementLine) and len(line.body) == 1 else None
    is_named = isinstance(assign, cst.Assign) and isinstance(assign.targets[0].target, cst.Name)
    kept = {f"{caller.code(call)}[-1]": "", caller.code(call): "[-1]"}
    again = any(other in caller.parents and caller.function(other) is caller.function(call) for other in others)
    if not is_named or caller.code(assign.value) not in kept:  # type: ignore[union-attr]
        return near_miss(
            caller.site(call, f"{site.note}, whose history is not kept under a name: keep it, or give it {CLOCK}")
        )
    if not is_recorded or again or caller.names.is_bound(CLOCK, call):
        return near_miss(caller.site(call, f"{site.note}, and its updates cannot be told: give it {CLOCK}"))
    history = f"{caller.code(assign.targets[0].target)}{kept[caller.code(assign.value)]}"  # type: ignore[union-attr]
    edits = [
        insert_before(caller, outermost_loop(caller, loop), f"{CLOCK} = 0"),
        Edit(
            caller, call, _appended("args", cst.Arg(keyword=cst.Name(CLOCK), value=cst.Name(CLOCK), equal=BARE_EQUAL))
        ),
        insert_after(caller, line, f'{CLOCK} = {history}["{CLOCK}"]'),
    ]
    return mend(site, edits)


def _text(node: cst.BaseExpression) -> object:
    return node.evaluated_value if isinstance(node, cst.SimpleString) else None


def _appended(field: str, new: cst.Arg | cst.DictElement) -> Callable[[cst.CSTNode], cst.CSTNode]:
    """Add an argument to a call, or an entry to a dictionary, at its end."""

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        items = getattr(updated, field)
        enclosed = updated.lbrace.whitespace_after if isinstance(updated, cst.Dict) else updated.whitespace_before_args  # type: ignore[attr-defined]
        return updated.with_changes(**{field: insert_item(items, len(items), new, enclosed=enclosed)})

    return change


task = Task(
    number=6,
    slug="compression-ramp",
    title="Compression probability on a cosine ramp",
    contract=Contract.FIXES,
    summary="compress_prob is reached along half a cosine of warmup_steps updates; its draws are its own",
    why=__doc__,
    sought="a use of compress_prob in the loop over micro-batches, and the draw it is compared with",
    find=find,
)
