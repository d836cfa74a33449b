"""Build each causal mask once.

Every forward builds the same boolean triangle again, in every layer. `get_tri_mask` builds one a
length and device, keeps it, and hands out the same tensor.

Contract: equivalent. The mask is the same; only how often it is built changes.
"""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import libcst as cst

from .editing.donor import definitions, donor
from .editing.edits import rewrite
from .editing.masks import device_text, dtype_text, shared_badly
from .editing.spelling import spellings
from .editing.spent import spent
from .reading.frames import Reading
from .reading.kept import kept_by_hand
from .reading.masks import Built, builders, built_masks, other_triangles
from .reading.source import Source
from .reading.tree import SourceTree
from .reading.values import Value
from .task import Contract, Edit, Finding, State, Task, apart, mend, mended, near_miss

CACHE = "get_tri_mask"


def find(tree: SourceTree) -> Iterator[Finding]:
    """The causal masks that a forward builds, however they are written, and those that are kept."""
    for source, every in tree.readings(having=rb"tri[ul]|arange|cumsum|eye|get_tri_mask"):
        readings = [each for each in every if getattr(each.node, "name", "") != "__init__"]
        kept = kept_by_hand(tree.code, readings)
        found = [finding for reading in readings for finding in _masks(source, reading, readings, kept)]
        yield from found
        built = [finding for finding in found if finding.state is State.MISSING]
        if built:
            units = {unit for finding in built for unit in finding.units}
            yield from apart(units, [definitions(source, donor("bit_transformer/model.py"), CACHE)])


def _masks(source: Source, reading: Reading, readings: list[Reading], kept: dict[ast.AST, str]) -> Iterator[Finding]:
    for call, function in reading.calls.items():
        if getattr(function, "name", "") == CACHE:
            yield from apart([call], [mended(source.site(call, "causal mask from the cache"))])
    built = built_masks(reading)
    others = other_triangles(reading, built)
    built = [each for each in built if not any(node in reading.file.ancestors(each.node) for node, _ in others)]
    hidden_in = {each.node: builders(each.value) for each in built}
    hidden_in |= {node: builders(reading.values[node]) if node in reading.values else [node] for node, _ in others}
    held = {node: made_at for node, made_at in hidden_in.items() if made_at and kept.keys() >= {*made_at}}
    for node, made_at in held.items():
        why = next(filter(None, (kept[each] for each in made_at)), "")
        site = source.site(node, f"mask that is kept, but {why}" if why else "mask that is kept")
        yield from apart([node], [near_miss(site) if why else mended(site)])
    built = [each for each in built if each.node not in held]
    others = [(node, why) for node, why in others if node not in held]
    for node, why in others:
        yield from apart([node], [near_miss(source.site(node, f"a triangle that is no causal mask: {why}"))])
    cached = {each.node: _cached(source, reading, readings, each) for each in built}
    clear = [each for each in built if not cached[each.node].problem]
    replaced = [node for each in clear for node in (each.node, each.write) if node is not None]
    gone = spent(reading, replaced, [each.value for each in clear], [cached[each.node].text for each in clear])
    writes = {each.write: each.value for each in built if each.write is not None}
    gone += [each.write for each in clear if each.write is not None and reading.file.statement(each.node) in gone]
    fed = {each.node: [other for other in gone if _feeds(reading, other, writes, each)] for each in built}
    often = Counter(statement for each in fed.values() for statement in each)
    for each in built:
        mine = cached[each.node]
        if reading.file.statement(mine.node) in gone:
            continue
        unit = reading.node if any(often[statement] > 1 for statement in fed[each.node]) else each.node
        if mine.problem:
            note = f"causal mask built in every forward, but {mine.problem}"
            yield from apart([unit], [near_miss(source.site(each.node, note))])
            continue
        statements = dict.fromkeys([*fed[each.node], *([each.write] if each.write is not None else [])])
        edits = [Edit(source, source.at(statement), lambda _: cst.RemoveFromParent()) for statement in statements]
        edits.append(rewrite(source, source.at(mine.node), lambda _, text=mine.text: text))  # type: ignore[misc, arg-type]
        yield from apart([unit], [mend(source.site(each.node, "causal mask built in every forward"), edits)])


@dataclass(frozen=True, slots=True)
class Cached:
    """What takes a mask's place: an expression, and its text; or why there is none."""

    node: ast.expr
    text: str = ""
    problem: str = ""


def _cached(source: Source, reading: Reading, readings: list[Reading], built: Built) -> Cached:
    length, left_out, height = (
        next((text for each in some for text in spellings(each, reading, built.node)), None)
        for some in (built.mask.lengths, built.mask.left_out, built.mask.heights)
    )
    device = device_text(reading, built)
    if length is None:
        return Cached(built.node, problem="how long it is has no name here: name its length first")
    if device is None:
        return Cached(built.node, problem="it names no device: build it with device=...")
    above = left_out or (f"{length} - {height} " if height is not None and height.isidentifier() else None)
    if built.mask.is_cut and above is None:
        return Cached(built.node, problem="how many rows it leaves out has no name here: name their number first")
    if problem := shared_badly(reading, readings, built, CACHE):
        return Cached(built.node, problem=problem)
    cut = ", ".join([*["None"] * built.mask.leading, *([f"{above}:"] if above is not None else [])])
    call = f"{CACHE}({length}, {device})" + (f"[{cut}]" if cut else "")
    if built.mask.hides_future:
        return Cached(built.node, call)
    if built.mask.keeps_past:
        parent = reading.file.parents[built.node]
        is_operand = isinstance(parent, (ast.Attribute, ast.Subscript, ast.BinOp, ast.Compare))
        return Cached(built.node, f"(~{call})" if is_operand else f"~{call}")
    zeros, fill = source.names.spelled("torch.zeros"), built.mask.above
    if type(fill) is float and fill < 0 and built.mask.below == 0 and zeros is not None:
        kind, text = dtype_text(reading, built), 'float("-inf")' if fill == -math.inf else repr(fill)
        if kind is not None and (fill == -math.inf or not kind):
            settings = f"dtype={kind}, device={device}" if kind else f"device={device}"
            return Cached(built.node, f"{zeros}({height or length}, {length}, {settings}).masked_fill({call}, {text})")
    return Cached(built.node, problem="it is not boolean: build it with dtype=torch.bool")


def _feeds(reading: Reading, statement: ast.stmt, writes: Mapping[ast.stmt, Value], built: Built) -> bool:
    made = reading.values.get(statement.value) if isinstance(statement, ast.Assign) else None
    made = writes.get(statement, made)
    return made is not None and any(each.key == made.key for each in built.value.walk())


task = Task(
    number=10,
    slug="mask-cache",
    title="Cached causal masks",
    contract=Contract.EQUIVALENT,
    seam="attention",
    summary="get_tri_mask(seq_len, device) builds each causal mask once",
    why=__doc__,
    sought="a causal mask, however it is written, that a forward builds",
    find=find,
)
