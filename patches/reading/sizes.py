"""The sizes of a model, by what its constructor makes of them: how wide it is, how long, how deep, how many heads."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .classes import constructor_of
from .code import Code
from .files import File
from .values import Value, walked

_MADE = ("torch.randn", "torch.zeros", "torch.empty")  # parameters that are positions
_BITS = 2


def sizes_of(code: Code, file: File, model: ast.ClassDef) -> dict[str, str]:
    """What a constructor, or its configuration, calls our options that are sizes: those of which one name is seen."""
    setup = constructor_of(model)
    if setup is None:
        return {}
    held = [*_held(code, list(code.reading(file, setup, model).attributes.values()))]
    widths = {each.items[-1].name for each in held if _is(each, "Embedding") and each.items[0].is_const(_BITS)}
    width = widths.pop() if len(widths) == 1 else ""
    if not width:
        return {}
    found: dict[str, set[str]] = {}
    for ours, theirs in [("d_model", width), *(told for each in held for told in _told(each, width))]:
        found.setdefault(ours, set()).update({theirs} - {""})
    return {ours: theirs.pop() for ours, theirs in found.items() if len(theirs) == 1}


def _told(made: Value, width: str) -> Iterator[tuple[str, str]]:
    """What a value that a model holds says of its sizes: ours, and what it is called."""
    if _is(made, "Embedding") and len(made.items) > 1 and made.items[1].name == width:
        yield "max_seq_len", made.items[0].name
    if made.op == "call" and made["func"].data in _MADE:
        sizes = [each.name for name, each in made.args.items() if name != "func"]
        yield from (("max_seq_len", each) for each in sizes if width in sizes and each not in ("", width))
    if made.op == "each" and made["of"].op == "range" and made["elt"].op == "instance":
        yield "num_layers", made["of"].items[-1].name
    if _is(made, "Linear") and made.items[0].name == width:
        made_of = made.items[1]
        either = made_of.items if made_of.op in ("phi", "any") else [made_of]  # wide or 4 * c
        yield from (("dim_feedforward", name) for each in either if (name := each.name) != width)
    if _is(made, "Dropout") and made.items:
        yield "dropout", made.items[0].name
    if made.op == "floordiv" and made["input"].name == width:
        yield "nhead", made["other"].name


def _held(code: Code, values: list[Value]) -> Iterator[Value]:
    """What some values are made of, and what the tree's own modules among them hold, each once."""

    def parts(each: Value) -> list[Value]:
        attributes = code.attributes(each.data[0], each.data[1], each) if each.op == "instance" else {}
        return [*each.items, *attributes.values()]

    return walked(values, parts)


def _is(made: Value, kind: str) -> bool:
    return made.op == "new" and made.data[-1] == f"torch.nn.{kind}" and bool(made.args)
