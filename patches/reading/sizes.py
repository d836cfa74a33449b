"""The sizes of a model, by what its constructor makes of them: how wide it is, how long, how deep, how many heads."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .classes import constructor_of
from .code import Code
from .files import File
from .values import Value

_MADE = ("torch.randn", "torch.zeros", "torch.empty")  # parameters that are positions
_BITS = 2


def sizes_of(code: Code, file: File, model: ast.ClassDef) -> dict[str, str]:
    """What a constructor, or its configuration, calls our options that are sizes: those of which one name is seen."""
    setup = constructor_of(model)
    if setup is None:
        return {}
    held = [*_held(code, list(code.reading(file, setup, model).attributes.values()))]
    widths = {_name(each.items[-1]) for each in held if _is(each, "Embedding") and each.items[0].is_const(_BITS)}
    width = widths.pop() if len(widths) == 1 else ""
    if not width:
        return {}
    found: dict[str, set[str]] = {}
    for ours, theirs in [("d_model", width), *(told for each in held for told in _told(each, width))]:
        found.setdefault(ours, set()).update({theirs} - {""})
    return {ours: theirs.pop() for ours, theirs in found.items() if len(theirs) == 1}


def _told(made: Value, width: str) -> Iterator[tuple[str, str]]:
    """What a value that a model holds says of its sizes: ours, and what it is called."""
    if _is(made, "Embedding") and len(made.items) > 1 and _name(made.items[1]) == width:
        yield "max_seq_len", _name(made.items[0])
    if made.op == "call" and made["func"].data in _MADE:
        sizes = [_name(each) for name, each in made.args.items() if name != "func"]
        yield from (("max_seq_len", each) for each in sizes if width in sizes and each not in ("", width))
    if made.op == "each" and made["of"].op == "range" and made["elt"].op == "instance":
        yield "num_layers", _name(made["of"].items[-1])
    if _is(made, "Linear") and _name(made.items[0]) == width:
        made_of = made.items[1]
        either = made_of.items if made_of.op in ("phi", "any") else [made_of]  # wide or 4 * c
        yield from (("dim_feedforward", name) for each in either if (name := _name(each)) != width)
    if _is(made, "Dropout") and made.items:
        yield "dropout", _name(made.items[0])
    if made.op == "floordiv" and _name(made["input"]) == width:
        yield "nhead", _name(made["other"])


def _held(code: Code, values: list[Value]) -> Iterator[Value]:
    """What some values are made of, and what the tree's own modules among them hold, each once."""
    pending, seen = values, set[int]()
    while pending:
        for each in pending.pop().walk():
            if each.key not in seen:
                seen.add(each.key)
                yield each
                if each.op == "instance":
                    path, node, *_ = each.data
                    pending += code.attributes(path, node, each).values()


def _is(made: Value, kind: str) -> bool:
    return made.op == "new" and made.data[-1] == f"torch.nn.{kind}" and bool(made.args)


def _name(value: Value) -> str:
    """What a parameter, or a field of a configuration, is called."""
    if value.op in ("parameter", "setting"):
        return str(value.data[-1])
    return str(value.data) if value.op == "attr" else ""
