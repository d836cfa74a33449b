"""Judge a run by an average of its validation loss, after a burn-in.

The gate compares each validation loss with the threshold by itself: one spike, or the high losses of
an untrained model, stop the run. The patched gate keeps an exponential moving average, lets the first
burn_in_steps pass, and trips when the average exceeds the threshold, or is not a number.

Contract: fixes. A run that one spike has stopped goes on; a lasting fault still stops it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from .donor import definitions, donor
from .edits import rewrite
from .matchers import calls_builtin, followed, is_inside, is_method
from .members import (
    assignments,
    attribute,
    class_of,
    member,
    method_of,
    methods,
    more_entries,
    more_parameters,
    parameters,
    put_before,
    put_behind,
    set_from_parameters,
    shipped,
)
from .source import Source
from .task import Contract, Edit, Finding, Task, mend, mended, near_miss
from .tree import SourceTree

OPTIONS, STATE = ("decay", "burn_in_steps"), ("ema_val", "steps")
COMPARED = r"(?:(?<!-)[<>]=?[\s(]*\w+\.\w|\.\w+[\s)]*[<>])"  # with an attribute
LOSS, GATE = "loss|ema|av(?:era)?g|smooth", "gate|safety"
CLASS = re.compile(rf"(?is)\A(?=.*__init__)(?=.*(?:{LOSS}|{GATE})).*{COMPARED}")
OVER, UNDER = (cst.GreaterThan, cst.GreaterThanEqual), (cst.LessThan, cst.LessThanEqual)


def find(tree: SourceTree) -> Iterator[Finding]:
    """The tests of a loss, or of its average, against the threshold of a gate."""
    tests = [test for source in shipped(tree, CLASS.pattern.encode()) for test in _tests(source)]
    raw = [test for test in tests if test.is_raw]
    for test in tests:
        source, problems = test.source, list(dict.fromkeys(_problems(test)))
        if not test.is_raw:
            yield mended(source.site(test.node, "gate that tests an average"))
        elif len(raw) > 1:
            yield near_miss(source.site(test.node, f"one of {len(raw)} tests of a loss: leave the gate's alone"))
        elif not problems:
            yield from _averaged(test)
        for problem in problems if test.is_raw and len(raw) == 1 else ():
            yield near_miss(source.site(test.node, f"loss tested against a threshold, but {problem}"))


@dataclass(frozen=True, slots=True)
class _Test:
    """`if not loss <= self.threshold: self.tripped = True`, in a class's method."""

    source: Source
    own: cst.ClassDef
    method: cst.FunctionDef
    node: cst.BaseExpression  # the comparison, with the `not` before it
    statement: cst.CSTNode
    loss: cst.BaseExpression
    threshold: str
    tripped: str
    is_strict: bool

    @property
    def is_raw(self) -> bool:
        return _is_given(self.source, self.method, self.loss)

    @property
    def start(self) -> cst.FunctionDef | None:
        return next((method for method in methods(self.own) if method.name.value == "__init__"), None)


def _tests(source: Source) -> Iterator[_Test]:
    for comparison in source.walk(cst.Comparison, having=CLASS):
        method = method_of(source, comparison)
        if method is None or len(comparison.comparisons) > 1:
            continue
        left, right = comparison.left, comparison.comparisons[0].comparator
        operator = comparison.comparisons[0].operator
        own = source.enclosing(method, cst.ClassDef)
        thresholds = set_from_parameters(source, own)
        around = source.parents[comparison]
        is_negated = isinstance(around, cst.UnaryOperation) and isinstance(around.operator, cst.Not)
        node = around if isinstance(around, cst.UnaryOperation) and is_negated else comparison
        loss, over, under = (left, OVER, UNDER) if attribute(source, right) in thresholds else (right, UNDER, OVER)
        threshold = attribute(source, right if loss is left else left)
        statement = source.enclosing(node, cst.If, cst.Assign, cst.AugAssign, cst.AnnAssign)
        tripped = _trips(source, statement, node)
        is_loss = re.search(LOSS, source.code(loss).lower())
        is_gate = re.search(GATE, own.name.value.lower())
        is_over = isinstance(operator, under if is_negated else over)
        if threshold in thresholds and tripped and is_over and (is_loss or is_gate):
            is_strict = isinstance(operator, (cst.LessThanEqual, cst.GreaterThanEqual)) == is_negated
            yield _Test(source, own, method, node, statement, loss, threshold, tripped, is_strict)


def _trips(source: Source, statement: cst.CSTNode | None, test: cst.CSTNode) -> str:
    """The attribute that a statement makes True where its test holds."""
    if isinstance(statement, cst.If):
        inside = [pair for pair in assignments(source, statement.body) if is_inside(source, test, statement.test)]
        set_true = [target for target, value, _ in inside if isinstance(value, cst.Name) and value.value == "True"]
        return next(filter(None, (attribute(source, target) for target in set_true)), "")
    target = next((target for target, *_ in assignments(source, statement)), None) if statement is not None else None
    return attribute(source, target)


def _is_given(source: Source, method: cst.FunctionDef, loss: cst.BaseExpression) -> bool:
    """Whether an expression is a parameter of the method, as a number perhaps: `float(loss)`, `loss.item()`."""
    loss = followed(source, loss)
    if calls_builtin(source, loss, "float") or is_method(loss, "item", "detach", "cpu"):
        assert isinstance(loss, cst.Call)
        return _is_given(source, method, loss.args[0].value if loss.args else loss.func.value)  # type: ignore[attr-defined]
    return isinstance(loss, cst.Name) and loss.value in [param.name.value for param in parameters(method)[1:]]


