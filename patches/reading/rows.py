"""Rows of bits that are made of a text file: where, of which file, and how long they are.

Found by running what makes them on texts of a few hundred bytes: one leaves a tail, one fills its rows, one
is no UTF-8.
"""

from __future__ import annotations

import ast
import copy
import io
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .code import Code
from .files import File, Function
from .playing.disk import FilePath, Given
from .playing.grids import Grid, stacked
from .playing.kinds import Function as Func
from .playing.kinds import Raised, Scope, Stuck, Thing
from .playing.texts import LARGE, Machine
from .reads import reads_of_attribute
from .updates import calls_of, makings_of
from .values import Place

BITS = 9  # of a byte: most significant first, and one that makes the number of ones even
OPENING = ("open", "read_text", "read_bytes")
_FARTHEST = 3  # callers, from what opens a file to what makes its rows; attributes, to what they are made of
_TEXT = "\ufeffAb\n\n  é\u2028x \x0cz\t\n\nñ日本𝄞 end. The quick brown fox\n"
_TAIL, _FULL = 385, 384  # bytes: rows of 2, 3, 4, 8, 64 and 128 bytes leave a tail, or none
_LENGTHS = ((18, 27, 36, 72), (27, 18, 72, 36), (9, 18, 27, 36))  # bits of a row that is given
SMALL = 67  # for large numbers that are written out, so that what they limit is seen on a short text
_WORD = 24
_PLAIN = (ast.Name, ast.Attribute, ast.Constant)


@dataclass(frozen=True, slots=True)
class Rows:
    """An expression that gives all rows of a text file's bits, and how its scope writes the file and their length."""

    file: File
    function: Function
    node: ast.expr
    path: str
    is_path: bool  # whether the path is an object of pathlib's
    length: str
    machine: Machine  # the run in which it was found
    home: str | None  # the module of the function that encodes bytes

    def makes(self, node: ast.AST) -> bool:
        """Whether an expression gives text of the file, bits of it, or an object that keeps such."""
        value = _value(self.machine, node)
        is_around = node in self.file.ancestors(self.node)
        held = [value] if not isinstance(value, Thing) else value.own.values() if not is_around else ()
        return any(isinstance(each, (io.TextIOWrapper, io.BytesIO)) or _is_bits(each) for each in held)

    def is_given_by(self, node: ast.AST | None) -> bool:
        """Whether an expression gives the rows."""
        scope = self.machine.own[self.node][1]
        value = scope.get(node.id) if isinstance(node, ast.Name) else _value(self.machine, node)
        return _is_rows(self.machine, value, sample(_TAIL))

    def is_count(self, node: ast.AST) -> bool:
        """Whether an expression counts all the bits."""
        return bool(_value(self.machine, node) == BITS * _TAIL)


@dataclass(frozen=True, slots=True)
class Miss:
    """A place where bits are made of a text file, and why they are not known to be rows of all of them."""

    file: File
    node: ast.expr
    why: str
    is_sure: bool = True  # whether they are known not to be, by the rows that are made


@lru_cache
def sample(size: int, *, is_text: bool = True) -> bytes:
    """A text of so many bytes, or what is no UTF-8 at its end."""
    text = (_TEXT * 9).encode()[: size - 12].decode(errors="ignore").encode()
    end = b"ab" + (b"c" if size % 2 else b"\n")  # with space at the end of some, and none behind the others
    return (text + b"so it ends here" * 4)[: size - 3] + (end if is_text else b"a\xffc")


def probe(words: Collection[str]) -> bytes:
    """A text with more lines and rows than any number that counts is written out for, and what the code asks for."""
    plain = sorted(each for each in words if len(each) <= _WORD and each.isprintable())[:_WORD]
    lines = [line for word in plain for line in (word, f"{word}x", f"x {word} x", f"x{word}")]
    return "\n".join([*lines, "12", "AB", "ab", "x" * 4 * SMALL, *[""] * LARGE, _TEXT + "end"]).encode()


def bits_of(raw: bytes) -> list[int]:
    """The bits of a text."""
    return [bit for byte in raw for bit in (*(byte >> shift & 1 for shift in range(7, -1, -1)), byte.bit_count() & 1)]


