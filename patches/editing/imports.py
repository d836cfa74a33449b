"""Imports of what is inserted: where the reference has them, as the file spells them. Those that bring nothing go."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache

import libcst as cst

from ..reading.bindings import dotted, globals_of
from ..reading.source import Source
from ..reading.tree import SourceTree
from ..task import Edit, Finding, Site
from .edits import insert_item, neighbours

Import = cst.Import | cst.ImportFrom


class TakenError(Exception):
    """A name that is to be inserted means something else in the target already."""

    def __init__(self, site: Site) -> None:
        super().__init__(str(site))
        self.site = site


def import_edits(target: Source, given: Source, inserted: Sequence[cst.CSTNode]) -> Iterator[Edit]:
    """Import what nodes of the reference use that are inserted."""
    missing, order = dict[str, Import](), list(_top_imports(given))
    for new in inserted:
        text = given.code(new)
        for name in sorted(globals_of(f"def made({text}): ..." if isinstance(new, cst.Param) else text)):
            imported = [binding for binding in given.names.top_level(name) if binding.imported]
            if imported and not _imports(target, name, imported[0].imported):
                missing[name] = next(each for each in order if name in _brought(each))
    grouped: dict[Import, list[str]] = {}
    for name, statement in sorted(missing.items(), key=lambda item: (order.index(item[1]), item[0])):
        grouped.setdefault(statement, []).append(name)
    places: dict[tuple[cst.CSTNode, bool], list[cst.CSTNode]] = {}
    for statement, names in grouped.items():
        same = _same_module(target, statement)
        if same is not None:
            yield Edit(target, same, _more_aliases(statement, names))
        else:
            starts_group = bool(given.statement(statement).leading_lines)  # type: ignore[attr-defined]
            place = _import_place(target, order, statement, starts_group=starts_group)
            places.setdefault(place, []).append(_import_of(statement, names))
    for (anchor, behind), nodes in places.items():
        yield Edit(target, anchor, neighbours(target, nodes, behind))


def imported_once(found: Iterable[Finding]) -> Iterator[Finding]:
    """Findings whose edits import nothing that an earlier one's import in the same file."""
    seen: set[tuple[str, cst.CSTNode, str]] = set()
    for finding in found:
        edits = []
        for edit in finding.edits:
            is_line = isinstance(edit.node, cst.SimpleStatementLine) and is_import(edit.node)
            if is_line or isinstance(edit.node, (cst.Import, cst.ImportFrom)):
                made = edit.change(edit.node)
                nodes = list(made) if isinstance(made, cst.FlattenSentinel) else [made]
                key = (edit.source.path, edit.node, "".join(edit.source.module.code_for_node(each) for each in nodes))  # type: ignore[arg-type]
                if key in seen:
                    continue
                seen.add(key)
            edits.append(edit)
        yield replace(finding, edits=tuple(edits))


def _imports(target: Source, name: str, imported: str) -> bool:
    """Whether a name is imported in the target already; refuses where it means something else."""
    bindings = [binding for binding in target.names.top_level(name) if not binding.is_for_types]
    if not bindings:
        return False
    meanings = {binding.imported for binding in bindings}
    meanings |= {meaning.replace("typing.", "collections.abc.", 1) for meaning in meanings}
    if imported not in meanings:
        place = target.opened(bindings[0].part).statement
        raise TakenError(
            target.site(place, f"the name {name}, which is to be {imported}, stands for something else: rename it")
        )
    return True


def _top_imports(source: Source) -> Iterator[Import]:
    yield from _imports_in(source.loose_statements())


def _imports_in(statements: Iterable[cst.CSTNode]) -> Iterator[Import]:
    for statement in statements:
        if isinstance(statement, cst.SimpleStatementLine):
            for small in statement.body:
                if isinstance(small, (cst.Import, cst.ImportFrom)):
                    yield small


def _module_of(node: Import) -> str:
    if isinstance(node, cst.Import):
        return "import " + dotted(node.names[0].name)
    module = dotted(node.module) if node.module is not None else ""
    return "from " + "." * len(node.relative) + module


def _same_module(target: Source, wanted: cst.CSTNode) -> cst.ImportFrom | None:
    if not isinstance(wanted, cst.ImportFrom):
        return None
    for node in _top_imports(target):
        if isinstance(node, cst.Import) or isinstance(node.names, cst.ImportStar):
            continue
        if _module_of(node) == _module_of(wanted):
            return node
    return None


