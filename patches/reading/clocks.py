"""Clocks: which scope, or which object, carries a run from update to update, where it steps, and what counts that."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from .code import Code
from .files import File, Function, is_test
from .frames import Reading
from .names import parameters
from .nodes import walk
from .steps import Kind, Part, parts
from .turns import block_of
from .updates import DEEP, MOST_CALLERS, Update, calls_of, is_repeated, is_within, makings_of, scope_of
from .values import Place, Value

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_BRANCHES = ("if", "else", "for", "while", "except")


@dataclass(frozen=True, slots=True)
class Step:
    """Where an optimizer steps, as a scope shows it."""

    reading: Reading
    node: ast.AST
    is_always: bool  # whether each time that the node is reached
    test: str = ""  # if not, the name of what decides it there

    @property
    def statement(self) -> ast.stmt:
        return self.reading.file.statement(self.node)

    @property
    def block(self) -> list[ast.stmt]:
        """The statements among which it stands."""
        return block_of(self.reading.file, self.statement)

    @property
    def counts(self) -> list[ast.stmt]:
        """What is counted up by one whenever it is made."""
        tests = [each for each in self.block if isinstance(each, ast.If) and ast.unparse(each.test) == self.test]
        beside = self.block if self.is_always else [inner for each in tests for inner in each.body]
        return [each for each in beside if _is_count(each)]


@dataclass(frozen=True, slots=True)
class Course:
    """What lasts from one update of a run to the next: the names of a scope with a loop, or an object by a method."""

    reading: Reading
    loss: Value  # as that scope shows it
    at: ast.AST  # in its text: the backward, or the call that leads to it
    owner: ast.ClassDef | None  # whose object it is
    steps: tuple[Step, ...]

    @property
    def loop(self) -> ast.stmt | None:
        """The outermost loop around its updates, in the scope's own text."""
        around = [each for each in self.reading.file.ancestors(self.at) if isinstance(each, _LOOPS)]
        own = [each for each in around if is_within(self.reading.file, each, self.reading.node)]
        return own[-1] if own else None

    @property
    def turn(self) -> ast.stmt | None:
        """The innermost loop around its steps, in the scope's own text."""
        file, nodes = self.reading.file, [each.node for each in self.steps if each.reading is self.reading]
        found = [[e for e in file.ancestors(n) if isinstance(e, _LOOPS)] for n in nodes] if self.owner is None else []
        return max(found, key=len)[0] if any(found) else self.loop

    def shows(self, file: File, scope: ast.AST) -> bool:
        """Whether what lasts can be named in a scope: in what stands in it, and in methods of the object."""
        if self.owner is not None:
            return method_of(file, scope) is not None and method_of(file, scope)[1] is self.owner  # type: ignore[index]
        return file is self.reading.file and is_within(file, scope, self.reading.node)


def method_of(file: File, scope: ast.AST) -> tuple[str, ast.ClassDef] | None:
    """What a scope calls the object whose method it is, or stands in, and the object's class."""
    for each in (scope, *file.ancestors(scope)):
        if isinstance(each, Function) and (owner := file.owner(each)) is not None:
            first = parameters(each.args)[:1]
            kinds = {getattr(mark, "id", "") for mark in each.decorator_list}
            return (first[0].arg, owner) if first and not kinds & {"staticmethod", "classmethod"} else None
    return None


def course_of(code: Code, update: Update) -> Course | None:
    """The course of an update's run; None where no one loop leads to it."""
    reading, at = update.reading, update.backward
    for _ in range(MOST_CALLERS):
        method = method_of(reading.file, reading.node)
        if method is not None or (is_repeated(reading.file, reading.node, at) and not _steps_once(reading)):
            effects = [each for each in reading.effects if each.at.node is update.effect.at.node]
            if not effects:
                return None
            func, given = effects[-1].value["func"], effects[-1].value.get("0")
            loss = given if given is not None else func["of"]
            owner = method[1] if method is not None else None
            steps = _of_object(code, reading.file, owner) if owner is not None else _steps(reading)
            return Course(reading, loss, at, owner, tuple({step.node: step for step in steps}.values()))
        callers = calls_of(code, reading.node) if isinstance(reading.node, Function) else []
        callers = [each for each in callers if not is_test(each[0].file.path)]
        if len({caller.node for caller, _ in callers}) != 1:
            return None
        caller, at = callers[0]
        reading = scope_of(code, caller.file, at, DEEP)
    return None


def _steps_once(reading: Reading) -> bool:
    """Whether a scope makes one update whenever it is called, of all that its loops go through."""
    steps = list(_steps(reading))
    return bool(steps) and not any(is_repeated(reading.file, reading.node, step.node) for step in steps)


