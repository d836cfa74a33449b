"""Draws: uniform random numbers that are compared with a probability, and which of them compress a model's input."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from .clocks import Course, course_of
from .code import Code
from .files import File
from .frames import Effect
from .updates import Update, updates_of_runs
from .values import Place, Value

_OPERATORS: dict[str, Callable[[object, object], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "is": operator.eq,
    "isnot": operator.ne,
}
_LONGEST = 32  # choices in choices

_COMPARED = ("lt", "le", "gt", "ge")
_UNIFORM = {
    *("random.random", "torch.rand", "numpy.random.rand", "numpy.random.random", "numpy.random.random_sample"),
    *("random.uniform", "numpy.random.uniform"),
}
_METHODS = ("random", "uniform", "rand", "random_sample")  # of a generator
_GENERATORS = (
    *("random.Random", "random.SystemRandom", "numpy.random.default_rng", "numpy.random.RandomState"),
    *("numpy.random.Generator", "torch.Generator"),
)
_OUT_OF = ("part", "index")  # what takes one number of several
_NUMBER = ("cast", "float", "item", "squeeze", "cpu")  # what leaves a number as it is
_WORD = re.compile("compress|run_?length|rle", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Draw:
    """A uniform number that is compared with a threshold."""

    test: Value  # the comparison
    number: Value  # as it is compared
    made: Value  # the call that draws: of one number, or of several
    threshold: Value
    compresses_below: bool = True  # whether run lengths are chosen where the number is below the threshold

    @property
    def place(self) -> Place:
        """Where the comparison stands."""
        assert self.test.at is not None
        return self.test.at

    @property
    def generator(self) -> Value | None:
        """The generator that was made to draw from; None of the one that everything shares."""
        owners = _drawn_from(self.made)
        return next((each for each in owners if any(_is_generator(part) for part in each.walk())), None)

    @property
    def library(self) -> str:
        """Whose numbers it draws: random, torch or numpy."""
        return str(self.made["func"].data).partition(".")[0] if self.made["func"].op == "global" else "random"

    @property
    def is_below(self) -> bool:
        """Whether the comparison holds where the number is below the threshold."""
        return (self.test.op in ("lt", "le")) == (self.test["input"] is self.number)

    @property
    def called(self) -> str:
        """What the probability is called, as far as names tell."""
        return " ".join(_names(self.threshold))


def _names(value: Value) -> Iterator[str]:
    match value.op:
        case "parameter" | "setting" | "attr":
            yield value.name
        case "index":
            yield str(value.items[-1].data)
        case "add" | "sub" | "mul" | "phi" | "min" | "max":
            for each in value.items:
                yield from _names(each)


def _is_generator(value: Value) -> bool:
    return "func" in value.args and value["func"].data in _GENERATORS


def is_alone(draw: Draw, effects: Sequence[Effect]) -> bool:
    """Whether a draw has a generator to which nothing else is done, of some effects."""
    generator = draw.generator
    drawn_from = {each.key for effect in effects for each in _drawn_from(effect.value)}
    return generator is not None and generator.key not in drawn_from


def _drawn_from(call: Value) -> list[Value]:
    """What a call may draw from: what its method is of, or a generator that it is given."""
    func = call.get("func")
    owners = [func["of"]] if func is not None and func.op == "attr" else []
    return owners + [each for name, each in call.args.items() if name == "generator"]


def draws_of(value: Value) -> list[Draw]:
    """The draws that decide what a value is made of."""
    tests = (each["test"] for each in value.walk() if each.op == "phi")
    parts = {part.key: part for test in tests for part in test.walk() if part.op in _COMPARED}
    return [draw for each in parts.values() for draw in _compared(each)]


def _compared(test: Value) -> Iterator[Draw]:
    sides = (test["input"], test["other"])
    for number, threshold in (sides, sides[::-1]):
        made = uniform(number)
        if made is not None and uniform(threshold) is None and test.at is not None:
            yield Draw(test, number, made, threshold)


def uniform(value: Value) -> Value | None:
    """The call by which a number is drawn that is uniform between 0 and 1; None of any other."""
    is_one = True
    while value.op in (*_NUMBER, *_OUT_OF) or _method(value) in ("item", "tolist"):
        is_one = is_one and value.op not in _OUT_OF
        value = value["func"]["of"] if "func" in value.args else value.items[0]
        value = value["elt"] if value.op == "each" and not is_one else value
    func = value.get("func")
    if func is None:
        return None
    args = [each for name, each in value.args.items() if name != "func"]
    is_bounded = func.op == "global" and func.data.endswith(".uniform")
    if is_bounded or (func.op == "attr" and func.data == "uniform"):
        bounds = [each.number for each in args]
        return value if bounds in ([0, 1], []) else None
    if func.op == "attr" and func.data in _METHODS and func["of"].op != "opaque":
        return value if not args or not is_one or _is_single(args) else None
    if func.op != "global" or func.data not in _UNIFORM:
        return None
    sizes = [each for name, each in value.args.items() if name.isdigit() or name == "size"]
    return value if not sizes or not is_one or _is_single(sizes) else None


def _is_single(sizes: list[Value]) -> bool:
    """Whether a tensor of some sizes holds one number."""
    flat = [part for each in sizes for part in (each.items if each.op in ("tuple", "list") else (each,))]
    return all(each.is_const(1) for each in flat)


def _method(value: Value) -> str:
    func = value.get("func")
    return str(func.data) if func is not None and func.op == "attr" else ""


def compressing(code: Code, update: Update, draws: list[Draw]) -> list[Draw]:
    """Those draws that decide whether the model is given run lengths, which it takes row by row by another method.

    Where that does not tell one of several, those whose probability is called so.
    """
    other = [found for draw in draws if (found := _by_method(code, update, draws, draw)) is not None]
    named = [draw for draw in other or draws if _WORD.search(draw.called)]
    return other if len(other) == 1 else named


def _by_method(code: Code, update: Update, draws: list[Draw], draw: Draw) -> Draw | None:
    others = {each.test.key: not each.is_below for each in draws}
    below, above = (
        _forms(code, update, {**others, draw.test.key: holds}) for holds in (draw.is_below, not draw.is_below)
    )
    is_known = sorted((*below, *above)) == [False, True]
    return replace(draw, compresses_below=True in below) if is_known else None


def _forms(code: Code, update: Update, outcomes: Mapping[int, bool]) -> set[bool]:
    """Whether an update gives its model rows apart, by a method of its own, where comparisons come out so."""
    found = set[bool]()
    for each in made_where(code, update.loss, outcomes):
        if each.at is not None and each.at.node in update.forwards and "func" in each.args:
            func = taken(code, each["func"], outcomes)
            given = [taken(code, value, outcomes).op for name, value in each.args.items() if name != "func"]
            is_apart = "each" in given[:1] or _WORD.search(str(func.data)) is not None
            found.add(func.op == "attr" and func.data not in ("forward", "__call__") and is_apart)
    return found


def made_where(code: Code, value: Value, outcomes: Mapping[int, bool]) -> Iterator[Value]:
    """All that a value is made of where conditions, by their keys, come out so; of a choice the side that is taken."""
    whole = taken(code, value, outcomes)
    return whole.walk(lambda each: [taken(code, part, outcomes) for part in each.items])


def taken(code: Code, value: Value, outcomes: Mapping[int, bool]) -> Value:
    """What a value is there, as far as that is known: choices, members and attributes seen through."""
    for _ in range(_LONGEST):
        inner = _inner(code, value, outcomes)
        if inner is None or inner.key == value.key:
            break
        value = inner
    return value


def _inner(code: Code, value: Value, outcomes: Mapping[int, bool]) -> Value | None:
    if value.op == "phi":
        holds = truth(code, value["test"], outcomes)
        return None if holds is None else value["yes" if holds else "no"]
    if value.op == "attr":
        owner = taken(code, value["of"], outcomes)
        if owner.op == "instance":
            return code.attributes(owner.data[0], owner.data[1], owner).get(str(value.data))
    if value.op == "part":
        owner = taken(code, value["of"], outcomes)
        return owner.items[value.data] if owner.op in ("tuple", "list") and value.data < len(owner.items) else None
    if value.op == "index" and list(value.args) == ["input", "0"]:
        owner, place = taken(code, value["input"], outcomes), taken(code, value["0"], outcomes)
        if owner.op == "dict" and place.op == "const":
            return owner.get(str(place.data))
        known = place.data if place.op == "const" else truth(code, place, outcomes)
        is_place = (
            owner.op in ("tuple", "list") and isinstance(known, int) and -len(owner.args) <= known < len(owner.args)
        )
        return owner.items[int(known)] if is_place else None  # type: ignore[arg-type]
    if value.op == "item" and "of" in value.args:
        source = taken(code, value["of"], outcomes)
        return source["elt"] if source.op == "each" else None
    return None


def truth(code: Code, test: Value, outcomes: Mapping[int, bool]) -> bool | None:
    """Whether a condition holds; None where that is not known."""
    test = taken(code, test, outcomes)
    if test.key in outcomes:
        return outcomes[test.key]
    if test.op == "const":
        return bool(test.data)
    if test.op in ("bool", "int", "not"):
        inner = truth(code, test.items[0], outcomes)
        return inner if inner is None or test.op != "not" else not inner
    if test.op in ("all", "any"):
        every = [truth(code, each, outcomes) for each in test.items]
        decisive = test.op == "any"
        return decisive if decisive in every else None if None in every else not decisive
    sides = [taken(code, each, outcomes) for each in test.items]
    if test.op in ("in", "notin") and sides[0].op == "const" and sides[1].op == "dict":
        return (str(sides[0].data) in sides[1].args) is (test.op == "in")
    if test.op in _OPERATORS and all(each.op == "const" for each in sides):
        return _OPERATORS[test.op](*(each.data for each in sides))
    return None


@dataclass(frozen=True, slots=True)
class Drawn:
    """What the updates of one run draw, by where it is compared, and those draws of it that compress."""

    course: Course
    updates: list[Update]
    draws: dict[ast.AST, Draw]
    chosen: dict[ast.AST, Draw]
    undrawn: list[tuple[File, ast.AST, str]]  # its updates on which no draw bears

    @property
    def shared(self) -> dict[ast.AST, Draw]:
        """The draws from generators that others draw from too, by the calls that draw."""
        every = {draw.made.at.node: draw for draw in self.draws.values() if draw.made.at is not None}
        effects = [effect for effect in self.course.reading.effects if effect.at.node not in every]
        return {node: draw for node, draw in every.items() if not is_alone(draw, effects)}

    def others(self, draw: Draw) -> list[Draw]:
        """The draws that are compared elsewhere."""
        return [each for node, each in self.draws.items() if node is not draw.place.node]

    @property
    def scopes(self) -> set[ast.AST]:
        """The scopes of its updates, and the one that leads to them."""
        return {self.course.reading.node, *(update.reading.node for update in self.updates)}


def drawn_by(code: Code) -> tuple[list[Drawn], list[Update]]:
    """The runs of a tree, by what lasts in them; and the updates to which no one loop leads."""
    runs: dict[ast.AST, Drawn] = {}
    strays = []
    for update in updates_of_runs(code):
        course = course_of(code, update)
        if course is None:
            strays.append(update)
            continue
        run = runs.setdefault(course.owner or course.reading.node, Drawn(course, [], {}, {}, []))
        draws = draws_of(course.loss)
        run.updates.append(update)
        if not draws:
            run.undrawn.append(
                (update.reading.file, update.backward, "update, but no draw decides what its loss is made of")
            )
        run.draws.update({draw.place.node: draw for draw in draws})
        run.chosen.update({draw.place.node: draw for draw in compressing(code, update, draws)})
    return list(runs.values()), strays
