"""Masks that are kept by hand: where they are built, and what is wrong with how they are kept."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from .code import Code
from .frames import Effect, Reading
from .masks import builders, device_of
from .nodes import walk
from .values import Graph, Value

_CACHES = {"functools.cache", "functools.lru_cache"}
_MAPPINGS = {"cache", "dict", "kept", "attr", "parameter"}
_GROUPS = {"tuple", "list", "slice"}
_ANYWHERE = {"cache", "dict", "kept", "const", "global", "builtin", "self"}  # which are the same whenever it is asked
_PARTS = {"tuple", "list", "add", "phi", "str"}  # from which what they are made of can be told again
_COMPARED = {"eq", "ne", "lt", "le", "gt", "ge"}
_MADE = {"matmul", "einsum", "softmax", "scaled_dot_product_attention"}
_ABOUT = {"size", "device", "dtype", "like", "of", "test"}  # which tell no elements
_DROPPING = {"pop", "popitem", "clear"}
UNSAFE = "one that is first built in inference mode cannot be saved for a backward"
UNGUARDED = "what a caller writes into it is handed out again: keep its _version, and build it again where that differs"
UNBOUNDED = "nothing is dropped from what keeps it, however many there are: drop the oldest"
DEVICES = 'its device is "cuda" once and "cuda:0" another time: keep it by the device of a tensor that is made there'
CLASH = "another mask is kept there by the same key"


def kept_by_hand(code: Code, readings: Iterable[Reading]) -> dict[ast.AST, str]:
    """Where tensors are built that some function keeps, each with what is wrong with that; nothing where it is right.

    They are kept under a caching decorator, in a mapping, or in an attribute under a condition.
    """
    own: dict[ast.AST, str] = {}
    through: dict[ast.AST, str] = {}
    for reading in readings:
        frame = code.module(reading.file.path)
        for decorator in getattr(reading.node, "decorator_list", ()):
            value = frame.expr(decorator)
            value = value["func"] if value.op == "call" else value
            if value.op == "global" and value.data in _CACHES:
                own |= dict.fromkeys(reading.values, UNGUARDED if _is_safe(reading) else UNSAFE)
        for effect in reading.effects:
            written = effect.value.get("value")
            nodes = builders(written) if written is not None and _is_keeping(effect) and not _is_made(written) else []
            why = _wrong(code.graph, reading, effect) if nodes else ""
            for node in nodes:
                if effect.is_own:
                    own[node] = own.get(node) or why
                else:  # what callers give in their own words tells less than what is right for one of them
                    through[node] = through.get(node, why) and why
    return through | own


def _is_keeping(effect: Effect) -> bool:
    is_mapping = effect.kind == "setitem" and effect.value["input"].op in _MAPPINGS
    return is_mapping or (effect.kind == "setattr" and any(guard.kind in ("if", "else") for guard in effect.under))


def _is_made(value: Value) -> bool:
    """Whether a tensor is made of products, as attention maps are, and is no mask."""
    return any(each.op in _MADE for each in value.walk(_ABOUT))


def _is_safe(reading: Reading) -> bool:
    modes = [effect.value for effect in reading.effects if effect.kind == "inference_mode"]
    return any(each.is_const(False) for value in modes for each in value.items)


def _wrong(graph: Graph, reading: Reading, effect: Effect) -> str:
    """What is wrong with how a mask is kept, outside of what the whole of its function does."""
    if not _is_safe(reading):
        return UNSAFE
    written, keys = effect.value["value"], list(_keys(effect))
    told = [part for each in keys for part in _told(each)]
    if effect.kind == "setitem" and not _is_bounded(reading, effect):
        return UNBOUNDED
    if lost := _lost(graph, written, {each.key for each in told}, is_own=_is_of_self(effect)):
        return f"its key does not tell {lost}, on which it depends: keep it by that too"
    if _is_named(device_of(written), told):
        return DEVICES
    others = (each for each in reading.effects if each.kind == "setitem" == effect.kind and _is_keeping(each))
    mine, place = [each.key for each in keys], effect.value["input"].key if effect.kind == "setitem" else None
    for other in others:
        is_there = other.value["input"].key == place and [each.key for each in _keys(other)] == mine
        if is_there and other.value["value"].key != written.key:
            return CLASH
    asked = [part for each in (written, *(guard.value for guard in effect.under)) for part in each.walk()]
    sides = [side for each in asked if each.op in ("eq", "ne") for side in each.items]
    return "" if any(each.op == "attr" and each.data == "_version" for each in sides) else UNGUARDED


def _keys(effect: Effect) -> Iterator[Value]:
    """What a mask is kept by: the key in a mapping, or what is compared before an attribute is set."""
    if effect.kind == "setitem":
        yield from (each for name, each in effect.value.args.items() if name not in ("input", "value"))
    for guard in effect.under if effect.kind == "setattr" else ():
        yield from (side for each in guard.value.walk() if each.op in _COMPARED for side in each.items)


def _told(key: Value) -> Iterator[Value]:
    """What is known of a mask's making by its key: the key, and what it puts together."""
    yield key
    is_device = key.op == "device" and key["of"].op in ("empty", "zeros", "ones")
    parts = [key["of"]["device"]] if is_device and "device" in key["of"].args else []
    if key.op in _PARTS:
        parts = [each for name, each in key.args.items() if name != "test"]
    for each in parts:
        yield from _told(each)


