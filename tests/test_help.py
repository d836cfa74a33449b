"""What commands take: every option is described, in --help and in the README, and completed by a shell."""

import os
import re
import subprocess
import sys

import pytest
import typer
from samples import ROOT

from bitpatch.__main__ import TAKES_VALUE
from bitpatch.cli import app
from bitpatch.parameters import completed
from bitpatch.patches.known import all_tasks

COMMANDS = typer.main.get_command(app).commands
README = (ROOT / "README.md").read_text()
COMMON = {"--tree", "--format", "--json", "--quiet", "-q", "--debug"}
EVERYWHERE = {"--json", "--format", "--quiet", "-q", "--debug"}


def options(name):
    """The options of a command, as they are spelled; what switches one off is not counted."""
    return {spelled for each in COMMANDS[name].params for spelled in each.opts if spelled.startswith("-")}


def rows_of_the_readme():
    """Name and text of each row of the README's block of commands, and the row of what is common."""
    block = re.search(r"## Commands\n\n```text\n(.*?)```", README, re.DOTALL)[1]
    rows, common = block.split("common: ")
    return dict(re.findall(r"^bitpatch (\w+) (.*(?:\n +.*)*)", rows, re.MULTILINE)), common


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_the_common_options(name):
    assert options(name) >= EVERYWHERE


def test_checks_at_once_are_an_option_only_where_checks_are_run():
    assert {name for name in COMMANDS if "-j" in options(name)} == {"verify"}


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_describes_every_parameter(run, name, option):
    code, out, err = run(name, option)
    assert (code, err) == (0, "")
    assert [each.name for each in COMMANDS[name].params if not each.help] == []
    assert [spelled for spelled in options(name) | {"-h"} if spelled not in out] == []


def test_what_takes_a_value_is_known():
    taking = {
        spelled
        for command in COMMANDS.values()
        for each in command.params
        if each.param_type_name == "option" and not each.is_flag
        for spelled in each.opts
    }
    assert taking == TAKES_VALUE


def test_the_readme_has_a_row_for_every_command():
    assert set(rows_of_the_readme()[0]) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_names_the_options_that_a_command_has(name):
    rows, _ = rows_of_the_readme()
    assert set(re.findall(r"(?<!\w)--?\w[\w-]*", rows[name])) | COMMON == options(name) | COMMON


def test_the_readme_names_the_common_options():
    named = set(re.findall(r"(?<!\w)--?\w[\w-]*", rows_of_the_readme()[1]))
    assert named - {"-h", "--version", "-m"} == COMMON - {"-q"}


def completion(words, shell="bash"):
    """What a shell offers for the last of some words, and which of the heavy modules that imported."""
    code = "import atexit, sys; atexit.register(lambda: print([m for m in ('torch', 'libcst', 'numpy') if m in sys.modules], file=sys.stderr)); from bitpatch.__main__ import main; main()"
    asked = {
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "_TYPER_COMPLETE_ARGS": words,
        "_BITPATCH_COMPLETE": f"complete_{shell}",
    }
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | asked)
    assert (result.returncode, result.stderr) == (0, "[]\n")
    return result.stdout.splitlines()


@pytest.mark.parametrize("command", ["explain", "status", "diff", "apply", "revert", "verify"])
def test_a_shell_completes_names_of_tasks(command):
    assert completion(f"bitpatch {command} task-1") == ["task-1", "task-10", "task-11", "task-12"]


def test_a_shell_completes_what_else_there_is():
    assert completion("bitpatch apply 10 st") == ["stitched-attention"]
    assert completion("bitpatch train ") == ["task-a", "task-b", "task-c"]
    assert completion("bitpatch validate task-") == ["task-a", "task-b", "task-c"]
    assert completion("bitpatch re") == ["revert"]
    assert completion("bitpatch apply --al") == ["--all"]
    assert completion("bitpatch apply 10 --a") == ["--all", "--at"]
    assert '"task-11":"stitched-attention"' in completion("bitpatch apply task-11", "zsh")[0]


def test_the_names_that_are_completed_are_those_of_the_tasks():
    names = [(task.id, task.slug) for task in all_tasks()]
    assert completed("") == [*names, *((slug, name) for name, slug in names)]
