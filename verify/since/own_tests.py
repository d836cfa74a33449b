"""Whether a tree's own tests shrank: fewer that run, some that are skipped now, or that no longer assert anything.

A test that moved, or has another name, is not gone: it is known by its name, by its body, and else any new one that
asserts something stands for one that is gone. No test runs, and what a hook of conftest.py does is not seen.
"""

from __future__ import annotations

import ast
import configparser
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from ...patches.files.nesting import parsed
from .found import OwnTests

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SKIPS = {"skip", "skipif", "xfail", "skipIf", "skipUnless", "importorskip", "skipTest", "expectedFailure", "SkipTest"}
SOMETIMES = {"skipif", "skipIf", "skipUnless", "importorskip"}  # which a condition makes
CHECKS = {"raises", "warns", "deprecated_call", "fail"}  # beside what begins with "assert"
CONFIGURATIONS = ("pyproject.toml", "pytest.ini", ".pytest.ini", "setup.cfg", "tox.ini")
LEAVING_OUT = ("--ignore", "--ignore-glob", "--deselect", "-k", "-m", "--collect-only", "--co")


@dataclass(frozen=True, slots=True)
class Test:
    """A test: what is said of it in its file, and what it does."""

    path: str
    name: str  # "TestClass.test_it"
    line: int
    body: str
    skips: frozenset[str]  # how it is left out, or may be
    asserts: bool


def is_test_file(path: str) -> bool:
    """Whether pytest looks for tests in a file."""
    name = path.rpartition("/")[2]
    return fnmatch(name, "test_*.py") or fnmatch(name, "*_test.py")