def _more_aliases(given: cst.CSTNode, names: Sequence[str]) -> Callable[[cst.CSTNode], cst.CSTNode]:
    order = [alias.evaluated_alias or alias.evaluated_name for alias in given.names]  # type: ignore[attr-defined]

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.ImportFrom)
        aliases = list(updated.names)  # type: ignore[arg-type]
        for name in names:
            earlier = set(order[: order.index(name)])
            index = max((i + 1 for i, alias in enumerate(aliases) if alias.evaluated_name in earlier), default=0)
            new = given.names[order.index(name)].with_changes(comma=cst.MaybeSentinel.DEFAULT)  # type: ignore[attr-defined]
            opening = updated.lpar.whitespace_after if updated.lpar else cst.SimpleWhitespace("")
            aliases = insert_item(aliases, index, new, enclosed=opening)
        return updated.with_changes(names=aliases)

    return change


def _brought(node: cst.CSTNode) -> list[str]:
    """The names that an import gives a meaning, as far as it names them."""
    names = node.names if not isinstance(node.names, cst.ImportStar) else ()  # type: ignore[attr-defined]
    return [alias.evaluated_alias or alias.evaluated_name.split(".")[0] for alias in names]


def _import_of(given: cst.CSTNode, names: Sequence[str]) -> cst.SimpleStatementLine:
    aliases = [alias for alias, name in zip(given.names, _brought(given), strict=True) if name in names]  # type: ignore[attr-defined]
    aliases[-1] = aliases[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
    node = given.with_changes(names=aliases)
    if isinstance(node, cst.ImportFrom):
        node = node.with_changes(lpar=None, rpar=None)
    return cst.SimpleStatementLine([node])  # type: ignore[list-item]


def _import_place(
    target: Source, order: Sequence[Import], wanted: cst.CSTNode, *, starts_group: bool
) -> tuple[cst.CSTNode, bool]:
    """The nearest import before it in reference order that the target has, else the nearest behind it."""
    present: dict[str, cst.CSTNode] = {}
    for tried in target.loose_statements():
        if isinstance(tried, cst.Try):
            present.update((_module_of(node), tried) for node in _imports_in(tried.body.body))
    present |= {_module_of(node): target.statement(node) for node in _top_imports(target)}
    rank = next(index for index, node in enumerate(order) if node is wanted)
    earlier = [present[_module_of(node)] for node in order[:rank] if _module_of(node) in present]
    later = [present[_module_of(node)] for node in order[rank + 1 :] if _module_of(node) in present]
    if later and (not earlier or starts_group):
        return later[0], False
    if earlier:
        return earlier[-1], True
    opening = [statement for statement in target.loose_statements() if opens(target, statement)]
    return (opening[-1], True) if opening else (target.module.body[0], False)


def opens(target: Source, statement: cst.CSTNode) -> bool:
    """Whether a statement has to stay above all imports: the docstring, or an import of the future."""
    if not isinstance(statement, cst.SimpleStatementLine):
        return False
    first = statement.body[0]
    if isinstance(first, cst.ImportFrom):
        return _module_of(first) == "from __future__"
    is_text = isinstance(first, cst.Expr) and isinstance(first.value, (cst.SimpleString, cst.ConcatenatedString))
    return is_text and statement is target.module.body[0]


def is_import(statement: cst.CSTNode) -> bool:
    """Whether a statement imports something."""
    smalls = statement.body if isinstance(statement, cst.SimpleStatementLine) else ()
    return any(isinstance(each, (cst.Import, cst.ImportFrom)) for each in smalls)


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
        imported = [n for node in line.body if isinstance(node, cst.ImportFrom) for n in _brought(node)]
        if names & set(imported):
            yield Edit(source, line, _without(names))


def _without(names: set[str]) -> Callable[[cst.CSTNode], cst.CSTNode | cst.RemovalSentinel]:
    def change(updated: cst.CSTNode) -> cst.CSTNode | cst.RemovalSentinel:
        assert isinstance(updated, cst.SimpleStatementLine)
        body = []
        for node in updated.body:
            if not isinstance(node, cst.ImportFrom) or not names & set(_brought(node)):
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
