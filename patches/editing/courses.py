"""What lasts from one update of a run to the next: a clock, and a generator of its own to draw from."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from ..reading.classes import constructor_of, names_of
from ..reading.clocks import Course, Step, counted, method_of, rounds_of
from ..reading.files import File, Function
from ..reading.nodes import walk
from ..reading.tree import TRAIN_LOOP, SourceTree
from ..task import Finding, mend, near_miss
from .donor import donor, parameter
from .edits import insert_after, insert_before
from .imports import TakenError, import_edits
from .options import kept_by
from .ranks import TRAINING

_SEEDS = {
    "torch": ("torch.randint", "{}(2**63 - 1, ()).item()"),
    "numpy": ("numpy.random.randint", "int({}(2**31 - 1))"),
}


@dataclass(frozen=True, slots=True)
class Kept:
    """The names of a clock and of a generator, in a scope or on an object."""

    course: Course
    clock: str
    draws: str
    counter: str | None = None  # the tree's own count of updates, as it writes it

    def clock_in(self, file: File, scope: ast.AST) -> str:
        """The clock as a scope writes it."""
        return self.counter or self._own(file, scope, self.clock)

    def draws_in(self, file: File, scope: ast.AST) -> str:
        """The generator as a scope writes it."""
        return self._own(file, scope, self.draws)

    def _own(self, file: File, scope: ast.AST, name: str) -> str:
        method = method_of(file, scope) if self.course.owner is not None else None
        return name if method is None else f"{method[0]}.{name}"


def kept_draws(tree: SourceTree, kept: Kept, library: str) -> Iterator[Finding]:
    """Make a run a generator of its own: before its loop, or in its object's constructor.

    Its seed is drawn once from the library that the draws came from, which is seeded where runs are to be repeated.
    """
    course, given = kept.course, donor(TRAINING)
    source = tree.source(course.reading.file.path)
    made = next(each for each in given.walk(cst.Assign, having=("getrandbits",)) if "getrandbits" in given.code(each))
    names = [source.names.spelled(name) for name in ("random.Random", "random.getrandbits")]
    try:
        edits = [] if all(names) else [*import_edits(source, given, [made])]
    except TakenError as taken:
        yield near_miss(taken.site)
        return
    new, bits = names if all(names) else ("random.Random", "random.getrandbits")
    other = source.names.spelled(_SEEDS.get(library, ("",))[0])
    seed = _SEEDS[library][1].format(other) if other is not None else f"{bits}(64)"
    text = f"{kept.draws} = {new}({seed})"
    if course.owner is None:
        assert course.loop is not None
        site = source.site(course.loop, "loop of a run, which is to draw from a generator of its own")
        yield mend(site, [*edits, insert_before(source, source.at(course.loop), text)])
        return
    setup = constructor_of(course.owner)
    assert setup is not None
    own = setup.args.args[0].arg
    first = _first(setup.body)
    site = source.site(first, "constructor of what trains, which is to have a generator of its own")
    yield mend(site, [*edits, insert_before(source, source.at(first), f"{own}.{text}")])


def _first(body: Sequence[ast.stmt]) -> ast.stmt:
    """The first statement of a constructor that is neither its docstring nor its base's constructor."""
    for each in body:
        is_text = isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
        is_base = any(isinstance(node, ast.Name) and node.id == "super" for node in walk(each))
        if not is_text and not is_base:
            return each
    return body[0]


def kept_clock(tree: SourceTree, kept: Kept) -> Iterator[Finding]:
    """Count the updates of a run from what its caller says, or from 0."""
    course, given = kept.course, donor(TRAINING)
    file, source = course.reading.file, tree.source(course.reading.file.path)
    for step in course.steps:
        target, line = tree.source(step.reading.file.path), _line(tree, step)
        counted = kept.clock_in(step.reading.file, step.reading.node)
        assert line is not None
        site = target.site(line, "update, which is to be counted")
        text = f"{counted} += 1" if step.is_always else f"if {step.test}:\n    {counted} += 1"
        yield mend(site, [insert_after(target, line, text)])
    if course.owner is not None:
        yield kept_by(tree, file, constructor_of(course.owner), given, kept.clock)  # type: ignore[arg-type]
    elif isinstance(course.reading.node, ast.FunctionDef):
        yield parameter(source, given, TRAIN_LOOP, kept.clock, source.at(course.reading.node))  # type: ignore[arg-type]
    else:
        assert course.loop is not None
        edit = insert_before(source, source.at(course.loop), f"{kept.clock} = 0")
        yield mend(source.site(course.loop, "loop of a run, whose updates are to be counted"), [edit])


def obstacles(tree: SourceTree, kept: Kept) -> Iterator[tuple[File, ast.AST, str]]:
    """What keeps a run from having a clock, or a generator of its own."""
    course = kept.course
    file, node = course.reading.file, course.at
    if not course.steps:
        yield file, node, "update, but what steps the optimizer cannot be told"
    if course.owner is None and course.loop is None:
        yield file, node, "update, but in no loop of a scope of its own"
    for step in course.steps if kept.counter is None else ():
        yield from _uncounted(tree, course, step)
    names = [kept.draws, *([kept.clock] if kept.counter is None else [])]
    if course.owner is None:
        scope = file.scopes[course.reading.node]
        if kept.counter is None and counted(tree.code, course) == kept.clock:
            names.remove(kept.clock)
            for each in rounds_of(tree.code, course.reading.node):
                note = f"round of training, but {kept.clock}, which counts its updates, starts anew: hand it on"
                yield each.caller.file, each.call, note
        for name in names:
            # A function's own name hides what a module has by that name, which it may only not read.
            inner = any(isinstance(each, ast.Name) and each.id == name for each in walk(scope.node))
            if scope.is_open or inner or (not isinstance(scope.node, Function) and scope.is_taken(name)):
                yield file, (*scope.bound.get(name, ()), node)[0], f"the name {name} is taken: rename yours"
        return
    setup = constructor_of(course.owner)
    if setup is None:
        yield file, course.owner, f"{course.owner.name}, but it has no constructor of its own to keep more"
        return
    if any(isinstance(each, ast.Return) for each in walk(setup)):
        yield file, setup, f"{course.owner.name}, but its constructor returns early"
    family = [each for _, each in tree.code.bases(file.path, course.owner)]
    for name in names:
        if any(names_of(each).defines(name) for each in family) or tree.code.is_open(file.path, course.owner, name):
            yield file, course.owner, f"{course.owner.name} has a {name} of its own, or may have: rename it"


def _uncounted(tree: SourceTree, course: Course, step: Step) -> Iterator[tuple[File, ast.AST, str]]:
    """Why a step cannot be counted where it stands."""
    file = step.reading.file
    if not step.is_always and not step.test:
        yield file, step.node, "call that steps the optimizer at times: count its updates where that is"
    elif _line(tree, step) is None:
        yield file, step.node, "step of the optimizer that is no statement of its own: give it a line"
    elif [other for other in course.steps if other.block is step.block and other is not step]:
        yield file, step.node, "one of several steps at once: which counts cannot be told"


def _line(tree: SourceTree, step: Step) -> cst.SimpleStatementLine | None:
    """The line of a step that stands in a block, alone."""
    target = tree.source(step.reading.file.path)
    node = target.statement(target.at(step.statement))
    return node if isinstance(node, cst.SimpleStatementLine) and len(node.body) == 1 else None
