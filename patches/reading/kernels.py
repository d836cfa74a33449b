"""Attention that torch computes: what a call asks of it that is wrong for certain."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .attention import sized_as
from .frames import Reading, plain_test
from .masks import causal_mask
from .names import parameters
from .values import Graph, Value

_VIEWS = {"permute", "swap", "mT", "contiguous", "clone", "flatten", "unflatten", "pad", "reshape", "view"}


def faults(graph: Graph, reading: Reading, call: Value) -> Iterator[str]:
    """What is wrong with a call of scaled_dot_product_attention, whatever the code does not tell."""
    mask, causal = call.get("attn_mask"), call.get("is_causal") or graph.const(False)
    mask = None if mask is None or mask.is_const(None) else mask
    may_be_causal = not causal.is_const(False, None, 0)
    if mask is not None and may_be_causal and _are_both(mask, causal):
        yield "it is given a mask, and is_causal too, of which torch takes one"
    if mask is not None and _is_inverted(mask):
        yield "its mask is True for the future, and torch lets True be seen: invert it"
    if may_be_causal and any(each.op == "unfold" for each in (call["key"], *call["key"].bases(_VIEWS))):
        yield "its keys are windows, which have more keys than queries, and is_causal counts from the first of each"
    if any(map(_has_heads_last_but_one, (call["query"], call["key"]))):
        yield "its queries or keys have heads where torch wants positions: transpose them"
    if _drops_in_evaluation(reading, call.get("dropout_p")):
        yield "it drops weights in evaluation too: give dropout_p only while training"
    if _is_scaled_twice(graph, call):
        yield "its queries or keys are scaled, and torch scales them again: give scale=1.0"
    scale = call.get("scale")
    if scale is not None and sized_as(graph, scale, call["query"], 0.5):
        yield "its scale is the root of the width, and not one over it"
    yield from _strayed(reading, mask, causal)


def _are_both(mask: Value, causal: Value) -> bool:
    """Whether there are times at which there is a mask, and is_causal holds."""
    if mask.op == "phi":
        test, holds = plain_test(causal, True)
        known, is_first = plain_test(mask["test"], True)
        return test.key == known.key and not mask["yes" if holds is is_first else "no"].is_const(None)
    return mask.op not in ("parameter", "opaque", "call", "attr", "unset")


def _is_inverted(mask: Value) -> bool:
    """Whether a mask of truth values marks the future, at some times."""
    if mask.op in ("phi", "or"):
        return any(_is_inverted(each) for each in mask.items[mask.op == "phi" :])
    found = causal_mask(mask)
    return found is not None and found.hides_future


def _has_heads_last_but_one(value: Value) -> bool:
    while value.op == "swap" and value["input"].op == "swap" and value.data == value["input"].data:
        value = value["input"]["input"]
    return value.op == "unflatten" and value["dim"].number == -1


def _drops_in_evaluation(reading: Reading, p: Value | None) -> bool:
    if p is None:
        return False
    if p.op == "phi":
        test, is_asked_for = plain_test(p["test"], True)
        return _is_training(test) and _is_probability(p["no" if is_asked_for else "yes"])
    tests = [reading.values.get(each.test) for each in ast.walk(reading.node) if isinstance(each, ast.If)]
    asked = [part for test in tests if test is not None for part in test.walk()]
    return _is_probability(p) and not any(map(_is_training, asked))


def _is_training(value: Value) -> bool:
    return value.op == "attr" and value.data == "training"


def _is_probability(p: Value) -> bool:
    """Whether it is a number, or a setting, that is not always zero."""
    is_setting = p.op == "parameter" and getattr(p.data[1], "name", "") == "__init__"
    return is_setting or bool(p.number) or (p.op == "attr" and p.data == "p")


def _is_scaled_twice(graph: Graph, call: Value) -> bool:
    if call.get("scale") is not None and not call["scale"].is_const(None):
        return False
    for side in (call["query"], call["key"]):
        for each in (side, *side.bases(_VIEWS)):
            if each.op in ("mul", "div"):
                factor, power = each["other"], 0.5 if each.op == "div" else -0.5
                return any(sized_as(graph, factor, part, power) for part in (side, each, each["input"]))
    return False


def _strayed(reading: Reading, mask: Value | None, causal: Value) -> Iterator[str]:
    """Where a function reads whether it is to be causal, and its attention does not go by it."""
    arguments = reading.node.args if isinstance(reading.node, (ast.FunctionDef, ast.AsyncFunctionDef)) else None
    for name in (each.arg for each in (parameters(arguments) if arguments is not None else ())):
        if name not in ("causal", "is_causal"):
            continue
        if (
            causal.op == "not"
            and causal["input"].op == "parameter"
            and causal["input"].data[1:] == (reading.node, name)
        ):
            yield f"it is causal where {name} says that it is not"
        reads = [each for each in ast.walk(reading.node) if isinstance(each, ast.Name) and each.id == name]
        tests = [each.test for each in ast.walk(reading.node) if isinstance(each, (ast.If, ast.IfExp))]
        is_asked = any(each in reads for test in tests for each in ast.walk(test))
        if mask is None and causal.op == "const" and reads and not is_asked:
            yield f"whether it is causal is not what {name} says, which is read for something else"
