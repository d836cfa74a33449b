"""A tree's code: its functions, modules and classes, each read once, when it is asked for."""

from __future__ import annotations

import ast
import re
from collections.abc import Hashable

from .classes import names_of
from .files import File, Files, Function
from .frames import Frame, Reading, Run
from .statements import Reader
from .values import Graph, Value

DEEPEST = 16  # names that stand for names, classes under classes


class Code:
    """A tree's code, read as it is asked for."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.graph = Graph()
        self.followed: dict[Hashable, Value] = {}
        self._modules: dict[str, Reader] = {}
        self._readings: dict[ast.AST, Reading] = {}
        self._attributes: dict[tuple[ast.ClassDef, int], dict[str, Value]] = {}
        self._under: dict[ast.ClassDef, list[ast.ClassDef]] = {}

    def reading(self, file: File, function: Function, owner: ast.ClassDef | None = None) -> Reading:
        """A function read by itself: its parameters stand for themselves."""
        if function not in self._readings:
            reading = self._readings[function] = Reading(file, function, owner)
            reader = Reader(self, file, file.scopes[function], self.module(file.path), Run(reading))
            reader.symbolic(function, owner)
            reading.returned = reader.body(function.body)
            if reader.owner is not None and owner is not None and reader.owner.op == "self":
                reading.attributes = self.attributes(file.path, owner, reader.owner)
        return self._readings[function]

    def module(self, path: str) -> Frame:
        """A module, its top-level statements read."""
        if path not in self._modules:
            file = self.files.file(path)
            assert file is not None, path
            reader = self._modules[path] = Reader(self, file, file.scope, None, Run(Reading(file, file.module, None)))
            reader.body(file.module.body)
        return self._modules[path]

    def member(self, path: str, name: str) -> Value:
        """What a name means at the top of a module of the tree."""
        if self.files.file(path) is None:
            return self.graph.opaque(f"{path} does not parse")
        known = self.module(path).env.get(name)
        if known is not None:
            return self.resolved(known)
        inner = self.files.imported(f".{name}", path) if path.endswith("__init__.py") else None
        return self.graph.value("file", data=inner) if inner else self.graph.opaque(f"{name} is not found in {path}")

    def resolved(self, value: Value) -> Value:
        """What an imported name means."""
        for _ in range(DEEPEST):
            if value.op != "import":
                break
            value = self.member(*value.data)
        return value

    def bases(self, path: str, node: ast.ClassDef) -> list[tuple[str, ast.ClassDef]]:
        """A class, and those of its bases that the tree defines, in the order in which names are looked up."""
        found, frame = [(path, node)], self.module(path)
        for base in node.bases:
            value = self.resolved(frame.expr(base))
            if value.op == "class" and value.data[1] is not node and len(found) < DEEPEST:
                found += [each for each in self.bases(*value.data) if each not in found]
        return found

    def method(self, path: str, node: ast.ClassDef, name: str) -> tuple[str, ast.ClassDef, Function] | None:
        """The method of a class, its own or inherited; the last of one name."""
        for place, each in self.bases(path, node):
            for statement in reversed(each.body):
                if isinstance(statement, Function) and statement.name == name:
                    return place, each, statement
        return None

    def is_open(self, path: str, node: ast.ClassDef, name: str) -> bool:
        """Whether a name of a class may mean something else than the class says.

        A subclass gives it another meaning, several bases do, an object has one of its own, or a module sets it.
        """
        family = [names_of(each) for _, each in self.bases(path, node)]
        own = [names for names in family if names.defines(name)]
        is_method = any(name in names.methods for names in own)
        is_shadowed = any((is_method and name in names.on_self) or names.sets_any for names in family)
        several = len(node.bases) > 1 and len(own) > 1
        return is_shadowed or several or any(names_of(each).defines(name) for each in self._subclasses(node))

    def _subclasses(self, node: ast.ClassDef) -> list[ast.ClassDef]:
        """The classes of the tree that may be made of a class, by its name, and those that are made of them."""
        if node not in self._under:
            found = self._under[node] = []
            word = re.compile(rf"class\s[^:]*\b{node.name}\b".encode())
            for path in sorted(self.files.paths):
                if not word.search(self.files.raw(path)):
                    continue
                file = self.files.file(path)
                for each in ast.walk(file.module) if file is not None else ():
                    names = {getattr(base, "id", getattr(base, "attr", "")) for base in getattr(each, "bases", ())}
                    if isinstance(each, ast.ClassDef) and each is not node and node.name in names:
                        found += [each, *self._subclasses(each)]
        return self._under[node]

    def attributes(self, path: str, node: ast.ClassDef, owner: Value) -> dict[str, Value]:
        """What a constructor sets an object's attributes to; those that other methods set stand for themselves."""
        known = self._attributes.get((node, owner.key))
        if known is not None:
            return known
        found = self._attributes[node, owner.key] = {}
        for place, each in reversed(self.bases(path, node)):
            found.update(self._set_in(place, each, owner))
            settings = {name for name, value in found.items() if value.op == "const"}  # which are there to be set
            others = {name for name in found if owner.op == "self" and self.is_open(path, node, name)}
            for name in (names_of(each).outside_init | settings | others) & found.keys():
                found[name] = self.graph.value("attr", {"of": owner}, name)
        return found

    def _set_in(self, path: str, node: ast.ClassDef, owner: Value) -> dict[str, Value]:
        """What a class sets: its own names, a data class's fields, what its constructor sets."""
        frame, file = self.module(path), self.files.file(path)
        assert file is not None
        found: dict[str, Value] = {}
        fields: list[str] = []
        for each in node.body:
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                fields.append(each.target.id)
            if isinstance(each, (ast.Assign, ast.AnnAssign)) and each.value is not None:
                targets = each.targets if isinstance(each, ast.Assign) else [each.target]
                found |= {name.id: frame.expr(each.value) for name in targets if isinstance(name, ast.Name)}
        setup = next((each for each in node.body if isinstance(each, Function) and each.name == "__init__"), None)
        given = owner.args if owner.op == "instance" else {}
        if setup is None:
            places = {str(place): name for place, name in enumerate(fields)}
            return found | {places.get(name, name): value for name, value in given.items()}
        run = Run(Reading(file, setup, node))
        reader = Reader(self, file, file.scopes[setup], frame, run)
        if owner.op == "instance":
            placed = [value for name, value in given.items() if name.isdigit()]
            named = {name: value for name, value in given.items() if not name.isdigit()}
            reader.bind_arguments(setup, [owner, *placed], named)
        else:
            reader.symbolic(setup, node, owner)
        reader.body(setup.body)
        return found | {name: value for (key, name), value in run.attributes.items() if key == owner.key}
