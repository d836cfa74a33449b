"""A tree's modules as code is read in them: syntax, scopes, and which module an import means."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache

from ..files.encodings import decoded
from ..files.nesting import parsed
from .names import Scope, scopes_of
from .nodes import children

Function = ast.FunctionDef | ast.AsyncFunctionDef


class File:
    """One module of a tree; `path` is relative to the tree, with forward slashes.

    Raises SyntaxError or ValueError where Python does not read it.
    """

    def __init__(self, path: str, raw: bytes) -> None:
        self.path = path
        self.raw = raw
        self.module = parsed(raw)

    @cached_property
    def scopes(self) -> dict[ast.AST, Scope]:
        return scopes_of(self.module)

    @property
    def scope(self) -> Scope:
        return self.scopes[self.module]

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """What directly holds each node, the outer ones first."""
        found, pending = dict[ast.AST, ast.AST](), list[ast.AST]([self.module])
        for node in pending:
            inner = children(node)
            found.update(dict.fromkeys(inner, node))
            pending += inner
        return found

    @cached_property
    def nodes(self) -> Sequence[ast.AST]:
        """All that the file holds, the outer ones first."""
        return [self.module, *self.parents]

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """Whatever encloses a node, from the inside out."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    def statement(self, node: ast.AST) -> ast.stmt:
        """The innermost statement that a node stands in, or is."""
        while not isinstance(node, ast.stmt):
            node = self.parents[node]
        return node

    @cached_property
    def functions(self) -> list[tuple[Function, ast.ClassDef | None]]:
        """Every function, with the class whose method it is."""
        return [(node, self.owner(node)) for node in self.nodes if isinstance(node, Function)]

    def owner(self, function: Function) -> ast.ClassDef | None:
        """The class whose method a function is."""
        holder = self.parents[function]
        return holder if isinstance(holder, ast.ClassDef) else None

    def function(self, node: ast.AST) -> Function | None:
        """The innermost function that a node stands in."""
        return next((each for each in self.ancestors(node) if isinstance(each, Function)), None)

    def around(self, node: ast.AST) -> Scope:
        """The scope that a node stands in; of what opens one, the scope that this is in."""
        return next((self.scopes[each] for each in self.ancestors(node) if each in self.scopes), self.scope)

    @cached_property
    def imports(self) -> set[str]:
        """The dotted names that the file imports, or imports from; relative ones start with their dots."""
        found = set[str]()
        for node in self.nodes:
            if isinstance(node, ast.Import):
                found |= {each.name for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = "." * node.level + (node.module or "")
                joint = "." if node.module else ""
                found |= {base, *(f"{base}{joint}{each.name}" for each in node.names)}
        return found

    @cached_property
    def listed(self) -> set[str] | None:
        """The names in `__all__`; None where there is none, or something else than plain lists makes it."""
        lists = self.scope.bound.get("__all__", [])
        try:
            found = [ast.literal_eval(self.statement(node).value) for node in lists]  # type: ignore[attr-defined]
        except (AttributeError, ValueError):
            return None
        return {name for names in found for name in names} if 0 < len(lists) == len(self.uses["__all__"]) else None

    @cached_property
    def aliases(self) -> dict[str, list[str]]:
        """What imported names are called in the file, where it is something else."""
        found: dict[str, list[str]] = {}
        for node in self.nodes:
            if isinstance(node, ast.alias) and node.asname is not None:
                found.setdefault(node.name, []).append(node.asname)
        return found

    @cached_property
    def classes(self) -> list[ast.ClassDef]:
        """Every class."""
        return [node for node in self.nodes if isinstance(node, ast.ClassDef)]

    @cached_property
    def bases(self) -> set[str]:
        """What the bases of its classes are called."""
        return {getattr(base, "id", getattr(base, "attr", "")) for node in self.classes for base in node.bases}

    @cached_property
    def uses(self) -> dict[str, list[ast.AST]]:
        """The names and attributes of the file, by what they are called."""
        found: dict[str, list[ast.AST]] = {}
        for node in self.nodes:
            if isinstance(node, (ast.Name, ast.Attribute)):
                found.setdefault(node.id if isinstance(node, ast.Name) else node.attr, []).append(node)
        return found

    @cached_property
    def keywords(self) -> dict[str, list[ast.Call]]:
        """The calls of the file, by the names of what they are given."""
        found: dict[str, list[ast.Call]] = {}
        for node in (each for each in self.nodes if isinstance(each, ast.Call)):
            for each in node.keywords:
                found.setdefault(each.arg or "", []).append(node)
        return found

    @cached_property
    def lines(self) -> list[bytes]:
        """The lines of the file in UTF-8, as columns of syntax trees are counted in them."""
        text = decoded(self.raw)[0].replace("\r\n", "\n").replace("\r", "\n")
        return [line.encode() for line in text.split("\n")]

    def text(self, node: ast.expr) -> str:
        """The source of an expression, without brackets around it."""
        assert node.end_lineno is not None
        lines = self.lines[node.lineno - 1 : node.end_lineno]
        lines[-1] = lines[-1][: node.end_col_offset]
        lines[0] = lines[0][node.col_offset :]
        return b"\n".join(lines).decode()


@lru_cache(maxsize=512)
def _file(path: str, raw: bytes) -> File | None:
    """A module as it is in every tree that has it so; None where Python does not read it."""
    try:
        return File(path, raw)
    except (SyntaxError, ValueError):
        return None


@lru_cache(maxsize=2048)
def words_of(raw: bytes) -> frozenset[bytes]:
    """The words of a file, names among them."""
    return frozenset(re.findall(rb"[\w\x80-\xff]+", raw))


def is_test(path: str) -> bool:
    """Whether a file is one of a tree's tests."""
    *folders, name = path.split("/")
    return bool({"test", "tests"} & set(folders)) or name.startswith(("test_", "conftest"))


class Files:
    """The modules of a tree, each read once, when it is asked for."""

    def __init__(self, paths: Iterable[str], read: Callable[[str], bytes]) -> None:
        self._read = read
        self._files: dict[str, File | None] = {}
        self._raws: dict[str, bytes] = {}
        self._meanings: dict[File, set[str]] = {}  # of the imports of each
        self._imported: dict[tuple[str, str], str | None] = {}  # by dotted name and folder
        self.paths = dict.fromkeys(sorted(path for path in paths if path.endswith(".py")))

    def raw(self, path: str) -> bytes:
        """A module's bytes."""
        if path not in self._raws:
            self._raws[path] = self._read(path)
        return self._raws[path]

    def file(self, path: str) -> File | None:
        """A module; None where Python does not read it."""
        if path not in self._files:
            self._files[path] = _file(path, self.raw(path))
        return self._files[path]

    def of(self, node: ast.AST) -> File:
        """The module that a node of one that has been read stands in."""
        return next(file for file in self._files.values() if file is not None and node in file.parents)

    def having(self, pattern: bytes) -> Iterator[File]:
        """The modules in which a pattern is found, in order of path."""
        return self._read_in(path for path in self.paths if re.search(pattern, self.raw(path)))

    def holding(self, text: str) -> Iterator[File]:
        """The modules in which a text stands, in order of path."""
        return self._read_in(path for path in self.paths if text.encode() in self.raw(path))

    def naming(self, name: str) -> Iterator[File]:
        """The modules in which a name stands, in order of path."""
        word = name.encode()
        return self._read_in(path for path in self.paths if word in words_of(self.raw(path)))

    def _read_in(self, paths: Iterable[str]) -> Iterator[File]:
        return (file for path in paths if (file := self.file(path)) is not None)

    def over(self, changed: set[str], read: Callable[[str], bytes]) -> tuple[Files, set[str]]:
        """The same modules, some of them changed, and which of those that were read may depend on the changed ones.

        A module depends on what it imports, and a class on those that are made of it.
        """
        files = Files(self.paths, read)
        files._files = {path: file for path, file in self._files.items() if path not in changed}
        files._raws = {path: raw for path, raw in self._raws.items() if path not in changed}
        files._meanings, files._imported = self._meanings, self._imported
        known = [file for path in {*self._files, *changed} if (file := files.file(path)) is not None]
        bases = {path: self._bases(path) | files._bases(path) for path in changed}
        users: dict[str, set[str]] = {}
        for file in known:
            for path in self._meanings.get(file) or self._meanings.setdefault(file, self._meant(file)):
                users.setdefault(path, set()).add(file.path)
            for path in (path for path, names in bases.items() if any(each.name in names for each in file.classes)):
                users.setdefault(path, set()).add(file.path)
        found, pending = set(changed), list(changed)
        while pending:
            more = users.get(pending.pop(), set()) - found
            found |= more
            pending += more
        return files, found

    def exported(self, path: str, seen: frozenset[str] = frozenset()) -> set[str]:
        """The names that a star import of a module takes, as they are written in it and in what it imports so."""
        file = self.file(path)
        if file is None or path in seen:
            return set()
        if file.listed is not None:
            return file.listed
        own = {name for name in file.scope.bound if not name.startswith("_") or "__all__" in file.scope.bound}
        return own.union(*(self.exported(each, seen | {path}) for each in self._stars(file) if each is not None))

    def is_open(self, file: File, seen: frozenset[str] = frozenset()) -> bool:
        """Whether names may be bound at the top of a module that are not in what is written in the tree."""
        stars = [each for each in self._stars(file) if each not in seen] if file.scope.is_open else []
        inner = [self.file(each) if each is not None else None for each in stars]
        return file.scope.is_dynamic or any(each is None or self.is_open(each, seen | {file.path}) for each in inner)

    def _stars(self, file: File) -> list[str | None]:
        """The modules of which a module imports everything; None for those that are not the tree's."""
        stars = [name[:-1] for name in file.imports if name.endswith("*")]
        return [self.imported(name.rstrip(".") or name, file.path) for name in stars]

    def _bases(self, path: str) -> set[str]:
        file = self.file(path)
        return file.bases if file is not None else set()

    def _meant(self, file: File) -> set[str]:
        """The modules that the imports of one may mean, the packages around them among them."""
        dotted = (name.split(".") for name in file.imports)
        names = {".".join(parts[:end]) for parts in dotted for end in range(1, len(parts) + 1) if any(parts[:end])}
        return {path for name in names if (path := self.imported(name, file.path)) is not None}

    def imported(self, dotted: str, here: str) -> str | None:
        """The path of the tree's module that a dotted name means in a file; None for what is not the tree's.

        Relative names start with their dots. Absolute ones are looked for beside the file, and in every folder
        above it up to the tree's root: scripts, src/ layouts and packages all find their own.
        """
        key = dotted, os.path.dirname(here)
        if key not in self._imported:
            self._imported[key] = self._meant_from(*key)
        return self._imported[key]

    def _meant_from(self, dotted: str, folder: str) -> str | None:
        if dotted.startswith("."):
            level = len(dotted) - len(dotted.lstrip("."))
            for _ in range(level - 1):
                folder = os.path.dirname(folder)
            return self._at(folder, dotted[level:])
        found = self._at(folder, dotted)
        while found is None and folder:
            folder = os.path.dirname(folder)
            found = self._at(folder, dotted)
        return found or self._at("src", dotted)

    def _at(self, folder: str, dotted: str) -> str | None:
        path = "/".join(filter(None, (folder, *dotted.split("."))))
        candidates = (f"{path}.py", f"{path}/__init__.py") if path else ("__init__.py",)
        return next((each for each in candidates if each in self.paths), None)
