"""Values in the turns of loops: what goes through a list, what is carried from turn to turn, what a loop leaves."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from .elements import TENSORS, comes_from_a_cache
from .frames import Loop
from .numbers import is_number
from .small import Small
from .tensors import NUMBERS, Beyond, Impossible, Number, Tensor, Unknown, taken
from .values import Value

Turns = dict[ast.AST, int]
Made = tuple[Value, Turns] | Tensor | Number  # a value in its turns, or what has been computed
MOST_TURNS = 12  # of a loop: no case here has more than ten positions and pads
_LISTS = {"list", "tuple", "yields", "each", "range", "split", "chunk", "unbind", "reversed", "enumerate", "zip"}
_NONE = {"is": True, "isnot": False}
_CHOSEN = {"attr", "parameter", "setting"}
_COMPARED = {"gt", "ge", "lt", "le", "eq", "ne", "numel"}
_WHOLE: dict[str, Callable[[float], int]] = {"math.ceil": math.ceil, "math.floor": math.floor}


class Turned(Small):
    """Computes values under one choice of what the code does not tell, in the turns of its loops."""

    def __init__(
        self, choose: Callable[[Value], int], choose_truth: Callable[[Value], bool], loops: Mapping[ast.AST, Loop]
    ) -> None:
        super().__init__(choose)
        self._choose_truth = choose_truth
        self._truths: dict[int, bool] = {}
        self._loops = loops
        self.turns: Turns = {}
        self.computed: dict[tuple[int, tuple[int, ...]], Tensor] = {}
        self.begun = 0  # tensors that were asked for and not known, those that cannot be computed among them
        self._lists: dict[tuple[int, tuple[int, ...]], bool] = {}
        self.inside: dict[int, tuple[ast.AST, ...] | None] = {}  # the loops of values, by keys: all cases share it

    @contextmanager
    def within(self, turns: Turns) -> Iterator[None]:
        """Compute in other turns."""
        own, self.turns = self.turns, turns
        try:
            yield
        finally:
            self.turns = own

    def number(self, value: Value) -> Number:
        """A Python number. Raises Unknown."""
        made = self.made(value)
        if isinstance(made, Tensor):
            if len(made.data) != 1 or isinstance(made.data[0], tuple):
                raise Unknown(value)
            return made.data[0]
        if not isinstance(made, tuple):
            return made
        with self.within(made[1]):
            return self._plain(made[0])

    def _plain(self, value: Value) -> Number:
        match value.op:
            case "counted":
                return self.number(value["start"]) + self.turns[value.data]
            case "not" | "all" | "any" | "is" | "isnot" | "bool":
                return self.truth(value)
            case "numel":
                return len(self.tensor(value["input"]).data)
            case "round":
                return round(self.number(value["0"]))
            case "min" | "max" | "sum" if "0" in value.args and len(value.args) == 1:
                every: list[Number] = [self._each(each, self.number) for each in self.sequence(value["0"])]
                return sum(every) if value.op == "sum" else min(every) if value.op == "min" else max(every)
            case "min" | "max" if "0" in value.args:
                return {"min": min, "max": max}[value.op](*map(self.number, value.items))
            case "item" if "input" in value.args:
                return self.number(value["input"])
            case "call" if value["func"].data in _WHOLE and "0" in value.args:
                return _WHOLE[value["func"].data](self.number(value["0"]))
            case "size":
                return self._long(value)
            case "const" if isinstance(value.data, (bool, int, float)):
                return value.data
            case "int" | "float" if "input" in value.args:
                number = self.number(value["input"])
                return int(number) if value.op == "int" else float(number)
            case "attr" | "parameter" | "setting":
                return self._length(value)
        if value.op in ("mod", "floordiv", "div") and self.number(value["other"]) == 0:
            raise Impossible
        if value.op in NUMBERS:
            try:
                return NUMBERS[value.op](*map(self.number, value.items))
            except ArithmeticError:  # 0 ** -0.5
                raise Impossible from None
        if value.op not in self.operations:
            raise Unknown(value)
        tensor = self._computed(value)
        if len(tensor.data) != 1 or isinstance(tensor.data[0], tuple):
            raise Unknown(value)
        return tensor.data[0]

    def _long(self, value: Value) -> int:
        if self._is_list(value["input"]) and value["dim"].number == 0:
            return len(self.sequence(value["input"]))
        shape, dim = self.tensor(value["input"]).shape, int(self.number(value["dim"]))
        if not -len(shape) <= dim < len(shape):
            raise Unknown(value)
        return shape[dim]

    def truth(self, value: Value) -> bool:
        """Whether a condition holds; what the code does not tell is chosen."""
        match value.op:
            case "const":
                return bool(value.data)
            case "not":
                return not self.truth(value["input"])
            case "all":
                return all(self.truth(each) for each in value.items)
            case "any":
                return any(self.truth(each) for each in value.items)
            case "is" | "isnot" if value["other"].is_const(None):
                return self.is_none(value["input"]) is _NONE[value.op]
            case "bool":
                return self.truth(value["input"])
            case "phi":
                return self.truth(value["yes" if self.truth(value["test"]) else "no"])
        if value.op in _COMPARED or (value.op not in _CHOSEN and is_number(value)):
            with suppress(Unknown):
                return bool(self.number(value))
        if value.key not in self._truths:
            self._truths[value.key] = self._choose_truth(value)
        return self._truths[value.key]

    def is_none(self, value: Value) -> bool:
        """Whether something is None; what is not known is something."""
        made = self.made(value)
        return isinstance(made, tuple) and isinstance(made[0], Value) and made[0].is_const(None)

    def made(self, value: Value) -> Made:
        """What a value is in this turn, once it is known which branch, which item and which turn made it."""
        turns = self.turns
        try:
            for _ in range(20 * MOST_TURNS):
                step = self._step(value)
                if not isinstance(step, tuple) or isinstance(step, Tensor) or step[0] is value:
                    return step
                value, self.turns = step
            raise Unknown(value)
        finally:
            self.turns = turns

    def _step(self, value: Value) -> Made:
        turns = self.turns
        match value.op:
            case "item" if isinstance(value.data, ast.AST):
                if value.data not in turns:
                    raise Unknown(value)
                every = self.sequence(value["of"])
                return every[turns[value.data]]
            case "carried":
                loop, name = value.data
                turn = turns.get(loop)
                if turn is None or loop not in self._loops:
                    raise Unknown(value)
                return (self._loops[loop].last[name], {**turns, loop: turn - 1}) if turn else (value["start"], turns)
            case "after":
                loop, name = value.data
                count = self.count(loop)
                last = (value["last"], {**turns, loop: count - 1})
                return last if count else (value.get("start") or value, turns)
            case "phi":
                sides = [value[side] for side in ("yes", "no") if not _is_kept(value[side])]
                if len(sides) == 1:
                    return sides[0], turns
                return value["yes" if self.truth(value["test"]) else "no"], turns
            case "kept" if "put" in value.args:
                put = value["put"]
                while put.op == "phi":
                    put = put["no" if put["yes"].op in ("opaque", "unset") else "yes"]
                return put, turns
            case "index" | "part" if self._is_list(value.items[0]):
                return self._member(value)
            case "part" if value["of"].op in self.operations:
                return self._member(value)
        return value, turns

    def _member(self, value: Value) -> Made:
        """One of a list."""
        if value.op == "part":
            place: int = value.data
            return self.sequence(value["of"])[place]
        every, index = self.sequence(value["input"]), value["0"]
        if len(value.args) > 2 or index.op == "slice":  # noqa: PLR2004 - a list and a number
            return value, self.turns
        return every[int(self.number(index))]

    def _is_list(self, value: Value) -> bool:
        key = (value.key, self._place(value))
        if key not in self._lists:
            self._lists[key] = False
            with suppress(Unknown, IndexError):
                made = self.made(value)
                self._lists[key] = isinstance(made, tuple) and isinstance(made[0], Value) and _is_list_op(made[0])
        return self._lists[key]

    def count(self, loop: ast.AST) -> int:
        """How many turns a loop makes."""
        if loop not in self._loops:
            raise Unknown
        known = self._loops[loop]
        if known.source is not None:
            return len(self.sequence(known.source))
        for turn in range(MOST_TURNS):
            with self.within({**self.turns, loop: turn}):
                if known.test is None or not self.truth(known.test):
                    return turn
        raise Impossible

    def sequence(self, value: Value) -> Sequence[Made]:
        """The items of a list, or of what else can be gone through."""
        made = self.made(value)
        if isinstance(made, Tensor):
            return _rows(made)
        if not isinstance(made, tuple):
            raise Unknown(value)
        with self.within(made[1]):
            return self._items(made[0])

    def _items(self, value: Value) -> Sequence[Made]:
        turns = dict(self.turns)
        match value.op:
            case "list" | "tuple":
                return [(each, turns) for each in value.items]
            case "range":
                bounds = [int(self.number(each)) for each in value.items]
                if bounds[2:] == [0]:
                    raise Impossible
                if len(range(*bounds)) > 20 * MOST_TURNS:
                    raise Unknown(value)
                return list(range(*bounds))
            case "reversed":
                return list(reversed(self.sequence(value["0"])))
            case "enumerate":
                return self.sequence(value["input"])
            case "zip":
                return min((self.sequence(each) for each in value.items), key=len)
            case "each" if value.at is not None:
                return [(value["elt"], turn) for turn in self._turns_of(value, value.at.node, turns)]
            case "yields":
                return [made for each in value.items for made in self._yielded(each, turns)]
            case "call" if value["func"].op == "attr" and value["func"].data in ("append", "extend"):
                so_far, new = self.sequence(value["func"]["of"]), value["0"]
                return [*so_far, *([(new, turns)] if value["func"].data == "append" else self.sequence(new))]
            case "add":
                return [*self.sequence(value["input"]), *self.sequence(value["other"])]
            case "index" if self._is_list(value["input"]) and value["0"].op == "slice":
                bounds_or_none = [None if e.is_const(None) else int(self.number(e)) for e in value["0"].items]
                return self.sequence(value["input"])[slice(*bounds_or_none)]
            case "unbind" | "split" | "chunk":
                return self._cut(value)
        return _rows(self.tensor(value))

    def _turns_of(self, value: Value, node: ast.AST, turns: Turns) -> Iterator[Turns]:
        for turn in range(len(self.sequence(value["of"]))):
            own = {**turns, node: turn}
            with self.within(own):
                holds = all(self.truth(test) for name, test in value.args.items() if name.startswith("if"))
            if holds:
                yield own

    def _yielded(self, value: Value, turns: Turns) -> Sequence[Made]:
        if value.op == "all_of":
            return self.sequence(value["of"])
        loops = [loop for loop in self.loops_of(value) if loop not in turns]
        return [(value, each) for each in self.every_turn(loops)]

    def loops_of(self, value: Value) -> list[ast.AST]:
        """The loops in whose turns a value is made, the outermost first."""
        found = {each.data[0] if each.op == "carried" else each.data for each in value.walk() if each.op in _TURNED}
        known = [each for each in found if each in self._loops]
        return sorted(known, key=lambda each: (each.lineno, each.col_offset))

    def every_turn(self, loops: Sequence[ast.AST]) -> Iterator[Turns]:
        """All turns of some loops, each inside of the one before."""
        if not loops:
            yield dict(self.turns)
            return
        for turn in range(self.count(loops[0])):
            with self.within({**self.turns, loops[0]: turn}):
                inner = list(self.every_turn(loops[1:]))
            yield from inner

    def _cut(self, value: Value) -> Sequence[Made]:
        tensor, dim = self.tensor(value["input"]), self.option(value, "dim", 0)
        dim %= max(1, len(tensor.shape))
        size = tensor.shape[dim]
        if value.op == "unbind":
            return [taken(tensor, dim, [place], keep=False) for place in range(size)]
        given = value["split_size_or_sections"] if value.op == "split" else value["chunks"]
        if self._is_list(given):
            sizes = [int(self._each(each, self.number)) for each in self.sequence(given)]
        else:
            number = int(self.number(given))
            if number < 1:
                raise Impossible
            step = number if value.op == "split" else -(-size // number)
            sizes = [min(step, size - start) for start in range(0, size, step)]
        starts = [sum(sizes[:place]) for place in range(len(sizes))]
        return [taken(tensor, dim, range(a, a + n)) for a, n in zip(starts, sizes, strict=True)]

    def _each(self, made: Made, compute: Callable[[Value], Any]) -> Any:
        """What an item comes to."""
        if isinstance(made, Tensor):
            return made if compute == self.tensor else made.data[0]
        if not isinstance(made, tuple):
            return Tensor((), (made,)) if compute == self.tensor else made
        with self.within(made[1]):
            return compute(made[0])

    def tensors(self, value: Value) -> list[Tensor]:
        """The tensors of a list."""
        return [self._each(each, self.tensor) for each in self.sequence(value)]

    def tensor(self, value: Value) -> Tensor:
        """The elements of a tensor in this turn. Raises Unknown."""
        made = self.made(value)
        if not isinstance(made, tuple):
            return Tensor((), (made,))
        if isinstance(made, Tensor):
            return made
        with self.within(made[1]):
            return self._computed(made[0])

    def _computed(self, value: Value) -> Tensor:
        key = (value.key, self._place(value))
        if key not in self.computed:
            self.begun += 1
            self.computed[key] = self._operation(value)
        return self.computed[key]

    def _place(self, value: Value) -> tuple[int, ...]:
        """The turns on which a value depends, as far as that is known."""
        if value.key not in self.inside:
            every = [each for each in value.walk() if each.op in _TURNED]
            is_plain = all(each.op != "carried" for each in every)
            self.inside[value.key] = tuple({each.data: None for each in every}) if is_plain else None
        inside = self.inside[value.key]
        return tuple(self.turns.get(each, -1) for each in (self.turns if inside is None else inside))

    def _operation(self, value: Value) -> Tensor:
        function = self.operations.get(value.op)
        try:
            if function is not None:
                made = function(self, value)
                if math.prod(made.shape) != len(made.data):
                    raise Impossible if value.op == "view" else Unknown(value)
                return made
            if _is_list_op(value):
                parts = self.tensors(value)
                if any(each.shape for each in parts):
                    raise Unknown(value)
                return Tensor((len(parts),), tuple(each.data[0] for each in parts))
            return self.unknown(value)
        except (KeyError, IndexError, TypeError, ValueError, ArithmeticError) as error:
            is_beyond = isinstance(error, IndexError) and value.op == "index"
            raise Beyond if is_beyond else Unknown(value) from None

    operations: Mapping[str, Callable[[Any, Value], Tensor]] = TENSORS

    def unknown(self, value: Value) -> Tensor:
        """A tensor that no operation makes."""
        return Tensor((), (self.number(value),))


_TURNED = {"item", "counted", "carried"}


def _is_kept(value: Value) -> bool:
    """Whether a value comes out of a mapping that an object keeps."""
    while value.op in ("part", "index") and value.items[0].op != "phi":
        value = value.items[0]
    asked = value.get("func") if value.op == "call" else None
    is_asked = asked is not None and asked.op == "attr" and asked.data in ("get", "pop")
    return comes_from_a_cache(asked["of"] if is_asked else value)  # type: ignore[index]


def _is_list_op(value: Value) -> bool:
    is_grown = value.op == "call" and value["func"].op == "attr" and value["func"].data in ("append", "extend")
    return value.op in _LISTS or is_grown


def _rows(tensor: Tensor) -> list[Tensor]:
    if not tensor.shape:
        raise Unknown
    return [taken(tensor, 0, [place], keep=False) for place in range(tensor.shape[0])]
