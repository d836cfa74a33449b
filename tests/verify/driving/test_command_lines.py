"""A command line is asked what it takes: argparse's and click's, with commands and without, however they are built."""

import argparse
import dataclasses
import sys
from collections.abc import Callable

import click
import pytest
import typer

from bitpatch.verify.driving.command_lines import Taken, taken


@dataclasses.dataclass
class Config:
    epochs: int = 1
    n_heads: int = 4


def from_fields() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    for field in dataclasses.fields(Config):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.parse_args()
    raise AssertionError("it was asked, and goes no further")


def with_commands() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    commands.add_parser("eval").add_argument("--epochs")
    fit = commands.add_parser("fit")
    fit.add_argument("text")
    fit.add_argument("-e", "--epochs", type=int)
    fit.add_argument("--rle-prob", type=float)
    parser.parse_args(sys.argv[1:])


@click.group()
def group() -> None: ...


@group.command()
@click.argument("model")
def ask(model: str) -> None: ...


@group.command()
@click.argument("text")
@click.option("--depth", default=2)
@click.option("--compile/--no-compile", "compile_model", default=False)
def train(text: str, depth: int, compile_model: bool) -> None: ...


app = typer.Typer()


@app.command()
def learn(corpus: str, epochs: int = 1, lr: float = 1e-3) -> None: ...


@pytest.mark.parametrize(
    ("start", "known", "wanted"),
    [
        pytest.param(
            from_fields,
            {},
            Taken(
                (),
                {"data": "--data", "epochs": "--epochs", "nhead": "--n_heads", "amp": "--bf16"},
                frozenset({"--bf16"}),
            ),
            id="options of a record's fields",
        ),
        pytest.param(
            with_commands,
            {"compress_prob": "rle_prob"},
            Taken(("fit",), {"data": "text", "epochs": "--epochs", "compress_prob": "--rle-prob"}, frozenset()),
            id="the command with most of them",
        ),
        pytest.param(
            group,
            {},
            Taken(
                ("train",),
                {"data": "text", "num_layers": "--depth", "compile": "--compile"},
                frozenset({"--compile"}),
            ),
            id="a group of click",
        ),
        pytest.param(
            app, {}, Taken((), {"data": "corpus", "epochs": "--epochs", "lr": "--lr"}, frozenset()), id="typer"
        ),
    ],
)
def test_a_command_line_says_what_it_takes(start: Callable[[], object], known: dict[str, str], wanted: Taken) -> None:
    found = taken(start, known)
    assert found is not None
    assert found.words == wanted.words
    assert wanted.options.items() <= found.options.items()
    assert wanted.switches <= found.switches
    assert "compile" not in found.options or found.options["compile"] == "--compile"


def test_what_asks_no_parser_takes_nothing_that_is_known() -> None:
    assert taken(lambda: None, {}) is None
    assert taken(lambda: sys.exit(2), {}) is None


def test_parsers_parse_again_afterwards() -> None:
    taken(from_fields, {})
    assert argparse.ArgumentParser().parse_args([]) == argparse.Namespace()
