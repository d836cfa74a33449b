"""Counts and micro-batches, computed in plain Python for small numbers of rows: what a total is, where rows are cut.

Rows are their own numbers, [0, 1, 2, ...]; a claim holds if it does for every number of them that is tried.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

from .frames import Reading
from .tensors import NUMBERS, Unknown
from .updates import is_within
from .values import Value

TRIED = range(1, 41)  # numbers of rows
_FAILURES = (Unknown, TypeError, IndexError, KeyError, ValueError, ZeroDivisionError)
_ROUNDED = {"math.ceil": math.ceil, "math.floor": math.floor}
_LOADER = "torch.utils.data.DataLoader"
_LEAVES = ("parameter", "attr", "call", "part", "setting", "index", "opaque")  # what may be rows, or their size
_LOADED = ("dataset", "batch_size", "shuffle")  # the first arguments of a DataLoader
_ORDERED = {"shuffle", "drop_last", "sampler", "batch_sampler", "collate_fn"}  # what makes other micro-batches


class Cut(NamedTuple):
    """An expression that gives rows in micro-batches of one size, in order."""

    node: ast.expr
    rows: Value
    size: int | Value  # a number, or what the code says it is

    def known(self, rows: int, size: int) -> dict[int, Any]:
        """What is known for a number of rows, and for a size if it is no number."""
        known: dict[int, Any] = {self.rows.key: list(range(rows))}
        return known if isinstance(self.size, int) else {**known, self.size.key: size}

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes to try."""
        return (self.size,) if isinstance(self.size, int) else (3, 8)


def computed(value: Value, known: Mapping[int, Any]) -> Any:
    """A number, or a list, where some values are known by their keys. Raises Unknown."""
    if value.key in known:
        return known[value.key]
    sequence = _SEQUENCES.get(value.op)
    if sequence is not None:
        return sequence(value, known)
    if value.op == "const" and isinstance(value.data, (bool, int, float)):
        return value.data
    if value.op in NUMBERS and value.op not in ("all", "any"):
        return NUMBERS[value.op](*(computed(each, known) for each in value.items))
    raise Unknown(value)


def _either(value: Value, known: Mapping[int, Any]) -> Any:
    """`a or b` and `a and b`, which give one of the two."""
    made: Any = None
    for each in value.items:
        made = computed(each, known)
        if bool(made) == (value.op == "any"):
            break
    return made


def _choice(value: Value, known: Mapping[int, Any]) -> Any:
    return computed(value["yes" if computed(value["test"], known) else "no"], known)


def _size(value: Value, known: Mapping[int, Any]) -> int:
    if not value["dim"].is_const(0):
        raise Unknown(value)
    return len(computed(value["input"], known))


def _split(value: Value, known: Mapping[int, Any]) -> list[Any]:
    size = value.get("split_size_or_sections") or value.get("split_size")
    if size is None or not (value.get("dim") is None or value["dim"].is_const(0)):
        raise Unknown(value)
    return _grouped(computed(value["input"], known), computed(size, known))


def _grouped(rows: list[Any], size: int) -> list[Any]:
    if not isinstance(size, int) or size < 1:
        raise Unknown
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _each(value: Value, known: Mapping[int, Any]) -> list[Any]:
    found = []
    items = [each for each in value["elt"].walk() if each.op == "item" and each["of"].key == value["of"].key]
    for member in computed(value["of"], known):
        bound = {**known, **{item.key: member for item in items}}
        if all(computed(test, bound) for name, test in value.args.items() if name.startswith("if")):
            found.append(computed(value["elt"], bound))
    return found


def _indexed(value: Value, known: Mapping[int, Any]) -> Any:
    if [name for name in value.args if name not in ("input", "0")]:
        raise Unknown(value)
    base, index = computed(value["input"], known), value["0"]
    if index.op == "slice":
        return base[slice(*(None if each.is_const(None) else computed(each, known) for each in index.items))]
    place = computed(index, known)
    return [base[each] for each in place] if isinstance(place, list) else base[place]


def _part(value: Value, known: Mapping[int, Any]) -> Any:
    return computed(value["of"], known)[value.data]


def _range(value: Value, known: Mapping[int, Any]) -> list[int]:
    return list(range(*(computed(each, known) for each in value.items)))


def _arange(value: Value, known: Mapping[int, Any]) -> list[int]:
    bounds = [value.get(name) for name in ("start", "end", "step")]
    return list(range(*(computed(each, known) for each in bounds if each is not None)))


def _called(value: Value, known: Mapping[int, Any]) -> Any:
    """math.ceil, a DataLoader that keeps the order, a tensor_split."""
    func, given = value["func"], [each for name, each in value.args.items() if name.isdigit()]
    if func.data in _ROUNDED and len(given) == 1:
        return _ROUNDED[func.data](computed(given[0], known))
    if func.op == "attr" and func.data == "tensor_split" and given:
        rows, bounds = computed(func["of"], known), computed(given[0], known)
        return [rows[a:b] for a, b in zip([0, *bounds], [*bounds, len(rows)], strict=True)]
    if func.data != _LOADER:
        raise Unknown(value)
    named = {name: each for name, each in value.args.items() if name != "func" and not name.isdigit()}
    named |= dict(zip(_LOADED, given, strict=False))
    if any(name in _ORDERED and not each.is_const(False, None) for name, each in named.items()):
        raise Unknown(value)
    made = named["dataset"]
    is_set = "func" in made.args and made["func"].data == "torch.utils.data.TensorDataset" and len(made.args) == 2  # noqa: PLR2004
    groups = _grouped(computed(made["0"] if is_set else made, known), computed(named["batch_size"], known))
    return [(group,) for group in groups] if is_set else groups


