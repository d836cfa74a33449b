"""Build each causal mask once.

Every forward builds the same boolean triangle again, in every layer. `get_tri_mask` builds one a
length and device, keeps it, and hands out the same tensor.

Contract: equivalent. The mask is the same; only how often it is built changes.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from .donor import definitions, donor
from .edits import operand, rewrite
from .matchers import (
    Operation,
    followed,
    index_comparisons,
    operation,
    sole_setting,
    square_of_ones,
    widest_mask,
)
from .source import Source
from .task import Contract, Edit, Finding, State, Task, mend, mended, near_miss
from .tree import SourceTree

CACHE = "get_tri_mask"
TRIANGLES = ("triu", "tril", "triu_", "tril_")
FACTORIES = ("ones", "zeros", "full", "new_ones", "new_zeros", "new_full", "ones_like", "zeros_like", "full_like")


def find(tree: SourceTree) -> Iterator[Finding]:
    """The triangles of ones that a forward makes, and the masks that come from the cache."""
    for source in tree.package(having=rb"tri[ul]|arange|get_tri_mask"):
        found = list(_masks(source))
        yield from found
        if any(finding.state is State.MISSING for finding in found):
            yield definitions(source, donor("bit_transformer/model.py"), CACHE)


def _masks(source: Source) -> Iterator[Finding]:
    for call in source.walk(cst.Call, having=(CACHE, *TRIANGLES)):
        if isinstance(call.func, cst.Name) and call.func.value == CACHE:
            yield mended(source.site(call, "causal mask from the cache"))
        made = operation(source, call)
        if made is not None and made.name in TRIANGLES:
            yield from _triangle_site(source, made)
    for comparison in index_comparisons(source):
        yield near_miss(
            source.site(comparison, "comparison of positions, perhaps a causal mask: build it with torch.triu")
        )


def _triangle_site(source: Source, made: Operation) -> Iterator[Finding]:
    base = made.argument(0, "input")
    ones = square_of_ones(source, base) if base is not None else None
    function = source.function(made.call)
    if base is None or function is None or function.name.value == "__init__":
        return
    if ones is None or set(made.keywords) - {"input", "diagonal"}:
        inner = operation(source, followed(source, base))
        if inner is not None and inner.name in FACTORIES:
            yield near_miss(source.site(made.call, "a triangle, but not of torch.ones(n, n) alone: build it so"))
        return
    outermost, triangle = widest_mask(source, made, ones)
    if function.name.value == CACHE or _is_kept(source, outermost, function):
        yield mended(source.site(outermost, "causal mask that is kept"))
    elif triangle.problem:
        yield near_miss(source.site(outermost, f"a triangle of ones, but {triangle.problem}"))
    else:
        assert triangle.device is not None
        length, device = source.code(triangle.length), operand(source, triangle.device)
        cached = rewrite(source, outermost, lambda _: f"{CACHE}({length}, {device})")
        spent = sole_setting(source, base)
        removed = [Edit(source, spent, lambda _: cst.RemoveFromParent())] if spent is not None else []
        yield mend(source.site(outermost, "causal mask built in every forward"), [cached, *removed])


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
