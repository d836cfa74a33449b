"""What a tree's own pyproject.toml settles, under [tool.bitpatch]: where its model is, and what is none of its code.

A key that is not known, or not used yet, is refused: what somebody settles is never ignored.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathspec import GitIgnoreSpec

from ..task import BitpatchError, Unreadable
from .nesting import parsed
from .places import places
from .spellings import SPELLINGS

FILE, TABLE = "pyproject.toml", ("tool", "bitpatch")
_LARGEST, _MOST_PARTS = 1 << 20, 100  # bytes, and parts of a key: for more, tomllib takes minutes
KEYS = ("package", "exclude", "seams", "options")
_EITHER = (ast.FunctionDef, ast.ClassDef)
SEAMS: dict[str, tuple[type[ast.stmt], ...]] = {  # what each names
    "model": (ast.ClassDef,),
    "attention": _EITHER,
    "update": (ast.FunctionDef,),
    "command-line": (ast.FunctionDef,),
    "rows": _EITHER,
    "schedule": (ast.FunctionDef,),
    "gate": _EITHER,
    "manager": (ast.ClassDef,),
}
_SEAM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_KEY = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_LINE = re.compile(rf"\s*(?:\[{{1,2}}\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*\]|({_KEY}(?:\s*\.\s*{_KEY})*)\s*=)")


class WronglySettled(BitpatchError):
    """What pyproject.toml settles cannot be read, or does not fit the tree."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is settled; all of it may be left out."""

    package: str | None = None  # the folder that holds the model, "" for the tree's own
    exclude: tuple[str, ...] = ()  # patterns of .gitignore: what is not read as part of the tree
    seams: Mapping[str, str] = field(default_factory=dict)  # "module:qualified.name"
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by seam: our option, and what it is called
    text: str = field(default="", repr=False)
    leads_out: bool = False  # whether the file does, and was not read

    @property
    def says(self) -> bool:
        """Whether anything is settled."""
        return any((self.package is not None, self.exclude, self.seams, self.options))

    def wrong(self, key: str, problem: str) -> WronglySettled:
        """An error that names the line of a key."""
        return _wrong(self.text, [(key, problem)])

    def models(self, found: Sequence[str], files: Sequence[str], read: Callable[[str], bytes]) -> list[str]:
        """Those of the files that may define the model which can be meant; raises WronglySettled where none can."""
        named = self.seam("model", files, read)
        every = [named] if named else found
        inside = [path for path in every if not self.package or path.startswith(f"{self.package}/")]
        if self.package is not None and not inside and (named or found):
            there = ", ".join(sorted({path.rpartition("/")[0] or "." for path in every}))
            raise self.wrong("package", f"no model is in {self.package or 'the folder itself'}; one is in: {there}")
        return inside

    def seam(self, name: str, files: Sequence[str], read: Callable[[str], bytes]) -> str | None:
        """The file in which a seam is, None where it is not settled; raises WronglySettled where it is not there."""
        if name not in self.seams:
            return None
        module, _, inner = self.seams[name].partition(":")
        path = file_of(files, module)
        if path is None:
            tried = ", ".join(_files_of(module))
            raise self.wrong(f"seams.{name}", f"the tree has no module {module}: looked for {tried}")
        if not _defines(read(path), inner.split("."), SEAMS[name]):
            kind = " or ".join("class" if each is ast.ClassDef else "function" for each in SEAMS[name])
            raise self.wrong(f"seams.{name}", f"{path} defines no {kind} {inner}")
        return path


def file_of(files: Sequence[str], module: str) -> str | None:
    """The file of a module, of some."""
    return next((each for each in _files_of(module) if each in files), None)


def _files_of(module: str) -> list[str]:
    there = module.replace(".", "/")
    return [f"{above}{there}{end}" for above in ("", "src/") for end in (".py", "/__init__.py")]


def read_settings(root: Path) -> Settings:
    """What the pyproject.toml in a tree's folder settles; nothing where there is none, or where it leads out.

    Raises WronglySettled, and Unreadable where it is no file that can be read.
    """
    try:
        with places(root, [FILE]) as held:
            raw = held[FILE].read()
    except BitpatchError:
        return Settings(leads_out=True)
    except OSError as error:
        raise Unreadable(f"{root / FILE}: cannot be read ({error.strerror}); check what it is") from None
    if raw is None or b"bitpatch" not in raw:
        return Settings()
    table, text = _table(raw)
    problems = list(_problems(table))
    if problems:
        raise _wrong(text, problems)
    package = table.get("package")
    return Settings(
        None if package is None else posixpath.normpath(package).removeprefix("."),
        tuple(table.get("exclude", ())),
        table.get("seams", {}),
        table.get("options", {}),
        text,
    )


def _table(raw: bytes) -> tuple[dict[str, Any], str]:
    """The table [tool.bitpatch], and the text that it is read from."""
    import tomllib  # noqa: PLC0415 - only trees that settle something pay for it

    if len(raw) > _LARGEST or any(part.count(b".") > _MOST_PARTS for part in re.split(rb"[=,{\n]", raw)):
        raise WronglySettled(f"{FILE}: is larger than 1 MiB, or has a key of more than {_MOST_PARTS} parts; shorten it")
    try:
        text = raw.decode()
        found: Any = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise WronglySettled(f"{FILE}:{line}: expected UTF-8, found {error.reason}; mend the file") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        place = re.search(r" \(at line (\d+), column (\d+)\)", str(error))
        where = f"{FILE}:{place[1]}:{place[2]}" if place else f"{FILE}:{len(raw.splitlines())}"
        reason = re.sub(r" \(at .*\)$", "", str(error)) if str(error) else type(error).__name__
        raise WronglySettled(f"{where}: is no TOML: {reason}; mend the file, then run the command again") from None
    for key in TABLE:
        found = found.get(key, {}) if isinstance(found, dict) else found
    if not isinstance(found, dict):
        raise _wrong(text, [("", f"expected a table [tool.bitpatch], found {_kind(found)}")])
    return found, text


