"""Names changed, imports added, definitions moved: what rewrites share."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterable
from pathlib import Path

import libcst as cst
from drift.patterns import edited, first_line, line_end, offset, within_of
from drift.rewriting import DoesNotFit, code_files, find, read, write


def rename_everywhere(tree: Path, old: str, new: str) -> None:
    """Rename an identifier that means one thing in the whole tree, in strings that are just its name too."""
    count = 0
    for path in code_files(tree):
        text = read(path)
        if old not in text:
            continue
        names = [
            token
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.string == old or token.string in (f'"{old}"', f"'{old}'")
        ]
        if names:
            edits = [
                ((at := starts(text, token.start), at + len(token.string)), token.string.replace(old, new))
                for token in names
            ]
            write(path, edited(text, [((start, end), put) for (start, end), put in edits]))
            count += len(names)
    if not count:
        raise DoesNotFit(f"no {old} in the tree")


def starts(text: str, place: tuple[int, int]) -> int:
    return sum(map(len, text.splitlines(keepends=True)[: place[0] - 1])) + place[1]


class Renamer(cst.CSTTransformer):
    """Renames what is read or bound by name, and leaves attributes, keywords and parameters alone."""

    def __init__(self, names: dict[str, str], also_parameters: bool = False) -> None:
        self.names, self.also_parameters = names, also_parameters

    def visit_Attribute_attr(self, node: cst.Attribute) -> None:
        self.skipped = node.attr

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.Attribute:
        return updated_node.with_changes(attr=original_node.attr)

    def leave_Arg(self, original_node: cst.Arg, updated_node: cst.Arg) -> cst.Arg:
        return updated_node.with_changes(keyword=original_node.keyword)

    def leave_Param(self, original_node: cst.Param, updated_node: cst.Param) -> cst.Param:
        return updated_node if self.also_parameters else updated_node.with_changes(name=original_node.name)

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.Name:
        return updated_node.with_changes(value=self.names.get(original_node.value, original_node.value))


def rename_in(path: Path, place: str | None, names: dict[str, str], also_parameters: bool = False) -> None:
    """Rename names in a function or class, given by its dotted name, or in a whole file."""
    text = read(path)
    node = within_of(ast.parse(text), place)
    start, end = (0, len(text)) if place is None else body_span(text, node)
    block = text[start:end]
    indent = re.match(r" *", block)[0]  # type: ignore[index]
    module = cst.parse_module("if True:\n" + block if indent else block)
    changed = module.visit(Renamer(names, also_parameters)).code.removeprefix("if True:\n")
    if changed == block:
        raise DoesNotFit(f"none of {', '.join(names)} in {place or path.name}")
    write(path, text[:start] + changed + text[end:])


def rename_locals(path: Path, place: str, new: Callable[[str], str], also_parameters: bool = False) -> None:
    """Rename each local of a function, by a rule; positional parameters too where that is said."""
    node = within_of(ast.parse(read(path)), place)
    assert isinstance(node, ast.FunctionDef)
    bound = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    given = {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
    names = bound - given
    if also_parameters:
        names |= {each.arg for each in node.args.args} - {"self", "cls"}
    rename_in(path, place, {name: new(name) for name in sorted(names)}, also_parameters)


def body_span(text: str, node: ast.AST) -> tuple[int, int]:
    assert isinstance(node, ast.stmt)
    return offset(text, first_line(node), 0), line_end(text, node)


def add_import(path: Path, *statements: str) -> None:
    """Put imports after the module's first ones, where they are not there yet."""
    for statement in statements:
        text = read(path)
        module = ast.parse(text)
        wanted = ast.unparse(ast.parse(statement).body[0])
        if any(ast.unparse(node) == wanted for node in module.body):
            continue
        imports = [node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
        plain = [node for node in imports if not (isinstance(node, ast.ImportFrom) and node.level)]
        after = plain[-1] if plain else None
        docstring = module.body[0] if module.body and isinstance(module.body[0], ast.Expr) else None
        at = line_end(text, after or docstring) if after or docstring else 0
        put = f"{statement}\n" if after or not docstring else f"\n{statement}\n"
        write(path, text[:at] + put + text[at:])


def source_of(path: Path, place: str) -> str:
    """The text of a definition."""
    text = read(path)
    start, end = body_span(text, within_of(ast.parse(text), place))
    return text[start:end]


def remove(path: Path, place: str) -> str:
    """Take a definition out of a file; return its text."""
    text = read(path)
    start, end = body_span(text, within_of(ast.parse(text), place))
    write(path, text[:start].rstrip("\n") + "\n\n\n" + text[end:].lstrip("\n"))
    return text[start:end]


def append(path: Path, block: str) -> None:
    """Put a block at the end of a file, before what runs it as a script."""
    text = read(path)
    guard = [node for node in ast.parse(text).body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)]
    at = offset(text, first_line(guard[-1]), 0) if guard else len(text)
    write(path, text[:at].rstrip("\n") + "\n\n\n" + block.strip("\n") + "\n\n\n" + text[at:])


