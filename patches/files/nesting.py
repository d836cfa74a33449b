"""Bound how deep a text nests, before LibCST parses it: parsers and walks of syntax trees recurse, and would die.

A chain of operators, attributes or calls nests as brackets do: `a.b.c` is `(a.b).c`. So what is counted is how many
tokens stand one inside the other, by what they cost a parser: 1,000 terms of a sum, 125 brackets.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Iterator

from .positions import lines_of

DEEPEST = 1000
_BRACKET, _TRAILER, _INDENT, _ELIF = 8, 2, 2, 4
_FRAMES = 12 * DEEPEST  # of Python's own stack: what LibCST's walks take to go so deep
_PLAIN = 1000  # the recursion limit under which Python's parser says that a text is too deep, and does not crash
_QUOTED = (
    r"'''(?:[^\\]|\\.)*?(?:'''|\Z)",
    r'"""(?:[^\\]|\\.)*?(?:"""|\Z)',
    r"'(?:[^'\\\n]|\\.)*'?",
    r'"(?:[^"\\\n]|\\.)*"?',
)
_KEYWORDS = "if|else|for|not|and|or|in|is|lambda|await|yield|from"
_TOKEN = re.compile(
    rf"(?P<skip>#[^\r\n]*|\\\r?\n|[ \t\f]+)|(?P<string>(?:\b[a-zA-Z]{{1,2}})?(?:{'|'.join(_QUOTED)}))"
    r"|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<newline>[\r\n]+)|(?P<end>[,;])|(?P<trailer>\.)"
    rf"|(?P<elif>\belif\b)|(?P<operator>\b(?:{_KEYWORDS})\b|[-+~*/%@&|^<>=!])|(?P<value>\w+)|.",
    re.DOTALL,
)
_INDENTED = re.compile(r"[ \t]*")


class TooDeep(ValueError):
    """A text nests too deeply to be parsed; `line` and `column` count from 1."""

    def __init__(self, line: int, column: int) -> None:
        super().__init__("expressions or blocks are nested too deeply: split them up")
        self.line, self.column = line, column


def require_shallow(text: str) -> None:
    """Raise TooDeep at the first place of a text that nests deeper than LibCST can go; let Python follow it there."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _FRAMES))
    if len(text) <= DEEPEST:
        return
    for depth, place in _depths(text):
        if depth > DEEPEST:
            lines = lines_of(text[:place])
            raise TooDeep(len(lines), len(lines[-1]) + 1)


def parsed(text: str | bytes) -> ast.Module:
    """A text as Python reads it, and can follow from then on. Raises SyntaxError; ValueError: no text, too deep."""
    limit = max(sys.getrecursionlimit(), _FRAMES)
    try:
        sys.setrecursionlimit(_PLAIN)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (RecursionError, MemoryError):
        raise ValueError("expressions or blocks are nested too deeply") from None
    finally:
        sys.setrecursionlimit(limit)


def _depths(text: str) -> Iterator[tuple[int, int]]:
    """How deep each token of a text stands, and where."""
    around: list[int] = []  # the depth outside of each bracket that is open
    depth = block = elifs = 0
    is_operand = False  # whether what stands before is one
    for token in _TOKEN.finditer(text):
        kind, inner = token.lastgroup, 0
        match kind:
            case "skip":
                continue
            case "newline":
                if around:
                    continue
                indent = _INDENTED.match(text, token.end()).end() - token.end()  # type: ignore[union-attr]
                depth = block = indent * _INDENT
                elifs = elifs if indent or text.startswith(("elif", "else", "#"), token.end()) else 0
            case "open":
                around.append(depth + is_operand * _TRAILER)
                depth = around[-1] + _BRACKET
            case "close":
                depth = around.pop() if around else depth
            case "end":
                depth = around[-1] + _BRACKET if around else block
            case "elif":
                elifs += _ELIF
            case "trailer":
                depth += _TRAILER
            case "operator":
                depth += 1
            case "string":
                depth += is_operand
                inner = _inner_depth(token[0])
        is_operand = kind in ("close", "string", "value")
        yield depth + elifs + inner, token.start()


def _inner_depth(string: str) -> int:
    """How deep the expressions in an f-string go."""
    prefix, _, content = string.partition("'" if string.rstrip("'") != string else '"')
    return max((depth for depth, _ in _depths(content)), default=0) if "f" in prefix.lower() else 0