def rows_of_texts(code: Code, starts: Sequence[File]) -> Iterator[Rows | Miss]:
    """What makes rows of the text files that some files open, there or in what calls it."""
    pending = [(file, each, owner, 0) for file in starts for each, owner in _opening(file)]
    found: dict[Function | ast.Module, Rows | Miss | None] = {}
    asked: dict[Function | ast.Module, Function] = {}  # by each function, of those that open a file
    while pending:
        file, function, owner, depth = pending.pop(0)
        if function in found:
            continue
        made = found[function] = _made_in(code, file, function, owner)
        is_open = isinstance(made, Miss) and not made.is_sure
        if is_open and isinstance(function, Function) and depth < _FARTHEST:
            pending += [(*each, depth + 1) for each in _callers(code, function)]
            asked |= {each: function for _, each, _ in _callers(code, function)}
    sites = {function for function, each in found.items() if isinstance(each, Rows)}
    made_of = {each.function for each in found.values() if isinstance(each, Rows)}
    for function, each in found.items():
        if isinstance(each, Rows) and not _called(each.machine, each.node) & (sites - {function}):
            yield each
        if isinstance(each, Miss) and each.why and (each.is_sure or not _leads_to(code, function, made_of)):
            below = found[asked[function]] if function in asked else None
            yield from [each] if getattr(below, "why", "") != each.why else []  # else it shows there


def _opening(file: File) -> Iterator[tuple[Function | ast.Module, ast.ClassDef | None]]:
    nodes = [node for word in OPENING for node in file.uses.get(word, ())]
    for each in dict.fromkeys(file.function(node) or file.module for node in nodes):
        yield each, file.owner(each) if isinstance(each, Function) else None


def _callers(code: Code, function: Function) -> list[tuple[File, Function, ast.ClassDef | None]]:
    """The functions that call one, that make an object by it, or that ask for a property which it is."""
    home = code.files.of(function)
    owner = home.owner(function)
    calls = makings_of(code, owner) if owner is not None and function.name == "__init__" else calls_of(code, function)
    sites = [(reading.file, call) for reading, call in calls]
    if owner is not None and not sites:
        sites = [*reads_of_attribute(code, home, owner, function.name)]  # type: ignore[list-item]
    callers = [(file, file.function(node)) for file, node in sites]
    return [(file, each, file.owner(each)) for file, each in callers if each is not None]


def _leads_to(code: Code, function: ast.AST, made_of: set[Function], depth: int = 0) -> bool:
    """Whether a function is called on the way to rows that were found: then it is a part of what makes them."""
    if function in made_of or depth > _FARTHEST or not isinstance(function, Function):
        return function in made_of
    return any(_leads_to(code, caller, made_of, depth + 1) for _, caller, _ in _callers(code, function))


def _called(machine: Machine, node: ast.expr) -> set[ast.AST]:
    """The functions of the tree that an expression calls in its own text."""
    values = (machine.own[each][0] for each in ast.walk(node) if each in machine.own)
    return {value.node for value in values if isinstance(value, Func)}


