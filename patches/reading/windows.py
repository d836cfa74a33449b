"""Attention in windows: where their weights are written on a map of all positions, and whether padding is weighed."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from random import Random
from typing import NamedTuple

from .frames import Effect, Reading
from .loops import Turns
from .maps import Map, destination, is_counted, is_square, maps, root_of, written_by
from .masked import holds_product, is_multihead
from .numbers import is_number
from .spots import Layout, Pair, Spotted, attended
from .tensors import Beyond, Impossible, Tensor, Unknown, broadcast
from .values import Graph, Place, Value, walked

LENGTHS = (5, 3, 4, 1)
NUMBERS = (2, 1, 3, 0, 5)
ENOUGH = 48  # cases that say something
FEW = 8  # of one position each, by which a layout is known to be another
MOST_CASES, MOST_STEPS = 600, 15_000  # that are tried, and what is computed in all of them
LAYOUTS = (Layout(4, 2), Layout(3, 1), Layout(4, 1), Layout(3, 0), Layout(2, 0))
SOFTMAX = ("softmax", "scaled_dot_product_attention")
_OF_TENSORS = {
    *("size", "shape", "pad", "unfold", "matmul", "mT", "permute", "swap", "view", "reshape", "flatten", "unflatten"),
    *("linear", "split", "chunk", "unbind", "select", "softmax", "index", "unsqueeze", "detach", "contiguous", "cast"),
    *("stack", "new_zeros", "new_full", "einsum", "scaled_dot_product_attention", "masked_fill", "cat", "narrow"),
    *("index_select", "repeat_interleave"),
}
_CUT = {
    *("pad", "unfold", "cat", "stack", "split", "chunk", "unbind", "slice"),
    *("narrow", "setitem", "index_select", "call"),
}
_SCALED = {"mul", "div"}
_OVER = {"masked_fill", "where", "add", "sub", "mul", "div", "phi", "cast", "contiguous", "clone"}  # products
_WEIGHING = {"matmul", "einsum", "linear", "module", "scaled_dot_product_attention"}
_SETTINGS = {"dim", "dims", "size", "mask", "attn_mask", "value", "pad", "start", "length", "index", "step", "dtype"}


class Case(NamedTuple):
    """One case of what the code does not tell, and the weights of each attention in all turns."""

    small: Spotted
    weights: list[tuple[Value, Turns, Tensor]]


@dataclass(slots=True)
class Judged:
    """What attention in windows comes to in all cases that were computed."""

    wrong: str = ""  # what is wrong with the map
    leaks: dict[int, Value] = field(default_factory=dict)  # the attentions that weigh padding, by their keys
    is_padded: bool = False  # whether padding stands among the keys
    is_windowed: bool = False  # whether weights are of other sizes than the map
    is_laid: bool = False  # whether a map was written to, or made
    cases: list[Case] = field(default_factory=list)


def softmaxes(values: Sequence[Value]) -> list[Value]:
    """The attentions that some values are made of, each once."""
    return [each for each in walked(values) if each.op in SOFTMAX]


def leaves_of(values: Sequence[Value]) -> frozenset[int]:
    """The keys of the values that are tensors for certain, as what is done with them says."""
    found = dict[int, Value]()
    for value in walked(values):
        if value.op in _OF_TENSORS:
            given = [each for name, each in value.args.items() if name not in _SETTINGS]
            given += [inner for each in given if each.op in ("list", "tuple") for inner in each.items]
            found |= {each.key: each for each in given}
    pending = list(found.values())
    while pending:
        value = pending.pop()
        if value.op in _SCALED and not any(each.op == "arange" for each in value.walk()):
            new = [each for each in value.items if each.key not in found and not is_number(each)][:1]
            found |= {each.key: each for each in new}
            pending += new
    return frozenset(found)


def judged(
    graph: Graph, reading: Reading, of: Map | None, attentions: Sequence[Value], layouts: Sequence[Layout] = LAYOUTS
) -> Judged:
    """What a map, or attentions alone, come to. Raises Unknown where that cannot be computed."""
    writes = of.writes if of is not None else ()
    values = [*attentions, *(each.value for each in writes), *([of.made] if of is not None else ())]
    values += [guard.value for each in writes for guard in each.under]
    values += [each for loop in reading.loops.values() for each in (loop.test, *loop.last.values()) if each is not None]
    leaves, problems, left = leaves_of(values), list[Unknown](), MOST_STEPS
    for layout in layouts:
        found = Judged()
        try:
            for case in _cases(graph, reading, leaves, layout):
                if left < 0:
                    raise Unknown
                try:
                    _judge(found, case, attentions, of)
                except Beyond:
                    found.wrong = "keys are asked for that are not there"
                except (Impossible, IndexError):
                    continue
                finally:
                    left -= case.begun
                lengths = [case.small.length for case in found.cases]
                if len(lengths) == ENOUGH or (len(lengths) == FEW and set(lengths) == {1}):
                    break
        except Unknown as unknown:
            problems.append(unknown)
        else:
            if found.cases and set(lengths) != {1}:
                return found
    raise next(iter(problems), Unknown())


def _cases(graph: Graph, reading: Reading, leaves: frozenset[int], layout: Layout) -> Iterator[Spotted]:
    """Cases in which everything meets everything else, drawn in an order that is always the same."""
    inside: dict[int, tuple[ast.AST, ...] | None] = {}
    for number in range(MOST_CASES):
        draw = Random(number)  # noqa: S311 - nothing secret
        small = Spotted(
            lambda _, draw=draw: draw.choice(NUMBERS), lambda _, draw=draw: draw.random() < 2 / 3, reading.loops
        )
        small.layout, small.leaves, small.ranks, small.inside = layout, leaves, graph.ranks, inside
        small.length = draw.choice(LENGTHS)
        yield small


def _judge(found: Judged, small: Spotted, attentions: Sequence[Value], of: Map | None) -> None:
    if of is not None and of.writes and small.sizes(of.made["size"])[-1] != small.length:
        raise Impossible
    case = Case(small, [])
    for each in attentions:
        for turns in small.every_turn(small.loops_of(each)):
            with small.within(turns):
                case.weights.append((each, turns, attended(small, each)))
    pairs = [(each, pair) for each, _, tensor in case.weights for pair in tensor.data]
    visible = {pair for _, pair in pairs if isinstance(pair, Pair) and pair.query is not None and pair.key is not None}
    if not visible and small.length > 1:
        raise Impossible
    found.cases.append(case)
    found.is_padded = found.is_padded or small.is_padded
    sizes = {tensor.shape[-2:] for _, _, tensor in case.weights}
    found.is_windowed = found.is_windowed or sizes != {(small.length, small.length)}
    for softmax, pair in pairs:
        if isinstance(pair, Pair) and pair.query is not None and pair.key is None:
            found.leaks[softmax.key] = softmax
    if of is None or found.wrong:
        return
    laid = _laid(small, of)
    found.is_laid = found.is_laid or laid is not None
    found.wrong = "" if laid is None else _what_is_wrong(laid, visible, small.length)  # type: ignore[arg-type]


def _what_is_wrong(laid: list[object] | str, visible: set[Pair], size: int) -> str:
    if isinstance(laid, str):
        return laid
    for place, element in enumerate(laid):
        pair = Pair(place // size % size, place % size)
        if isinstance(element, Pair) and element != pair:
            return "padding is written to it" if None in element else "weights are written to columns of other keys"
        if not isinstance(element, Pair) and pair in visible:
            return "not all weights are written to it"
    is_whole = {pair.query for pair in visible if pair.key == pair.query} == set(range(size))
    return "" if is_whole else "not every position is weighed in its own window"


def _laid(small: Spotted, of: Map) -> list[object] | str | None:
    """The map's elements once all is written; None where nothing is, or what goes wrong on the way."""
    if not of.writes:
        if small.is_none(of.made):
            return None
        made = small.tensor(of.made)
        return list(made.data) if made.shape[-2:] == (small.length,) * 2 else None
    content: list[object] = [0.0] * (small.length * small.length)
    done = []

    def perform(write: Effect) -> None:
        if not all(_holds(small, write, place) for place in range(len(write.under))):
            return
        shape, places = destination(small, of.made, write.value)
        new = small.tensor(written_by(write.value))
        try:
            _, (cells, elements) = broadcast(Tensor(shape, tuple(places)), new)
        except Unknown:
            raise IndexError from None
        if len(cells) != len(places):
            raise IndexError
        done.append(write)
        for cell, element in zip(cells, elements, strict=True):
            content[int(cell)] = element

    def run(writes: Sequence[Effect], depth: int) -> None:
        def loop_of(write: Effect) -> ast.AST | None:
            loops = [guard.at.node for guard in write.under if guard.kind in ("for", "while")]
            return loops[depth] if depth < len(loops) else None

        for loop, some in groupby(writes, loop_of):
            own = list(some)
            if loop is None:
                for write in own:
                    perform(write)
                continue
            for turns in small.every_turn([loop]):
                with small.within(turns):
                    run(own, depth + 1)

    try:
        run(of.writes, 0)
    except IndexError:
        return "columns are written to that are not there"
    return content if done else None


