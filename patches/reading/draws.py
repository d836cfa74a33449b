"""Draws: uniform random numbers that are compared with a probability, and which of them compress a model's input."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from .code import Code
from .frames import Effect
from .outcomes import made_where, taken
from .updates import Update
from .values import Place, Value

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
        func = self.made["func"]
        owners = [func["of"]] if func.op == "attr" else []
        owners += [each for name, each in self.made.args.items() if name == "generator"]
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
        case "parameter" | "setting":
            yield str(value.data[-1])
        case "attr":
            yield str(value.data)
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
    return generator is not None and not any(_draws_from(effect.value, generator) for effect in effects)


def _draws_from(value: Value, generator: Value) -> bool:
    func = value.get("func")
    owners = [func["of"]] if func is not None and func.op == "attr" else []
    owners += [each for name, each in value.args.items() if name == "generator"]
    return any(each.key == generator.key for each in owners)


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
