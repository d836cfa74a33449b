"""A BitTransformerLM tree: which files it is made of, and what they hold so far."""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..files.nesting import parsed
from ..files.places import read_bytes
from ..files.settled import FILE, Settings, read_settings
from ..files.spellings import DRIVER
from ..files.tracked import python_files
from ..task import BitpatchError, Line, Site, Unreadable
from .code import Code
from .files import File, Files, is_test
from .frames import Reading
from .source import Source

RELATED = (  # what files of a tree mention
    rb"torch|[Bb]it_?[Tt]ransformer|text_to_bits|ModelManager|_steps|loss|train_loop|bitpatch:"
)
MODEL, TRAIN_LOOP = "BitTransformerLM", "train_loop"


@dataclass(frozen=True)
class SourceTree:
    """A BitTransformerLM tree on disk, with the changes that a plan has made so far."""

    root: Path
    paths: tuple[str, ...]
    model_path: str  # "" of a tree of another model
    training_path: str | None
    sources: dict[str, Source]
    contents: dict[str, bytes] = field(default_factory=dict)  # as they were read, of the files that may belong to it
    unrelated: frozenset[str] = frozenset()  # paths of Python files that mention nothing of a tree
    links_out: tuple[str, ...] = ()  # paths that lead out of the tree, and are not followed
    settings: Settings = field(default_factory=Settings)  # what its pyproject.toml settles
    at: Mapping[str, tuple[Line, ...]] = field(default_factory=dict)  # of a task, by its id: the sites that are meant
    read: list[tuple[SourceTree, Code]] = field(default_factory=list)  # the tree whose code was asked for last

    def source(self, path: str) -> Source:
        """One file, parsed once."""
        if path not in self.sources:
            self.sources[path] = Source(path, self.raw(path))
        return self.sources[path]

    @property
    def training(self) -> Source | None:
        """The file that defines train_loop, if the tree has one."""
        return self.source(self.training_path) if self.training_path else None

    def is_meant(self, site: Site) -> bool:
        """Whether the user says that a site is the one, of several that could be."""
        return any(line.holds(site) for lines in self.at.values() for line in lines)

    @property
    def first_step(self) -> tuple[str, ...]:
        """What is to be done once somebody knows the tree: one of another model has to say first how it is driven."""
        return ("verify", "--all") if self.model_path or DRIVER in self.paths else ("seams", "--write")

    def command(self, *words: str) -> str:
        """A command on this tree."""
        return command_on(self.root, *words)

    def as_given(self, path: str) -> bytes:
        """A file's bytes as the user has them, in which places are told."""
        return self.sources[path].origin if path in self.sources else self.raw(path)

    @property
    def code(self) -> Code:
        """What the tree's code computes, as the plan has it: trees of one plan read once what they have in common."""
        if not self.read:
            self.read.append((self, Code(Files(self.paths, self.raw))))
        last, code = self.read[0]
        if last is not self:
            paths = {*last.sources, *self.sources}
            code.over({path for path in paths if last.raw(path) != self.raw(path)}, self.raw)
            self.read[0] = (self, code)
        return code

    def readings(self, having: bytes) -> Iterator[tuple[Source, list[Reading]]]:
        """What the functions compute of each file of the model's own package in which a pattern is found."""
        for source in self.package(having):
            file = self.code.files.file(source.path)
            if file is not None:
                yield source, [self.code.reading(file, *each) for each in file.functions]

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

    def shipped(self, having: bytes) -> Iterator[Source]:
        """The same files, without those of its tests."""
        yield from (source for source in self.files(having) if not is_test(source.path))

    def modules(self, having: bytes) -> Iterator[File]:
        """The same files without those of its tests, as their code is read."""
        for file in self.code.files.having(having):
            if file.path not in self.unrelated and not is_test(file.path):
                yield file

    def raw(self, path: str) -> bytes:
        """A file's bytes, as the plan has them."""
        if path in self.sources:
            return self.sources[path].raw
        return self.contents[path] if path in self.contents else read_bytes(self.root / path)

    def trying(self, *sources: Source) -> SourceTree:
        """The same tree with some files changed, to look at: what was read of this one stays."""
        tree = replace(self, sources={**self.sources, **{source.path: source for source in sources}}, read=[])
        changed = {source.path for source in sources if source.raw != self.raw(source.path)}
        tree.read.append((tree, self.code.aside(changed, tree.raw)))
        return tree

    def with_source(self, source: Source) -> SourceTree:
        """The same tree with one file changed in memory."""
        return replace(self, sources={**self.sources, source.path: source})

    def settled(self) -> SourceTree:
        """The same tree as one that the user has so: places are told in what its files are now."""
        return replace(self, sources={path: source.settled() for path, source in self.sources.items()})