def _problems(table: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each key that is wrong, and what is wrong with it."""
    for key in table.keys() - set(KEYS):
        yield key, f"there is no such setting; there are {', '.join(KEYS)}"
    package, exclude, seams = table.get("package", "."), table.get("exclude", []), table.get("seams", {})
    if not isinstance(package, str) or (package != "." and re.search(r"(^|/)\.(\.|[^./]|$)|^/|\\", package)):
        yield "package", 'expected a folder in the tree, as in "src/bit_transformer"' + _found(package)
    if not isinstance(exclude, list):
        yield "exclude", f'expected a list, as in ["old/", "*_draft.py"], found {_kind(exclude)}'
    for each in exclude if isinstance(exclude, list) else ():
        if not isinstance(each, str) or re.search(r"(^|/)\.\.(/|$)", each) or not _is_pattern(each):
            yield "exclude", "expected paths or globs in the tree, as in .gitignore" + _found(each)
    if not isinstance(seams, dict):
        yield "seams", f"expected a table [tool.bitpatch.seams], found {_kind(seams)}"
    yield from _wrong_options(table.get("options", {}))
    for name, value in seams.items() if isinstance(seams, dict) else ():
        if name not in SEAMS:
            yield f"seams.{name}", f"there is no such seam; there are {', '.join(SEAMS)}"
        elif not isinstance(value, str) or not _SEAM.fullmatch(value):
            yield f"seams.{name}", 'expected "module:qualified.name"' + _found(value)


def _wrong_options(options: object) -> Iterator[tuple[str, str]]:
    """What is wrong with what options are said to be called."""
    if not isinstance(options, dict):
        yield "options", f"expected tables as in [tool.bitpatch.options.update], found {_kind(options)}"
    for seam, names in options.items() if isinstance(options, dict) else ():
        if seam not in SPELLINGS or not isinstance(names, dict):
            yield f"options.{seam}", f"expected one table a seam, of: {', '.join(SPELLINGS)}"
            continue
        for ours, theirs in names.items():
            if ours not in SPELLINGS[seam]:
                yield f"options.{seam}.{ours}", f"there is no such option; there are {', '.join(SPELLINGS[seam])}"
            elif not isinstance(theirs, str):
                yield f"options.{seam}.{ours}", f"expected what the tree calls it{_found(theirs)}"


def _is_pattern(text: str) -> bool:
    try:
        return any(pattern.include is not None for pattern in GitIgnoreSpec.from_lines([text]).patterns)
    except ValueError:
        return False


def _found(value: object) -> str:
    return f", found {value!r}" if isinstance(value, str) else f", found {_kind(value)}"


def _kind(value: object) -> str:
    kinds = {dict: "a table", list: "a list", str: "a text", bool: "true or false"}
    return kinds.get(type(value), f"a value of type {type(value).__name__}")


def _wrong(text: str, problems: Sequence[tuple[str, str]]) -> WronglySettled:
    placed = sorted((_line(text, key), key, problem) for key, problem in problems)
    lines = [f"{FILE}:{line}: {'.'.join(filter(None, (*TABLE, key)))}: {problem}" for line, key, problem in placed]
    return WronglySettled("\n".join(lines), then=f"mend {FILE}, then run the command again")


def _line(text: str, key: str) -> int:
    """The first line that says most of a key."""
    wanted, table, best = [*TABLE, *filter(None, key.split("."))], list[str](), (0, 1)
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.match(line)
        if match is None:
            continue
        parts = [part.strip("\"'") for part in re.findall(_KEY, match[1] or match[2])]
        table, parts = (parts, parts) if match[1] else (table, table + parts)
        shared = next((i for i, (a, b) in enumerate(zip(parts, wanted, strict=False)) if a != b), None)
        count = min(len(parts), len(wanted)) if shared is None else shared
        best = (count, number) if count > best[0] else best
    return best[1]


def _defines(raw: bytes, names: Sequence[str], kinds: tuple[type[ast.stmt], ...]) -> bool:
    """Whether a file defines a name, in classes and functions perhaps; one that does not parse is said to elsewhere."""
    try:
        pending: list[ast.AST] = list(parsed(raw).body)
    except (SyntaxError, ValueError):
        return True
    kinds = (*kinds, ast.AsyncFunctionDef) if ast.FunctionDef in kinds else kinds
    for name in names[:-1]:
        own = [each for each in _definitions(pending) if each.name == name]
        pending = [inner for each in own for inner in each.body]
    return any(each.name == names[-1] and isinstance(each, kinds) for each in _definitions(pending))


def _definitions(body: Sequence[ast.AST]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """What is defined in a body, under conditions too."""
    pending = list(body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node
        elif isinstance(node, (ast.stmt, ast.ExceptHandler)):
            pending += ast.iter_child_nodes(node)
