"""What a mask's text needs, and whether one tensor may stand for all masks of a kind."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from itertools import pairwise

from ..reading.files import File
from ..reading.frames import Reading
from ..reading.masks import Built, device_of
from ..reading.nodes import walk
from ..reading.signatures import VIEWS
from ..reading.values import Value, once_each
from .spelling import spelled, spellings

_KEEPING = ("register_buffer", "Parameter", "Buffer")
_SAME = ("triu", "tril", "contiguous", "clone", "detach", "setitem")  # of the same dtype
_MASKED = ("masked_fill", "where", "add", "sub", "mul")


def device_text(reading: Reading, built: Built) -> str | None:
    """The device that a mask is built on, or else that of what it masks."""
    device = device_of(built.value)
    if device is not None:
        made = spelled(device["of"], reading, built.node) if device.op == "device" else None
        return spelled(device, reading, built.node) or (f"{made}.device" if made else None)
    for value in reading.values.values():
        if value.op in _MASKED and built.value.key in {each.key for each in value.items}:
            others = [each for each in value.items if each.op != "const" and each.key != built.value.key]
            others += [side for each in others for part in each.walk() if part.op == "matmul" for side in part.items]
            texts = (text for each in others for text in spellings(each, reading, built.node))
            owner = next((text for text in texts if text.replace(".", "").isidentifier()), None)
            if owner is not None:
                return f"{owner}.device"
    return None


def dtype_text(reading: Reading, built: Built) -> str | None:
    """The dtype that a mask of floats is made with; nothing where it is torch's own, None where that is not known."""
    value = built.value
    while value.op in _SAME:
        value = value["input"]
    if value.op in ("mul", "add", "sub"):
        return "" if _is_of_default_dtype(value) else None
    dtype, fill = value.get("dtype"), value.get("fill_value")
    if value.op.startswith("new_") and dtype is None:
        text = spelled(value["input"], reading, built.node)
        return f"{text}.dtype" if text is not None else None
    if value.op not in ("full", "zeros", "new_full", "new_zeros") or (
        fill is not None and isinstance(fill.number, int)
    ):
        return None
    return spelled(dtype, reading, built.node) if dtype is not None else ""


@once_each
def _is_of_default_dtype(value: Value) -> bool:
    """Whether arithmetic is done with tensors of torch's own dtype of floats, and with numbers, for certain."""
    if value.op in ("mul", "add", "sub", "neg"):
        tensors = [each for each in value.items if each.number is None]
        return bool(tensors) and all(map(_is_of_default_dtype, tensors))
    if value.op in _SAME:
        return _is_of_default_dtype(value["input"])
    return value.op in ("ones", "zeros") and "dtype" not in value.args


def shared_badly(reading: Reading, readings: Iterable[Reading], built: Built, name: str) -> str:
    """Why a tensor that is shared may not stand for a mask; nothing where it may."""
    for each in readings:
        kept = [part for effect in each.effects if effect.kind in _KEEPING for part in effect.value.items]
        if any(_is_it(link, built) for value in (*each.changed, *kept) for link in (value, *value.bases(VIEWS))):
            return "it is written to or kept as a buffer afterwards: a mask that is shared must not be"
    file, own = reading.file, getattr(reading.node, "name", "")
    if any(
        name in file.scopes[node].bound for node in (reading.node, *file.ancestors(reading.node)) if _is_function(node)
    ):
        return f"the name {name} stands for something else here: rename yours"
    calls = [node for node in file.nodes if isinstance(node, ast.Call) and getattr(node.func, "id", "") == own]
    if not all(_is_late(file, call) for call in calls):
        return f"{own} is called while its module is read, before the cache is there: call it later"
    in_place = [node for node in walk(built.node) if isinstance(node, ast.Attribute) and node.attr.endswith("_")]
    if any(isinstance(node.value, ast.Name) for node in in_place):
        return "it is made in place of something that has a name: make it anew"
    return ""


def _is_it(value: Value, built: Built) -> bool:
    """Whether a value is the mask, here or where what makes it is called."""
    own = built.value.at.node if built.write is not None and built.value.at is not None else built.node
    return value.key == built.value.key or (value.at is not None and value.at.node is own)


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


def _is_late(file: File, call: ast.Call) -> bool:
    """Whether a call is made by a function's body, and so not while its module is read."""
    around = [call, *file.ancestors(call)]
    functions = [(inner, outer) for inner, outer in pairwise(around) if _is_function(outer)]
    return any(inner in outer.body for inner, outer in functions)  # type: ignore[attr-defined]
