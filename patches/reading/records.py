"""Data classes: whether a class is one, its fields, which objects are of it, and whether it may have one more."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from .classes import constructor_of, is_declared, names_of
from .code import Code, once
from .files import File
from .nodes import walk
from .receivers import Class
from .updates import SHALLOW, makings_of, mentions
from .values import Value


def class_of(code: Code, value: Value) -> Class | None:
    """The class of the tree that an object is of: by how it is made, its parameter's annotation, or who hands it on."""
    if value.op == "instance":
        return value.data  # type: ignore[no-any-return]
    if value.op in ("any", "phi"):  # args or Config()
        sides = [each for name, each in value.args.items() if name != "test" and not each.is_const(None)]
        known = {class_of(code, each) for each in sides}
        return known.pop() if len(known) == 1 else None
    if value.op != "parameter":
        return None
    kinds = code.receivers.hinted(*value.data) or code.receivers.of(value)
    return next(iter(kinds)) if kinds and len(kinds) == 1 else None


def made_class(code: Code, value: Value) -> Class | None:
    """The same, of objects that are made with arguments that are not known, of another by replace, or kept by self."""
    func = value.get("func")
    if func is not None and func.op == "class":
        return func.data  # type: ignore[no-any-return]
    if func is not None and func.op == "global" and func.data in ("dataclasses.replace", "copy.replace"):
        return made_class(code, value["0"]) if "0" in value.args else None
    if value.op == "phi":
        sides = {made_class(code, value[side]) for side in ("yes", "no")}
        return sides.pop() if len(sides) == 1 else None
    if value.op == "attr" and value["of"].op == "self":
        return kept_records(code, *value["of"].data).get(value.data)
    return class_of(code, value)


@once
def kept_records(code: Code, path: str, node: ast.ClassDef) -> dict[str, Class]:
    """The attributes under which the objects of a class keep data classes."""
    found, own = dict[str, Class](), code.graph.value("self", data=(path, node))
    for each in walk(node):
        match each:
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.AnnAssign(target=ast.Name(id=name)):
                kinds = code.receivers.of(code.graph.value("attr", {"of": own}, name))
                known = next(iter(kinds)) if kinds and len(kinds) == 1 else None
                found |= {name: known} if known is not None and is_data_class(code, *known) else {}
    return found


def is_data_class(code: Code, path: str, node: ast.ClassDef) -> bool:
    """Whether a class is one of dataclasses', or a NamedTuple."""
    frame = code.module(path)
    made = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    marks = [frame.expr(each) for each in (*made, *node.bases)]
    return any(each.op == "global" and each.data in ("dataclasses.dataclass", "typing.NamedTuple") for each in marks)


def holds_tensors(code: Code, path: str, node: ast.ClassDef) -> bool:
    """Whether a class has a field for a tensor: then it holds data, and no settings."""
    frame = code.module(path)
    kinds = (part for each in node.body if isinstance(each, ast.AnnAssign) for part in walk(each.annotation))
    values = (frame.expr(each) for each in kinds if isinstance(each, (ast.Name, ast.Attribute)))
    return any(each.op == "global" and each.data == "torch.Tensor" for each in values)


def all_fields(code: Code, path: str, node: ast.ClassDef) -> set[str]:
    """The fields of a class, its own and inherited."""
    return {name for _, each in code.bases(path, node) for name in fields(each)}


def fields(node: ast.ClassDef) -> set[str]:
    return {
        each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }


def fixed_shape(code: Code, path: str, node: ast.ClassDef, name: str, place: int) -> str:
    """Why a data class cannot have one more field with a default at some place among its own, if it cannot."""
    under = code.subclasses(node)
    for each in (*(base for _, base in code.bases(path, node)), *under):
        if names_of(each).sets_any:
            return f"{each.name} sets attributes whose names are not written out"
        if names_of(each).defines(name):
            return f"{each.name} has {name} already"
    if constructor_of(node) is not None or "__slots__" in names_of(node).stored:
        return "its constructor, or what it has room for, is written by hand"
    behind = [each for each in under if fields(each)]
    for each in behind:
        if any(isinstance(own, ast.AnnAssign) and own.value is None for own in each.body) and not is_declared(
            each, "kw_only"
        ):
            return f"{each.name} has fields without a default, which would come behind it"
    moved = behind if place == len(fields(node)) else [node, *under]
    for file, call in _made(code, [each for _, each in code.bases(path, node)], moved):
        if len(call.args) > place or any(isinstance(each, ast.Starred) for each in call.args):
            return f"{file.path}:{call.lineno} makes one by position: a field would move what follows"
    for word in ("astuple", "_make", "_fields"):
        if mentions(code, word, SHALLOW):
            return f"{word} is used in this tree, which counts its fields"
    unpacked = (
        value
        for reading in mentions(code, node.name, SHALLOW)
        for value in reading.values.values()
        if value.op == "part" and (known := class_of(code, value["of"])) is not None and known[1] is node
    )
    return "it is unpacked into a number of names" if next(unpacked, None) is not None else ""


def _made(code: Code, bases: Sequence[ast.ClassDef], moved: Sequence[ast.ClassDef]) -> Iterator[tuple[File, ast.Call]]:
    """The calls that may make an object of some classes, by their names or in what they and their bases hold."""
    yield from ((reading.file, call) for known in moved for reading, call in makings_of(code, known))
    for node in (*bases, *moved) if moved else ():
        file = code.files.of(node)
        for call in (each for each in walk(node) if isinstance(each, ast.Call)):
            if ast.unparse(call.func) in ("cls", "type(self)", "self.__class__"):
                yield file, call