def _steps(reading: Reading) -> Iterator[Step]:
    """The steps of optimizers: those whose gradients are set to zero, where that tells them from schedules."""
    done = parts(reading)
    zeroed = {part.owner.key for part in done if part.kind is Kind.ZERO and part.owner is not None}
    found = [part for part in done if part.kind is Kind.STEP]
    learning = [part for part in found if _steps_one_of(part, zeroed)]
    for part in learning or found:
        around = [guard for guard in part.effect.under if guard.kind in _BRANCHES]
        inner = [each for each in around if not is_within(reading.file, each.at.node, reading.node)]
        env = reading.before.get(reading.file.statement(part.node), {})
        tests = [
            name
            for name, value in env.items()
            if [(each.kind, each.value.key) for each in inner] == [("if", value.key)]
        ]
        yield Step(reading, part.node, not inner, next(iter(tests), ""))


def _steps_one_of(part: Part, optimizers: set[int]) -> bool:
    """Whether a step is one of some optimizers', by itself or by way of a scaler."""
    given = part.effect.value.get("0")
    return any(each is not None and each.key in optimizers for each in (part.owner, given))


def _of_object(code: Code, file: File, owner: ast.ClassDef) -> Iterator[Step]:
    """The steps in the text of a class's methods and its bases', and in functions that they call."""
    family = [each for _, each in code.bases(file.path, owner)]
    methods = [each for cls in family for each in cls.body if isinstance(each, Function)]
    for method in methods:
        home = code.files.of(method)
        reading = code.reading(home, method, home.owner(method), deepest=DEEP)
        for step in _steps(reading):
            called = reading.calls.get(step.node)  # type: ignore[call-overload]
            if called not in methods and method_of(home, home.function(step.node) or home.module) is not None:
                yield step


def counter(code: Code, course: Course) -> str | None:
    """What counts the updates of a run; what begins anew in each round of it is none."""
    kept = counted(code, course)
    begins = kept not in _told(course) and rounds_of(code, course.reading.node, course.owner)
    return kept if not begins else None


def counted(code: Code, course: Course) -> str | None:
    """What is counted up by one at every step of a run's, and set nowhere else: as the scope of each writes it."""
    own = [{_target(each) for each in step.counts} for step in course.steps]
    kept = [text for text in set.intersection(*own) if _starts_once(code, course, text)] if own else []
    return kept[0] if len(kept) == 1 else None


def _told(course: Course) -> set[str]:
    """The parameters of a run that is a function."""
    node = course.reading.node
    return {each.arg for each in parameters(node.args)} if isinstance(node, Function) else set()


def _is_count(node: ast.AST) -> bool:
    match node:
        case ast.AugAssign(op=ast.Add(), value=ast.Constant(value=1)):
            return True
        case ast.Assign(targets=[target], value=ast.BinOp(left=left, op=ast.Add(), right=ast.Constant(value=1))):
            return ast.unparse(target) == ast.unparse(left)
    return False


def _starts_once(code: Code, course: Course, text: str) -> bool:
    """Whether a counter is set apart from counting only before its run: by a constructor, or before the loop."""
    here = course.reading.file
    family = [each for _, each in code.bases(here.path, course.owner)] if course.owner is not None else []
    scopes: list[ast.AST] = [*family] or [course.reading.node]
    nodes = [(code.files.of(scope) if family else here, node) for scope in scopes for node in walk(scope)]
    for file, node in nodes:
        is_store = isinstance(getattr(node, "ctx", None), ast.Store) and ast.unparse(node) == text
        if not is_store or _is_count(file.statement(node)):
            continue
        around = file.function(node)
        is_setup = around is not None and around.name == "__init__"
        before = course.owner is None and course.loop is not None and not is_within(file, node, course.loop)
        if not (is_setup if course.owner is not None else before):
            return False
    counts = [node for _, node in nodes if _is_count(node) and _target(node) == text]
    return len(counts) == len(course.steps)


def _target(node: ast.AST) -> str:
    """What a statement counts up, as it is written."""
    assert isinstance(node, (ast.AugAssign, ast.Assign))
    return ast.unparse(node.target if isinstance(node, ast.AugAssign) else node.targets[0])


def counts_what(code: Code, course: Course, clock: Value) -> tuple[str, Place | None]:
    """What a clock counts: "updates", "micro-batches" or "epochs", and where; nothing, where that cannot be told."""
    file, scope = course.reading.file, course.reading.node
    if clock.op in ("item", "counted") and isinstance(clock.data, _LOOPS):
        return _of_loop(course, clock.data), Place(file, clock.data)
    counts: list[Place] = []
    if clock.op == "carried":
        counts = [Place(file, each) for each in walk(scope) if _is_count(each) and _target(each) == clock.data[1]]
    elif name := _attribute(course, clock):
        known = [(other, node) for other in code.files.naming(name) for node in other.uses.get(name, ())]
        found = {other.statement(node): other for other, node in known if isinstance(node, ast.Attribute)}
        counts = [Place(other, each) for each, other in found.items() if _is_count(each)]
    kinds = {_of_count(code, course, *each): each for each in counts}
    return next(iter(kinds.items())) if len(kinds) == 1 else ("", None)


