"""Read a tree's files: bytes to LibCST and back, who encloses whom, and what a name stands for."""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

import libcst as cst
from libcst._nodes.internal import CodegenState

from .names import Names
from .task import BitpatchError, Site, Unparsable, Unreadable

Node = TypeVar("Node", bound=cst.CSTNode)

OWN_FOLDERS = {"bit_transformer", "dashboard", "data"}
SKIPPED_FOLDERS = {"__pycache__", "build", "dist", "node_modules", "site-packages", "venv", "env"}
MODEL = rb"^class[ \t]+BitTransformerLM\b"
RELATED = (
    rb"torch|[Bb]it_?[Tt]ransformer|text_to_bits|ModelManager|_steps|loss|train_loop"  # what files of a tree mention
)
TRAIN_LOOP = rb"^def[ \t]+train_loop\b"

_LAYOUT = re.compile("whitespace|lines|par$|bracket$|brace$|comma|colon|^equal$|^dot$|^header$|^footer$")


class Source:
    """One parsed file of a tree; `path` is relative to the tree, with forward slashes."""

    def __init__(self, path: str, raw: bytes, module: cst.Module | None = None) -> None:
        self.path = path
        self.raw = raw
        self.module = _parse(path, raw) if module is None else module
        self._texts: dict[cst.CSTNode, str] = {}
        self._kinds: dict[type[cst.CSTNode], list[int]] = {}

    @cached_property
    def _printed(self) -> Printed:
        return Printed(self.module)

    def require_faithful(self) -> None:
        """Raise Unparsable unless LibCST reproduces the file byte for byte."""
        if self._printed.bytes != self.raw:
            raise _unfaithful(self.path, self.raw, self._printed.bytes)

    def reprinted(self, changed: cst.Module) -> Source:
        """The file that a changed module prints, parsed again where it changed."""
        printed, old = Printed(changed), set(self.module.body)
        body = list(changed.body)
        if body and body[0] in old and body[-1] in old:  # what stands above and below them stays where it is
            config = changed.config_for_parsing
            parsed = [s if s in old else cst.parse_statement(printed.text(s), config=config) for s in body]
            source = Source(self.path, printed.bytes, changed.with_changes(body=parsed))
        else:
            source = Source(self.path, printed.bytes)
        source._printed = printed.moved_to(source._index.nodes)
        return source

    @cached_property
    def _index(self) -> _Index:
        return _Index(self.module)

    @property
    def order(self) -> dict[cst.CSTNode, int]:
        """Each node's rank in a depth-first walk of the file."""
        return self._index.order

    @property
    def parents(self) -> dict[cst.CSTNode, cst.CSTNode]:
        """Each node's parent."""
        return self._index.parents

    @cached_property
    def names(self) -> Names:
        return Names(self)

    def walk(self, kind: type[Node], inside: cst.CSTNode | None = None) -> Iterator[Node]:
        """All nodes of a kind, in source order, in the file or inside one node."""
        index = self._index
        if kind not in self._kinds:
            self._kinds[kind] = index.ranks(kind)
        first, end = index.span(inside) if inside is not None else (0, len(index.nodes))
        ranks = self._kinds[kind]
        for place in range(bisect_left(ranks, first), bisect_left(ranks, end)):
            yield index.nodes[ranks[place]]  # type: ignore[misc]

    def uses(self, inside: cst.CSTNode | None = None) -> Iterator[cst.Name]:
        """The names that are looked up, in the file or inside one node: no attributes, no keywords of calls."""
        for name in self.walk(cst.Name, inside):
            parent = self.parents.get(name)
            is_label = (isinstance(parent, cst.Attribute) and name is parent.attr) or (
                isinstance(parent, cst.Arg) and name is parent.keyword
            )
            if not is_label:
                yield name

    def ancestors(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """Whatever encloses a node, from the inside out."""
        parent = self.parents.get(node)
        while parent is not None:
            yield parent
            parent = self.parents.get(parent)

    def enclosing(self, node: cst.CSTNode, *kinds: Any) -> Any:
        """The nearest ancestor of one of the kinds."""
        return next((each for each in self.ancestors(node) if isinstance(each, kinds)), None)

    def statement(self, node: cst.CSTNode) -> cst.CSTNode:
        """The statement that holds a node: a line, or a compound statement."""
        if isinstance(node, (cst.SimpleStatementLine, cst.BaseCompoundStatement)):
            return node
        found: cst.CSTNode = self.enclosing(node, cst.SimpleStatementLine, cst.BaseCompoundStatement)
        return found

    def function(self, node: cst.CSTNode) -> cst.FunctionDef | None:
        """The function that a node stands in."""
        found: cst.FunctionDef | None = self.enclosing(node, cst.FunctionDef)
        return found

    def code(self, node: cst.CSTNode) -> str:
        """The source text of a node, of this file or made for it."""
        if node not in self.order:
            return self.module.code_for_node(node)
        if node not in self._texts:
            self._texts[node] = self.module.code_for_node(node)
        return self._texts[node]

    def site(self, node: cst.CSTNode, note: str) -> Site:
        """Where a node starts."""
        return Site(self.path, note, lambda: self._printed.position(node))


class _Index:
    """The nodes of a module in a depth-first walk: who comes when, and who encloses whom."""

    def __init__(self, module: cst.Module) -> None:
        self.nodes: list[cst.CSTNode] = []
        self.order: dict[cst.CSTNode, int] = {}
        self.parents: dict[cst.CSTNode, cst.CSTNode] = {}
        self._ends: dict[cst.CSTNode, int] = {}
        self._add(module)

    def _add(self, node: cst.CSTNode) -> None:
        self.order[node] = len(self.nodes)
        self.nodes.append(node)
        for child in children_of(node):
            self.parents[child] = node
            self._add(child)
        self._ends[node] = len(self.nodes)

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """The ranks of a node and all that is in it: from the first to before the second."""
        return self.order[node], self._ends[node]

    def ranks(self, kind: type[cst.CSTNode]) -> list[int]:
        """The ranks of all nodes of a kind."""
        is_kind = {found: issubclass(found, kind) for found in {type(node) for node in self.nodes}}
        return [rank for rank, node in enumerate(self.nodes) if is_kind[type(node)]]


_NOTHING = nullcontext()


class Printed(CodegenState):
    """A module's text, and where each node starts in it."""

    def __init__(self, module: cst.Module) -> None:
        super().__init__(module.default_indent, module.default_newline)
        self.starts: dict[cst.CSTNode, int] = {}  # where the node's own text starts, among the tokens
        self._opened: dict[cst.CSTNode, int] = {}  # where the comments and blank lines above it do
        self._ends: dict[cst.CSTNode, int] = {}
        self._module = module
        module._codegen(self)
        self.bytes = "".join(self.tokens).encode(module.encoding)

    def before_codegen(self, node: cst.CSTNode) -> None:
        self.starts[node] = self._opened[node] = len(self.tokens)

    def after_codegen(self, node: cst.CSTNode) -> None:
        self._ends[node] = len(self.tokens)

    def record_syntactic_position(self, node: cst.CSTNode, **_: Any) -> AbstractContextManager[None]:  # type: ignore[override]
        self.starts[node] = len(self.tokens)  # behind the comments and the indent that belong to the node
        return _NOTHING

    def text(self, statement: cst.CSTNode) -> str:
        """The text of a statement, with the comments and blank lines above it."""
        return "".join(self.tokens[self._opened[statement] : self._ends[statement]])

    def moved_to(self, nodes: Sequence[cst.CSTNode]) -> Printed:
        """The same text, for the nodes that were parsed from it."""
        own = [self.starts.get(node, 0) for node in walked(self._module)]
        self.starts = dict(zip(nodes, own, strict=False))
        return self

    def position(self, node: cst.CSTNode) -> tuple[int, int]:
        """Line and column of a node, 1-based."""
        before = "".join(self.tokens[: self.starts[node]]).splitlines(keepends=True) or [""]
        ended = before[-1].endswith(("\n", "\r"))
        return (len(before) + 1, 1) if ended else (len(before), len(before[-1]) + 1)


def walked(module: cst.Module) -> Iterator[cst.CSTNode]:
    """A module's nodes in source order."""
    pending: list[cst.CSTNode] = [module]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(children_of(node)))


