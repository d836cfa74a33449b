"""A tree's code: its functions, modules and classes, each read once, when it is asked for."""

from __future__ import annotations

import ast
from collections.abc import Callable, Hashable
from copy import copy
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from .classes import PROPERTIES, constructor_of, names_of
from .files import File, Files, Function
from .frames import DEEPEST, Frame, Reading, Run
from .numbers import is_number
from .receivers import Receivers
from .statements import Reader
from .values import Graph, Place, Value

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")
_HANDED_ON = ("parameter", "attr")
LONGEST = 16  # names that stand for names, classes under classes


class Code:
    """A tree's code, read as it is asked for."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.graph = Graph()
        self.homes: dict[ast.AST, str] = {}
        self.followed: dict[tuple[Hashable, ...], Value] = {}
        self._modules: dict[str, Reader] = {}
        self._readings: dict[ast.AST, Reading] = {}
        self._readers: dict[ast.AST, Reader] = {}
        self._attributes: dict[tuple[str, ast.ClassDef, int], dict[str, Value]] = {}
        self._under: dict[ast.ClassDef, list[ast.ClassDef]] = {}
        self._scripts: dict[str, Reading] = {}
        self.answers: dict[Hashable, Any] = {}  # of questions that are asked more than once, by `once`
        self._importable: dict[str, bool] = {}
        self.receivers = Receivers(files)
        self._reaching: dict[str, bool] = {}  # the files in whose readings it counts what others hand on

    def aside(self, changed: set[str], read: Callable[[str], bytes]) -> Code:
        """The code of a tree some of whose files are other ones, to look at; this one stays as it is."""
        other = copy(self)
        for name, known in vars(self).items():
            if isinstance(known, dict):
                setattr(other, name, dict(known))
        other.over(changed, read)
        return other

    def over(self, changed: set[str], read: Callable[[str], bytes]) -> None:
        """Go on with a tree some of whose files have changed: what that can have touched is forgotten."""
        if not changed:
            return
        self.files, touched = self.files.over(changed, read)
        touched |= self._reaching.keys()
        self.receivers = Receivers(self.files)
        self.answers, self._importable, self._under = {}, {}, {}
        for known in (self._modules, self._scripts):
            for path in touched & known.keys():
                del known[path]
        kept = {node for node, reading in self._readings.items() if reading.file.path not in touched}
        self._readings = {node: self._readings[node] for node in kept}
        self._readers = {node: self._readers[node] for node in kept}
        self._attributes = {key: each for key, each in self._attributes.items() if key[0] not in touched}
        self.followed = {key: each for key, each in self.followed.items() if key[0] not in touched}

    def reading(
        self, file: File, function: Function, owner: ast.ClassDef | None = None, *, deepest: int = DEEPEST
    ) -> Reading:
        """A function read by itself: its parameters stand for themselves, and what is around it for what it ends as.

        Calls in calls are followed as deep as is asked for, or deeper if that has been done already.
        """
        known = self._readings.get(function)
        if known is None or self._readers[function].run.deepest < deepest:
            reading = self._readings[function] = Reading(file, function, owner)
            around = self._around(file, function, deepest)
            reader = Reader(self, file, file.scopes[function], around, Run(reading, deepest))
            self._readers[function] = reader
            reader.symbolic(function, owner)
            reading.returned = reader.body(function.body)
            if reader.owner is not None and owner is not None and reader.owner.op == "self":
                reading.attributes = self.attributes(file.path, owner, reader.owner)
        return self._readings[function]

    def _around(self, file: File, function: Function, deepest: int) -> Frame:
        """The scope that a function is defined in, as it ends; a class is none."""
        outer = file.function(function)
        if outer is None:
            return self.module(file.path)
        self.reading(file, outer, file.owner(outer), deepest=deepest)
        around = copy(self._readers[outer])
        around.env = dict(around.env)
        return around

    def script(self, file: File, *, deepest: int = DEEPEST) -> Reading:
        """A module as it runs as a script: what it does under `if __name__ == "__main__"` too.

        With fewer calls in calls that alone, after what the module is as others import it.
        """
        frame = self.module(file.path)
        deferred = [each for each in file.module.body if is_main_guard(each)]
        if not deferred or deferred[0] in frame.run.reading.before:
            return frame.run.reading
        if deepest == DEEPEST:
            frame.body(deferred)
            return frame.run.reading
        if file.path not in self._scripts:
            reader = copy(self._modules[file.path])
            reader.env, reader.run = dict(reader.env), Run(Reading(file, file.module, None), deepest)
            reader.body(deferred)
            self._scripts[file.path] = reader.run.reading
        return self._scripts[file.path]

    def module(self, path: str) -> Frame:
        """A module as others import it, its top-level statements read."""
        if path not in self._modules:
            file = self.files.file(path)
            assert file is not None, path
            reader = self._modules[path] = Reader(self, file, file.scope, None, Run(Reading(file, file.module, None)))
            reader.body([each for each in file.module.body if not is_main_guard(each)])
        return self._modules[path]

    def is_importable(self, path: str) -> bool:
        """Whether all that a module imports from the tree at its top is there; what it imports is looked at too."""
        if path not in self._importable and self.files.file(path) is None:
            self._importable[path] = False
        if path not in self._importable:
            self._importable[path] = True  # as far as a circle of imports is concerned
            imports = [value for value in self.module(path).env.values() if value.op == "import"]
            self._importable[path] = all(
                self.is_importable(value.data[0])
                and (self._has(*value.data) or (value.at is not None and getattr(value.at.node, "name", "") == "*"))
                for value in imports  # a star gives a name only if its module has it
            )
        return self._importable[path]

    def _has(self, path: str, name: str) -> bool:
        frame = self.module(path)
        is_module = path.endswith("__init__.py") and self.files.imported(f".{name}", path) is not None
        return name in frame.env or is_module or self.files.is_open(frame.file)

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
        for _ in range(LONGEST):
            if value.op != "import":
                break
            value = self.member(*value.data)
        return value

    def bases(self, path: str, node: ast.ClassDef) -> list[tuple[str, ast.ClassDef]]:
        """A class, and those of its bases that the tree defines, in the order in which names are looked up."""
        found, frame = [(path, node)], self.module(path)
        for base in node.bases:
            value = self.resolved(frame.expr(base))
            if value.op == "class" and value.data[1] is not node and len(found) < LONGEST:
                found += [each for each in self.bases(*value.data) if each not in found]
        return found

    def method(self, path: str, node: ast.ClassDef, name: str) -> tuple[str, ast.ClassDef, Function] | None:
        """The method of a class, its own or inherited; the last of one name."""
        for place, each in self.bases(path, node):
            for statement in reversed(each.body):
                if isinstance(statement, Function) and statement.name == name:
                    self.homes[statement] = place
                    return place, each, statement
        return None

    def reached(self, callee: Value, at: Place) -> Value | None:
        """A method or property of an object that others hand on, as its class has it; None where there is not just one.

        A model is not gone into: it is what is called, and a method of it is a call of it.
        """
        owner, name = callee["of"], callee.data
        kinds = self.receivers.of(owner) if owner.op in _HANDED_ON and name in self.receivers.methods else None
        if kinds is not None and not kinds:  # nobody tells: what it is asked for does
            kinds = self.receivers.able(owner, name)
        found = {self.method(*cls, name) for cls in kinds or ()}
        made = found.pop() if len(found) == 1 else None
        is_open = any(self.is_open(*cls, name) or self.method(*cls, "forward") is not None for cls in kinds or ())
        marks = {getattr(each, "id", getattr(each, "attr", "")) for each in made[2].decorator_list} if made else set()
        if made is None or is_open or marks - PROPERTIES or not _takes(made[2], at.node):
            return None
        self._reaching[at.file.path] = True
        function = self.graph.value("function", data=(made[0], made[2], None), at=at)
        return self.graph.value("bound", {"func": function, "self": owner}, at=at)

    def is_numeric(self, leaf: Value, at: Place) -> bool:
        """Whether an attribute of an object that others hand on is a Python number, as its class says."""
        kinds = self.receivers.of(leaf["of"])
        self._reaching |= {at.file.path: True} if kinds else {}
        return bool(kinds) and all(leaf.data in numeric_of(self, *cls) for cls in kinds or ())

    def is_part(self, value: Value) -> bool:
        """Whether an attribute is no method, but something that objects of its owner's classes keep."""
        kinds = self.receivers.of(value["of"])
        return bool(kinds) and all(self.method(*cls, value.data) is None for cls in kinds or ())

    def home(self, function: ast.AST) -> File | None:
        """The file of a function that something calls; None of what is no such function."""
        path = self.homes.get(function)
        file = self.files.file(path) if path is not None else None
        return file if file is not None and function in file.parents else None

    def is_open(self, path: str, node: ast.ClassDef, name: str) -> bool:
        """Whether a name of a class may mean something else than the class says.

        A subclass gives it another meaning, several bases do, an object has one of its own, or a module sets it.
        """
        family = [names_of(each) for _, each in self.bases(path, node)]
        own = [names for names in family if names.defines(name)]
        is_method = any(name in names.methods for names in own)
        is_shadowed = any((is_method and name in names.on_self) or names.sets_any for names in family)
        several = len(node.bases) > 1 and len(own) > 1
        return is_shadowed or several or any(names_of(each).defines(name) for each in self.subclasses(node))

    def subclasses(self, node: ast.ClassDef) -> list[ast.ClassDef]:
        """The classes of the tree that may be made of a class, by its name, and those that are made of them."""
        if node not in self._under:
            found = self._under[node] = []
            for file in self.files.naming(node.name):
                for each in file.classes:
                    names = (getattr(base, "id", getattr(base, "attr", "")) for base in each.bases)
                    if each is not node and node.name in names:
                        found += [each, *self.subclasses(each)]
        return self._under[node]

    def attributes(self, path: str, node: ast.ClassDef, owner: Value) -> dict[str, Value]:
        """What a constructor sets an object's attributes to; those that other methods set stand for themselves."""
        known = self._attributes.get((path, node, owner.key))
        if known is not None:
            return known
        found = self._attributes[path, node, owner.key] = {}
        for place, each in reversed(self.bases(path, node)):
            found.update(self.set_in(place, each, owner))
            settings = {name for name, value in found.items() if value.op == "const"}  # which are there to be set
            others = {name for name in found if owner.op == "self" and self.is_open(path, node, name)}
            for name in (names_of(each).outside_init | settings | others) & found.keys():
                found[name] = self.graph.value("attr", {"of": owner}, name)
        below = self.subclasses(node) if owner.op == "self" else []
        is_mixin = len(below) == 1 and not any(constructor_of(each) for _, each in self.bases(path, node))
        if is_mixin and below[0] in self.files.file(path).parents:  # type: ignore[union-attr]
            own, names = self.set_in(path, below[0], owner), names_of(below[0])
            found.update({name: own[name] for name in own.keys() - found.keys() - names.outside_init - names.methods})
        return found

    def set_in(self, path: str, node: ast.ClassDef, owner: Value) -> dict[str, Value]:
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
        setup = constructor_of(node)
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


