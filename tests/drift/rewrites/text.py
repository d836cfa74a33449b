"""How files are written: bytes, quotes, widths, docstrings, comments."""

import ast
import io
import re
import tokenize
from itertools import pairwise
from pathlib import Path

from drift.patterns import edited, first_line, line_end, offset, reindented
from drift.rewriting import DoesNotFit, code_files, rewrite, tidy

ALL = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)


def every_file(tree: Path, change: object) -> None:
    for path in code_files(tree):
        raw = path.read_bytes()
        if raw.strip():
            assert callable(change)
            new = change(raw)
            compile(new, str(path), "exec")
            path.write_bytes(new)


def plain(raw: bytes) -> str:
    if raw.startswith(b"\xef\xbb\xbf") or b"\r\n" in raw or b"coding: latin" in raw[:60]:
        raise DoesNotFit("the files are encoded in another way already")
    return raw.decode()


def mapped(tree: Path, change: object) -> None:
    assert callable(change)
    every_file(tree, lambda raw: change(plain(raw)).encode())


@rewrite("text", *ALL, stage="text")
def crlf(tree: Path) -> None:
    """Lines end as on Windows."""
    every_file(tree, lambda raw: plain(raw).replace("\n", "\r\n").encode())


@rewrite("text", *ALL, stage="text")
def byte_order_mark(tree: Path) -> None:
    """Files start with a byte order mark."""
    every_file(tree, lambda raw: b"\xef\xbb\xbf" + plain(raw).encode())


@rewrite("text", *ALL, stage="text")
def latin_1(tree: Path) -> None:
    """Files say that they are latin-1, and hold a letter that is."""

    def encoded(raw: bytes) -> bytes:
        text = "# -*- coding: latin-1 -*-\n# Autor: Jos\u00e9 M\u00fcller\n" + plain(raw)
        return text.encode("latin-1", errors="backslashreplace")

    every_file(tree, encoded)


@rewrite("text", *ALL, stage="text")
def no_final_newline(tree: Path) -> None:
    """Files end without a newline."""
    mapped(tree, lambda text: text.rstrip("\n"))


@rewrite("text", *ALL, stage="text")
def tabs(tree: Path) -> None:
    """Blocks are indented with tabs."""
    tidied(tree, 'indent-style = "tab"')


@rewrite("text", *ALL, stage="text")
def two_spaces(tree: Path) -> None:
    """Blocks are indented with two spaces."""
    tidied(tree, "", "--config", "indent-width=2")


@rewrite("text", *ALL, stage="text")
def single_quotes(tree: Path) -> None:
    """Strings have single quotes."""
    tidied(tree, 'quote-style = "single"')


@rewrite("text", *ALL, stage="text")
def narrow(tree: Path) -> None:
    """Lines have 79 columns at most."""
    tidied(tree, "", "--line-length", "79")


@rewrite("text", *ALL, stage="text")
def wide(tree: Path) -> None:
    """Lines may have 200 columns, and no comma at the end keeps them apart."""
    tidied(tree, "skip-magic-trailing-comma = true", "--line-length", "200")


def tidied(tree: Path, setting: str, *options: str) -> None:
    files = code_files(tree)
    for path in files:
        plain(path.read_bytes())
    given = ["--config", f"format.{setting}"] if setting else []
    tidy(files, *(options or ("--line-length", "120")), *given)


@rewrite("text", *ALL, stage="text")
def docstrings_removed(tree: Path) -> None:
    """Docstrings are gone from modules, classes and functions, but for what a server shows."""
    for path in code_files(tree):
        if path.name == "mcp_server.py":
            continue
        text = plain(path.read_bytes())
        edits = []
        for node, docstring in documented(ast.parse(text)):
            indent = " " * docstring.col_offset
            put = f"{indent}pass\n" if len(node.body) == 1 and not isinstance(node, ast.Module) else ""
            edits.append(((offset(text, docstring.lineno, 0), line_end(text, docstring)), put))
        path.write_text(edited(text, edits))
        compile(path.read_text(), str(path), "exec")
    tidy(code_files(tree))