def open_tree(root: Path, *, tell: Callable[[str], None] = lambda _: None, others: str = "") -> SourceTree:
    """Find the parts of the BitTransformerLM tree in a folder; parses no more than it takes to find them.

    What was chosen of several, and what was not followed, is told where somebody listens. `others` are trees of other
    models that are meant too: "driven", those that say how they are driven, or "any" that has to do with torch.

    Raises Unreadable where the folder cannot be read, BitpatchError where it holds no tree, or two of a kind.
    """
    require_folder(root)
    settings = read_settings(root)
    listing = python_files(root, settings.exclude)
    listing.links_out += [FILE] * settings.leads_out
    every = ((path, read_bytes(root / path)) for path in listing.files)
    contents = {path: raw for path, raw in every if re.search(RELATED, raw)}
    models = _defining(contents, ast.ClassDef, MODEL) or _of_bits(contents)
    loops = _defining(contents, ast.FunctionDef, TRAIN_LOOP)
    meant = settings.models(models, listing.files, lambda path: read_bytes(root / path))
    is_other = (others and (DRIVER in listing.files or settings.says)) or (
        others == "any" and any(b"torch" in raw for raw in contents.values())
    )
    if not meant and not is_other:
        raise BitpatchError(
            f"{root}: expected a BitTransformerLM tree, found no file that defines class {MODEL}, or a class "
            "that embeds a vocabulary of two; "
            f"{not_followed(listing.links_out)}"
            f"one of another model is judged by its {DRIVER}, which is begun in it with: bitpatch seams --write; "
            "name the tree with --tree DIR, or make a fresh one with: bitpatch new DIR"
        )
    model, notes = _chosen(root, meant, loops, listing.files) if meant else ("", [])
    rest = [path for path in models if path != model]
    if meant != models and rest:
        notes.append(f"{model} is taken for the model, as {FILE} says; left alone: {', '.join(rest)}")
    paths = tuple(path for path in listing.files if not _is_of_another(path, model, rest))
    contents = {path: raw for path, raw in contents.items() if path in paths}
    named = {name: settings.seam(name, paths, lambda path: read_bytes(root / path)) for name in settings.seams}
    notes += [f"{path} leads out of the tree, and is not followed" for path in listing.links_out]
    for note in notes:
        tell(f"note: {note}")
    return SourceTree(
        root,
        paths,
        model,
        named.get("update")
        or (_training(root, model, [path for path in loops if path in contents]) if meant else None),
        {},
        contents,
        frozenset(paths) - contents.keys(),
        tuple(listing.links_out),
        settings,
    )


def command_on(root: Path | None, *words: str) -> str:
    """A command on the tree in a folder; none is named where it is where the user is."""
    return shlex.join(["bitpatch", *words, *(["--tree", str(root)] if root not in (None, Path()) else [])])


def not_followed(links_out: Sequence[str]) -> str:
    """What a search that found nothing has to say of links: empty where there are none."""
    if not links_out:
        return ""
    return f"not followed, as they lead out of the tree: {', '.join(links_out)}; "


def require_folder(root: Path) -> None:
    """Raise Unreadable unless a path is a folder."""
    if not root.is_dir():
        found = "found a file" if root.exists() else "found nothing"
        raise Unreadable(f"{root}: expected a folder, {found}; name a BitTransformerLM tree with --tree DIR")


def _defining(contents: dict[str, bytes], kind: type[ast.stmt], name: str) -> list[str]:
    """The files that define a class or a function at their top, under conditions too.

    Of a file that Python does not parse its text must do, and only where there is no other.
    """
    word = "class" if kind is ast.ClassDef else "def"
    may = re.compile(rf"^[ \t]*{word}[ \t]+{name}\b".encode(), re.MULTILINE)
    known = {path: _defines(raw, kind, name) for path, raw in contents.items() if may.search(raw)}
    return [path for path, does in known.items() if does] or [path for path, does in known.items() if does is None]