def _holds(small: Spotted, write: Effect, place: int) -> bool:
    guard = write.under[place]
    if guard.kind not in ("if", "else"):
        return True
    return small.truth(guard.value) is (guard.kind == "if")


def parts_of(softmax: Value) -> Iterator[tuple[Value, str]]:
    """The masks of an attention, outermost first: True hides, True keeps, or a number is added."""
    if softmax.op != "softmax":
        mask = softmax.get("attn_mask")
        sides = [each for each in mask.items[1:] if not each.is_const(None)] if mask and mask.op == "phi" else []
        mask = sides[0] if len(sides) == 1 else mask
        if mask is not None:
            yield from ((mask["input"], "hides") if mask.op == "invert" else (mask, "keeps"),)
        return
    for value in softmax["input"].walk(lambda each: each.items if each.op in _OVER else ()):
        match value.op:
            case "masked_fill":
                mask = value["mask"]
                yield (mask["input"], "keeps") if mask.op == "invert" else (mask, "hides")
                yield mask, "hides"
            case "where":
                yield value["condition"], "keeps"
                yield value["condition"], "hides"
            case "add":
                yield from ((value[name], "added") for name in ("input", "other") if not holds_product(value[name]))


def _results(reading: Reading) -> Iterator[Value]:
    """What a function returns, taken apart."""
    pending = [reading.returned] if reading.returned is not None else []
    while pending:
        value = pending.pop()
        if value.op in ("tuple", "list", "phi", "instance", "dict"):
            pending += [each for name, each in value.args.items() if name != "test"]
        elif not value.is_const():
            yield value