def _takes(method: Function, call: ast.AST) -> bool:
    """Whether a method may be given what a call gives."""
    own = method.args
    named = {each.arg for each in (*own.args, *own.kwonlyargs)}
    given = {each.arg for each in call.keywords if each.arg is not None} if isinstance(call, ast.Call) else set()
    placed = len(call.args) if isinstance(call, ast.Call) else 0
    return (own.vararg is not None or placed < len((*own.posonlyargs, *own.args))) and (
        own.kwarg is not None or given <= named
    )


def once(question: Callable[Concatenate[Code, Asked], Answer]) -> Callable[Concatenate[Code, Asked], Answer]:
    """Ask a tree's code a question once for the same arguments."""

    @wraps(question)
    def asked(code: Code, *args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
        key = (question, *args, *kwargs.items())
        if key not in code.answers:
            code.answers[key] = question(code, *args, **kwargs)
        return code.answers[key]  # type: ignore[no-any-return]

    return asked  # type: ignore[return-value]


def numeric_of(code: Code, path: str, node: ast.ClassDef) -> set[str]:
    """The attributes of a class's objects that are numbers: by their annotation, or by what its constructor sets."""
    key, found = (numeric_of, node), dict[str, bool]()
    if key not in code.answers:
        code.answers[key] = set()  # as far as a circle is concerned
        for place, each in reversed(code.bases(path, node)):
            known = code.set_in(place, each, code.graph.value("self", data=(path, node)))
            found |= {name: is_number(value) for name, value in known.items()}
            hinted = [own for own in each.body if isinstance(own, ast.AnnAssign)]
            found |= {ast.unparse(own.target): ast.unparse(own.annotation) in ("int", "float") for own in hinted}
            found |= dict.fromkeys(names_of(each).outside_init, False)
        code.answers[key] = {name for name, is_numeric in found.items() if is_numeric}
    return code.answers[key]  # type: ignore[no-any-return]


def is_main_guard(statement: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == "__main__"`."""
    match statement:
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"), ops=[ast.Eq()], comparators=[ast.Constant()])):
            return True
    return False