def _of_bits(contents: dict[str, bytes]) -> list[str]:
    """The files with a class whose constructor embeds a vocabulary of two, as a language model over bits does."""
    modules = {path: _parsed(raw) for path, raw in contents.items() if b"Embedding" in raw}
    nodes = {path: ast.walk(module) for path, module in modules.items() if module is not None}
    classes = {path: [node for node in every if isinstance(node, ast.ClassDef)] for path, every in nodes.items()}
    return [path for path, some in classes.items() if any(map(_embeds_bits, some))]


def _embeds_bits(node: ast.ClassDef) -> bool:
    """Whether a class makes an Embedding of two."""
    for call in (each for each in ast.walk(node) if isinstance(each, ast.Call)):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        sizes = [*call.args[:1], *(keyword.value for keyword in call.keywords if keyword.arg == "num_embeddings")]
        if name == "Embedding" and any(isinstance(size, ast.Constant) and size.value == 2 for size in sizes):  # noqa: PLR2004
            return True
    return False


def _parsed(raw: bytes) -> ast.Module | None:
    try:
        return parsed(raw)
    except (SyntaxError, ValueError):
        return None


def _defines(raw: bytes, kind: type[ast.stmt], name: str) -> bool | None:
    module = _parsed(raw)
    if module is None:
        return None
    pending: list[ast.AST] = list(module.body)
    while pending:
        node = pending.pop()
        if isinstance(node, kind) and getattr(node, "name", "") == name:
            return True
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.expr)):
            pending += ast.iter_child_nodes(node)
    return False


def _chosen(root: Path, models: Sequence[str], loops: Sequence[str], files: Sequence[str]) -> tuple[str, list[str]]:
    """The model that is the tree's, and what to say of that."""

    def marks(path: str) -> dict[str, int]:
        folder = os.path.dirname(path)
        return {
            "a training loop lies beside it": all(os.path.dirname(loop) != folder for loop in loops),
            "it is in a package": f"{folder}/__init__.py".lstrip("/") not in files,
            "it is nearest to the tree's root": path.count("/"),
        }

    best, *others = sorted(models, key=lambda path: (*marks(path).values(), path))
    if not others:
        return best, []
    mine, next_best = marks(best), marks(others[0])
    why = next((reason for reason, mark in mine.items() if mark != next_best[reason]), None)
    if why is None:
        raise BitpatchError(
            f"{root}: found {len(models)} BitTransformerLM trees ({', '.join(sorted(models))}); "
            'name one with --tree DIR, or its package in pyproject.toml: [tool.bitpatch], package = "FOLDER"'
        )
    return best, [f"{best} is taken for the model, as {why}; left alone: {', '.join(others)}"]


def _is_of_another(path: str, model: str, others: Sequence[str]) -> bool:
    """Whether a file belongs to another copy of the tree: it lies in the folder that holds that copy's package."""
    for other in others:
        package = os.path.dirname(other)
        for folder in (os.path.dirname(package), package):
            if folder and not f"{model}/".startswith(f"{folder}/"):
                if path.startswith(f"{folder}/"):
                    return True
                break
        else:
            if path == other:
                return True
    return False


def _training(root: Path, model: str, loops: Sequence[str]) -> str | None:
    """The file of the training loop: the one beside the model, or nearest to the tree's root."""
    folder = os.path.dirname(model)
    beside = [path for path in loops if os.path.dirname(path) == folder]
    loops = beside or loops
    least = min((path.count("/") for path in loops), default=0)
    nearest = [path for path in loops if path.count("/") == least]
    if len(nearest) > 1:
        raise BitpatchError(
            f"{root}: found {len(nearest)} files that define {TRAIN_LOOP} ({', '.join(nearest)}); keep one of them, or "
            f'name it in pyproject.toml: [tool.bitpatch.seams], update = "MODULE:{TRAIN_LOOP}"'
        )
    return nearest[0] if nearest else None