def children_of(node: cst.CSTNode) -> list[cst.CSTNode]:
    """A node's children in source order, without layout: whitespace, comments, brackets, commas."""
    children: list[cst.CSTNode] = []
    for name in _fields(type(node)):
        value = getattr(node, name)
        if isinstance(value, (list, tuple)):
            children += [item for item in value if _is_node(type(item))]  # type: ignore[arg-type]
        elif _is_node(type(value)):  # type: ignore[arg-type]
            children.append(value)
    return children


@cache
def _is_node(kind: type) -> bool:
    return isinstance(kind, type) and issubclass(
        kind, cst.CSTNode
    )  # an abstract class: to ask each value would take longer than all else


@cache
def _fields(kind: type[cst.CSTNode]) -> tuple[str, ...]:
    return tuple(name for name in kind.__dataclass_fields__ if not _LAYOUT.search(name))


def _parse(path: str, raw: bytes) -> cst.Module:
    try:
        return cst.parse_module(raw)
    except cst.ParserSyntaxError as error:
        line, reason = _syntax_error(raw) or (error.raw_line, "it does not parse")
        raise Unparsable(f"{path}:{line}: {reason}; mend the file, then run the command again") from None
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise Unparsable(
            f"{path}:1: expected UTF-8 or an encoding cookie (PEP 263), found bytes that are neither ({error}); "
            "convert the file to UTF-8 or declare its encoding, then run the command again"
        ) from None
    except RecursionError:
        raise Unparsable(f"{path}:1: expressions are nested too deeply to parse; split them up") from None


