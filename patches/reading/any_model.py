"""A tree of another model: what its bitpatch_seams.py says of itself, and what there is that it could say."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..files.spellings import ASKED, DRIVER
from .files import File, is_test
from .seam import FUNCTIONS, Seam, module_of, qualified, site_of
from .tree import SourceTree


def functions(tree: SourceTree, update: Seam | None) -> list[Seam]:
    """What is asked of any tree: settled where its bitpatch_seams.py has it, else missing, with what was found."""
    file = tree.code.files.file(DRIVER) if DRIVER in tree.paths else None
    own = {name: node for node in (file.module.body if file is not None else ()) for name in _bound(node)}
    found = {"model": [f"{where} is a module that no other is made of" for where in _models(tree)]}
    found["train"] = [f"{update.where} makes the updates" for _ in range(1) if update is not None] or [
        f"{path} is run as a script, perhaps by runpy.run_path" for path in _scripts(tree)
    ]
    return [
        Seam(name, "settled", site_of(tree, file, own[name], f"{DRIVER}:{name}"), f"{DRIVER[:-3]}:{name}")
        if file is not None and name in own
        else Seam(name, "missing", settle="; ".join([f"{DRIVER}: def {call}", *found.get(name, ())]))
        for name, (call, _) in ASKED.items()
    ]


def _bound(node: ast.stmt) -> list[str]:
    """The names that a statement binds at a module's top."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [each.asname or each.name for each in node.names]
    return [each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]


def _models(tree: SourceTree) -> Iterator[str]:
    """The classes of modules that no other class of the tree makes."""
    classes = [
        (file, node)
        for file in tree.modules(having=rb"\bModule\b")
        for node in file.nodes
        if isinstance(node, ast.ClassDef) and any("Module" in ast.unparse(base) for base in node.bases)
    ]
    made = {
        getattr(each.func, "id", getattr(each.func, "attr", ""))
        for _, node in classes
        for each in ast.walk(node)
        if isinstance(each, ast.Call)
    }
    yield from (_named(tree, file, node) for file, node in classes if node.name not in made)


def _named(tree: SourceTree, file: File, node: ast.ClassDef) -> str:
    return f"{module_of(tree, file.path)}:{qualified(file, node)}"


def _scripts(tree: SourceTree) -> Iterator[str]:
    """The files that call backward at their top, or as they are run."""
    for file in tree.modules(having=rb"\.backward\("):
        if not is_test(file.path) and any(file.function(each) is None for each in file.uses.get("backward", ())):
            yield file.path
