"""A tree's modules as code is read in them: syntax, scopes, and which module an import means."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, lru_cache

from ..encodings import decoded
from ..nesting import parsed
from .names import Scope, scopes_of

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
        """What directly holds each node."""
        return {child: node for node in ast.walk(self.module) for child in ast.iter_child_nodes(node)}

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
        nodes = [node for node in ast.walk(self.module) if isinstance(node, Function)]
        return [(node, self.owner(node)) for node in nodes]

    def owner(self, function: Function) -> ast.ClassDef | None:
        """The class whose method a function is."""
        holder = self.parents[function]
        return holder if isinstance(holder, ast.ClassDef) else None

    def function(self, node: ast.AST) -> Function | None:
        """The innermost function that a node stands in."""
        return next((each for each in self.ancestors(node) if isinstance(each, Function)), None)

    @cached_property
    def uses(self) -> dict[str, list[ast.AST]]:
        """The names and attributes of the file, by what they are called."""
        found: dict[str, list[ast.AST]] = {}
        for node in ast.walk(self.module):
            if isinstance(node, ast.Name):
                found.setdefault(node.id, []).append(node)
            elif isinstance(node, ast.Attribute):
                found.setdefault(node.attr, []).append(node)
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


class Files:
    """The modules of a tree, each read once, when it is asked for."""

    def __init__(self, paths: Iterable[str], read: Callable[[str], bytes]) -> None:
        self._read = read
        self._files: dict[str, File | None] = {}
        self.paths = {path for path in paths if path.endswith(".py")}

    def raw(self, path: str) -> bytes:
        """A module's bytes."""
        return self._read(path)

    def file(self, path: str) -> File | None:
        """A module; None where Python does not read it."""
        if path not in self._files:
            self._files[path] = _file(path, self._read(path))
        return self._files[path]

    def having(self, pattern: bytes) -> Iterator[File]:
        """The modules in which a pattern is found, in order of path."""
        for path in sorted(self.paths):
            file = self.file(path) if re.search(pattern, self.raw(path)) else None
            if file is not None:
                yield file

    def known(self, path: str) -> File | None:
        """A module that has been read already; None of any other."""
        return self._files.get(path)

    def imported(self, dotted: str, here: str) -> str | None:
        """The path of the tree's module that a dotted name means in a file; None for what is not the tree's.

        Relative names start with their dots. Absolute ones are looked for beside the file, and in every folder
        above it up to the tree's root: scripts, src/ layouts and packages all find their own.
        """
        folder = os.path.dirname(here)
        if dotted.startswith("."):
            level = len(dotted) - len(dotted.lstrip("."))
            for _ in range(level - 1):
                folder = os.path.dirname(folder)
            return self._at(folder, dotted[level:])
        while True:
            found = self._at(folder, dotted)
            if found is not None or not folder:
                break
            folder = os.path.dirname(folder)
        return found or self._at("src", dotted)

    def _at(self, folder: str, dotted: str) -> str | None:
        path = "/".join(filter(None, (folder, *dotted.split("."))))
        candidates = (f"{path}.py", f"{path}/__init__.py") if path else ("__init__.py",)
        return next((each for each in candidates if each in self.paths), None)