def before(path: Path, place: str, block: str) -> None:
    """Put a block before a definition, at its indent."""
    text = read(path)
    node = within_of(ast.parse(text), place)
    assert isinstance(node, ast.stmt)
    indent = " " * node.col_offset
    lines = [indent + line if line.strip() else "" for line in block.strip("\n").splitlines()]
    at = offset(text, first_line(node), 0)
    write(path, text[:at] + "\n".join(lines) + "\n\n" + ("" if indent else "\n") + text[at:])


def imports_needed(path: Path, blocks: Iterable[str], own: Path | None = None) -> list[str]:
    """The imports of a file, and of its constants, that moved blocks still need."""
    used = {node.id for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Name)}
    used |= set(re.findall(r"\"(\w+)\"", "".join(blocks)))
    needed = []
    for node in ast.parse(read(path)).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            kept = [each for each in node.names if (each.asname or each.name).split(".")[0] in used]
            if kept:
                node.names = kept
                needed.append(ast.unparse(node))
    return needed


def move(tree: Path, source: str, target: str, *places: str, import_back: bool = True) -> None:
    """Move definitions to a module of their own in the same folder, and import them back."""
    path = find(tree, source)
    new = path.parent / target
    if new.exists():
        raise DoesNotFit(f"{target} is there already")
    blocks = [source_of(path, place) for place in places]
    heads = imports_needed(path, blocks)
    text = read(path)
    own = {name.id for node in ast.parse(text).body if isinstance(node, ast.Assign) for name in node.targets}
    used = {node.id for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Name)}
    constants = [
        ast.get_source_segment(text, node) or ""
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and {name.id for name in node.targets if isinstance(name, ast.Name)} & used
    ]
    defined = {getattr(node, "name", None) for node in ast.parse(text).body} - {None, *places}
    if defined & used:
        raise DoesNotFit(f"{', '.join(places)} use {', '.join(sorted(map(str, defined & used)))}, which would stay")
    assert own or not constants
    for place in places:
        remove(path, place)
    write(new, "\n".join([f'"""{places[0]} and what belongs to it."""', "", *heads, "", *constants, "", "", *blocks]))
    if import_back:
        names = [*places, *(c.split(" ")[0] for c in constants)]
        for constant in constants:
            write(path, read(path).replace(constant + "\n", "", 1))
        add_import(path, f"from .{target.removesuffix('.py')} import {', '.join(names)}")


def in_every_file(tree: Path, change: Callable[[Path, str], str | None], files: Iterable[Path] | None = None) -> None:
    """Change the text of each file; None leaves one as it is."""
    count = 0
    for path in files if files is not None else code_files(tree):
        text = read(path)
        new = change(path, text)
        if new is not None and new != text:
            write(path, new)
            count += 1
    if not count:
        raise DoesNotFit("no file to change")
