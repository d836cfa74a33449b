"""Trees that nobody would write: each is made by a seed, from the baseline or from the reference."""

from __future__ import annotations

import ast
import io
import os
import random
import re
import shutil
import tokenize
from collections.abc import Callable
from pathlib import Path

from samples import BASELINE, CODE_ONLY, REFERENCE

FILES = (
    *("bit_transformer/model.py", "bit_transformer/training.py", "bit_transformer/safety.py"),
    *("bit_transformer/bit_io.py", "dashboard/manager.py", "data/wikitext_schedule.py", "mcp_server.py"),
)
DEEP = (
    "(",
    "[",
    "{1: ",
    "f(",
    "-",
    "not ",
    "lambda: ",
    "a if b else ",
    "a + ",
    "a.",
    "a and ",
    "await ",
    "*",
    "~",
    "'a' ",
)
COOKIES = (
    *(
        b"undefined",
        b"punycode",
        b"idna",
        b"rot13",
        b"zlib",
        b"hex",
        b"base64",
        b"utf-16",
        b"utf-7",
        b"raw_unicode_escape",
    ),
    *(b"unicode_escape", b"mbcs", b"latin-1", b"cp1252", b"utf-8-sig", b"no-such", b"\xff", b"ascii", b"cp037", b"uu"),
)


def make(seed: int, root: Path) -> str:
    """Make the tree of a seed; returns what was done to it."""
    draw = random.Random(seed)
    shutil.copytree(BASELINE if draw.random() < 0.8 else REFERENCE, root, ignore=CODE_ONLY)
    done = []
    for change in draw.choices(
        list(CHANGES), weights=[weight for _, weight in CHANGES.values()], k=draw.choice([1, 1, 2, 3])
    ):
        path = root / draw.choice(FILES)
        if path.is_file() and not path.is_symlink():
            CHANGES[change][0](draw, path)
            done.append(f"{change} in {path.relative_to(root)}")
    return "; ".join(done)


def cut_off(draw, path):
    raw = path.read_bytes()
    path.write_bytes(raw[: draw.randrange(len(raw) + 1)])


def random_bytes(draw, path):
    raw = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 3, 30])):
        place = draw.randrange(len(raw) + 1)
        raw[place : place + draw.randrange(3)] = draw.randbytes(draw.randrange(1, 6))
    path.write_bytes(bytes(raw))


def an_encoding(draw, path):
    cookie = b"# -*- coding: " + draw.choice(COOKIES) + b" -*-" + draw.choice([b"", b" caf\xe9", b" \xc3\xa9"])
    path.write_bytes(draw.choice([b"", b"\xef\xbb\xbf", b"#!/usr/bin/python\n"]) + cookie + b"\n" + path.read_bytes())


def other_lines(draw, path):
    old, new = draw.choice(
        [
            (b"\n", b"\r\n"),
            (b"\n", b"\r"),
            (b"    ", b"\t"),
            (b"    ", b" "),
            (b"\n\n", b"\n\x0c\n"),
            (b" = ", b" = \\\n "),
        ]
    )
    path.write_bytes(path.read_bytes().replace(old, new, draw.choice([-1, 1, 5])))


def lines_of(path):
    """The lines of a file, whatever its bytes are."""
    return path.read_bytes().decode("latin-1").splitlines(keepends=True)


def put(path, text):
    path.write_text(text, encoding="latin-1", newline="")


def depth(draw, path):
    lines = lines_of(path) or ["\n"]
    opened, count = draw.choice(DEEP), draw.choice([20, 150, 400, 1000, 5000])
    closing = {"(": ")", "[": "]", "{1: ": "}", "f(": ")"}.get(opened, "")
    text = opened * count + ("b" if opened == "a." else "1") + closing * count
    place = draw.choice([0, draw.randrange(len(lines)), len(lines)])
    indent = re.match(r"\s*", lines[place] if place < len(lines) else "")[0].strip("\n")
    put(path, "".join([*lines[:place], f"{indent}deep = {text}\n", *lines[place:]]))


def tokens(draw, path):
    """Drop, double or swap tokens."""
    text = "".join(lines_of(path))
    try:
        every = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return
    found = [t for t in every if t.string.strip() and t.type != tokenize.COMMENT]
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    spans = [(starts[t.start[0] - 1] + t.start[1], starts[t.end[0] - 1] + t.end[1]) for t in found]
    for _ in range(draw.choice([1, 1, 4]) if spans else 0):
        low, high = draw.choice(spans)
        other = draw.choice(spans)
        new = draw.choice(["", text[low:high] * 2, text[other[0] : other[1]]])
        text = text[:low] + new + text[high:]
    put(path, text)