def compared(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> OwnTests:
    """What the tests of some files are now, and have been: of all Python files and those that configure pytest."""
    old, new = _tests(before), _tests(now)
    before_count, now_count = (sum(not test.skips for test in tests) for tests in (old, new))
    pairs, gone, added = _paired(old, new)
    runs = [test for test in gone if not test.skips]
    fresh = [test for test in added if not test.skips]
    detail = []
    if len(runs) > len(fresh) or sum(test.asserts for test in runs) > sum(test.asserts for test in fresh):
        detail += [f"{test.path}:{test.line}: {test.name} is gone (the line is that of before)" for test in runs]
    for was, test in pairs:
        if more := sorted(test.skips - was.skips):
            detail.append(f"{test.path}:{test.line}: {test.name} is skipped now ({', '.join(more)})")
        elif was.asserts and not test.asserts:
            detail.append(f"{test.path}:{test.line}: {test.name} asserts nothing any more")
    left_out = {(path, word) for path, word, _ in _left_out(before)}
    for path, word, line in _left_out(now):
        if (path, word) not in left_out:
            detail.append(f"{path}:{line}: {word} leaves out tests")
    return OwnTests(before_count, now_count, tuple(dict.fromkeys(detail)))


def _paired(old: list[Test], new: list[Test]) -> tuple[list[tuple[Test, Test]], list[Test], list[Test]]:
    """The tests that are there still, by file and name, by name, by body; those that are gone; those that are new."""
    pairs, keys = (
        [],
        (lambda t: (t.path, t.name), lambda t: t.name, lambda t: t.name.rpartition(".")[2], lambda t: t.body),
    )
    for key in keys:
        free: dict[Any, list[Test]] = {}
        for test in new:
            free.setdefault(key(test), []).append(test)
        for test in list(old):
            if same := free.get(key(test)):
                pairs.append((test, same.pop(0)))
                old.remove(test)
                new.remove(pairs[-1][1])
    return pairs, old, new


def _tests(files: Mapping[str, bytes]) -> list[Test]:
    modules = {path: module for path, raw in files.items() if (module := _module(path, raw)) is not None}
    checking = {
        node.name
        for path, module in modules.items()
        if "test" in path
        for node in ast.walk(module)
        if isinstance(node, FUNCTIONS) and not node.name.startswith("test") and _asserts(node.body, set())
    }
    return [test for path in modules if is_test_file(path) for test in _of(path, modules[path], checking)]


def _module(path: str, raw: bytes) -> ast.Module | None:
    try:
        return parsed(raw) if path.endswith(".py") else None
    except (SyntaxError, ValueError):
        return None


def _of(path: str, module: ast.Module, checking: set[str]) -> Iterator[Test]:
    """The tests of a module; of two of one name, only the last one runs."""
    marks = {
        target.id: node.value
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = dict[str, Test]()
    for names, node, skips in _definitions(module.body, (), frozenset(_skips_of_body(module.body, marks)), marks):
        own = {*skips, *_marked(node.decorator_list, marks), *_skips_of_body(node.body, marks)}
        name, body = ".".join([*names, node.name]), ast.dump(ast.Module(node.body, []))
        found[name] = Test(path, name, node.lineno, body, frozenset(own), _asserts(node.body, checking))
    yield from found.values()


def _definitions(
    body: Iterable[ast.AST], names: tuple[str, ...], skips: frozenset[str], marks: Mapping[str, ast.expr]
) -> Iterator[tuple[tuple[str, ...], ast.FunctionDef | ast.AsyncFunctionDef, frozenset[str]]]:
    """The test functions of a body, and of its test classes, under conditions too, with what skips all of it."""
    for node in body:
        if isinstance(node, FUNCTIONS):
            if node.name.startswith("test"):
                yield names, node, skips
        elif isinstance(node, ast.ClassDef):
            bases = {getattr(base, "attr", getattr(base, "id", "")) for base in node.bases}
            if node.name.startswith("Test") or any(base.endswith("TestCase") for base in bases):
                more = {*_marked(node.decorator_list, marks), *_skips_of_body(node.body, marks)}
                yield from _definitions(node.body, (*names, node.name), skips | more, marks)
        elif isinstance(node, (ast.stmt, ast.ExceptHandler)):
            yield from _definitions(ast.iter_child_nodes(node), names, skips, marks)


def _skips_of_body(body: list[ast.stmt], marks: Mapping[str, ast.expr]) -> Iterator[str]:
    """How the statements of a body itself leave it out: calls, pytestmark, __test__; an `if` may."""
    for node in body:
        match node:
            case ast.Assign(targets=[ast.Name(id="pytestmark")]) | ast.AnnAssign(target=ast.Name(id="pytestmark")):
                yield from _marked([node.value] if node.value is not None else [], marks)
            case ast.Assign(targets=[ast.Name(id="__test__")], value=ast.Constant(value=False)):
                yield "__test__"
            case (
                ast.Expr(value=ast.Call() as value)
                | ast.Assign(value=ast.Call() as value)
                | ast.Raise(exc=ast.expr() as value)
            ):
                name = _name(getattr(value, "func", value))
                if name in SKIPS and not _is_mark(value):
                    yield name
            case ast.If():
                yield from (f"{each} under a condition" for each in _skips_of_body(node.body, marks))


def _is_mark(value: ast.expr) -> bool:
    """Whether an expression makes a marker, which skips only what it decorates."""
    return any(getattr(each, "attr", "") == "mark" for each in ast.walk(value))


def _marked(markers: Iterable[ast.expr], marks: Mapping[str, ast.expr]) -> Iterator[str]:
    """How markers leave out what they stand at; a name stands for what the module assigns to it."""
    for marker in markers:
        if isinstance(marker, (ast.List, ast.Tuple)):
            yield from _marked(marker.elts, marks)
            continue
        if isinstance(marker, ast.Name) and marker.id in marks:
            yield from _marked([marks[marker.id]], {})
            continue
        name, args = _name(marker.func if isinstance(marker, ast.Call) else marker), getattr(marker, "args", [])
        is_certain = any(isinstance(each, ast.Constant) and each.value is True for each in args[:1])
        if name in SKIPS:
            yield "skip" if is_certain and name in SOMETIMES else name
        if name == "parametrize" and len(args) > 1 and isinstance(args[1], (ast.List, ast.Tuple)) and not args[1].elts:
            yield "parametrize without a case"


def _name(node: ast.AST) -> str:
    return str(getattr(node, "attr", getattr(node, "id", "")))


def _asserts(body: list[ast.stmt], checking: set[str]) -> bool:
    """Whether a body asserts something before it returns, by itself or through a function that does."""
    ends = next((place for place, node in enumerate(body) if isinstance(node, ast.Return)), len(body))
    for node in (inner for each in body[: ends + 1] for inner in ast.walk(each)):
        if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant):
            return True
        if isinstance(node, ast.Call):
            name = _name(node.func)
            if name.lower().startswith("assert") or name in CHECKS or name in checking:
                return True
    return False


def _left_out(files: Mapping[str, bytes]) -> Iterator[tuple[str, str, int]]:
    """What of the files leaves tests out: each entry of conftest.py's collect_ignore, each word of addopts."""
    for path, raw in files.items():
        name = path.rpartition("/")[2]
        if name == "conftest.py" and (module := _module(path, raw)) is not None:
            for node in ast.walk(module):
                targets = [*getattr(node, "targets", []), getattr(node, "target", None), getattr(node, "func", None)]
                if any("collect_ignore" in ast.dump(each) for each in targets if each is not None):
                    texts = (each for each in ast.walk(node) if isinstance(each, ast.Constant))
                    yield from ((path, f"collect_ignore of {each.value!r}", each.lineno) for each in texts)
        elif name in CONFIGURATIONS:
            text = raw.decode(errors="replace")
            for word in _options(name, text):
                lines = text.splitlines()
                first = word.partition("=")[0].split()[0]
                yield path, word, next((at for at, line in enumerate(lines, 1) if first in line), 1)


def _options(name: str, text: str) -> Iterator[str]:
    """The words of pytest's addopts that leave out tests, each with its value."""
    try:
        if name == "pyproject.toml":
            found = tomllib.loads(text).get("tool", {}).get("pytest", {})
            found = {**found, **found.get("ini_options", {})}
        else:
            parser = configparser.RawConfigParser(strict=False)
            parser.read_string(text)
            section = "tool:pytest" if name == "setup.cfg" else "pytest"
            found = dict(parser[section]) if section in parser else {}
        given = found.get("addopts", "")
        words = shlex.split(given, comments=True) if isinstance(given, str) else [str(each) for each in given]
    except (ValueError, configparser.Error, AttributeError, RecursionError):
        return
    for place, word in enumerate(words):
        option = word.partition("=")[0]
        if option in LEAVING_OUT:
            value = "" if "=" in word or place + 1 == len(words) else f" {words[place + 1]}"
            yield f"{word}{value}"
        elif word[:2] in ("-k", "-m") and not word.startswith("--"):
            yield word
