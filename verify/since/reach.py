"""Which modules of a repository some of its modules import, anywhere in their code, and whether that can be told.

More is counted than is imported: an absolute name may mean each file whose path ends so, wherever sys.path leads, and a
text that reads as a module's name, or as the path of a script, is taken for one.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from ...patches.files.nesting import parsed
from .history import History

CALLED = {"import_module", "__import__"}  # by a name that may be written out
UNTOLD = {  # names of what imports, or runs, what is not written out
    *("exec", "run_module", "run_path", "exec_module", "load_module", "spec_from_file_location"),
    *("SourceFileLoader", "walk_packages", "iter_modules", "subprocess", "system", "popen", "execv", "execve"),
}
NAME = re.compile(r"\.*[^\W\d]\w*(?:\.[^\W\d]\w*)*(?::[\w.]*)?")
ENDS = (".py", "/__init__.py")


class Reach:
    """What the modules of a repository import; `roots` are the folders from which they are imported."""

    def __init__(self, history: History, roots: Iterable[str]) -> None:
        self.history, self.roots = history, [*roots]
        self._known: dict[str, tuple[set[str], bool]] = {}

    @cached_property
    def by_last_part(self) -> dict[str, list[str]]:
        """The Python files, before and now, by the last word of the name of each."""
        found = dict[str, list[str]]()
        for path in self.history.now | self.history.before.keys():
            if path.endswith(".py"):
                found.setdefault(_module(path).rpartition("/")[2], []).append(path)
        return found

    def closure(self, starts: Iterable[str]) -> tuple[set[str], bool]:
        """What some files import, and what that imports; and whether all of that is told by the code."""
        found, pending, is_told = set[str](), [*starts], True
        while pending:
            path = pending.pop()
            if path not in found:
                found.add(path)
                more, told = self._imports(path)
                pending += more
                is_told &= told
        return found, is_told

    def files(self, dotted: str, here: str | None = None) -> set[str]:
        """The files that a module's name may mean, the packages around it among them; the name may be relative."""
        name = dotted.lstrip(".")
        parts = name.split(".") if name else []
        names = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        if here is not None and dotted.startswith("."):
            folder = os.path.dirname(here)
            for _ in range(len(dotted) - len(name) - 1):
                folder = os.path.dirname(folder)
            return {*self._there(folder, names), *self._there(folder, [""])}
        ends = [(each.rpartition("/")[2], each) for each in names]
        listed = {p for last, each in ends for p in self.by_last_part.get(last, ()) if _ends_so(_module(p), each)}
        return listed.union(*(self._there(folder, names) for folder in {*self.roots, *_above(here or "")}))

    def _there(self, folder: str, names: Sequence[str]) -> Iterator[str]:
        """The files of modules in a folder: those that are listed, or lie there unlisted, without links on the way."""
        history = self.history
        for path in (os.path.normpath(f"{folder}/{name}{end}").lstrip("/") for name in names for end in ENDS):
            full = history.top / path
            if path in history.before or path in history.now:
                yield path
            if full.is_file():
                yield os.path.relpath(os.path.realpath(full), history.top)

    def _imports(self, path: str) -> tuple[set[str], bool]:
        """The files that a module imports, and its packages; whether its code tells them."""
        if path not in self._known:
            packages = {each for folder in _above(path) for each in self._there(folder, [""]) if each != path}
            raw = self.history.read(path)
            try:
                module = parsed(raw or b"")
            except (SyntaxError, ValueError):
                self._known[path] = packages, False
            else:
                names, is_told = _names(module)
                self._known[path] = packages.union(*(self.files(name, path) for name in names)), is_told
        return self._known[path]


def _names(module: ast.Module) -> tuple[set[str], bool]:
    """The names of modules in a module's code, relative ones with their dots; whether there can be no others."""
    names, is_told, spelled = set[str](), True, set[ast.AST]()
    for node in ast.walk(module):
        match node:
            case ast.Import():
                names |= {each.name for each in node.names}
            case ast.ImportFrom():
                base = "." * node.level + (node.module or "")
                names |= {base, *(f"{base}{'.' * bool(node.module)}{each.name}".rstrip("*.") for each in node.names)}
                names -= {""}
            case ast.Call(func=ast.Name() | ast.Attribute(), args=[ast.Constant(value=str()), *_]):
                spelled.add(node.func)
            case ast.Constant(value=str(text)) if text.endswith(".py"):
                names.add(_module(text.lstrip("./")).replace("/", "."))
            case ast.Constant(value=str(text)) if NAME.fullmatch(text) and {".", ":"} & set(text):
                names.add(text.partition(":")[0].lstrip("."))
            case ast.Constant(value=str(text)) if text in CALLED:
                is_told = False
    for node in ast.walk(module):
        name = getattr(node, "attr", getattr(node, "id", getattr(node, "name", "")))
        if isinstance(node, ast.alias):
            is_told &= name not in UNTOLD and name not in ("builtins", "runpy")
            is_told &= name not in CALLED or node.asname in (None, name)
        elif isinstance(node, ast.Attribute):
            is_told &= name not in UNTOLD and (name not in CALLED or node in spelled)
        elif isinstance(node, ast.Name):
            is_told &= name not in UNTOLD | {"eval"} and (name not in CALLED or node in spelled)
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and node.func in spelled:
            name, text = getattr(node.func, "attr", getattr(node.func, "id", "")), getattr(node.args[0], "value", "")
            names |= {text.lstrip(".")} if name in CALLED else set()
    return names - {""}, is_told


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__")


def _ends_so(path: str, name: str) -> bool:
    return path == name or path.endswith(f"/{name}")


def _above(path: str) -> Iterator[str]:
    """The folders around a file, and that of the repository."""
    while path:
        path = os.path.dirname(path)
        yield path
