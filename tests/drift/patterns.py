"""Code found by its shape and written anew: `$x` stands for any expression or name, `$$x` for any statements.

A pattern is Python. It is compared by syntax tree, so layout, comments and parentheses do not matter; the same `$x`
twice is the same code twice. What is put in keeps the text of what it took over.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from drift.rewriting import DoesNotFit, code_files, find, read, write

ONE, MANY = "META_", "METAS_"
Bound = dict[str, object]
ATOMS = (
    ast.Name,
    ast.Attribute,
    ast.Call,
    ast.Subscript,
    ast.Constant,
    ast.List,
    ast.Dict,
    ast.ListComp,
    ast.JoinedStr,
)
FREE = (ast.Assign, ast.AnnAssign, ast.Return, ast.Expr, ast.Call, ast.keyword, ast.NamedExpr)  # need no parentheses


def parsed(text: str) -> ast.Module:
    text = textwrap.dedent(text).strip("\n")
    return ast.parse(re.sub(r"\$(\w+)", rf"{ONE}\1", re.sub(r"\$\$(\w+)", rf"{MANY}\1", text)))


def matches(pattern: object, node: object, bound: Bound) -> bool:
    """Whether a node has a pattern's shape; what the pattern leaves open is bound."""
    if isinstance(pattern, ast.Name) and pattern.id.startswith(ONE):
        return isinstance(node, ast.expr) and bind(pattern.id[len(ONE) :], node, bound)
    if isinstance(pattern, str) and pattern.startswith(ONE):
        return isinstance(node, str) and bind(pattern[len(ONE) :], node, bound)
    if isinstance(pattern, list):
        return isinstance(node, list) and lists_match(pattern, node, bound)
    if isinstance(pattern, ast.AST):
        if type(pattern) is not type(node):
            return False
        fields = [name for name in pattern._fields if name not in ("ctx", "type_comment", "kind")]
        return all(matches(getattr(pattern, name), getattr(node, name), bound) for name in fields)
    return type(pattern) is type(node) and pattern == node


def lists_match(pattern: list[object], nodes: list[object], bound: Bound) -> bool:
    if not pattern:
        return not nodes
    many = name_of_many(pattern[0])
    if many is None:
        return bool(nodes) and matches(pattern[0], nodes[0], bound) and lists_match(pattern[1:], nodes[1:], bound)
    for count in range(len(nodes), -1, -1):
        trial = dict(bound)
        if lists_match(pattern[1:], nodes[count:], trial):
            bound.update(trial)
            return bind(many, nodes[:count], bound)
    return False


def name_of_many(node: object) -> str | None:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Name) and node.value.id.startswith(MANY):
        return node.value.id[len(MANY) :]
    return None


def bind(name: str, value: object, bound: Bound) -> bool:
    if name == "_":
        return True
    known = bound.setdefault(name, value)
    return known is value or shape(known) == shape(value)


def shape(value: object) -> object:
    if isinstance(value, list):
        return [shape(each) for each in value]
    return re.sub(r", ctx=\w+\(\)", "", ast.dump(value)) if isinstance(value, ast.AST) else value


def within_of(module: ast.Module, within: str | None) -> ast.AST:
    """The function or class of a dotted name."""
    place: ast.AST = module
    for name in within.split(".") if within else ():
        named = [node for node in getattr(place, "body", []) if getattr(node, "name", None) == name]
        if not named:
            raise DoesNotFit(f"no {within}")
        place = named[-1]
    return place


def substitute(tree: Path, old: str, new: str, file: str | None = None, within: str | None = None) -> int:
    """Rewrite each expression of a shape, in one file or in all; return how many there were."""
    count = 0
    for path in [find(tree, file)] if file else code_files(tree):
        count += expressions_of(path, old, new, within)
    if count == 0:
        raise DoesNotFit(f"no {old} in {file or 'the tree'}")
    return count


def expressions_of(path: Path, old: str, new: str, within: str | None = None) -> int:
    statement = parsed(old).body[0]
    assert isinstance(statement, ast.Expr), old
    text = read(path)
    edits = []
    for node, parent, bound in expressions(within_of(ast.parse(text), within), statement.value):
        put = filled(new, bound, text)
        needs = not isinstance(ast.parse(put, mode="eval").body, ATOMS) and not isinstance(parent, FREE)
        edits.append((span(text, node), f"({put})" if needs or "\n" in put else put))
    if edits:
        write(path, edited(text, edits))
    return len(edits)