@dataclass(frozen=True, slots=True)
class Seen:
    """Attentions that a function makes, by itself or in what it calls, with the map that they are laid on, if any."""

    reading: Reading
    of: Map | None
    judged: Judged | None
    number: int = 0  # of the map, among those of the function

    @property
    def writes(self) -> tuple[Effect, ...]:
        return self.of.writes if self.of is not None else ()

    @property
    def at(self) -> Place | None:
        """Where the map is first written to, or made."""
        return self.writes[0].at if self.writes else self.of.made.at if self.of is not None else None

    @property
    def lost(self) -> str:
        """By what its windows are weighed that is not followed, and where; or nothing."""
        parts = (part for each in self.writes for part in each.value.walk() if is_multihead(part))
        at = next((part.at for part in parts if part.at is not None), None)
        return f": nn.MultiheadAttention weighs them at {at.file.path}:{at.line}:{at.column}" if at is not None else ""

    @property
    def places(self) -> frozenset[ast.AST]:
        """All nodes where the map is written to, or made."""
        nodes = [each.at.node for each in self.writes]
        return frozenset(nodes or ([self.at.node] if self.at is not None else []))


def examined(graph: Graph, reading: Reading) -> list[Seen]:
    """What a function does with attention: each map that it lays weights on, and its other attentions."""
    known = softmaxes([*reading.values.values(), *(each.value for each in reading.writes)])
    known = [each for each in known if any(map(_is_cut, each.walk()))]
    laid = [each for each in maps(reading) if known or any(map(is_counted, each.writes))]
    if not known and not laid:
        return []
    written = {each.made.key for each in laid} | {write.value.key for each in laid for write in each.writes}
    made = [Map(each) for each in _results(reading) if not written & {part.key for part in each.walk()}]
    rest, found = {each.key: each for each in known}, list[Seen]()
    for number, each in enumerate([*laid, *made]):
        own = softmaxes([write.value for write in each.writes]) if each.writes else _weights_in(each.made)
        is_new = bool(each.writes) or {one.key for one in own} <= rest.keys()
        judged_ = _judged(graph, reading, each, own) if is_new else None
        roots = map(root_of, each.made.items) if each.made.op == "call" and own else ()
        is_lost = any(root is not None and is_square(root) for root in roots)
        if each.writes or is_lost or (judged_ is not None and judged_.is_laid):
            found.append(Seen(reading, each, judged_, number))
            for softmax in own if judged_ is not None else ():
                rest.pop(softmax.key, None)
    others = tuple(rest.values())
    laid_out = [each.judged.cases[0].small.layout for each in found if each.judged is not None]
    left = _judged(graph, reading, None, others, laid_out[:1] or LAYOUTS)
    return [*found, Seen(reading, None, left)] if others else found