def _attribute(course: Course, clock: Value) -> str:
    """The attribute that a clock is, in a loop that sets it too."""
    if clock.op == "attr":
        return str(clock.data)
    readings = [course.reading, *(step.reading for step in course.steps)]
    same = (node for each in readings for node, value in each.values.items() if value.key == clock.key)
    return next((node.attr for node in same if isinstance(node, ast.Attribute)), "")


def _of_count(code: Code, course: Course, file: File, count: ast.AST) -> str:
    is_own = course.owner is None or is_within(file, count, course.owner)
    if is_own and file is course.reading.file:
        return _beside(course, count, file)
    block = block_of(file, count)  # type: ignore[arg-type]
    nodes = [step.node for step in _steps(scope_of(code, file, count, DEEP))]
    return "updates" if any(is_within(file, node, each) for node in nodes for each in block) else ""


def _beside(course: Course, count: ast.AST, file: File) -> str:
    assert isinstance(count, ast.stmt)
    block = block_of(file, count)
    if any(count in step.counts for step in course.steps):
        return "updates"
    inside = [step for step in course.steps if any(is_within(file, step.node, each) for each in block)]
    loops = [each for each in block if isinstance(each, _LOOPS) and is_within(file, course.at, each)]
    return "epochs" if loops else "micro-batches" if inside or is_within(file, course.at, file.parents[count]) else ""


def _of_loop(course: Course, loop: ast.For | ast.AsyncFor | ast.While) -> str:
    """What the turns of a loop are."""
    file = course.reading.file
    steps = [step for step in course.steps if is_within(file, step.node, loop)]
    if not steps:
        return ""
    inner = [each for each in walk(loop) if isinstance(each, _LOOPS) and each is not loop]
    if any(is_within(file, step.node, each) for step in steps for each in inner):
        return "epochs"
    is_all = all(step.is_always and step.statement in loop.body for step in steps)
    return "updates" if is_all and course.loop is loop else "micro-batches"


def changing(code: Code, course: Course, value: Value) -> str:
    """How a value changes in the course of a run; nothing of one that stays what it is."""
    file = course.reading.file
    loops = {each for each in file.ancestors(course.at) if isinstance(each, _LOOPS)}
    for each in value.walk():
        loop = each.data[0] if each.op == "carried" else each.data if each.op in ("item", "counted") else None
        if loop in loops:
            return f"changes in the loop of line {loop.lineno}"
        if each.op == "opaque" or (each.op == "attr" and _is_set_later(code, course, str(each.data))):
            return f"{each.data} is set while it runs" if each.op == "attr" else f"is {each.data[1]}"
    return ""


def _is_set_later(code: Code, course: Course, name: str) -> bool:
    """Whether anything but a constructor sets an attribute of a name, or what leads to the run before it begins."""
    leading = {course.reading.node: course.at}
    pending = [course.reading.node]
    while pending:
        scope = pending.pop()
        for caller, call in (
            calls_of(code, scope) if isinstance(scope, Function) and len(leading) < MOST_CALLERS else ()
        ):
            pending += [caller.node] if caller.node not in leading else []
            leading[caller.node] = min(call, leading.get(caller.node, call), key=lambda each: each.lineno)  # type: ignore[attr-defined]
    for file in code.files.naming(name):
        for node in file.uses.get(name, ()):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                around = file.function(node)
                first = leading.get(around) if around is not None else None
                is_before = first is not None and node.lineno < first.lineno and not is_repeated(file, around, node)  # type: ignore
                if not is_before and (around is None or around.name not in ("__init__", "__post_init__")):
                    return True
    return False


@dataclass(frozen=True, slots=True)
class Round:
    """A call in a loop by which a run starts, directly or through functions that return what comes of it."""

    caller: Reading
    call: ast.Call
    through: tuple[tuple[Reading, ast.Call], ...]  # the calls on the way, the first nearest to the run
    is_returned: bool  # whether each function on the way returns what comes of its call

    @property
    def statement(self) -> ast.stmt:
        return self.caller.file.statement(self.call)


def rounds_of(code: Code, scope: ast.AST, owner: ast.ClassDef | None = None) -> list[Round]:
    """The rounds in which a run is started: by a call of a function, or by making an object of a class."""
    starts = makings_of(code, owner) if owner is not None else _called(code, scope)
    return list(_rounds(code, starts, ()))


def _called(code: Code, scope: ast.AST) -> list[tuple[Reading, ast.Call]]:
    return calls_of(code, scope) if isinstance(scope, Function) else []


def _rounds(
    code: Code, starts: list[tuple[Reading, ast.Call]], through: tuple[tuple[Reading, ast.Call], ...]
) -> Iterator[Round]:
    for reading, call in starts:
        if is_repeated(reading.file, reading.node, call):
            is_returned = all(isinstance(each.file.statement(node), ast.Return) for each, node in through)
            yield Round(reading, call, through, is_returned)
        elif len(through) < MOST_CALLERS and all(reading is not each for each, _ in through):
            yield from _rounds(code, _called(code, reading.node), (*through, (reading, call)))
