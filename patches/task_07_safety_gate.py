"""Judge a run by an average of its validation loss, after a burn-in.

The gate compares each validation loss with the threshold by itself: one spike, or the high losses of
an untrained model, stop the run. The patched gate keeps an exponential moving average, lets the first
burn_in_steps pass, and trips when the average exceeds the threshold, or is not a number.

Contract: fixes. A run that one spike has stopped goes on; a lasting fault still stops it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from .editing.classes import class_of, member, methods
from .editing.donor import definitions, donor
from .editing.edits import apply_edits
from .editing.gates import Tested, averaged, kept_lines, loads, obstacles, state_methods, written
from .editing.kept import begins, inherited_back, loaded, put_back, saved
from .reading.averages import keeps_itself, reopens, wrong_with
from .reading.gates import measured
from .reading.judges import Found, again, gates, made_anew, untended
from .reading.source import Source
from .reading.tensors import Unknown
from .reading.tree import SourceTree
from .task import Contract, Edit, Finding, State, Task, apart, mend, mended, near_miss

OPTIONS, STATE = ("decay", "burn_in_steps"), ("ema_val", "steps")
FIELDS = {"ema_val": "ema_val: float | None = None", "steps": "steps: int = 0"}
FIRST = {"ema_val": "None", "steps": "0"}


def find(tree: SourceTree) -> Iterator[Finding]:
    """What stops a run by its losses: each by itself, or by an average of them."""
    found = gates(tree.code, tree.modules(having=rb"[<>]|\bm(?:ax|in)\(|\b[gl][te]\("))
    raw = [each for each in found if each.is_raw]
    yield from (one for each in found for one in apart([each.judge.node], list(_of_gate(tree, each, len(raw)))))
    note = "loss tested by itself, where no average of those before it is kept: give it a gate that lasts for a run"
    for file, node in dict.fromkeys(untended(tree.code)) if not found else ():
        yield near_miss(tree.source(file.path).site(node, note))


def _of_gate(tree: SourceTree, found: Found, many: int) -> Iterator[Finding]:
    source = tree.source(found.judge.file.path)
    at = found.test.node if found.test is not None else found.judge.node
    site = source.site(at, f"one of {many} tests of a loss: leave the gate's alone, or say which is meant")
    if not found.is_raw:
        wrong = _wrong(tree, found)
        yield from (near_miss(source.site(at, f"gate that tests an average, but {why}")) for why in wrong)
        yield from [] if wrong else [mended(source.site(at, "gate that tests an average"))]
    elif many > 1 and not tree.is_meant(site):
        yield near_miss(site)
    else:
        test = written(source, found, tree.code)
        problems = [test] if isinstance(test, str) else list(obstacles(test, tree.code, (*OPTIONS, *STATE)))
        yield from (near_miss(source.site(at, f"loss tested against a threshold, but {why}")) for why in problems)
        yield from _averaged(tree, test) if not problems and isinstance(test, Tested) else ()
    note = "gate made for one loss, which knows none before it: make one a run"
    yield from (near_miss(tree.source(file.path).site(call, note)) for file, call in made_anew(tree.code, found.judge))


def _wrong(tree: SourceTree, found: Found) -> list[str]:
    try:
        return list(wrong_with(tree.code, found.judge, found.measured))
    except Unknown:
        return ["what it does with its losses cannot be followed"]


def _averaged(tree: SourceTree, test: Tested) -> Iterator[Finding]:
    """Feed the average, test it, and keep it where the gate keeps its state; what comes of that is tried."""
    source, node = test.source, test.found.test.node  # type: ignore[union-attr]
    edits = list(_edits(tree, test))
    brought = [definitions(source, donor("bit_transformer/safety.py"), "ema"), *_state(tree, test)]
    changes = [*edits, *(edit for each in brought for edit in each.edits)]
    wrong = [] if any(each.state is State.UNRECOGNISED for each in brought) else _tried(tree, test, changes)
    notes = [f"loss tested against a threshold, but if an average of it were, {why}" for why in wrong]
    yield from (near_miss(source.site(node, note)) for note in notes)
    if not wrong:
        yield mend(source.site(node, "loss tested against a threshold by itself"), edits)
    yield from brought


def _tried(tree: SourceTree, test: Tested, edits: list[Edit]) -> list[str]:
    """What is wrong with the gate that edits make."""
    after = tree.trying(apply_edits(test.source, edits))
    judge = again(after.code, test.found.judge)
    try:
        made = measured(after.code, judge) if judge is not None else None
    except Unknown:
        made = None
    known = Found(judge, made, False, None) if judge is not None and made is not None else None
    return _wrong(after, known) if known is not None else ["it would not stop a run any more"]


def _lines(test: Tested) -> tuple[cst.FunctionDef, list[str], list[str], str, str, str]:
    """The reference's gate, about this one's threshold and loss: its constructor, and its lines."""
    given = donor("bit_transformer/safety.py")
    start, allows, reset, _, load = methods(class_of(given, "SafetyGate"))
    lines = [given.code(line).strip() for line in start.body.body[1:5]]
    feed = [re.sub(r"\bval_loss\b", lambda _: test.loss, given.code(line).strip()) for line in allows.body.body[1:3]]
    judged = given.code(next(given.walk(cst.If, inside=allows)).test)
    judged = re.sub(r"\bself\.threshold\b", lambda _: test.threshold, judged)
    return start, lines, feed, judged, *(given.code(each.body.body[-1]).strip() for each in (reset, load))  # type: ignore[return-value]


def _edits(tree: SourceTree, test: Tested) -> Iterator[Edit]:
    start, lines, feed, judged, reset, load = _lines(test)
    holder, judge, code = test.holder, test.found.judge, tree.code
    options = [each for each in start.params.params if each.name.value in OPTIONS]
    yield from begins(holder, test.kept_as, options, lines, FIELDS)
    yield from averaged(test, code, feed, judged)
    yield from put_back(holder, judge.node, reset, FIRST)
    if judge.kind == "object":
        back = [each for each, _ in reopens(code, judge, test.found.measured) if each not in holder.functions]
        yield from inherited_back(holder, back, reset)
    save, load_ = state_methods(test, code)
    edit = saved(holder, save[2], STATE) if save is not None and not keeps_itself(code, judge, save) else None
    yield from [edit] if edit is not None else []
    yield from [loaded(holder, load_, load)] if load_ is not None else []
    yield from (loaded(holder, each, load) for each in (loads(test, code) if judge.kind == "module" else ()))


def _state(tree: SourceTree, test: Tested) -> Iterator[Finding]:
    """What saves and loads the state of a gate that has nothing for that."""
    save, load = state_methods(test, tree.code)
    given = donor("bit_transformer/safety.py")
    entries, loads_ = kept_lines(test)
    text = given.raw.decode().replace('"tripped": self.tripped, ', entries)
    text = text.replace('        self.tripped = state["tripped"]\n', loads_)
    theirs = Source(given.path, text.encode())
    missing = [name for name, known in (("state_dict", save), ("load_state_dict", load)) if known is None]
    for name in missing if test.found.judge.kind == "object" else ():
        own = test.source.at(test.holder.node)
        assert isinstance(own, cst.ClassDef)
        yield member(test.source, own, theirs, class_of(theirs, "SafetyGate"), name)


task = Task(
    number=7,
    slug="safety-gate",
    title="Safety gate with EMA and burn-in",
    contract=Contract.FIXES,
    seam="gate",
    summary="the gate trips on an average of the validation loss, and not before the burn-in is over",
    why=__doc__,
    sought="what is given a loss, and stops a run where it exceeds a threshold",
    find=find,
)