def full_rows(length: int) -> int:
    """The bytes of some texts that fill their rows, a few hundred."""
    size = math.lcm(length, BITS) // BITS
    return size * max(1, _FULL // size)


def table_of(machine: Machine, value: Any) -> Grid | None:
    """The rows that a value is, or that an object of the tree gives one by one. Raises Stuck and Raised."""
    if not isinstance(value, Thing) or machine.walk.code.method(value.cls.path, value.cls.node, "__getitem__") is None:
        return value if isinstance(value, Grid) and len(value.shape) == 2 else None  # noqa: PLR2004 - rows and bits
    walk, at = machine.walk, Place(machine.walk.module(value.cls.path).file, value.cls.node)
    size = walk.call(walk.attribute(value, "__len__", at), [], {}, at)
    entry = walk.attribute(value, "__getitem__", at)
    rows = [walk.call(entry, [each], {}, at) for each in range(size)] if isinstance(size, int) else []
    return stacked(rows) if rows and all(isinstance(row, Grid) and len(row.shape) == 1 for row in rows) else None


def _is_rows(machine: Machine, value: Any, raw: bytes) -> bool:
    with suppress(Stuck, Raised):
        table = table_of(machine, value)
        if table is not None and table.is_tensor and table.data:
            bits = bits_of(raw)
            return table.shape[0] == len(bits) // table.shape[1] and table.data == bits[: len(table.data)]
    return False


def _run(
    code: Code,
    function: tuple[File, Function | ast.Module, ast.ClassDef | None],
    raw: bytes,
    numbers: Sequence[int],
    most_written: int = 0,
) -> tuple[Machine, Stuck | Raised | None]:
    machine = Machine(code, raw, numbers)
    machine.most_written = most_written
    machine.stops = lambda value: _is_rows(machine, value, raw)
    machine.returned = lambda func, value: machine.encoders.append(func.path) if _is_bits(_listed(value)) else None
    try:
        machine.run(*function)
    except (Stuck, Raised) as trouble:
        return machine, trouble
    return machine, None


def _made_in(code: Code, file: File, function: Function | ast.Module, owner: ast.ClassDef | None) -> Rows | Miss | None:
    where = (file, function, owner)
    tail, full = sample(_TAIL), sample(_FULL)
    machine, trouble = _run(code, where, tail, _LENGTHS[0])
    own = ((each, value) for each, (value, _) in machine.own.items() if not isinstance(each, ast.Name))
    nodes: list[ast.expr] = [each for each, value in own if _is_rows(machine, value, tail)]  # type: ignore[misc]
    if not nodes:
        return _miss(file, machine, trouble)
    wide = probe(machine.words)
    probed, _ = _run(code, where, wide, _LENGTHS[2], SMALL)
    node = next((each for each in reversed(nodes) if _is_rows(probed, _value(probed, each), wide)), None)
    if node is None:
        return Miss(file, nodes[-1], "of a longer text, or one with what is asked for here, they are not all bits")
    made = table_of(machine, _value(machine, node))
    assert made is not None
    if made.dtype != "int64":
        return Miss(file, node, f"they are of dtype {made.dtype}, expected torch.long")
    if not isinstance(function, Function):
        return Miss(file, node, "they are made outside of any function: put them into one")
    again, _ = _run(code, where, full, _LENGTHS[1])
    short = sample(full_rows(made.shape[1]) - 1)
    last, _ = _run(code, where, short, _LENGTHS[0])
    if not (_is_rows(again, _value(again, node), full) and _is_rows(last, _value(last, node), short)):
        return Miss(file, node, "their last bits are not those of the text")
    broken, error = _run(code, where, sample(_TAIL, is_text=False), _LENGTHS[0])
    if not (isinstance(error, Raised) or _is_rows(broken, _value(broken, node), sample(_TAIL, is_text=False))):
        return Miss(file, node, "the file is not decoded as plain UTF-8")
    path = _spelled(machine, again, node, _is_source)
    lengths = {id(run): table_of(run, _value(run, node)).shape[1] for run in (machine, again)}  # type: ignore[union-attr]
    length = _spelled(machine, again, node, lambda run, value: _number(value) == lengths[id(run)])
    if path is None or length is None:
        return Miss(
            file, node, f"{'which file it is' if path is None else 'how long they are'} has no name here: name it"
        )
    is_path = _is_pathlike(code, file, function, path[1])
    home = next(iter(machine.encoders), None)
    return Rows(file, function, node, path[0], is_path, length[0], machine, home)


def _value(machine: Machine, node: ast.AST | None) -> Any:
    return machine.own[node][0] if node in machine.own else None


def _is_source(machine: Machine, value: Any) -> bool:
    path = value.path if isinstance(value, Given) else value
    return path is not None and isinstance(path, (FilePath, str)) and str(path) == machine.disk.source


def _number(value: Any) -> int | None:
    value = value.number if isinstance(value, Given) else value
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _spelled(machine: Machine, again: Machine, at: ast.expr, means: Any) -> tuple[str, Any] | None:
    """A text that two runs agree on to mean something where an expression stands; names first."""
    scope = machine.own[at][1]
    found = [
        (node, value)
        for node, (value, _) in machine.own.items()
        if means(machine, value)
        and means(again, _value(again, node))
        and isinstance(node, ast.expr)
        and _is_valid(machine, node, scope)
    ]
    kinds = [
        next((place for place, kind in enumerate(_PLAIN) if isinstance(node, kind)), len(_PLAIN)) for node, _ in found
    ]
    best = min(zip(kinds, range(len(found)), strict=True), default=None)
    if best is not None:
        return ast.unparse(found[best[1]][0]), found[best[1]][1]
    held = [item for names in scope.chain for item in names.items()]
    for text, value in held:  # and what is had of those that are come to
        is_deep = not isinstance(value, Given) or text.count(".") == _FARTHEST
        held += [] if is_deep else [(f"{text}.{name}", each) for name, each in value.attrs.items()]
        if "." in text and text.replace(".", "").isidentifier() and means(machine, value):
            return text, value
    return None


def _is_valid(machine: Machine, node: ast.expr, scope: Scope) -> bool:
    """Whether an expression means the same behind the statement of what was found, and calls nothing of the tree."""
    for each in ast.walk(node):
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load):
            then = _value(machine, each)
            now = scope.get(each.id, then)
            if now is not then and not (isinstance(now, (int, str)) and now == then):
                return False
        if isinstance(each, (ast.NamedExpr, ast.Await, ast.Lambda)) or (
            isinstance(each, ast.Call) and isinstance(_value(machine, each.func), Func)
        ):
            return False
    return True


