"""Build each causal mask once.

Every forward builds the same boolean triangle again, in every layer. `get_tri_mask` builds one a
length and device, keeps it, and hands out the same tensor.

Contract: equivalent. The mask is the same; only how often it is built changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from .donor import definitions, donor
from .edits import operand, rewrite
from .matchers import Operation, elements, followed, is_number, operation, same_code, sole_setting
from .source import Source, SourceTree
from .task import Contract, Edit, Finding, State, Task, mend, mended, near_miss

CACHE = "get_tri_mask"


def find(tree: SourceTree) -> Iterator[Finding]:
    """The triangles of ones that a forward makes, and the masks that come from the cache."""
    for source in tree.package(having=b"tri"):
        found = list(_masks(source))
        yield from found
        if any(finding.state is State.MISSING for finding in found):
            yield definitions(source, donor("bit_transformer/model.py"), CACHE)


def _masks(source: Source) -> Iterator[Finding]:
    for call in source.walk(cst.Call):
        if isinstance(call.func, cst.Name) and call.func.value == CACHE:
            yield mended(source.site(call, "causal mask from the cache"))
        made = operation(source, call)
        if made is not None and made.name in ("triu", "tril"):
            yield from _triangle_site(source, made)


def _triangle_site(source: Source, made: Operation) -> Iterator[Finding]:
    ones = _ones(source, made.operands[0]) if made.operands else None
    function = source.function(made.call)
    if function is None or function.name.value == "__init__":
        return
    if ones is None:
        inner = operation(source, followed(source, made.operands[0])) if made.operands else None
        if inner is not None and inner.name in ("full", "zeros", "ones_like", "full_like", "new_full"):
            yield near_miss(source.site(made.call, "a triangle, but not of ones: build it with torch.ones"))
        return
    outermost, triangle = _widest(source, made, ones)
    if function.name.value == CACHE or _is_kept(source, outermost, function):
        yield mended(source.site(outermost, "causal mask that is kept"))
    elif triangle.problem:
        yield near_miss(source.site(outermost, f"a triangle of ones, but {triangle.problem}"))
    else:
        assert triangle.device is not None
        length, device = source.code(triangle.length), operand(source, triangle.device)
        cached = rewrite(source, outermost, lambda _: f"{CACHE}({length}, {device})")
        spent = sole_setting(source, made.operands[0])
        removed = [Edit(source, spent, lambda _: cst.RemoveFromParent())] if spent is not None else []
        yield mend(source.site(outermost, "causal mask built in every forward"), [cached, *removed])


@dataclass(frozen=True, slots=True)
class _Triangle:
    """The square of ones under a triangle, and what is known of the mask that is made of it."""

    length: cst.BaseExpression
    device: cst.BaseExpression | None
    is_bool: bool
    is_square: bool = True
    hides_future: bool = False

    @property
    def problem(self) -> str:
        if not self.is_square:
            return "it is not square: give it a length and a length, or cut it from a square one"
        if not self.hides_future:
            return "True is not just what lies above the main diagonal: make it triu(ones, diagonal=1)"
        if not self.is_bool:
            return "it is not boolean: build it with dtype=torch.bool"
        return "" if self.device is not None else "it names no device: build it with device=..."


def _ones(source: Source, node: cst.BaseExpression) -> _Triangle | None:
    """The n x n ones that an expression makes: ones, full of True, new_ones, and conversions of them."""
    made = operation(source, followed(source, node))
    if made is None:
        return None
    if made.name in ("bool", "to", "type") and made.is_method:
        inner = _ones(source, made.operands[0])
        return _converted(source, inner, made) if inner else None
    if made.name == "full" and len(made.operands) > 1 and source.code(made.operands[1]) in ("True", "1", "1.0"):
        shape = list(elements(made.operands[0]))
    elif made.name in ("ones", "new_ones"):
        sizes = made.operands[1:] if made.is_method else made.operands
        shape = elements(sizes[0]) if len(sizes) == 1 else list(sizes)
    else:
        return None
    if len(shape) != 2:  # noqa: PLR2004 - rows and columns
        return None
    device = made.keywords.get("device")
    if made.name == "new_ones" and device is None:
        device = cst.Attribute(made.operands[0], cst.Name("device"))
    is_bool = _is_bool(source, made.keywords.get("dtype"))
    return _Triangle(shape[0], device, is_bool, is_square=same_code(source, shape[0], shape[1]))


def _widest(source: Source, made: Operation, ones: _Triangle) -> tuple[cst.BaseExpression, _Triangle]:
    """The largest expression around a triangle that is still that mask, converted or turned over."""
    diagonal = made.argument(1, "diagonal")
    upper, lower = made.name == "triu" and is_number(diagonal, 1), made.name == "tril" and diagonal is None
    triangle = _Triangle(ones.length, ones.device, ones.is_bool, ones.is_square, hides_future=upper)
    node: cst.BaseExpression = made.call
    while True:
        parent = source.parents[node]
        if isinstance(parent, cst.UnaryOperation) and isinstance(parent.operator, cst.BitInvert) and triangle.is_bool:
            upper, lower = lower, upper
            node, triangle = parent, _Triangle(ones.length, triangle.device, True, ones.is_square, hides_future=upper)
            continue
        call = source.parents.get(parent)
        around = operation(source, call) if isinstance(parent, cst.Attribute) and parent.value is node else None
        if around is None or around.call.func is not parent or around.name not in ("bool", "to", "type"):
            return node, triangle
        node, triangle = around.call, _converted(source, triangle, around)


def _converted(source: Source, triangle: _Triangle, made: Operation) -> _Triangle:
    """A triangle after `.bool()`, `.to(...)` or `.type(...)`."""
    arguments = [*made.operands[1:], *made.keywords.values()]
    dtypes = [argument for argument in arguments if (source.names.qualified(argument) or "").startswith("torch.")]
    devices = [argument for argument in arguments if argument not in dtypes]
    is_bool = made.name == "bool" or (any(_is_bool(source, d) for d in dtypes) if dtypes else triangle.is_bool)
    device = devices[0] if devices else triangle.device
    return _Triangle(triangle.length, device, is_bool, triangle.is_square, triangle.hides_future)


def _is_bool(source: Source, dtype: cst.BaseExpression | None) -> bool:
    return dtype is not None and (source.names.qualified(dtype) == "torch.bool" or source.code(dtype) == "bool")


def _is_kept(source: Source, mask: cst.BaseExpression, function: cst.FunctionDef) -> bool:
    """Whether a hand-written cache keeps the mask: a caching decorator, or an assignment into a mapping."""
    cached = [source.names.qualified(getattr(d.decorator, "func", d.decorator)) for d in function.decorators]
    if {"functools.cache", "functools.lru_cache"} & set(cached):
        return True
    assign = source.enclosing(mask, cst.Assign)
    return assign is not None and any(isinstance(target.target, cst.Subscript) for target in assign.targets)


task = Task(
    number=10,
    slug="mask-cache",
    title="Cached causal masks",
    contract=Contract.EQUIVALENT,
    summary="get_tri_mask(seq_len, device) builds each causal mask once",
    why=__doc__,
    sought="a boolean triangle of ones, triu(ones(n, n), diagonal=1), that a forward makes",
    find=find,
)