def expressions(root: ast.AST, pattern: ast.expr) -> Iterator[tuple[ast.expr, ast.AST, Bound]]:
    """The outermost expressions of a shape; none inside an f-string, where places are not exact."""
    for child in ast.iter_child_nodes(root):
        bound: Bound = {}
        if isinstance(child, ast.JoinedStr):
            continue
        if isinstance(child, ast.expr) and matches(pattern, child, bound):
            yield child, root, bound
        else:
            yield from expressions(child, pattern)


def restate(tree: Path, old: str, new: str, file: str | None = None, within: str | None = None) -> int:
    """Rewrite each run of statements of a shape, in one file or in all; return how many there were."""
    count = 0
    for path in [find(tree, file)] if file else code_files(tree):
        count += statements_of(path, old, new, within)
    if count == 0:
        raise DoesNotFit(f"no such statements in {file or 'the tree'}: {old.strip().splitlines()[0]} ...")
    return count


def statements_of(path: Path, old: str, new: str, within: str | None = None) -> int:
    pattern, text = parsed(old).body, read(path)
    edits = []
    for nodes, bound in runs(within_of(ast.parse(text), within), pattern):
        indent = " " * nodes[0].col_offset
        put = laid_out(new, bound, text, indent)
        first, last = offset(text, first_line(nodes[0]), 0), line_end(text, nodes[-1])
        edits.append(((first, last), put))
    if edits:
        write(path, edited(text, edits))
    return len(edits)


def runs(root: ast.AST, pattern: list[ast.stmt]) -> Iterator[tuple[list[ast.stmt], Bound]]:
    for name in ("body", "orelse", "finalbody"):
        body = getattr(root, name, None)
        start = 0
        while isinstance(body, list) and start < len(body):
            found = next((run for run in runs_at(body, start, pattern)), None)
            if found is not None:
                yield found
                start += len(found[0])
            else:
                yield from runs(body[start], pattern)
                start += 1
    for child in [*getattr(root, "handlers", []), *getattr(root, "cases", [])]:
        yield from runs(child, pattern)


def runs_at(body: list[ast.stmt], start: int, pattern: list[ast.stmt]) -> Iterator[tuple[list[ast.stmt], Bound]]:
    # A run that ends in "$$x" takes all that is left of its block.
    for end in range(len(body), start, -1):
        bound: Bound = {}
        if lists_match(list(pattern), list(body[start:end]), bound):
            yield body[start:end], bound


def laid_out(template: str, bound: Bound, text: str, indent: str) -> str:
    """A template with what was bound put in, at an indent."""
    lines = []
    for line in textwrap.dedent(template).strip("\n").splitlines():
        many = re.fullmatch(r"(\s*)\$\$(\w+)", line)
        if many is None:
            lines.append(indent + filled(line, bound, text) if line.strip() else "")
            continue
        nodes = bound[many[2]]
        assert isinstance(nodes, list)
        if nodes:
            lines.append(reindented(lines_of(text, nodes), indent + many[1]))
    return "\n".join(lines) + "\n" if lines else ""


def lines_of(text: str, nodes: list[ast.stmt]) -> str:
    return text[offset(text, first_line(nodes[0]), 0) : line_end(text, nodes[-1])].rstrip("\n")


def reindented(block: str, indent: str) -> str:
    return textwrap.indent(textwrap.dedent(block), indent)


def filled(template: str, bound: Bound, text: str) -> str:
    """A template with what was bound put in; parentheses where the place needs them."""

    def put(found: re.Match[str]) -> str:
        value = bound[found[1]]
        if isinstance(value, str):
            return value
        assert isinstance(value, ast.expr), found[1]
        code = ast.get_source_segment(text, value) or ""
        before, after = template[: found.start()].rstrip(), template[found.end() :].lstrip()
        is_apart = (not before or before[-1] in "(,[={") and (not after or after[0] in "),]}")
        return code if isinstance(value, ATOMS) or (is_apart and "\n" not in code) else f"({code})"

    return re.sub(r"\$(\w+)", put, template)


def first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])


def offset(text: str, line: int, column: int) -> int:
    """The place in a text of a line, from 1, and a column in bytes."""
    lines = text.splitlines(keepends=True)
    within = lines[line - 1].encode()[:column].decode() if line <= len(lines) else ""
    return sum(map(len, lines[: line - 1])) + len(within)


def line_end(text: str, node: ast.stmt) -> int:
    return offset(text, (node.end_lineno or node.lineno) + 1, 0)


def span(text: str, node: ast.expr) -> tuple[int, int]:
    return offset(text, node.lineno, node.col_offset), offset(text, node.end_lineno or 0, node.end_col_offset or 0)


def edited(text: str, edits: list[tuple[tuple[int, int], str]]) -> str:
    for (start, end), put in sorted(edits, reverse=True):
        text = text[:start] + put + text[end:]
    return text
