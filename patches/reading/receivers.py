"""Which classes an object is of: by what makes it, and by the calls that hand it on. No function is read for it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache

from .files import File, Files, Function, is_test
from .names import defaults_of, parameters
from .nodes import walk
from .values import Value

Class = tuple[str, ast.ClassDef]  # the path of its module, and its definition
Kinds = frozenset[Class] | None  # those that an object may be of; none if nobody tells, None if it cannot be told
_NOBODY: Kinds = frozenset()
_ITSELF = {"to", "eval", "train", "cpu", "cuda", "float", "double", "half", "requires_grad_"}  # what returns its object
_ALIKE = {"replace", "dataclasses.replace", "copy.replace", "deepcopy", "copy.deepcopy", "copy.copy"}  # another such
_DEEPEST = 12


class Receivers:
    """The classes that objects of a tree are of, each told once."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._known: dict[object, Kinds] = {}
        self._families: dict[Class, frozenset[Class]] = {}

    @cached_property
    def methods(self) -> frozenset[str]:
        """What the methods of the tree's classes are called, and functions in others."""
        return frozenset[str]().union(*(_inner_functions(self._files.raw(path)) for path in self._files.paths))

    def of(self, value: Value) -> Kinds:
        """The classes that a value's object may be of."""
        match value.op:
            case "self" | "instance":
                return frozenset({value.data})
            case "parameter":
                path, function, name = value.data
                file = self._files.file(path)
                return self._given(file, function, name) if file is not None else None
            case "attr":
                return self._attributes(self.of(value["of"]), value.data)
        return None

    def able(self, value: Value, name: str) -> Kinds:
        """The classes with a method that also have all others that are asked of an object of which nobody tells more.

        One name may mean anything, so that there have to be two at least.
        """
        asked = {each for each in _asked_of(value) if each in self.methods}
        classes = [
            (file.path, owner)
            for file in (self._files.naming(name) if len(asked) > 1 else ())
            for node, owner in (file.functions if not is_test(file.path) else ())
            if owner is not None and node.name == name and not _is_abstract(node)
        ]
        return frozenset(each for each in classes if asked <= self._methods_of(each))

    def _methods_of(self, cls: Class, depth: int = 0) -> set[str]:
        path, node = cls
        file = self._files.file(path)
        above = [self._meant(file, base) for base in node.bases] if file is not None and depth < _DEEPEST else []
        found = {each.name for each in node.body if isinstance(each, Function)}
        classes = [(home.path, each) for home, each in filter(None, above) if isinstance(each, ast.ClassDef)]
        return found.union(*(self._methods_of(each, depth + 1) for each in classes))

    def _attributes(self, owners: Kinds, name: str) -> Kinds:
        return _all(self._attribute(each, name) for each in owners) if owners else owners

    def _attribute(self, cls: Class, name: str) -> Kinds:
        """What an attribute of a class's objects is set to, wherever that is."""
        key = cls, name
        if key not in self._known:
            self._known[key] = _NOBODY  # as far as a circle is concerned
            uses = ((file, node) for file in self._named(name) for node in file.uses[name])
            sets = [(file, node) for file, node in uses if isinstance(getattr(node, "ctx", None), ast.Store)]
            told = _all(self._set_to(file, node, cls) for file, node in sets if isinstance(node, ast.Attribute))
            self._known[key] = told or self.hinted(*cls, name) or told
        return self._known[key]

    def _set_to(self, file: File, node: ast.Attribute, cls: Class) -> Kinds:
        owners = self._kinds(file, node.value)
        if owners and not owners & self._family(cls):
            return _NOBODY
        statement = file.statement(node)
        for target in getattr(statement, "targets", [getattr(statement, "target", None)]):
            value = _part(target, getattr(statement, "value", None), node)
            if value is not None:
                return self._kinds(file, value)
        return None

    def _kinds(self, file: File, node: ast.expr) -> Kinds:
        """The classes that what an expression gives may be of."""
        if node not in self._known:
            self._known[node] = _NOBODY
            self._known[node] = self._told(file, node)
        return self._known[node]

    def _told(self, file: File, node: ast.expr) -> Kinds:
        match node:
            case ast.Constant(value=None):
                return _NOBODY
            case ast.Name():
                return self._of_name(file, node)
            case ast.Attribute(value=owner, attr=name):
                return self._attributes(self._kinds(file, owner), name)
            case ast.IfExp(body=yes, orelse=no):
                return _all(self._kinds(file, each) for each in (yes, no))
            case ast.BoolOp(op=ast.Or(), values=values):
                return _all(self._kinds(file, each) for each in values)
            case ast.Call(func=ast.Attribute(value=owner, attr=name)) if name in _ITSELF:
                return self._kinds(file, owner)
            case ast.Call(func=func):
                meant = self._meant(file, func)
                if meant is not None and isinstance(meant[1], ast.ClassDef):
                    return frozenset({(meant[0].path, meant[1])})
                if meant is not None and isinstance(meant[1], ast.FunctionDef) and not meant[1].decorator_list:
                    home, function = meant
                    given = [each.value for each in walk(function) if isinstance(each, ast.Return)]
                    own = [each for each in given if each is not None and home.function(each) is function]
                    return _all(self._kinds(home, each) for each in own) if own else None
                if meant is None and node.args and ast.unparse(func) in _ALIKE:
                    return self._kinds(file, node.args[0])
        return None

    def _of_name(self, file: File, node: ast.Name) -> Kinds:
        scope = file.around(node).owner(node.id)
        if scope is None:
            return None
        found: list[Kinds] = []
        for each in scope.bound[node.id]:
            if isinstance(each, ast.arg) and isinstance(scope.node, Function):
                found.append(self._given(file, scope.node, node.id))
                continue
            statement = file.statement(each) if isinstance(each, ast.Name) else None
            is_plain = isinstance(statement, (ast.Assign, ast.AnnAssign)) and file.parents[each] is statement
            value = statement.value if is_plain else None  # type: ignore[union-attr]
            found.append(self._kinds(file, value) if value is not None else None)
        return _all(found)

    def _given(self, file: File, function: Function, name: str) -> Kinds:
        """What a parameter is given by the calls that are seen."""
        key = function, name
        if key not in self._known:
            self._known[key] = _NOBODY
            told = _all(self._arguments(file, function, name))
            self._known[key] = told or self.hinted(file.path, function, name) or told
        return self._known[key]

    def hinted(self, path: str, holder: ast.AST, name: str) -> Kinds:
        """The class that a parameter's annotation names, or that of what a class keeps; None where it names none."""
        file, hint = self._files.file(path), None
        for each in walk(getattr(holder, "args", holder)):
            match each:
                case ast.AnnAssign(target=ast.Name(id=own) | ast.Attribute(attr=own)) if own == name:
                    hint = each.annotation
                case ast.arg(arg=own) if own == name and not isinstance(holder, ast.ClassDef):
                    hint = each.annotation
        if isinstance(hint, ast.Constant) and isinstance(hint.value, str):
            hint = ast.parse(hint.value, mode="eval").body
        match hint:
            case ast.BinOp(left=inner) | ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
                hint = inner
        meant = self._meant(file, hint) if hint is not None and file is not None else None
        return frozenset({(meant[0].path, meant[1])}) if meant and isinstance(meant[1], ast.ClassDef) else None

    def _arguments(self, file: File, function: Function, name: str) -> Iterator[Kinds]:
        owner = file.owner(function)
        order = [each.arg for each in parameters(function.args)]
        is_static = any(getattr(each, "id", "") == "staticmethod" for each in function.decorator_list)
        if owner is not None and not is_static and order[:1] == [name]:
            yield frozenset({(file.path, owner)})
            return
        default = next((value for each, value in defaults_of(function.args).items() if each.arg == name), None)
        placed = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
        for other, call in self._calls(file, function, owner):
            if call is None or any(isinstance(each, ast.Starred) for each in call.args):
                yield None
                continue
            at = placed.index(name) - (owner is not None and not is_static) if name in placed else len(call.args)
            named = [each.value for each in call.keywords if each.arg == name]
            given = next(iter([*named, *call.args[at : at + 1]]), None)
            if given is not None:
                yield self._kinds(other, given)
            elif any(each.arg is None for each in call.keywords):
                yield None
            elif default is not None:
                yield self._kinds(file, default)

    def _calls(
        self, file: File, function: Function, owner: ast.ClassDef | None
    ) -> Iterator[tuple[File, ast.Call | None]]:
        """The calls of a function, wherever they stand; None where it is used in another way."""
        is_made = owner is not None and function.name == "__init__"
        word = owner.name if is_made and owner is not None else function.name
        for other in self._named(word):
            for node in other.uses[word]:
                call = other.parents[node]
                is_call = isinstance(call, ast.Call) and call.func is node
                if owner is not None and not is_made:
                    if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Load):
                        continue
                    owners = self._kinds(other, node.value)
                    if owners and not owners & self._family((file.path, owner)):
                        continue
                elif (meant := self._meant(other, node)) is None or meant[1] is not (owner if is_made else function):  # type: ignore[arg-type]
                    continue
                elif is_made and not is_call:
                    continue  # a base, a hint, a test of its kind
                yield other, call if is_call else None  # type: ignore[misc]
        if is_made and owner is not None:
            for path, under in self._family((file.path, owner)) - {(file.path, owner)}:
                home = self._files.file(path)
                yield from ((home, call) for call in _of_super(under)) if home is not None else ()
                own = home is not None and not any(isinstance(e, Function) and e.name == "__init__" for e in under.body)
                yield from self._makings(under) if own else ()

    def _makings(self, cls: ast.ClassDef) -> Iterator[tuple[File, ast.Call]]:
        for other in self._named(cls.name):
            for node in other.uses[cls.name]:
                call, meant = other.parents[node], self._meant(other, node)  # type: ignore[arg-type]
                if isinstance(call, ast.Call) and call.func is node and meant is not None and meant[1] is cls:
                    yield other, call

    def _family(self, cls: Class) -> frozenset[Class]:
        """A class, what it is made of, and what is made of it."""
        if cls in self._families:
            return self._families[cls]
        found, pending = {cls}, [cls]
        while pending and len(found) < _DEEPEST:
            path, node = pending.pop()
            file = self._files.file(path)
            near = [self._meant(file, base) for base in node.bases] if file is not None else []
            above = [(home.path, each) for home, each in filter(None, near) if isinstance(each, ast.ClassDef)]
            under = [
                (other.path, each)
                for other in self._files.naming(node.name)
                for each in other.classes
                for base in each.bases
                if (meant := self._meant(other, base)) is not None and meant[1] is node
            ]
            new = {*above, *under} - found
            found |= new
            pending += new
        self._families[cls] = frozenset(found)
        return self._families[cls]

    def _meant(self, file: File, node: ast.expr, depth: int = 0) -> tuple[File, ast.AST] | None:
        """The function or class that a name means, in the file that defines it."""
        if isinstance(node, ast.Name):
            scope = file.around(node).owner(node.id)
            return self._bound(file, scope.bound[node.id], depth) if scope is not None else None
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            scope = file.around(node).owner(node.value.id)
            held = scope.bound[node.value.id][-1] if scope is not None else None
            home = self._imported(file, held)[0] if isinstance(held, ast.alias) else None
            return self._bound(home, home.scope.bound.get(node.attr, []), depth) if home is not None else None
        return None

    def _bound(self, file: File, nodes: list[ast.AST], depth: int) -> tuple[File, ast.AST] | None:
        last = nodes[-1] if nodes else None
        if isinstance(last, (ast.ClassDef, ast.FunctionDef)):
            return file, last
        if isinstance(last, ast.alias) and depth < _DEEPEST:
            home, name = self._imported(file, last)
            return self._bound(home, home.scope.bound.get(name, []), depth + 1) if home is not None else None
        return None

    def _imported(self, file: File, alias: ast.alias) -> tuple[File | None, str]:
        """The file that an import is of, and the name in it; none for a module itself."""
        statement = file.parents[alias]
        if isinstance(statement, ast.Import):
            path = self._files.imported(alias.name, file.path) if alias.asname else None
            return (self._files.file(path) if path is not None else None), ""
        assert isinstance(statement, ast.ImportFrom)
        module = "." * statement.level + (statement.module or "")
        inner = self._files.imported(f"{module}{'' if module.endswith('.') else '.'}{alias.name}", file.path)
        path = self._files.imported(module, file.path)
        home = self._files.file(path) if path is not None else None
        if inner is not None and (home is None or alias.name not in home.scope.bound):
            return self._files.file(inner), ""
        return home, alias.name

    def _named(self, name: str) -> Iterator[File]:
        return (file for file in self._files.naming(name) if name in file.uses and not is_test(file.path))


