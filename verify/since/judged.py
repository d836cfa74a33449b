"""Which tasks are judged where only what changed since a commit counts, and why each of the others is left out.

A task is left out only where every file that its judge can run, and all that these may read, is as it was. Packages
that are installed, and data that .gitignore leaves out, are not compared.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from ...patches.files.nesting import parsed
from ...patches.files.settled import FILE
from ...patches.files.spellings import DRIVER
from ...patches.reading.seams import EXAMPLES
from ...patches.reading.tree import SourceTree, open_tree
from ...patches.task import BitpatchError, Task
from ..running.driven import driving
from .found import Since
from .history import LINK, History, history
from .own_tests import CONFIGURATIONS, compared
from .reach import Reach

_LOOP = ("model", "update", "command-line")
_RUNS = (*_LOOP, *(f"bit_transformer.{name}" for name in ("training", "optimization", "compression", "runs")))
_SERVED = (
    *("manager", "dashboard.manager", "dashboard.app", "mcp_server", "bit_transformer.mcp_server"),
    *("bit_transformer.dashboard_app", "bit_transformer.dashboard", "bit_transformer.checkpoint"),
)
_ROWS = ("rows", "data.wikitext_schedule", "wikitext_schedule", "bit_transformer.bit_io")
_MAPS = ("bit_transformer.safety", "bit_transformer.scale", "bit_transformer.checkpoint")
# Of each judge: the seams it drives, and the modules it asks for by name. A task without a row is always judged.
NEEDS: dict[int, tuple[str, ...]] = {
    1: _RUNS,
    2: (*_SERVED, "model"),
    3: _RUNS,
    4: _RUNS,
    5: (*_ROWS, "model", "bit_transformer.training"),
    6: (*_RUNS, *_ROWS, "bit_transformer.safety"),
    7: (*_RUNS, *_SERVED, "gate", "bit_transformer.safety"),
    8: (*_RUNS, "bit_transformer.scale", "bit_transformer.checkpoint"),
    9: ("model", "bit_transformer.generation"),
    10: ("model", "bit_transformer.generation"),
    11: ("model", "bit_transformer.generation"),
    12: (*_RUNS, *_SERVED, *_MAPS, "bit_transformer.generation"),
}
LAYOUT = {  # the modules of the seams in a tree that is laid out as ours
    name: where.replace("PACKAGE", "bit_transformer").partition(":")[0] for name, where in EXAMPLES.items()
}
PROSE = (
    ".md",
    ".rst",
    "pytest.ini",
    "tox.ini",
    ".gitattributes",
    ".editorconfig",
    ".flake8",
    ".pre-commit-config.yaml",
    "LICENSE",
    "Makefile",
)
STYLE = ("ruff", "black", "isort", "mypy", "pytest", "coverage", "pyright", "pylint", "flake8")  # tables of tools
ABOUT = ("description", "readme", "license", "authors", "maintainers", "urls", "keywords", "classifiers")
READS_TEXT = re.compile(rb"getsource|getcomments|linecache|tokenize|\bjit\b")  # to which a comment may say something
READS_DOCS = re.compile(rb"\.__doc__|getdoc|[\"']__doc__|import[^\n]*__doc__|doctest")  # of another module, perhaps
PLAIN = {  # decorators to which a docstring says nothing
    *("property", "cached_property", "staticmethod", "classmethod", "setter", "no_grad", "inference_mode", "override"),
    *("dataclass", "contextmanager", "abstractmethod", "overload", "cache", "lru_cache", "wraps", "fixture"),
}
SHOWN = 3  # files that a sentence names


def compare(tree: SourceTree, ref: str, tasks: Sequence[Task], driven: Mapping[str, Any] | None) -> Since:
    """What is to be judged of tasks, `driven` being what their judges are told. Raises NotCompared."""
    past = history(tree.root, ref)
    why = Judged(past, tree, driven).untouched(tasks)
    own = [path for path in past.before.keys() | past.now if path.startswith(past.tree) and _is_of_tests(path)]
    now = {path: raw for path in own if path in past.now and (raw := past.read(path)) is not None}
    before = past.at(path for path in own if path in past.changed)
    before |= {path: now[path] for path in own if path not in past.changed and path in now}
    shown = [{past.shown(path): raw for path, raw in sorted(files.items())} for files in (before, now)]
    changed = tuple(sorted(map(past.shown, past.changed)))
    return Since(ref, changed, why, compared(*shown), tuple(task for task in tasks if task.id not in why))


def _is_of_tests(path: str) -> bool:
    return (path.endswith(".py") and "test" in path) or path.rpartition("/")[2] in CONFIGURATIONS


class Judged:
    """What of a tree judges run, and what of that changed."""

    def __init__(self, past: History, tree: SourceTree, driven: Mapping[str, Any] | None) -> None:
        self.past, self.tree, self.driven = past, tree, driven
        roots = ["", "src", os.path.dirname(os.path.dirname(tree.model_path)), *(driven or {}).get("roots", ())]
        self.roots = {f"{past.tree}{each}".strip("/") for each in roots}
        self.reach = Reach(past, self.roots)
        code = {path for path in past.changed if path.endswith(".py")}
        self.before = past.at(path for path in past.changed if self._is_asked(path))
        self.now = {path: past.read(path) for path in self.before.keys() & past.now}
        shipped = [raw for each in past.now if each.endswith(".py") if (raw := past.read(each)) is not None]
        self.texts_count = any(READS_TEXT.search(raw) for raw in shipped)
        self.docs_count = any(READS_DOCS.search(raw) for raw in shipped)
        self.acting = {path for path in code if not self._means_the_same(path)}
        self.prose = {path for path in past.changed - code if path.endswith(PROSE) or ".github/" in f"/{path}"}

    def _is_asked(self, path: str) -> bool:
        mode, _ = self.past.before.get(path, ("", ""))
        return mode.startswith("100") and (path.endswith(".py") or path.rpartition("/")[2] == FILE)

    def untouched(self, tasks: Sequence[Task]) -> dict[str, str]:
        """The tasks that are left out, by their ids, each with the reason."""
        if self._touches_all():
            return {}
        moved, found = self._moved() if self.acting else set[str](), {}
        driver = {f"{self.past.tree}{DRIVER}"} & (self.past.now | self.past.before.keys())
        for task in tasks:
            needs = NEEDS.get(task.number)
            starts = None if needs is None else self._starts(needs)
            if needs is None or starts is None or not moved.isdisjoint(needs):
                continue
            is_told_its_state = task.option in (self.driven or {}).get("states", {})
            runs, is_told = self.reach.closure(starts | driver)
            if self._touches(runs) or (self.acting and (is_told_its_state or not is_told)):
                continue
            first = sorted(starts, key=lambda path: (path.endswith("__init__.py"), path))[:SHOWN]
            rest = f" and {len(runs) - len(first)} more" if len(runs) > len(first) else ""
            files = ", ".join(map(self.past.shown, first))
            found[task.id] = f"nothing that its judge runs has changed: {files}{rest} are as at {self.past.ref}"
        return found

    def _touches(self, runs: set[str]) -> bool:
        """Whether some modules changed, are not known to the commit, or name a text that changed."""
        if self.acting & runs or not runs <= self.past.before.keys():
            return True
        texts = {word.encode() for path in self.prose for word in (path.rpartition("/")[2], *_suffix(path))}
        return any(word in (self.past.read(path) or b"") for path in runs for word in texts)

    def _touches_all(self) -> bool:
        """Whether something changed of which nobody can tell whom it touches."""
        past, kept = self.past, self.past.before
        linked = any(mode == LINK and (past.top / path).is_dir() for path, (mode, _) in kept.items())
        others = {path for path in past.changed - self.prose if not path.endswith(".py") and not self._is_style(path)}
        return linked or bool(others) or any(map(self._is_far_reaching, self.acting))

    def _is_far_reaching(self, path: str) -> bool:
        """Whether a module that changed is one that everything meets: it does not parse, is found by its place."""
        name, raw = path.rpartition("/")[2], self.past.read(path)
        if name in (DRIVER, "sitecustomize.py", "usercustomize.py", "setup.py"):
            return True
        if (self.past.top / path).is_symlink() or (path in self.past.now and _code(raw or b"", docs=True) is None):
            return True
        for root in self.roots:
            inner = path.removeprefix(f"{root}/" if root else "")
            if inner != path or not root:
                first, is_at_top = inner.partition("/")[0].removesuffix(".py"), "/" not in inner
                if (is_at_top and first == "conftest") or (first not in ("test", "tests") and first in self._others()):
                    return True
        return False

    def _others(self) -> set[str]:
        """The names of modules that are not the tree's: a module of the tree of such a name may stand before one."""
        own = {each["where"].partition(".")[0] for each in (self.driven or {}).get("seams", {}).values()}
        own |= {each.partition(".")[0] for each in LAYOUT.values()}
        return {*sys.stdlib_module_names, *packages_distributions()} - own

    def _is_style(self, path: str) -> bool:
        """Whether a pyproject.toml says the same as before but for what is said to tools and readers."""
        before, now = self.before.get(path), self.now.get(path)
        if path.rpartition("/")[2] != FILE or before is None or now is None:
            return False
        try:
            old, new = (tomllib.loads(raw.decode()) for raw in (before, now))
            for each in (old, new):
                for table, names in (("tool", STYLE), ("project", ABOUT)):
                    each[table] = {name: value for name, value in each.get(table, {}).items() if name not in names}
        except (ValueError, AttributeError, RecursionError):
            return False
        return old == new

    def _moved(self) -> set[str]:
        """The seams that judges find elsewhere than at the commit, or call otherwise; all where it cannot be told."""
        past, every = self.past, {name for needs in NEEDS.values() for name in needs}
        with tempfile.TemporaryDirectory(prefix="bitpatch-") as folder:
            asked = [path for path in past.before if path.startswith(past.tree) and path.endswith((".py", FILE))]
            for path, raw in past.at(path for path in asked if past.before[path][0] != LINK).items():
                inner = path.removeprefix(past.tree)
                if {"", ".", "..", ".git"} & set(inner.split("/")):
                    return every  # which git refuses to make
                target = Path(folder, inner)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(raw)
            try:
                old, new = driving(open_tree(Path(folder)), []), self.driven
            except BitpatchError:
                return every
        if old is None or new is None or old["roots"] != new["roots"]:
            return set() if old is new else every
        return {name for name, told in new["seams"].items() if told != old["seams"][name]}

    def _starts(self, needs: Iterable[str]) -> set[str] | None:
        """The files of the modules at which a judge begins; None where one is not found."""
        found, seams = set[str](), (self.driven or {}).get("seams")
        for need in needs:
            if seams is not None and need in seams:
                roles = [role for role in seams[need]["roles"].values() if ":" in role]
                for where in filter(None, (seams[need]["where"], *roles)):
                    if not (files := self.reach.files(where.partition(":")[0])):
                        return None
                    found |= files
            else:
                found |= self.reach.files(LAYOUT.get(need, need))
        return found

    def _means_the_same(self, path: str) -> bool:
        """Whether a module does what it did: the same code without comments, and docstrings where nobody reads them."""
        before, now = self.before.get(path), self.now.get(path)
        if before is None or now is None or self.texts_count:
            return False
        docs = self.docs_count or b"__doc__" in now or b"__doc__" in before
        return (code := _code(now, docs=docs)) is not None and code == _code(before, docs=docs)


def _suffix(path: str) -> list[str]:
    return [end] if (end := os.path.splitext(path)[1]) else []


def _code(raw: bytes, *, docs: bool) -> str | None:
    """What the code of a module is, however it is laid out; None where Python does not read it."""
    try:
        module = parsed(raw)
    except (SyntaxError, ValueError):
        return None
    for node in ast.walk(module) if not docs else ():
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            decorators = {_name(each) for each in getattr(node, "decorator_list", ())}
            if ast.get_docstring(node, clean=False) is not None and decorators <= PLAIN:
                del node.body[0]
    return ast.dump(module)


def _name(decorator: ast.expr) -> str:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return str(getattr(called, "attr", getattr(called, "id", "")))
