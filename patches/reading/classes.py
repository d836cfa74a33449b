"""Which names a class gives a meaning: by methods, in its body, on self; each class is looked through once."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache

from .files import Function

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
    on_self = {each: _set_in(each) for each in methods}
    others = [names for each, names in on_self.items() if each.name not in _CONSTRUCTORS]
    nodes = list(ast.walk(node))
    called = (each.func for each in nodes if isinstance(each, ast.Call))
    return ClassNames(
        frozenset(each.name for each in methods),
        frozenset(each.id for each in nodes if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load)),
        frozenset[str]().union(*on_self.values()),
        frozenset[str]().union(*others),
        any(getattr(func, "id", getattr(func, "attr", "")) in ("setattr", "__setattr__") for func in called),
    )


def constructor_of(node: ast.ClassDef) -> Function | None:
    """The constructor that a class has of its own."""
    return next((each for each in node.body if isinstance(each, Function) and each.name == "__init__"), None)


def _set_in(method: Function) -> set[str]:
    names: set[str] = set()
    for each in ast.walk(method):
        match each:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store() | ast.Del()):
                names.add(name)
    return names