def _unfaithful(path: str, raw: bytes, printed: bytes) -> Unparsable:
    pairs = enumerate(zip(raw.split(b"\n"), printed.split(b"\n"), strict=False), 1)
    line = next((number for number, (a, b) in pairs if a != b), 1)
    return Unparsable(
        f"{path}:{line}: LibCST does not reproduce this file byte for byte (a form feed, perhaps); "
        "bitpatch does not touch such a file: remove what is unusual on that line"
    )


def _syntax_error(raw: bytes) -> tuple[int, str] | None:
    try:
        compile(raw, "file", "exec", dont_inherit=True)
    except SyntaxError as error:
        return error.lineno or 1, f"syntax error: {error.msg}"
    except ValueError as error:  # a null byte
        return 1, str(error)
    return None


@dataclass(frozen=True)
class SourceTree:
    """A BitTransformerLM tree on disk, with the changes that a plan has made so far."""

    root: Path
    paths: tuple[str, ...]
    model_path: str
    training_path: str | None
    sources: dict[str, Source]
    contents: dict[str, bytes] = field(default_factory=dict)  # as they were read, of the files that may belong to it
    unrelated: frozenset[str] = frozenset()  # paths of Python files that mention nothing of a tree

    def source(self, path: str) -> Source:
        """One file, parsed once."""
        if path not in self.sources:
            self.sources[path] = Source(path, self.raw(path))
        return self.sources[path]

    @property
    def training(self) -> Source | None:
        """The file that defines train_loop, if the tree has one."""
        return self.source(self.training_path) if self.training_path else None

    def package(self, having: bytes) -> Iterator[Source]:
        """The parsed files of the model's own package in which a pattern is found."""
        folder = os.path.dirname(self.model_path)
        for path in self.paths:
            if os.path.dirname(path) == folder and re.search(having, self.raw(path)):
                yield self.source(path)

    def files(self, having: bytes) -> Iterator[Source]:
        """The parsed files of the whole tree in which a pattern is found."""
        for path in self.paths:
            if path not in self.unrelated and re.search(having, self.raw(path)):
                yield self.source(path)

    def raw(self, path: str) -> bytes:
        """A file's bytes, as the plan has them."""
        if path in self.sources:
            return self.sources[path].raw
        return self.contents[path] if path in self.contents else read_bytes(self.root / path)

    def with_source(self, source: Source) -> SourceTree:
        """The same tree with one file changed in memory."""
        return replace(self, sources={**self.sources, source.path: source})


