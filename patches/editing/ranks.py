"""Statements that several patches put before one stand in the order of the reference, whichever comes first."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import libcst as cst

from ..files.places import read_bytes
from ..reading.source import Source

REFERENCE = Path(__file__).resolve().parents[2] / "reference"
TRAINING = "bit_transformer/training.py"  # whose loops are what several patches put statements before


def place_of(source: Source, statement: cst.CSTNode, text: str) -> cst.CSTNode:
    """Before which statement a new one goes that is to stand before another: above what is brought and comes later.

    What no patch brings, as it is the tree's own and moved, goes above all that is. Nothing goes above what it needs.
    """
    rank, needed = _rank(text), set(re.findall(r"\w+", text))
    for each in _above(source, statement):
        code = source.code(each)
        other = _rank(code)
        if other is None or (rank is not None and other <= rank) or _bound(code) & needed:
            break
        statement = each
    return statement


def _above(source: Source, statement: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The statements above one in its block, from below."""
    block = source.parents[statement]
    body: Sequence[cst.CSTNode] = getattr(block, "body", ())
    if block is source.module:  # whose statements are parsed as they are asked for
        place = source.places[source.part(statement)]
    else:
        place = next((index for index, each in enumerate(body) if each is statement), 0)
    yield from (body[each] for each in reversed(range(place)))


def _rank(text: str) -> int | None:
    """Where the reference has what a statement binds, or else calls; None for one that no patch brings."""
    bound, ranks = _bound(text), _ranks()
    names = bound or {
        each.func.id for each in _nodes(text) if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)
    }
    found = [ranks[name] for name in names if name in ranks]
    return min(found) if found and bound <= ranks.keys() else None


def _bound(text: str) -> set[str]:
    """The names and attributes that a statement sets."""
    stored = (each for each in _nodes(text) if isinstance(getattr(each, "ctx", None), ast.Store))
    return {getattr(each, "id", getattr(each, "attr", "[]")) for each in stored}


def _nodes(text: str) -> list[ast.AST]:
    """The nodes of a statement, if it is one that patches bring beside others."""
    try:
        (statement,) = ast.parse(text).body
    except (SyntaxError, ValueError):
        return []
    return list(ast.walk(statement)) if isinstance(statement, (ast.Assign, ast.Expr, ast.If)) else []


@cache
def _ranks() -> dict[str, int]:
    """The names that functions of the baseline have in the reference alone, in the order of their bodies there."""
    old, new = (read_bytes(REFERENCE.parent / each / TRAINING).decode() for each in ("baseline", "reference"))
    known = set(re.findall(r"\w+", old))
    functions = [each for each in ast.parse(new).body if isinstance(each, ast.FunctionDef) and each.name in known]
    parts = [part for each in functions for part in each.body]
    names = [each for part in parts for each in ast.walk(part) if isinstance(each, ast.Name) and each.id not in known]
    names.sort(key=lambda name: (name.lineno, name.col_offset))
    return {name: rank for rank, name in enumerate(dict.fromkeys(each.id for each in names))}
