"""Stitch attention windows without negative indices.

Window s is written to the columns s - overlap .. s + chunk of the T x T map. For the first windows
s - overlap is negative, and the write wraps round to the end of the map, silently. The patch clamps
the columns to the sequence and writes the columns of the window that stand for them; where windows
are left-padded it also hides the padding, which took part in the first windows' softmax.

Contract: fixes. The first windows' map and output change: they lose what leaked to the padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import libcst as cst

from .donor import definitions, donor
from .edits import insert_after, insert_before, operand, rewrite
from .matchers import (
    MapWrite,
    PaddedWindows,
    calls_builtin,
    computed_starts_in_loops,
    followed,
    index_of,
    is_loop_target,
    is_number,
    last_setting,
    last_slice,
    map_writes,
    operations,
    padded_windows,
    same_code,
    sequence_length,
)
from .source import Source
from .task import Contract, Edit, Finding, State, Task, mend, mended, near_miss
from .tree import SourceTree

PADDING = "window_padding"
ORIGIN = "origin"


def find(tree: SourceTree) -> Iterator[Finding]:
    """The writes of windows to a map, and the softmaxes over padded windows."""
    for source in tree.package(having=rb"unfold\(|zeros\("):
        padded = list(padded_windows(source))
        writes = list(map_writes(source))
        yield from _stitches(source, writes, is_padded=bool(padded))
        if padded and not writes:
            for bound in computed_starts_in_loops(source):
                yield near_miss(source.site(bound, "columns counted from here in a loop, but no write to a square map"))
        hidden = [_hide_padding(source, windows) for windows in padded]
        yield from hidden
        if any(finding.state is State.MISSING for finding in hidden):
            yield definitions(source, donor("bit_transformer/model.py"), PADDING)


def _stitches(source: Source, writes: list[MapWrite], *, is_padded: bool) -> Iterator[Finding]:
    clamped: set[cst.CSTNode] = set()  # two maps may share their bounds
    for write in writes:
        start = followed(source, write.first)
        if is_loop_target(source, start) or is_number(start, 0):
            continue
        site = source.site(write.assign, f"window written from column {source.code(start)}")
        limits = [argument.value for argument in start.args] if calls_builtin(source, start, "max") else []  # type: ignore[attr-defined]
        inner = [limit for limit in limits if not is_number(limit, 0)]
        offset = inner[0] if len(limits) == 2 and len(inner) == 1 else start  # noqa: PLR2004 - max(offset, 0)
        window = followed(source, write.assign.value)
        problem = _problem(source, write, offset, window, is_padded=is_padded)
        if offset is not start and (not is_padded or _starts_late(window)):
            yield mended(site)
        elif problem:
            yield near_miss(replace(site, note=f"{site.note}, but {problem}"))
        else:
            assert isinstance(offset, cst.BinaryOperation)
            edits = [] if offset is not start or start in clamped else list(_clamps(source, write, start))
            yield mend(site, [*edits, *(_moved_origin(source, write, offset, window) if is_padded else ())])
            clamped.add(start)


def _clamps(source: Source, write: MapWrite, start: cst.BaseExpression) -> Iterator[Edit]:
    yield rewrite(source, start, lambda code: f"max({code}, 0)")
    end, length = followed(source, write.end), source.code(write.length)
    if not calls_builtin(source, end, "min"):
        yield rewrite(source, end, lambda code: f"min({code}, {length})")


def _starts_late(window: cst.BaseExpression) -> bool:
    """Whether a window's columns are cut from elsewhere than its first."""
    last = last_slice(window)
    return last is not None and last.lower is not None and not is_number(last.lower, 0)


def _problem(
    source: Source, write: MapWrite, offset: cst.BaseExpression, window: cst.BaseExpression, *, is_padded: bool
) -> str:
    if not isinstance(offset, cst.BinaryOperation) or not isinstance(offset.operator, cst.Subtract):
        return "that cannot be read: make it a difference"
    if is_padded:
        last = last_slice(window)
        rows = index_of(write.map)[-2]
        assert isinstance(rows, cst.Slice)
        extent = [source.code(bound) for bound in (rows.upper, rows.lower) if bound is not None]
        if last is not None and last.upper is not None and source.code(last.upper) == " - ".join(extent):
            return "the window's last index cuts rows: index its columns too"
        return f"the name {ORIGIN} is taken: rename yours" if source.names.is_bound(ORIGIN, write.assign) else ""
    subscripts = source.walk(cst.Subscript, inside=source.function(write.assign))
    slices = [i for subscript in subscripts if subscript is not write.map for i in index_of(subscript)]
    is_truncated = any(
        isinstance(i, cst.Slice) and i.lower is not None and same_code(source, i.lower, write.first) for i in slices
    )
    return "" if is_truncated else "whether the windows are padded cannot be told: build them with F.pad and unfold"