def _lost(graph: Graph, value: Value, told: set[int], *, is_own: bool) -> str:
    """What a mask depends on that is not told by its key."""
    is_settled = is_own and value.op == "parameter" and value.data[1].name == "__init__"
    is_version = value.op == "attr" and value.data == "_version"
    if value.key in told or value.op in _ANYWHERE or is_settled or is_version:
        return ""
    parts, name = dict(value.args), "like" if value.op == "cast" else "input"
    if name in parts and value.op.endswith("_like"):
        return _text(value)
    if name in parts and (value.op.startswith("new_") or name == "like"):
        of = parts.pop(name)
        parts.setdefault("device", graph.value("device", {"of": of}))
        parts.setdefault("dtype", graph.value("attr", {"of": of}, "dtype"))
    lost = next((lost for each in reversed(parts.values()) if (lost := _lost(graph, each, told, is_own=is_own))), "")
    is_whole = value.op in ("attr", "device", "size") or not (parts or value.op in _GROUPS)
    return _text(value) if is_whole and (lost or not parts) else lost


def _text(value: Value) -> str:
    of = value.get("of") or value.get("input")
    if value.op in ("device", "size", "attr") and of is not None:
        return f"the {value.data or value.op} of {_text(of)}"
    return str(value.data[-1]) if value.op == "parameter" else "what is not understood"


def _is_named(device: Value | None, told: Iterable[Value]) -> bool:
    """Whether a device is what somebody called it, and not that of a tensor, in a mask's making and in its key."""
    if device is None or device.is_const() or any(each.op == "device" for each in device.walk()):
        return False
    made = [each for part in told for each in part.walk() if each.op == "device"]
    return not any(each.key == device.key for made_there in made for each in made_there.walk())


def _is_bounded(reading: Reading, effect: Effect) -> bool:
    """Whether something is dropped from a mapping on a condition of how much it keeps."""
    mapping, function = effect.value["input"], effect.at.file.function(effect.at.node)
    for each in reading.effects:
        of = each.value["func"].get("of") if each.kind in _DROPPING and "func" in each.value.args else None
        sizes = [part for guard in each.under for part in guard.value.walk() if part.op == "size"]
        if of is not None and of.key == mapping.key and any(part["input"].key == mapping.key for part in sizes):
            return True
    name = _mapping_text(effect)
    for node in walk(function or effect.at.file.module):
        match node:
            case ast.Delete(targets=[ast.Subscript(value=base)]):
                pass
            case ast.Call(func=ast.Attribute(value=base, attr=kind)) if kind in _DROPPING:
                pass
            case _:
                continue
        around = [each.test for each in effect.at.file.ancestors(node) if isinstance(each, (ast.If, ast.While))]
        if name and ast.unparse(base) == name and any(f"len({name})" in ast.unparse(each) for each in around):
            return True
    return False


def _mapping_text(effect: Effect) -> str:
    stores = [each for each in ast.walk(effect.at.node) if isinstance(each, ast.Subscript)]
    return next((ast.unparse(each.value) for each in stores if isinstance(each.ctx, ast.Store)), "")


def _is_of_self(effect: Effect) -> bool:
    """Whether what keeps a mask is an object's own: what its constructor was told is settled then."""
    if effect.kind == "setattr":
        return effect.value["of"].op == "self"
    name, function = _mapping_text(effect), effect.at.file.function(effect.at.node)
    owner = effect.at.file.owner(function) if function is not None else None
    for node in walk(owner) if owner is not None else ():
        match node:
            case (
                ast.Assign(targets=[ast.Attribute() as kept], value=ast.Call() | ast.Dict())
                | ast.AnnAssign(target=ast.Attribute() as kept, value=ast.Call() | ast.Dict())
            ):
                if ast.unparse(kept) == name:
                    return True
    return False