class Rewrite(ast.NodeTransformer):
    """Change one node of a program, so that it stays a program."""

    def __init__(self, draw, count):
        self.draw, self.left = draw, draw.randrange(count)

    def generic_visit(self, node):
        super().generic_visit(node)
        self.left -= 1
        if self.left >= 0 or self.left < -1:
            return node
        return self.changed(node)

    def changed(self, node):
        draw = self.draw
        name = ast.Name(draw.choice(["q", "x", "self", "batch", "torch", "loss", "T"]), ast.Load())
        if isinstance(node, ast.Call):
            node.args = draw.choice(
                [[], node.args[:1], [*node.args, name], list(reversed(node.args)), [ast.Starred(name, ast.Load())]]
            )
            node.keywords = draw.choice([node.keywords, [], node.keywords[1:], [ast.keyword(None, name)]])
        elif isinstance(node, ast.Assign):
            node.value = draw.choice([node.targets[0], name, ast.Tuple([], ast.Load()), node.value])
            node.targets = draw.choice([node.targets, [*node.targets, ast.Name("q", ast.Store())]])
        elif isinstance(node, ast.Subscript):
            node.slice = draw.choice([ast.Slice(), ast.Tuple([], ast.Load()), name, ast.Constant(...)])
        elif isinstance(node, ast.FunctionDef):
            node.args = draw.choice(
                [
                    node.args,
                    ast.arguments([], [], None, [], [], None, []),
                    ast.arguments([], [], ast.arg("a"), [], [], ast.arg("k"), []),
                ]
            )
            node.decorator_list = draw.choice([[], [name]])
        elif isinstance(node, ast.For):
            node.iter = draw.choice([name, ast.Call(ast.Name("enumerate", ast.Load()), [], []), node.iter])
            node.target = draw.choice([ast.Tuple([], ast.Store()), ast.Name("batch", ast.Store()), node.target])
        elif isinstance(node, ast.stmt):
            return draw.choice(
                [ast.Pass(), ast.Expr(ast.Constant("text")), [node, node], ast.If(name, [node], []), ast.Return(None)]
            )
        elif isinstance(node, ast.expr) and not isinstance(getattr(node, "ctx", ast.Load()), (ast.Store, ast.Del)):
            return draw.choice(
                [
                    name,
                    ast.Constant(0),
                    ast.Lambda(ast.arguments([], [], None, [], [], None, []), node),
                    ast.Await(node),
                    ast.NamedExpr(ast.Name("q", ast.Store()), node),
                ]
            )
        return node


def a_program(draw, path):
    try:
        module = ast.parse(path.read_bytes())
        for _ in range(draw.choice([1, 3, 8])):
            module = Rewrite(draw, sum(1 for _ in ast.walk(module))).visit(module)
        path.write_text(ast.unparse(ast.fix_missing_locations(module)))
    except Exception:  # it was no program, or the rewrite made none
        cut_off(draw, path)


def a_line(draw, path):
    lines = lines_of(path) or ["\n"]
    place, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    put(
        path, "".join(draw.choice([lines[:place] + lines[place + 1 :], [*lines[:place], lines[other], *lines[place:]]]))
    )


def a_link(draw, path):
    target = draw.choice(
        ["/dev/zero", "/proc/kmsg", "nowhere", "..", str(path.parent.parent.parent), path.name, "/etc/hostname"]
    )
    path.unlink()
    path.symlink_to(target)


def something_else(draw, path):
    path.unlink()
    draw.choice([os.mkfifo, os.mkdir, lambda p: p.write_bytes(b""), lambda p: p.write_bytes(b"\0" * 4096)])(path)


def an_odd_name(draw, path):
    name = draw.choice(
        [b"\xff\xfe.py", b"a\nb.py", b'q"q.py', b"tab\t.py", b" .py", b"-x.py", b"\xc3\xa9.py", b"n" * 250 + b".py"]
    )
    draw.choice([shutil.copyfile, os.rename])(
        path, os.path.join(os.fsencode(path.parent), name).decode("utf-8", "surrogateescape")
    )


def ignored(draw, path):
    lines = [
        draw.choice(
            ["*", "!*.py", "/*", "bit_transformer/", "!bit_transformer", "**/*.py", "[", "\\", "data", "!", "a[b", "*/"]
        )
        for _ in range(3)
    ]
    (path.parent / ".gitignore").write_text("\n".join(lines))


CHANGES: dict[str, tuple[Callable, int]] = {
    "cut off": (cut_off, 2),
    "random bytes": (random_bytes, 3),
    "an encoding": (an_encoding, 3),
    "other lines": (other_lines, 3),
    "depth": (depth, 3),
    "tokens": (tokens, 3),
    "another program": (a_program, 8),
    "a line": (a_line, 4),
    "a link": (a_link, 1),
    "something else": (something_else, 1),
    "an odd name": (an_odd_name, 1),
    "what is ignored": (ignored, 1),
}