def documented(module: ast.Module) -> list[tuple[ast.Module | ast.ClassDef | ast.FunctionDef, ast.stmt]]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(module) if isinstance(node, kinds) and ast.get_docstring(node) is not None]
    return [(node, node.body[0]) for node in nodes]


@rewrite("text", *ALL, stage="text")
def docstrings_reworded(tree: Path) -> None:
    """Docstrings of functions say the same in another form, with sections."""
    for path in code_files(tree):
        if path.name == "mcp_server.py":
            continue
        text = plain(path.read_bytes())
        edits = []
        for node, docstring in documented(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                indent = " " * docstring.col_offset
                words = (
                    f'"""{node.name.strip("_").replace("_", " ").capitalize()}.\n\nArgs:\n    see the signature\n"""'
                )
                put = reindented(words, indent) + "\n"
                edits.append(((offset(text, docstring.lineno, 0), line_end(text, docstring)), put))
        path.write_text(edited(text, edits))
        compile(path.read_text(), str(path), "exec")


@rewrite("text", *ALL, stage="text")
def comments_everywhere(tree: Path) -> None:
    """A comment stands before every third statement, and at the end of some lines."""

    def commented(text: str) -> str:
        statements = [
            node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Assign | ast.Return | ast.If | ast.For)
        ]
        lines = text.splitlines(keepends=True)
        edits = []
        for number, node in enumerate(sorted(statements, key=lambda each: each.lineno)):
            line = lines[first_line(node) - 1]
            if number % 3 == 0 and line[: node.col_offset].strip() == "" and not line.strip().startswith("elif"):
                at = offset(text, first_line(node), 0)
                edits.append(((at, at), f"{' ' * node.col_offset}# note {number}: see above\n"))
        return edited(text, edits)

    mapped(tree, commented)


@rewrite("text", *ALL, stage="text")
def comments_removed(tree: Path) -> None:
    """Comments are gone."""

    def bare(text: str) -> str:
        edits = []
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                start, end = offset_of(text, token.start), offset_of(text, token.end)
                edits.append(((start, end), ""))
        return re.sub(r"[ \t]+$", "", edited(text, edits), flags=re.MULTILINE)

    mapped(tree, bare)
    tidy(code_files(tree))


def offset_of(text: str, place: tuple[int, int]) -> int:
    return sum(map(len, text.splitlines(keepends=True)[: place[0] - 1])) + place[1]


@rewrite("text", *ALL, stage="text")
def continued_lines(tree: Path) -> None:
    """Assignments are continued behind a backslash."""

    def continued(text: str) -> str:
        edits = []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Assign) and node.col_offset and node.lineno == node.end_lineno:
                at = offset(text, node.value.lineno, node.value.col_offset)
                if text[:at].endswith(" = "):
                    edits.append(((at, at), "\\\n" + " " * (node.col_offset + 4)))
        return edited(text, edits[::2])

    mapped(tree, continued)


@rewrite("text", *ALL, stage="text")
def semicolons(tree: Path) -> None:
    """Short assignments that follow one another share a line."""

    def joined(text: str) -> str:
        edits = []
        for node in ast.walk(ast.parse(text)):
            body = getattr(node, "body", None)
            if not isinstance(node, ast.FunctionDef) or not isinstance(body, list):
                continue
            for one, other in pairwise(body):
                simple = all(isinstance(each, ast.Assign) and each.lineno == each.end_lineno for each in (one, other))
                lines = text.splitlines()
                if simple and other.lineno == one.lineno + 1 and "#" not in lines[one.lineno - 1]:
                    start = offset(text, one.end_lineno or 0, one.end_col_offset or 0)
                    edits.append(((start, offset(text, other.lineno, other.col_offset)), "; "))
        return edited(text, edits)

    mapped(tree, joined)
