"""A seam: one thing that patches and judges need of a tree, where it is, and how a call of it is told our options."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..files.spellings import spelled
from ..task import Site
from .classes import constructor_of
from .files import File, Function
from .names import parameters
from .records import all_fields, class_of, is_data_class
from .tree import MODEL, SourceTree

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_MODELS = ("model", "net", "network", "module", "lm")
_RECORDS = ("config", "cfg", "conf", "options", "args", "settings")
_SOURCES = ("src", "lib", "python")  # folders that hold packages, by custom


@dataclass(frozen=True, slots=True)
class Seam:
    """One thing that is needed of a tree: where it is, how a call of it is told our options, or what is missing."""

    name: str
    state: str  # "found", "settled", "missing"
    site: Site | None = None
    where: str = ""  # "module:qualified.name"
    options: dict[str, str] = field(default_factory=dict)  # ours -> theirs
    roles: dict[str, str] = field(default_factory=dict)  # parameter -> "model", "data", or "module:Class" of a record
    settle: str = ""  # the line that settles it
    unspelled: tuple[str, ...] = ()  # our options that it has under names that are not seen

    @property
    def is_plain(self) -> bool:
        """Whether a call of it needs no translation."""
        is_ours = all(ours == theirs for ours, theirs in self.options.items())
        return is_ours and not any(map(_is_record, self.roles.values()))

    @property
    def is_direct(self) -> bool:
        """Whether one call of it is all there is to it, with options by their names."""
        is_told_apart = not any(map(_is_record, self.roles.values()))
        return bool(self.where) and is_told_apart and "." not in self.where.partition(":")[2]

    def lines(self) -> Iterator[str]:
        """Where it is, and what the tree calls the options that have another name there; or what settles it."""
        yield str(self.site) if self.site is not None else self.settle
        others = [f"{ours} is {theirs}" for ours, theirs in self.options.items() if ours != theirs.lstrip("-")]
        if others:
            yield ", ".join(others)

    def told(self) -> dict[str, Any]:
        """What a judge is told of it."""
        told = {"where": self.where, "options": self.options, "roles": self.roles, "settle": self.settle}
        return told | {"unspelled": self.unspelled}

    def to_json(self) -> dict[str, Any]:
        """The seam's part of what `bitpatch seams --json` prints."""
        at = None if self.site is None else self.site.to_json()
        place = None if at is None else {name: at[name] for name in ("path", "line", "column")}
        return {"name": self.name, "state": self.state, "at": place, "options": self.options, "settle": self.settle}


def seam_of(
    tree: SourceTree,
    name: str,
    file: File,
    node: ast.AST,
    *,
    inner: str,
    module: str = "",
    state: str = "found",
    known: Iterable[str] = (),
    config: tuple[str, ast.ClassDef] | None = None,
    seen: Mapping[str, str] | None = None,
) -> Seam:
    """A seam that is a function, a class or a method of one; `seen` is what options are called by what they do."""
    owned = inner.partition(".")[0] if isinstance(node, Function) and "." in inner else ""
    outer = next((e for e in file.module.body if isinstance(e, ast.ClassDef) and e.name == owned), None)
    makers = [constructor_of(each) for each in (node, outer) if isinstance(each, ast.ClassDef)]
    told = [each for each in (node if isinstance(node, Function) else None, *makers) if isinstance(each, Function)]
    own = [each for function in told for each in parameters(function.args)]
    if isinstance(node, ast.ClassDef) and is_data_class(tree.code, file.path, node):
        known = [*known, *all_fields(tree.code, file.path, node)]
    roles, names = _roles(tree, file, told, config), [*known, *(each.arg for each in own)]
    for record in roles.values():
        names += _fields(tree, record) if _is_record(record) else ()
    options = spelled(name, names, {**(seen or {}), **tree.settings.options.get(name, {})})
    where = f"{module or module_of(tree, file.path)}:{inner}"
    return Seam(name, state, site_of(tree, file, node, where), where, options, roles)


def _roles(
    tree: SourceTree, file: File, told: list[Function], config: tuple[str, ast.ClassDef] | None
) -> dict[str, str]:
    """What the parameters are for that are no options: the model, the rows, a record of options."""
    roles = dict[str, str]()
    for function in told:
        frame = tree.code.reading(file, function, file.owner(function))
        defaults = _with_default(function)
        for each in parameters(function.args):
            value = next((v for n, v in frame.values.items() if isinstance(n, ast.Name) and n.id == each.arg), None)
            cls = class_of(tree.code, value) if value is not None else None
            known = next(
                (base.id for base in ast.walk(each.annotation or ast.Pass()) if isinstance(base, ast.Name)), ""
            )
            if each.arg in ("self", "cls"):
                continue
            if known in (MODEL, getattr(model_class(tree), "name", MODEL)) or each.arg in _MODELS:
                roles[each.arg] = "model"
            elif cls is not None and is_data_class(tree.code, *cls):
                roles[each.arg] = f"{module_of(tree, cls[0])}:{cls[1].name}"
            elif config is not None and each.arg in _RECORDS:
                roles[each.arg] = f"{module_of(tree, config[0])}:{config[1].name}"
            elif each.arg not in defaults and "data" not in roles.values():
                roles[each.arg] = "data"
    return roles


def _with_default(function: Function) -> set[str]:
    placed = [*function.args.posonlyargs, *function.args.args]
    own = placed[len(placed) - len(function.args.defaults) :] if function.args.defaults else []
    named = [a for a, d in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True) if d is not None]
    return {each.arg for each in (*own, *named)}


def _is_record(role: str) -> bool:
    return ":" in role


def _fields(tree: SourceTree, where: str) -> list[str]:
    module, _, name = where.partition(":")
    for path in tree.paths:
        file = tree.code.files.file(path) if module_of(tree, path) == module else None
        for node in file.module.body if file is not None else ():
            if isinstance(node, ast.ClassDef) and node.name == name:
                return sorted(all_fields(tree.code, path, node))
    return []


def module_of(tree: SourceTree, path: str) -> str:
    """The name under which a file of a tree is imported."""
    top = root_of(tree, path)
    inner = path[len(top) + 1 :] if top else path
    return inner.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def root_of(tree: SourceTree, path: str) -> str:
    """The folder from which a file is imported, "" for the tree's own: the one above the outermost package.

    A folder without a mark is a package too, of the tree's own folder, but for those that hold packages by custom.
    """
    top = os.path.dirname(path)
    is_marked = f"{top}/__init__.py" in tree.paths
    while top and f"{top}/__init__.py" in tree.paths:
        top = os.path.dirname(top)
    return top if is_marked or top in _SOURCES else ""


def site_of(tree: SourceTree, file: File, node: ast.AST, note: str) -> Site:
    """Where a node is, and a note."""
    if isinstance(node, (ast.expr, ast.stmt)):
        return tree.source(file.path).site(node, note)
    return Site.at(file.path, note, 1, 1)


def qualified(file: File, node: ast.AST) -> str:
    """The qualified name of a function or class in its module."""
    named = [node, *(each for each in file.ancestors(node) if isinstance(each, (ast.ClassDef, *FUNCTIONS)))]
    return ".".join(each.name for each in reversed(named) if hasattr(each, "name"))


def model_class(tree: SourceTree) -> ast.ClassDef | None:
    """The class of a tree's models."""
    file = tree.code.files.file(tree.model_path) if tree.model_path else None
    classes = file.classes if file is not None else []
    named = [each for each in classes if each.name == MODEL]
    embedding = [each for each in classes if "Embedding" in ast.unparse(each)]
    return next(iter(named or embedding), None)
