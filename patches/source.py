"""Read a tree's files: bytes to LibCST and back, who encloses whom, and what a name stands for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import libcst as cst

from .names import Names
from .parts import File, Part, Statement, cut, whole
from .task import BitpatchError, Site, Unparsable, Unreadable

Node = TypeVar("Node", bound=cst.CSTNode)

OWN_FOLDERS = {"bit_transformer", "dashboard", "data"}
SKIPPED_FOLDERS = {"__pycache__", "build", "dist", "node_modules", "site-packages", "venv", "env"}
MODEL = rb"^class[ \t]+BitTransformerLM\b"
RELATED = (
    rb"torch|[Bb]it_?[Tt]ransformer|text_to_bits|ModelManager|_steps|loss|train_loop"  # what files of a tree mention
)
TRAIN_LOOP = rb"^def[ \t]+train_loop\b"


class Source:
    """One file of a tree, parsed as far as it is looked at; `path` is relative to the tree, with forward slashes."""

    def __init__(self, path: str, raw: bytes, file: File | None = None) -> None:
        self.path = path
        self.raw = raw
        self._file = file or cut(raw) or whole(_parse(path, raw))
        self.parts = self._file.parts
        self.module = self._file.module.with_changes(body=_Body(self))
        self.parents: dict[cst.CSTNode, cst.CSTNode] = {}  # each node's parent, of the parts that were opened
        self.order = _Order(self)
        self.places = {part: place for place, part in enumerate(self.parts)}
        self._opened: dict[cst.CSTNode, Part] = {}  # by their statements
        self._closed = set(self.parts)

    def opened(self, part: Part) -> Part:
        """A part of this file, its nodes ready to be looked at."""
        if part in self._closed:
            try:
                self.parents.update(part.index.parents)
            except (cst.ParserSyntaxError, RecursionError):
                _parse(self.path, self.raw)  # to say where it is
                raise
            self.parents[part.statement] = self.module
            self._opened[part.statement] = part
            self._closed.remove(part)
        return part

    def part(self, node: cst.CSTNode) -> Part:
        """The part that a node stands in."""
        while (parent := self.parents[node]) is not self.module:
            node = parent
        return self._opened[node]

    def require_faithful(self, touched: Iterable[Part] | None = None) -> None:
        """Raise Unparsable unless LibCST reproduces byte for byte what of the file is to be changed: all, or parts.

        What LibCST has printed is not asked again.
        """
        asked = self.parts if touched is None else touched
        again = {self.opened(part): part.printed.text for part in asked if not part.is_printed}
        printed = self._file.bytes(again.get(part, part.text) for part in self.parts)
        if printed != self.raw:
            raise _unfaithful(self.path, self.raw, printed)

    def reprinted(self, body: Iterable[Part | Statement]) -> Source:
        """The file with other statements among its parts, each parsed again from what it prints."""
        parts = [each if isinstance(each, Part) else self._file.part(each) for each in body]
        file = File(self._file.module, parts)
        raw = file.bytes(part.text for part in parts)
        is_inside = parts[:1] + parts[-1:] == self.parts[:1] + self.parts[-1:]
        return Source(self.path, raw, file if is_inside else None)  # else comments above or below it may move

    @cached_property
    def names(self) -> Names:
        return Names(self)

    def walk(
        self, kind: type[Node], inside: cst.CSTNode | None = None, having: tuple[str, ...] | re.Pattern[str] = ()
    ) -> Iterator[Node]:
        """All nodes of a kind, in source order, in the file or inside one node.

        With `having`, statements are left out that cannot mean any of these words, or in which the pattern is not
        found, so that they need not be parsed.
        """
        if inside is not None and inside is not self.module:
            yield from self.part(inside).walk(kind, inside)  # type: ignore[misc]
            return
        for part in self._having(having) if having else self.parts:
            yield from self.opened(part).walk(kind, part.statement)  # type: ignore[misc]

    def _having(self, words: tuple[str, ...] | re.Pattern[str]) -> Sequence[Part]:
        """The parts whose text has a pattern, or one of some words or another name that the file's top gives one."""
        if isinstance(words, re.Pattern):
            return [part for part in self.parts if words.search(part.text)]
        known, own = {*words}, [part for part in self.parts if any(word in part.text for word in words)]
        while True:
            aliases = {name for part in own if not part.name for name in self.opened(part).scopes[None]} - known
            if not aliases:
                return own
            known |= aliases
            word = re.compile(rf"\b(?:{'|'.join(aliases)})\b")
            own = [part for part in self.parts if part in own or word.search(part.text)]

    def loose_statements(self) -> Iterator[Statement]:
        """The statements at the file's top that are no definitions: imports, constants, conditions."""
        yield from (self.opened(part).statement for part in self.parts if not part.name)

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
        if node not in self.parents:
            return self.module.code_for_node(node)
        texts = self.part(node).texts
        if node not in texts:
            texts[node] = self.module.code_for_node(node)
        return texts[node]

    def site(self, node: cst.CSTNode, note: str) -> Site:
        """Where a node starts."""
        return Site(self.path, note, lambda: self._position(node))

    def _position(self, node: cst.CSTNode) -> tuple[int, int]:
        """Line and column of a node, 1-based."""
        if node is self.module:
            return 1, 1
        part = self.part(node)
        above = "".join(each.text for each in self.parts[: self.places[part]])
        before = (self._file.header + above + part.printed.before(node)).splitlines(keepends=True) or [""]
        ended = before[-1].endswith(("\n", "\r"))
        return (len(before) + 1, 1) if ended else (len(before), len(before[-1]) + 1)


class _Body(Sequence[Statement]):
    """The statements of a file, parsed one by one as they are asked for."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source.parts)

    def __getitem__(self, place: Any) -> Any:
        parts = self._source.parts[place]
        return (
            [self._source.opened(part).statement for part in parts]
            if isinstance(place, slice)
            else self._source.opened(parts).statement
        )


class _Order(dict[cst.CSTNode, int]):
    """Each node's rank in a depth-first walk of a file, told when it is asked for."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source

    def __missing__(self, node: cst.CSTNode) -> int:
        part = self._source.part(node)
        rank = self[node] = (self._source.places[part] << 32) + part.index.rank(node)
        return rank


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