def _is_pathlike(code: Code, file: File, function: Function, value: Any) -> bool:
    """Whether a path is known for an object of pathlib's: by how it is made, by its annotation, by what it is asked."""
    if not isinstance(value, Given):
        return isinstance(value, FilePath)
    hints = [
        each.annotation for each in ast.walk(function.args) if isinstance(each, ast.arg) and each.arg == value.text
    ]
    frame = code.module(file.path)
    known = [frame.expr(each) for each in hints if each is not None]
    return value.is_path or any(each.op == "global" and each.data == "pathlib.Path" for each in known)


def _listed(value: Any) -> Any:
    """What a generator gives, which stays as it is."""
    return list(copy.copy(value)) if isinstance(value, type(iter([]))) else value


def _is_bits(value: Any) -> bool:
    """Whether a value is the bits of some bytes, each with its parity."""
    data = value.data if isinstance(value, Grid) else value
    if not isinstance(data, (list, tuple)) or len(data) < BITS or len(data) % BITS:
        return False
    if not all(isinstance(each, int) and each in (0, 1) for each in data):
        return False
    return any(data) and not any(sum(data[at : at + BITS]) % 2 for at in range(0, len(data), BITS))


def _miss(file: File, machine: Machine, trouble: Stuck | Raised | None) -> Miss | None:
    """Why what encodes a text file gives no rows that are known."""
    if machine.disk.source is None:
        return None
    made = [(node, value) for node, (value, _) in machine.own.items() if isinstance(node, ast.Call) and _is_bits(value)]
    if not made:
        return Miss(file, next(node for node in machine.own if isinstance(node, ast.expr)), "", is_sure=False)
    node = made[0][0]
    if isinstance(trouble, Stuck):
        place = f" ({trouble.at.file.path}:{trouble.at.line})" if trouble.at is not None else ""
        return Miss(file, node, f"how rows are made of them cannot be read, for {trouble.why}{place}", is_sure=False)
    if not machine.disk.is_plain:
        return Miss(file, node, "the file is not decoded as plain UTF-8")
    whole = bits_of(machine.disk.sample)
    for each, thing in ((each, value) for each, (value, _) in machine.own.items() if isinstance(value, Thing)):
        held = next((name for name, value in thing.own.items() if _is_rows(machine, value, machine.disk.sample)), None)
        if held is not None and isinstance(each, ast.Call):
            why = f"what cuts them to the {held} of a {thing.cls.node.name} is another function: cut them here"
            return Miss(file, each, why, is_sure=False)
    grids = [value for value, _ in machine.own.values() if isinstance(value, Grid) and value.is_tensor]
    tables = [each for each in grids if len(each.shape) == 2]  # noqa: PLR2004 - rows and bits
    if tables:
        is_padded = tables[-1].data[: len(whole)] == whole
        return Miss(
            file,
            node,
            "zeros are added to them" if is_padded else "the rows are not all of the text's bits, one after the other",
        )
    return Miss(file, node, "how rows are cut from them cannot be read", is_sure=False)