@lru_cache(maxsize=1024)
def _inner_functions(raw: bytes) -> frozenset[str]:
    return frozenset(
        each.decode(errors="replace") for each in re.findall(rb"^[ \t]+(?:async +)?def +(\w+)", raw, re.MULTILINE)
    )


def _all(found: Iterable[Kinds]) -> Kinds:
    """What is one of several; None if one of these cannot be told."""
    every = list(found)
    return None if None in every else frozenset[Class]().union(*filter(None, every))


def _part(target: ast.expr | None, value: ast.expr | None, node: ast.expr) -> ast.expr | None:
    """What an assignment to a target gives to a part of it."""
    if target is node:
        return value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        parts = (_part(*pair, node) for pair in zip(target.elts, value.elts, strict=True))
        return next(filter(None, parts), None)
    return None


def _of_super(cls: ast.ClassDef) -> Iterator[ast.Call]:
    """The calls by which a class's constructor calls that of its base."""
    for setup in (each for each in cls.body if isinstance(each, Function) and each.name == "__init__"):
        for each in walk(setup):
            match each:
                case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr="__init__")):
                    yield each


def _asked_of(value: Value) -> set[str]:
    """The methods that are called of a parameter in its function, or of an attribute in its class."""
    scope = value.data[1] if value.op == "parameter" else value["of"].data[1] if value["of"].op == "self" else None
    name = value.data[2] if value.op == "parameter" else value.data
    calls = (each.func for each in (walk(scope) if scope is not None else ()) if isinstance(each, ast.Call))
    owners = [(each.attr, each.value) for each in calls if isinstance(each, ast.Attribute)]
    kind, key = (ast.Name, "id") if value.op == "parameter" else (ast.Attribute, "attr")
    return {asked for asked, owner in owners if isinstance(owner, kind) and getattr(owner, key) == name}


def _is_abstract(function: Function) -> bool:
    """Whether a function does nothing, or raises: it stands for those of subclasses."""
    return all(
        isinstance(each, (ast.Pass, ast.Raise)) or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
        for each in function.body
    )
