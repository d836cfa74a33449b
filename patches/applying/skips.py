"""Comments that leave a task out: `# bitpatch: skip[task-7] REASON`, on a line of a statement or above it."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..files.nesting import parsed
from ..known import id_of
from ..task import BitpatchError, Site

MARK = b"bitpatch:"
_COMMENT = re.compile(r"#\s*bitpatch:\s*(\w+\s*\[.*|skip\b.*)")  # others are words of the user's
_SKIP = re.compile(r"skip\s*\[([^\]]*)\]\s*(.*)")
_FORM = "# bitpatch: skip[TASK] REASON"


@dataclass(frozen=True, slots=True)
class Skip:
    """A comment that leaves tasks out of a statement."""

    site: Site  # of the comment, which is its note
    tasks: frozenset[str]  # their ids
    reason: str
    lines: range  # of the statement; none where there is none

    def covers(self, site: Site) -> bool:
        """Whether a site is in the statement."""
        return site.path == self.site.path and site.line in self.lines


@lru_cache(maxsize=256)
def skips(path: str, raw: bytes) -> Sequence[Skip]:
    """The comments of a file that leave tasks out; raises BitpatchError where one does not say what, or why.

    A file that Python does not read has none.
    """
    try:
        comments = list(_comments(raw))
        statements = [node for node in ast.walk(parsed(raw)) if isinstance(node, ast.stmt)] if comments else []
    except (SyntaxError, ValueError, tokenize.TokenError):
        return ()
    found, problems = [], []
    for line, column, text, said in comments:
        match = _SKIP.fullmatch(said)
        names = [name.strip() for name in match[1].split(",")] if match else []
        problem = _problem(names, match[2] if match else "")
        if problem or match is None:
            problems.append(f"{path}:{line}:{column + 1}: {problem}")
            continue
        site = Site.at(path, f"# bitpatch: {said}", line, column + 1)
        is_alone = text.lstrip().startswith("#")
        lines = _below(statements, raw, line, len(text) - len(text.lstrip())) if is_alone else None
        lines = lines or _around(statements, line, only_simple=is_alone)
        found.append(Skip(site, frozenset(filter(None, map(id_of, names))), match[2], lines))
    if problems:
        raise BitpatchError("\n".join(problems), then=f"write {_FORM}")
    return found


def _comments(raw: bytes) -> Iterator[tuple[int, int, str, str]]:
    """The comments that ask for something: line, column, the text of the line, and what is asked."""
    for token in tokenize.tokenize(io.BytesIO(raw).readline):
        match = _COMMENT.search(token.string.rstrip()) if token.type == tokenize.COMMENT else None
        if match is not None:
            yield token.start[0], token.start[1] + match.start(), token.line, match[1]


def _problem(names: Sequence[str], reason: str) -> str:
    """What is wrong with a comment that asks for something."""
    unknown = [name for name in names if id_of(name) is None]
    if not names or unknown == [""]:
        return f"a comment for bitpatch that names no task: write {_FORM}"
    if unknown:
        return f"no task is called {', '.join(map(repr, unknown))}; bitpatch list shows them"
    return "" if reason else f"a skip without a reason: write {_FORM}"


def _below(statements: Sequence[ast.stmt], raw: bytes, line: int, column: int) -> range | None:
    """The lines of the statement that a comment stands above, if nothing but comments is between."""
    texts = raw.splitlines()
    while line < len(texts) and texts[line].lstrip().startswith(b"#"):
        line += 1
    own = [each for each in statements if _first(each) == line + 1]
    return range(line + 1, max(map(_last, own)) + 1) if own and min(each.col_offset for each in own) == column else None


def _around(statements: Sequence[ast.stmt], line: int, *, only_simple: bool) -> range:
    """The lines of the innermost statement that has a line; a compound one is its header's."""
    own = [each for each in statements if _first(each) <= line <= _last(each)]
    if not own:
        return range(0)
    inner = max(own, key=lambda each: (_first(each), -_last(each)))
    is_simple = not hasattr(inner, "body") and not hasattr(inner, "cases")
    return range(_first(inner), _last(inner) + 1) if is_simple or not only_simple else range(0)


def _first(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])


def _last(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno
