"""How a file spells what it imports from other files, imports that bring nothing, and definitions above their uses."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import cache

import libcst as cst

from ..names import dotted
from ..source import Source
from ..task import Edit
from ..tree import SourceTree


def seen_from(tree: SourceTree, target: Source, given: Source, module: str, path: str) -> Source:
    """A file of reference/ that imports a module of the package from a file of the tree, as the target spells it."""
    spelled = _spelling(tree, target, path)
    text = given.raw.decode().replace(f"from bit_transformer.{module} import", f"from {spelled} import")
    if spelled.startswith("."):
        text = re.sub(r"(?<=^from )bit_transformer\.", spelled[: -len(spelled.lstrip("."))], text, flags=re.MULTILINE)
    return given if text.encode() == given.raw else _respelled(given.path, text)


@cache
def _respelled(path: str, text: str) -> Source:
    return Source(path, text.encode())


def _spelling(tree: SourceTree, target: Source, path: str) -> str:
    """The module of a file, as a target imports from it, or would."""
    folder, stem = os.path.dirname(target.path), os.path.basename(path).removesuffix(".py")
    for node in target.walk(cst.ImportFrom, having=("import",)):
        module = "." * len(node.relative) + (dotted(node.module) if node.module is not None else "")
        if path in _files(folder, module) or tree.code.files.imported(module, target.path) == path:
            return module
    is_package = f"{folder}/__init__.py" in tree.paths
    inside = folder and folder == os.path.dirname(path)
    if inside and (is_package or any(node.relative for node in target.walk(cst.ImportFrom, having=("import",)))):
        return f".{stem}"
    return path.removesuffix(".py").replace("/", ".")


def _files(folder: str, module: str) -> list[str]:
    """The files that a module, imported from in a folder, may be."""
    name = module.lstrip(".")
    level = len(module) - len(name)
    parts = folder.split("/") if folder else []
    relative = parts[: len(parts) - level + 1] if level else []
    bases = [relative] if level else [[], parts]
    return ["/".join([*base, *name.split(".")]) + ".py" for base in bases]


def without_imports(source: Source, names: set[str]) -> Iterator[Edit]:
    """Drop names from the import statements that bring them, and statements that bring nothing any more."""
    for line in source.walk(cst.SimpleStatementLine, having=("import",)):
        imported = [n for node in line.body if isinstance(node, cst.ImportFrom) for n in _aliases(node)]
        if names & set(imported):
            yield Edit(source, line, _without(names))


def _aliases(node: cst.ImportFrom) -> list[str]:
    names = node.names if not isinstance(node.names, cst.ImportStar) else ()
    return [alias.evaluated_alias or alias.evaluated_name for alias in names]


def _without(names: set[str]) -> Callable[[cst.CSTNode], cst.CSTNode | cst.RemovalSentinel]:
    def change(updated: cst.CSTNode) -> cst.CSTNode | cst.RemovalSentinel:
        assert isinstance(updated, cst.SimpleStatementLine)
        body = []
        for node in updated.body:
            if not isinstance(node, cst.ImportFrom) or not names & set(_aliases(node)):
                body.append(node)
                continue
            aliases = list(node.names)  # type: ignore[arg-type]
            kept = [alias for alias in aliases if (alias.evaluated_alias or alias.evaluated_name) not in names]
            if kept:
                last = aliases[-1]
                comma = kept[-1].comma if kept[-1] is last else last.comma
                body.append(node.with_changes(names=[*kept[:-1], kept[-1].with_changes(comma=comma)]))
        return updated.with_changes(body=body) if body else cst.RemoveFromParent()

    return change


def above(source: Source, edit: Edit, user: cst.CSTNode) -> Edit:
    """A definition comes no later than what uses it, whatever the file's order."""
    top = next(top for top in source.module.body if user is top or top in source.ancestors(user))
    if source.order[edit.node] < source.order[top]:
        return edit
    new = [node for node in edit.change(edit.node) if node is not edit.node]  # type: ignore[union-attr]
    return Edit(source, top, lambda updated: cst.FlattenSentinel([*new, updated]))