def _problems(test: _Test) -> Iterator[str]:
    """What forbids to test an average there."""
    source, statement = test.source, test.statement
    if not test.is_strict:
        yield "at the threshold itself it trips too: let it trip above"
    value = statement.test if isinstance(statement, cst.If) else getattr(statement, "value", None)
    if isinstance(value, cst.BooleanOperation) and isinstance(value.operator, cst.Or):
        value = value.right if attribute(source, value.left) == test.tripped else value
    if test.node is not value:
        yield "together with something else: test it by itself"
    blocks = [each for each in source.ancestors(statement) if isinstance(each, (cst.BaseCompoundStatement, cst.Else))]
    if next((each for each in blocks if not isinstance(each, cst.With)), None) is not test.method:
        yield "not each time: test it in the method's own body"
    for way_out in source.walk(cst.Return, inside=test.method):
        around = source.enclosing(way_out, cst.If, cst.FunctionDef)
        tested = attribute(source, around.test) if isinstance(around, cst.If) else test.tripped
        if source.order[way_out] < source.order[test.node] and tested != test.tripped:
            yield "a way out before it would leave the average without its value: move the test before that"
    start = test.start
    own = {attribute(test.source, node) for node in test.source.walk(cst.Attribute, inside=test.own)}
    names = {param.name.value for param in parameters(start)} if start is not None else set()
    taken = sorted({*OPTIONS, *STATE} & own | set(OPTIONS) & names)
    if taken:
        several = f"the names {', '.join(taken)} are taken" if taken[1:] else f"the name {taken[0]} is taken"
        yield f"{several}: rename yours"


def _averaged(test: _Test) -> Iterator[Finding]:
    """Feed the average, test it, and keep it where the gate keeps its state."""
    source, given = test.source, _reference(test)
    theirs = class_of(given, "SafetyGate")
    start, allows, reset, _, load = methods(theirs)
    brought = [definitions(source, donor("bit_transformer/safety.py"), "ema")]
    places = set_from_parameters(source, test.own)
    lines = {attribute(given, target): given.code(node) for target, _, node in assignments(given, start)}
    new = [param for param in parameters(start) if param.name.value in OPTIONS]
    assert test.start is not None
    edits = [
        more_parameters(source, test.start, new),
        put_behind(source, places[test.threshold], *(lines[name] for name in (*OPTIONS, *STATE))),
    ]
    loss = source.code(test.loss)
    fed = [re.sub(r"\bval_loss\b", lambda _: loss, given.code(line).strip()) for line in allows.body.body[1:3]]
    judged = given.code(next(given.walk(cst.If, inside=allows)).test)
    is_whole = isinstance(test.statement, cst.If) and not test.node.lpar
    edits.append(put_before(source, test.statement, *fed))
    edits.append(rewrite(source, test.node, lambda _: judged if is_whole else f"({judged})"))
    others = [method for method in methods(test.own) if method not in (test.start, test.method)]
    for method in others:
        edits += _kept(test, method, given.code(reset.body.body[-1]).strip(), given.code(load.body.body[-1]).strip())
    saved = [pair for method in others for pair in _displays(test, method)]
    edits += [more_entries(source, display, STATE) for display in saved]
    if not saved and not re.search(r"__dict__|\bvars\(", source.code(test.own)):
        brought += [member(source, test.own, given, theirs, name) for name in ("state_dict", "load_state_dict")]
    yield mend(source.site(test.node, "loss tested against a threshold by itself"), edits)
    yield from brought


def _reference(test: _Test) -> Source:
    """The gate of reference/, in the names of the user's."""
    text = donor("bit_transformer/safety.py").raw.decode()
    text = text.replace("self.threshold", f"self.{test.threshold}").replace("self.tripped", f"self.{test.tripped}")
    text = re.sub(r"\bself\b", parameters(test.method)[0].name.value, text)
    return Source("bit_transformer/safety.py", text.encode())


def _kept(test: _Test, method: cst.FunctionDef, reset: str, load: str) -> Iterator[Edit]:
    """The average is reset and loaded where the gate's own state is."""
    given = {param.name.value for param in parameters(method)[1:]}
    for target, value, node in assignments(test.source, method):
        if attribute(test.source, target) != test.tripped or value is None:
            continue
        used = [use.value for use in test.source.uses(value) if use.value in given]
        if used:
            yield put_behind(test.source, node, re.sub(r"\bstate\b", used[0], load))
        elif isinstance(value, cst.Name) and value.value == "False":
            yield put_behind(test.source, node, reset)


def _displays(test: _Test, method: cst.FunctionDef) -> Iterator[cst.Dict | cst.Call]:
    """The dictionaries in which a method hands out the gate's state."""
    for element in test.source.walk(cst.DictElement, inside=method):
        if attribute(test.source, element.value) == test.tripped:
            yield test.source.parents[element]  # type: ignore[misc]
    for call in test.source.walk(cst.Call, inside=method):
        if calls_builtin(test.source, call, "dict") and test.tripped in [
            attribute(test.source, a.value) for a in call.args
        ]:
            yield call


task = Task(
    number=7,
    slug="safety-gate",
    title="Safety gate with EMA and burn-in",
    contract=Contract.FIXES,
    summary="the gate trips on an average of the validation loss, and not before the burn-in is over",
    why=__doc__,
    sought="a gate's method that sets self.tripped where its loss exceeds self.threshold",
    find=find,
)