def _is_cut(value: Value) -> bool:
    """Whether an operation may make windows of something."""
    is_gathered = value.op == "index" and any(e.op not in ("slice", "const", "input") for e in value.items[1:])
    return value.op in _CUT or is_gathered


def _weights_in(made: Value) -> list[Value]:
    """The attentions whose weights a value is made of; none where they weigh something on the way."""
    parts = [*made.walk(lambda each: each.items if each.op != "softmax" else ())]
    return [] if any(each.op in _WEIGHING for each in parts) else [each for each in parts if each.op == "softmax"]


def _judged(
    graph: Graph, reading: Reading, of: Map | None, attentions: Sequence[Value], layouts: Sequence[Layout] = LAYOUTS
) -> Judged | None:
    try:
        return judged(graph, reading, of, attentions, layouts) if attentions else None
    except (Unknown, RecursionError):
        return None


def innermost(seen: Sequence[Seen]) -> list[Seen]:
    """Those that could be computed, if any could, and are no calls of others: they know best what they are given."""
    seen = [each for each in seen if each.judged is not None] or seen
    nodes = {each.reading.node for each in seen}
    inner = [(each, (nodes - {each.reading.node}) & {*each.reading.calls.values(), *_homes(each)}) for each in seen]
    return [each for each, others in inner if not others]


def _homes(seen: Seen) -> set[ast.AST | None]:
    """The functions in whose own text what weighs padding is made."""
    leaks = seen.judged.leaks.values() if seen.judged is not None else ()
    places = {part.at for each in leaks for part in each.walk() if part.at is not None}
    return {place.file.function(place.node) for place in places}


def runs_over(found: Judged, write: Effect, end: Value) -> bool:
    """Whether the columns of a write end behind the map's in some case."""
    loops = [guard.at.node for guard in write.under if guard.kind in ("for", "while")]
    for case in found.cases:
        with suppress(Unknown, IndexError, Impossible):
            for turns in case.small.every_turn(loops):
                with case.small.within(turns):
                    if case.small.number(end) > case.small.length:
                        return True
    return False