def _moved_origin(
    source: Source, write: MapWrite, offset: cst.BinaryOperation, window: cst.BaseExpression
) -> Iterator[Edit]:
    """Take the window's columns from the one that stands for the first column written."""
    left, right = operand(source, offset.left), operand(source, offset.right)
    last = last_slice(window)
    cut = window if last is not None else write.assign.value
    yield insert_before(source, source.statement(cut), f"{ORIGIN} = max({right} - {left}, 0)")
    if not isinstance(window, cst.Subscript) or last is None:
        yield rewrite(source, cut, lambda code: f"{code}[..., {ORIGIN}:]")
        return
    width = source.code(last.upper) if last.upper is not None else ""
    counted = followed(source, last.upper) if last.upper is not None else None
    if counted is not None and any(same_code(source, use, write.first) for use in source.uses(counted)):
        width = f"{ORIGIN} + {width}"  # a width counted from the first column has to start at the origin
    kept = [source.code(element.slice) for element in window.slice[:-1]]
    text = f"{source.code(window.value)}[{', '.join([*kept, f'{ORIGIN} : {width}'.strip()])}]"
    yield rewrite(source, window, lambda _: text)


def _hide_padding(source: Source, windows: PaddedWindows) -> Finding:
    """Add the padding to what the windows' mask hides."""
    function = windows.function
    if any(use.value == PADDING for use in source.uses(function)):
        return mended(source.site(function.name, "padding of the windows hidden"))
    length = sequence_length(source, function)
    weighed = next(operations(source, "softmax", "scaled_dot_product_attention", inside=function), None)
    if length is None or weighed is None:
        lacking = "no name for the sequence length" if weighed is not None else "no softmax over them"
        return near_miss(source.site(function.name, f"padded windows, but {lacking}"))
    site = source.site(weighed.call, "softmax over windows whose padding is not hidden")
    padding = f"{PADDING}({length}, {source.code(windows.chunk)}, {source.code(windows.overlap)}, {{0}}.device)"
    mask = _mask(source, function)
    setting = last_setting(source, function, mask) if mask is not None else None
    if mask is not None and setting is not None:
        text = f"{mask.value} = {mask.value} | {padding.format(mask.value)}"
        return mend(site, [insert_after(source, setting, text)])
    scores = weighed.argument(0, "input")
    if weighed.name != "softmax" or not isinstance(scores, cst.Name):
        return near_miss(
            source.site(weighed.call, "softmax over padded windows, but of no name: name the mask or the scores first")
        )
    text = f'{scores.value} = {scores.value}.masked_fill({padding.format(scores.value)}, float("-inf"))'
    return mend(site, [insert_before(source, source.statement(weighed.call), text)])


def _mask(source: Source, function: cst.FunctionDef) -> cst.Name | None:
    """The name of the mask that hides keys in all cases: that of `masked_fill(mask, ...)` or of `attn_mask=~mask`."""
    for attention in operations(source, "scaled_dot_product_attention", inside=function):
        kept = attention.keywords.get("attn_mask")
        is_turned = isinstance(kept, cst.UnaryOperation) and isinstance(kept.operator, cst.BitInvert)
        return kept.expression if is_turned and isinstance(kept.expression, cst.Name) else None  # type: ignore[union-attr]
    fills = list(operations(source, "masked_fill", "masked_fill_", inside=function))
    mask = fills[0].argument(1, "mask") if len(fills) == 1 else None
    is_always_filled = bool(fills) and source.parents[source.statement(fills[0].call)] is function.body
    return mask if isinstance(mask, cst.Name) and is_always_filled else None


task = Task(
    number=11,
    slug="stitched-attention",
    title="Stitched attention without negative indices",
    contract=Contract.FIXES,
    summary="windows are written to the columns they stand for, and their padding is hidden",
    why=__doc__,
    sought="a loop that writes windows to a canvas of zeros(..., T, T), from column s - overlap",
    find=find,
)
