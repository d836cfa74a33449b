"""An average in place of each loss, where a gate tests it: what it needs, and what forbids that."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from operator import attrgetter
from typing import cast

import libcst as cst

from ..reading.averages import Method, kept_by
from ..reading.code import Code
from ..reading.files import Function
from ..reading.gates import Gate, flags_of, is_member, other, required
from ..reading.judges import Found
from ..reading.playing.kinds import Function as Routine
from ..reading.playing.kinds import Raised
from ..reading.source import Source
from ..reading.tensors import Unknown
from ..task import Edit
from .classes import node_of, put_before
from .edits import rewrite
from .kept import Holder, in_form


@dataclass(frozen=True, slots=True)
class Tested:
    """A test of a loss, as it is written: the loss, the threshold, and the name under which that is kept."""

    source: Source
    found: Found
    loss: str
    threshold: str
    kept_as: str
    holder: Holder

    @property
    def form(self) -> str:
        """How the judge writes what is kept, with {} for its name."""
        return self.holder.form(self.found.judge.node)


def written(source: Source, found: Found, code: Code) -> Tested | str:
    """A test of a loss as it is written, or what is not."""
    test, judge, file = found.test, found.judge, found.judge.file
    if test is None:
        return "not by an expression of its own, each time: test it by itself, in the function's own body"
    holder = _holder(source, found, code)
    if holder is None:
        return "nothing keeps what it knows: give it a class of its own"
    own = {*ast.walk(judge.node)}
    given = judge.losses[0] if len(judge.losses) == 1 else ""
    loss = (_outside(found, test.loss) or given) if test.loss in own else given
    kept_as = getattr(test.threshold, "attr", "")
    threshold = file.text(test.threshold) if test.threshold in own else holder.form(judge.node).format(kept_as)
    if not loss or not (kept_as or test.threshold in own):
        return "what is compared has no name where it is tested: name it there"
    return Tested(source, found, loss, threshold, kept_as, holder)


def _outside(found: Found, loss: ast.expr) -> str:
    """A loss as it is written before the statement that tests it; nothing where a pattern of that names it."""
    file, statement = found.judge.file, found.judge.file.statement(loss)
    inside = [*ast.walk(statement)] if isinstance(statement, ast.Match) else []
    captured = {each.name for each in inside if isinstance(each, ast.MatchAs)}
    if captured.isdisjoint(each.id for each in ast.walk(loss) if isinstance(each, ast.Name)):
        return file.text(loss)
    subject = statement.subject  # type: ignore[attr-defined]
    return file.text(subject) if not isinstance(subject, ast.Tuple) else ""


def _holder(source: Source, found: Found, code: Code) -> Holder | None:
    """What keeps whether a gate has tripped; None where nothing does that can keep more."""
    judge, file = found.judge, found.judge.file
    flags = {str(name): value for name, value in flags_of(Gate(code, judge).state).items()}
    if judge.cls is not None:
        is_own = judge.cls.path == file.path
        return Holder(source, file, judge.cls.node, flags, code, is_record=judge.kind == "record") if is_own else None
    for each in file.module.body:
        target = each.targets[0] if isinstance(each, ast.Assign) else getattr(each, "target", None)
        display = getattr(each, "value", None)
        keys = display.keys if isinstance(display, ast.Dict) else []
        if isinstance(target, ast.Name) and flags.keys() & {getattr(key, "value", None) for key in keys}:
            return Holder(source, file, cast("ast.Dict", display), flags, code, target.id)
    return None


def obstacles(tested: Tested, code: Code, names: Sequence[str]) -> Iterator[str]:
    """What forbids to test an average there, for which some names are needed."""
    source, test, file = tested.source, tested.found.test, tested.found.judge.file
    assert test is not None
    if not test.is_strict:
        yield "at the threshold itself it trips too: let it trip above"
    statement = file.statement(test.node)
    loops = (ast.For, ast.While, ast.Lambda, ast.comprehension)
    is_repeated = isinstance(statement, ast.While) or any(isinstance(each, loops) for each in file.ancestors(test.node))
    if is_repeated:
        yield "not each time, once: test it in the function's own body"
    if counted := list(_counted(tested, code)):
        yield f"{', '.join(counted)} counts such losses too: say whether it is to count averages"
    taken = tested.holder.taken(names)
    if taken:
        several = f"the names {', '.join(taken)} are taken" if taken[1:] else f"the name {taken[0]} is taken"
        yield f"{several}: rename yours"
    if tested.holder.taken(["__slots__"]):
        yield "its class has __slots__: name there what it is to keep, or leave them out"
    if _is_replaced(tested, code) and source.names.spelled("dataclasses.replace") is None:
        yield "it is never changed: import replace from dataclasses, to make another with"


def _counted(tested: Tested, code: Code) -> Iterator[str]:
    """What a gate keeps that counts the losses over its threshold."""
    judge, edge = tested.found.judge, tested.found.measured.edge
    over, under = Gate(code, judge), Gate(code, judge)
    over.feed(edge + 1)
    under.feed(edge - 1)
    for name, value in under.state.items():
        other = over.state.get(name)
        if type(value) is int and other != value:
            yield str(name)


def _is_replaced(tested: Tested, code: Code) -> bool:
    """Whether a judge gives another record than the one that it is given."""
    gate = Gate(code, tested.found.judge)
    given = gate.thing
    gate.feed(tested.found.measured.edge + 1)
    return gate.thing is not given


def averaged(tested: Tested, code: Code, feed: Sequence[str], judged: str) -> Iterator[Edit]:
    """Feed an average before the test, and test it; `feed` and `judged` are written about self."""
    source, test, judge = tested.source, tested.found.test, tested.found.judge
    assert test is not None
    lines = [in_form(each, tested.form) for each in feed]
    if _is_replaced(tested, code):
        replace = source.names.spelled("dataclasses.replace")
        settings = [_as_argument(each) for each in feed]
        lines = [f"{judge.record} = {replace}({judge.record}, {', '.join(in_form(e, tested.form) for e in settings)})"]
    statement = judge.file.statement(test.node)
    node = source.at(test.node)
    assert isinstance(node, cst.BaseExpression)
    first = node_of(source, statement)
    while isinstance(first, cst.If) and isinstance(source.parents[first], cst.If):  # which it is the elif of
        first = source.parents[first]
    yield put_before(source, first, *lines)
    if test.threshold not in {*ast.walk(judge.node)}:  # but in a function that is asked
        judged = judged.partition(" and ")[0] + " and " + _asked(tested, in_form("self.ema_val", tested.form))
    judged = in_form(judged, tested.form)
    is_whole = isinstance(statement, ast.If) and statement.test is test.node and not node.lpar
    judged = judged if test.is_over and is_whole else f"({judged})"
    is_alone = isinstance(
        source.parents[node], (cst.If, cst.MatchCase, cst.Assign, cst.AnnAssign, cst.Return, cst.BooleanOperation)
    )
    judged = judged if test.is_over else f"not {judged}" if is_alone else f"(not {judged})"
    yield rewrite(source, node, lambda _: judged)
    for each in _of_nothing(tested, code):
        both = source.parents[source.at(each)]
        if isinstance(both, cst.BooleanOperation):
            yield Edit(source, both, attrgetter("right" if both.left is source.at(each) else "left"))


def _of_nothing(tested: Tested, code: Code) -> Iterator[ast.expr]:
    """What says in an `or` that a loss is not a number, or in an `and` that it is one: the test of its average does."""
    judge, seen = tested.found.judge, list[dict[ast.expr, list[object]]]()
    for loss in (math.nan, tested.found.measured.edge - 1, tested.found.measured.edge + 1):
        gate = Gate(code, judge)
        gate.feed(loss)
        seen.append(gate.run.seen)
    within = [*ast.walk(tested.found.test.node)]  # type: ignore[union-attr]
    either = [node for node in ast.walk(judge.node) if isinstance(node, ast.BoolOp) and node not in within]
    for each in (part for node in either for part in node.values):
        is_or = isinstance(judge.file.parents[each].op, ast.Or)  # type: ignore[attr-defined]
        names = {node.id for node in ast.walk(each) if isinstance(node, ast.Name)}
        said = [values.get(each, [not is_or]) for values in seen]
        if (
            said == [[is_or], [not is_or], [not is_or]]
            and judge.record not in names
            and names & {*judge.losses, tested.loss}
        ):
            yield each


def _asked(tested: Tested, average: str) -> str:
    """The test with another loss in it."""
    test = tested.found.test
    assert test is not None
    node = deepcopy(test.node)
    for each in ast.walk(node):
        if isinstance(each, ast.Name) and each.id == tested.loss:
            each.id = average
    return ast.unparse(node) if test.is_over else f"not {ast.unparse(node)}"


def _as_argument(line: str) -> str:
    """`self.steps += 1` as `steps=self.steps + 1`."""
    node = ast.parse(line).body[0]
    if isinstance(node, ast.AugAssign):
        value = ast.BinOp(node.target, node.op, node.value)
        return f"{getattr(node.target, 'attr', '')}={ast.unparse(value)}"
    assert isinstance(node, ast.Assign)
    return f"{getattr(node.targets[0], 'attr', '')}={ast.unparse(node.value)}"


def loads(tested: Tested, code: Code) -> list[ast.FunctionDef]:
    """The functions by which a module takes up again what it kept."""
    found = []
    first = tested.holder.flags
    for each in tested.holder.functions:
        if isinstance(each, ast.FunctionDef) and len(required(each)) == 1 and each is not tested.found.judge.node:
            gate = Gate(code, tested.found.judge)
            with suppress(Unknown, Raised):
                gate.run.call(Routine(tested.source.path, each), {name: other(value) for name, value in first.items()})
            if any(gate.state.get(name) != value for name, value in first.items()):
                found.append(each)
    return found


def kept_lines(tested: Tested) -> tuple[str, str]:
    """How the flags of a gate are saved as entries of a dict, and the lines that load them; a member by its name."""
    entries, lines = "", ""
    for name, value in tested.holder.flags.items():
        entry = f'state["{name}"]'
        entries += f'"{name}": self.{name}{".name" if is_member(value) else ""}, '
        lines += f"        self.{name} = {f'type(self.{name})[{entry}]' if is_member(value) else entry}\n"
    return entries, lines


def state_methods(tested: Tested, code: Code) -> tuple[Method | None, Function | None]:
    """What saves and what loads the state of an object, as far as there is any."""
    judge = tested.found.judge
    if judge.kind != "object" or judge.cls is None:
        return None, None
    pair = kept_by(code, judge, tested.found.measured)
    if pair is not None:
        return pair[0], pair[1][2]
    return code.method(judge.cls.path, judge.cls.node, "state_dict"), None
