"""Which names a class gives a meaning: by methods, in its body, on self; each class is looked through once."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache

from .files import Function
from .nodes import walk

SERVES = {"train_step", "scale_up", "infer"}  # what managers are asked for
PROPERTIES = {"property", "cached_property"}
_CONSTRUCTORS = ("__init__", "__post_init__")


@dataclass(frozen=True, slots=True)
class ClassNames:
    """The names of one class, its bases left out."""

    methods: frozenset[str]
    stored: frozenset[str]  # that its body or its methods set
    on_self: frozenset[str]  # attributes that its methods set
    outside_init: frozenset[str]  # those that other methods than the constructor set
    sets_any: bool  # whether it sets attributes whose names are not written out

    def defines(self, name: str) -> bool:
        """Whether the class may give a name a meaning."""
        return self.sets_any or name in self.methods or name in self.stored or name in self.on_self


@lru_cache(maxsize=1024)
def names_of(node: ast.ClassDef) -> ClassNames:
    """The names of a class."""
    methods = [each for each in node.body if isinstance(each, Function)]
    on_self = {each: set_in(each) for each in methods}
    others = [names for each, names in on_self.items() if each.name not in _CONSTRUCTORS]
    nodes = list(walk(node))
    called = [each.func for each in nodes if isinstance(each, ast.Call)]
    spelled = sum(len(_spelled(each)) for each in methods)
    return ClassNames(
        frozenset(each.name for each in methods),
        frozenset(each.id for each in nodes if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load)),
        frozenset[str]().union(*on_self.values()),
        frozenset[str]().union(*others),
        sum(getattr(func, "id", getattr(func, "attr", "")) in ("setattr", "__setattr__") for func in called) > spelled,
    )


def constructor_of(node: ast.ClassDef) -> Function | None:
    """The constructor that a class has of its own."""
    return next((each for each in node.body if isinstance(each, Function) and each.name == "__init__"), None)


def serves(node: ast.ClassDef | None) -> bool:
    """Whether a class answers requests: it has a lock, or grows its model."""
    names = {getattr(each, "attr", getattr(each, "id", "")) for each in ast.walk(node)} if node is not None else set()
    return node is not None and bool(names & {"Lock", "RLock"} or len(names_of(node).methods & SERVES) > 1)


def is_declared(node: ast.ClassDef, word: str) -> bool:
    """Whether a class is declared to be a data class that is "frozen", say, or "kw_only"."""
    settings = [keyword for each in node.decorator_list for keyword in getattr(each, "keywords", ())]
    return any(each.arg == word and getattr(each.value, "value", False) is True for each in settings)


def set_in(method: Function) -> set[str]:
    """The attributes that a method sets on its object."""
    names: set[str] = set()
    for each in walk(method):
        match each:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store() | ast.Del()):
                names.add(name)
    return names.union(*_spelled(method))


def _spelled(method: ast.AST) -> list[frozenset[str]]:
    """The names by which calls of setattr set attributes, of each whose names are written out in the method."""
    found = list[frozenset[str]]()
    for each in walk(method):
        match each:
            case ast.Call(
                func=ast.Name("setattr") | ast.Attribute(attr="__setattr__"), args=[_, ast.Constant(name), _]
            ):
                found.append(frozenset([str(name)]))
    for loop in (each for each in walk(method) if isinstance(each, ast.For)):
        key = loop.target.elts[0] if isinstance(loop.target, ast.Tuple) else loop.target
        names = names_in(loop.iter, method)
        for each in walk(loop) if names is not None and isinstance(key, ast.Name) else ():
            match each:
                case ast.Call(func=ast.Name(id="setattr"), args=[ast.Name(id="self"), ast.Name(id=name), _]) if (
                    name == key.id  # type: ignore[attr-defined]
                ):
                    found.append(frozenset(names or ()))
    return found


def names_in(node: ast.expr, method: ast.AST) -> list[str] | None:
    """The names that a display goes through, or the keys of one; None of what is no display of a method's own."""
    match node:
        case ast.Call(func=ast.Attribute(value=inner, attr="items" | "keys"), args=[]):
            return names_in(inner, method)
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=given) if all(each.arg for each in given):
            return [each.arg or "" for each in given]
        case ast.Name(id=name):
            made = [each for each in walk(method) if isinstance(each, ast.Name) and each.id == name]
            stored = [each for each in made if not isinstance(each.ctx, ast.Load)]
            values = [
                each.value for each in walk(method) if isinstance(each, ast.Assign) and each.targets == stored[:1]
            ]
            return names_in(values[0], method) if len(stored) == len(values) == 1 else None
        case ast.Dict(keys=keys):
            firsts = list(keys)
        case ast.Tuple(elts=items) | ast.List(elts=items):
            firsts = [each.elts[0] if isinstance(each, ast.Tuple) and each.elts else each for each in items]
        case _:
            return None
    names = [each.value for each in firsts if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return names if len(names) == len(firsts) else None
