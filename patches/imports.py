"""Import what is inserted: into the import of the same module, or where the reference imports it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import libcst as cst

from .edits import insert_item, neighbours
from .names import dotted, globals_of
from .source import Source
from .task import Edit, Finding, Site

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
    """The names that an import gives a meaning."""
    return [alias.evaluated_alias or alias.evaluated_name.split(".")[0] for alias in node.names]  # type: ignore[attr-defined]


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