_SEQUENCES: dict[str, Callable[[Value, Mapping[int, Any]], Any]] = {
    "any": _either,
    "all": _either,
    "phi": _choice,
    "size": _size,
    "split": _split,
    "each": _each,
    "index": _indexed,
    "part": _part,
    "range": _range,
    "arange": _arange,
    "call": _called,
    "tuple": lambda value, known: [computed(each, known) for each in value.items],
    "list": lambda value, known: [computed(each, known) for each in value.items],
    "int": lambda value, known: int(computed(value["input"], known)),
    "float": lambda value, known: float(computed(value["input"], known)),
}


def cut_of(reading: Reading, loop: ast.For) -> Cut | None:
    """Where what a loop goes through is cut into micro-batches; the widest such expression of its header."""
    nodes = [(node, value) for node, value in reading.values.items() if is_within(reading.file, node, loop.iter)]
    found = [cut for node, value in nodes if isinstance(node, ast.expr) and (cut := _cut(node, value)) is not None]
    widest = [cut for cut in found if not any(_holds(reading, other.node, cut.node) for other in found)]
    return widest[0] if len(widest) == 1 else None


def sliced(reading: Reading, loop: ast.For) -> tuple[Cut, ast.Assign] | None:
    """A loop over where micro-batches start, and the statement that takes each: `rows[start : start + 8]`."""
    first, starts = loop.body[0], reading.values.get(loop.iter)
    item = reading.values.get(loop.target)
    if (
        not isinstance(first, ast.Assign)
        or not isinstance(first.targets[0], ast.Name)
        or starts is None
        or item is None
    ):
        return None
    names = [each for each in ast.walk(reading.node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)]
    own = [
        each for each in names if reading.values.get(each, first) is item and not is_within(reading.file, each, first)
    ]
    taken = reading.values[first.value]
    for rows in _sources(taken) if not own else ():
        for size in range(1, TRIED[-1]):
            cut = Cut(loop.iter, rows, size)
            if all(
                _takes(cut.known(count, size), starts, item, taken) == _grouped(list(range(count)), size)
                for count in TRIED
            ):
                return cut, first
    return None


def _takes(known: dict[int, Any], starts: Value, item: Value, taken: Value) -> list[Any] | None:
    try:
        return [computed(taken, {**known, item.key: start}) for start in computed(starts, known)]
    except _FAILURES:
        return None


def _holds(reading: Reading, outer: ast.AST, node: ast.AST) -> bool:
    return outer is not node and is_within(reading.file, node, outer)


def _cut(node: ast.expr, value: Value) -> Cut | None:
    sources = list(_sources(value))
    for rows in sources:
        try:
            size = len(computed(value, {rows.key: list(range(TRIED[-1]))})[0])
            cuts = [Cut(node, rows, size)] if 0 < size < TRIED[-1] else []
        except _FAILURES:
            cuts = [Cut(node, rows, other) for other in sources if other is not rows]
        for cut in cuts:
            tried = product(cut.sizes, TRIED)
            if _is(value, ((cut.known(count, size), _grouped(list(range(count)), size)) for size, count in tried)):
                return cut
    return None


def _sources(value: Value) -> Iterator[Value]:
    """What may be the rows that a value is made of."""
    return (each for each in value.walk() if each.op in _LEAVES)


def counting(reading: Reading, cut: Cut, inside: ast.AST) -> list[ast.expr]:
    """The widest expressions in a scope's text that count micro-batches, or guess at their number; no names."""
    counted = [
        node
        for node, value in reading.values.items()
        if isinstance(node, ast.expr)
        and not isinstance(node, ast.Name)
        and not is_within(reading.file, node, inside)
        and is_count(value, cut)
    ]
    return [node for node in counted if not any(_holds(reading, other, node) for other in counted)]


def is_count(value: Value, cut: Cut) -> bool:
    """Whether a value is the number of micro-batches, rounded up or down, perhaps one at least."""
    rules: list[Callable[[int, int], int]] = [
        lambda rows, size: rows // size,
        lambda rows, size: max(1, rows // size),
        lambda rows, size: -(-rows // size),
    ]
    tried = list(product(TRIED, cut.sizes))
    return any(_is(value, ((cut.known(*each), rule(*each)) for each in tried)) for rule in rules)


def is_limit(test: Value, total: Value) -> bool:
    """Whether a test says no more than that a schedule has not passed its total."""
    steps = {each.key for each in test.walk() if each.op == "attr" and each.data == "last_epoch"}
    own = {each.key for each in test.walk() if each.op == "attr" and each.data in ("total_steps", "_total_steps")}
    rules: list[Callable[[int, int], bool]] = [lambda at, end: at < end, lambda at, end: at <= end]
    pairs = list(product(range(5), range(1, 5)))
    known = [dict.fromkeys(steps, at) | dict.fromkeys({*own, total.key}, end) for at, end in pairs]
    return any(_is(test, [(each, rule(*pair)) for each, pair in zip(known, pairs, strict=True)]) for rule in rules)


def _is(value: Value, wanted: Iterable[tuple[dict[int, Any], Any]]) -> bool:
    try:
        return all(computed(value, known) == made for known, made in wanted)
    except _FAILURES:
        return False
