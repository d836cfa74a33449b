"""Rows of bits that are read from a file which is mapped into memory, by whoever's hand, and whether they are right.

What loads them runs twice, on files that are not real: for a text, and then for another one where the first one's lie.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .code import Code
from .files import File, Function
from .playing.grids import Grid
from .playing.kinds import Raised, Stuck
from .playing.texts import Machine
from .rows import bits_of, sample, table_of
from .updates import SHALLOW, calls_of, is_within, scope_of

MAPPING = ("of_text", "memmap", "mmap", "from_file", "open_memmap")
_SIZES = (384, 385)  # bytes of the two texts
_LENGTHS = (18, 27, 36, 72)


@dataclass(frozen=True, slots=True)
class Mapped:
    """Where rows are mapped, and what is wrong with them, if anything is."""

    file: File
    node: ast.expr
    why: str


def mapped_rows(code: Code, files: Sequence[File]) -> Iterator[Mapped]:
    """The calls that map rows in some files."""
    for file in files:
        own = [each for word in MAPPING for each in file.uses.get(word, ())]
        calls = [call for each in own if isinstance(call := file.parents[each], ast.Call) and call.func is each]
        calls = [call for call in calls if _maps(code, file, call)]
        ours = [call for call in calls if getattr(call.func, "attr", "") == MAPPING[0]]
        mapping = ours or calls
        if mapping:
            yield Mapped(file, mapping[0], "" if mapping[0] in ours else _judged(code, file, mapping))


def _maps(code: Code, file: File, call: ast.Call) -> bool:
    """Whether a call maps something: a library's, or one of the tree's whose class does; of ours, whose file does."""
    function, is_ours = (
        scope_of(code, file, call, SHALLOW).calls.get(call),
        getattr(call.func, "attr", "") == MAPPING[0],
    )
    home = code.home(function) if function is not None else None
    if not isinstance(function, Function) or home is None:
        return not is_ours
    around = home.module if is_ours else home.owner(function) or function
    return any(is_within(home, node, around) for word in MAPPING[1:] for node in home.uses.get(word, ()))


def _judged(code: Code, file: File, calls: Sequence[ast.Call]) -> str:
    """What is wrong with rows that a file maps by hand."""
    why = "whether they are the bits of a text cannot be read"
    for function in _loaders(code, file, calls):
        machines = [Machine(code, sample(size), _LENGTHS) for size in _SIZES]
        machines[1].disk.files, machines[1].age = machines[0].disk.files, 3
        try:
            rows = [table_of(machine, machine.run(file, function, None)) for machine in machines]
        except (Stuck, Raised) as trouble:
            why = getattr(trouble, "why", why) and f"whether they are the bits of a text cannot be read: {trouble}"
            continue
        if rows[0] is None or rows[1] is None or machines[0].disk.source is None:
            continue
        if _is_wrong(rows[0], sample(_SIZES[0])):
            return "they are not the text's bits, one after the other, with none between"
        return "an old file is taken for another text's" if _is_wrong(rows[1], sample(_SIZES[1])) else ""
    return why


def _loaders(code: Code, file: File, calls: Sequence[ast.Call]) -> list[Function]:
    """The functions on the way to what maps, the outermost first; of a class those that make an object of it."""
    found: list[Function] = []
    pending = [file.function(call) for call in calls]
    while pending:
        function = pending.pop(0)
        if function is None or function in found:
            continue
        found.append(function)
        owner = file.owner(function)
        users = [*file.uses.get(owner.name, ())] if owner is not None else []
        pending += [file.function(each) for each in users]
        pending += [
            reading.node
            for reading, _ in calls_of(code, function)
            if reading.file is file and isinstance(reading.node, Function)
        ]
    plain = [each for each in found if file.owner(each) is None]
    return plain[::-1]


def _is_wrong(rows: Grid, raw: bytes) -> bool:
    """Whether rows are not all whole rows of a text's bits."""
    bits = bits_of(raw)
    return rows.shape[0] != len(bits) // rows.shape[1] or rows.data != bits[: len(rows.data)]