def open_tree(root: Path) -> SourceTree:
    """Find the parts of the BitTransformerLM tree in a folder; parses nothing yet.

    Raises Unreadable where the folder cannot be read, BitpatchError where it holds no tree or two.
    """
    require_folder(root)
    paths = tuple(_python_files(root))
    every = ((path, read_bytes(root / path)) for path in paths)
    contents = {path: raw for path, raw in every if re.search(RELATED, raw)}
    models = [path for path in contents if re.search(MODEL, contents[path], re.MULTILINE)]
    if not models:
        raise BitpatchError(
            f"{root}: expected a BitTransformerLM tree, found no file that defines class BitTransformerLM; "
            "name the tree with --tree DIR, or make a fresh one with: bitpatch new DIR"
        )
    if len(models) > 1:
        raise BitpatchError(
            f"{root}: found {len(models)} BitTransformerLM trees ({', '.join(models)}); name one with --tree DIR"
        )
    loops = [path for path in contents if re.search(TRAIN_LOOP, contents[path], re.MULTILINE)]
    beside = [path for path in loops if os.path.dirname(path) == os.path.dirname(models[0])]
    loops = beside or loops
    if len(loops) > 1:
        raise BitpatchError(
            f"{root}: found {len(loops)} files that define train_loop ({', '.join(loops)}); keep one of them"
        )
    return SourceTree(
        root, paths, models[0], loops[0] if loops else None, {}, contents, frozenset(paths) - contents.keys()
    )


def require_folder(root: Path) -> None:
    """Raise Unreadable unless a path is a folder."""
    if not root.is_dir():
        found = "found a file" if root.exists() else "found nothing"
        raise Unreadable(f"{root}: expected a folder, {found}; name a BitTransformerLM tree with --tree DIR")


def _python_files(root: Path) -> Iterator[str]:
    def unreadable(error: OSError) -> None:
        raise Unreadable(f"{error.filename}: {error.strerror}; check the folder's permissions") from None

    ignored = _ignored_folders(root)
    seen: set[str] = set()  # a folder may be reached by a link too, even from inside itself
    for folder, folders, files in os.walk(root, onerror=unreadable, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = sorted(name for name in folders if _is_searched(folder, name, ignored)) if real not in seen else []
        for name in sorted(files) if real not in seen else ():
            path = os.path.join(folder, name)
            if name.endswith(".py") and os.path.isfile(path):
                yield os.path.relpath(path, root).replace(os.sep, "/")
        seen.add(real)


def _ignored_folders(root: Path) -> tuple[str, ...]:
    """The plain names of folders in a .gitignore at the root, but for those that a tree is made of."""
    file = root / ".gitignore"
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    names = {line.strip().strip("/") for line in lines if not line.startswith(("#", "!"))}
    return tuple(sorted(name for name in names if name and "/" not in name and name not in OWN_FOLDERS))


def _is_searched(folder: str, name: str, ignored: Iterable[str]) -> bool:
    if name.startswith(".") or name in SKIPPED_FOLDERS or name.endswith(".egg-info"):
        return False
    if any(fnmatch(name, pattern) for pattern in ignored):
        return False
    return not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))


def read_bytes(path: Path) -> bytes:
    """A file's bytes; raises Unreadable with the reason."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
