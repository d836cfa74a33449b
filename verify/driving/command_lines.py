"""What a tree's command line takes, as its own parser says before it parses. In child processes only."""

import argparse
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest import mock

from ...patches.files.spellings import spelled


class Flag(NamedTuple):
    """One thing that a command line takes: how it is written, or what it is called where it has a place instead."""

    text: str
    is_switch: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """What a command takes that we know: the words that lead to it, and how it spells our options."""

    words: tuple[str, ...]
    options: dict[str, str]  # ours -> theirs
    switches: frozenset[str]


class _Asked(BaseException):  # which nothing that is started takes for what it knows
    def __init__(self, parser: Any) -> None:
        super().__init__()
        self.parser = parser


def taken(start: Callable[[], object], known: Mapping[str, str]) -> Taken | None:
    """What is taken by the command that has most of our options; None where nothing that is started asks a parser.

    `known` is what the tree calls our options elsewhere.
    """
    try:
        with ExitStack() as stopped:
            for kind, method in _parsing():
                stopped.enter_context(mock.patch.object(kind, method, _ask))
            start()
    except SystemExit:
        pass
    except _Asked as asked:
        found = [(words, flags, _spelled(flags, known)) for words, flags in _commands(asked.parser)]
        words, flags, options = max(found, key=lambda each: len(each[2]))
        texts = {ours: flags[theirs].text for ours, theirs in options.items()}
        return Taken(words, texts, frozenset(each.text for each in flags.values() if each.is_switch))
    return None


def _ask(parser: Any, *_: Any, **__: Any) -> None:
    raise _Asked(parser)


def _parsing() -> Iterator[tuple[type, str]]:
    """The methods by which command lines are parsed: argparse's, click's, and typer's, which may have its own click."""
    yield argparse.ArgumentParser, "parse_known_args"
    found = dict[type, None]()
    for module, name in (
        ("click", "Command"),
        ("click", "Group"),
        ("typer.core", "TyperCommand"),
        ("typer.core", "TyperGroup"),
    ):
        with suppress(ImportError):
            found |= dict.fromkeys(getattr(importlib.import_module(module), name).__mro__)
    yield from ((kind, "main") for kind in found if "main" in vars(kind))


def _spelled(flags: Mapping[str, Flag], known: Mapping[str, str]) -> dict[str, str]:
    return spelled("command-line", flags, {ours: theirs for ours, theirs in known.items() if theirs in flags})


def _commands(parser: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Flag]]]:
    """Each command of a parser: the words that lead to it, and what it takes, by name."""
    if isinstance(parser, argparse.ArgumentParser):
        below: dict[str, Any] = {}
        for each in parser._actions:
            below |= each.choices if isinstance(each, argparse._SubParsersAction) else {}
        unasked = (
            argparse._SubParsersAction,
            argparse._HelpAction,
            argparse._VersionAction,
            argparse._StoreFalseAction,
        )
        taking = [each for each in parser._actions if not isinstance(each, unasked)]
        yield words, {each.dest: Flag(_written(each.option_strings) or each.dest, each.nargs == 0) for each in taking}
    else:
        below = getattr(parser, "commands", {})
        is_option = {each.name: each.param_type_name == "option" for each in parser.params}
        yield (
            words,
            {
                each.name: Flag(
                    _written(each.opts) if is_option[each.name] else each.name, getattr(each, "is_flag", False)
                )
                for each in parser.params
            },
        )
    for name, each in below.items():
        yield from _commands(each, (*words, name))


def _written(spellings: Iterable[str]) -> str:
    """The longest of an option's spellings that turns it on."""
    return max((each for each in spellings if not each.startswith("--no-")), key=len, default="")
