"""The process: signals at any moment, streams that are closed, full or not read, platforms without POSIX locks."""

import json
import os
import signal
import subprocess
import sys

import jsonschema
import pytest
from samples import BASELINE, REFERENCE, ROOT

import bitpatch

BITPATCH = [sys.executable, "-m", "bitpatch"]
ERROR = json.loads((ROOT / "patches/schemas/error.json").read_text())
INTERRUPTED = "error: interrupted; nothing is half done\n"
AT_AN_IMPORT = """
import os, sys
moment, number = int(sys.argv.pop(1)), int(sys.argv.pop(1))
from bitpatch.__main__ import main

seen = []
def note(event, args):
    if event == "import":
        seen.append(args[0])
        if len(seen) == moment:
            os.kill(os.getpid(), number)
sys.addaudithook(note)
try:
    main()
finally:
    if not moment:
        print(len(seen), file=sys.stderr)
"""


def at_an_import(moment, number, *words):
    command = [sys.executable, "-c", AT_AN_IMPORT, str(moment), str(int(number)), *words]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "every"),
    [(["list", "--json"], 13), (["-h"], 23), (["status", "11", "--tree", str(BASELINE)], 31)],
    ids=["list", "help", "status"],
)
def test_an_interrupt_at_any_import_is_one_line(words, every):
    imports = int(at_an_import(0, 0, *words).stderr.splitlines()[-1])
    assert imports > 50
    for moment in range(1, imports + 1, every):
        result = at_an_import(moment, signal.SIGINT, *words)
        assert (result.returncode, result.stderr) == (130, INTERRUPTED), moment
        if "--json" in words:
            jsonschema.validate(json.loads(result.stdout), ERROR)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_it_alike(number):
    for moment in (30, 90):
        result = at_an_import(moment, number, "list", "--json")
        assert (result.returncode, result.stderr) == (128 + number, INTERRUPTED)
        error = json.loads(result.stdout)
        jsonschema.validate(error, ERROR)
        assert error["error"]["code"] == 128 + number


def test_a_signal_that_the_caller_switched_off_stays_off():
    ignore = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = [sys.executable, "-c", ignore, "-c", AT_AN_IMPORT, "40", str(int(signal.SIGHUP)), "list"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, len(result.stdout.splitlines())) == (0, 12), result.stderr


WHILE_WRITING = """
import os, signal, sys
from bitpatch.__main__ import main
from bitpatch.patches.applying import transaction
real = os.fsync
def fsync(*args):
    os.kill(os.getpid(), signal.SIGINT)
    return real(*args)
transaction.os.fsync = fsync
main()
"""


def test_an_interrupt_while_files_are_written_leaves_nothing_half_done(tree):
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    command = [sys.executable, "-c", WHILE_WRITING, "apply", "10", "--json", "--tree", str(tree)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (130, INTERRUPTED)
    assert json.loads(result.stdout)["error"]["code"] == 130
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before


COMMANDS = {
    "help": ["--help"],
    "help of a command": ["apply", "-h"],
    "version": ["--version"],
    "list": ["list"],
    "list as JSON": ["list", "--json"],
    "explain": ["explain", "11"],
    "status": ["status", "--tree", "TREE"],
    "status as JSON": ["status", "--tree", "TREE", "--json"],
    "diff": ["diff", "10", "--tree", "TREE"],
    "diff for git": ["diff", "--all", "--tree", "TREE", "--format", "patch"],
    "dry run": ["apply", "10", "--dry-run", "--tree", "TREE"],
    "plan": ["train", "--plan", "--tree", "TREE"],
}


def in_shell(ending, words, tree):
    """A command in a shell, with what comes behind it: exit code, standard output, standard error."""
    words = [str(tree) if word == "TREE" else word for word in words]
    script = f'"$0" "$@" {ending}'
    result = subprocess.run(["bash", "-c", script, *BITPATCH, *words], capture_output=True, text=True)
    return result.returncode, result.stdout, result.stderr


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    ("ending", "reason"), [(">&-", "closed"), (">/dev/full", "No space left on device")], ids=["closed", "full"]
)
def test_output_that_cannot_be_written_is_told(tree, words, ending, reason):
    code, _, err = in_shell(ending, words, tree)
    told = f"error: standard output: {reason}; only what was to be printed is lost"
    assert (code, [line for line in err.splitlines() if not line.startswith("next: ")]) == (6, [told])


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_pipe_that_is_not_read_is_no_error(tree, words):
    reader, writer = os.pipe()
    os.close(reader)
    words = [str(tree) if word == "TREE" else word for word in words]
    result = subprocess.run([*BITPATCH, *words], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (result.returncode, [line for line in result.stderr.splitlines() if not line.startswith("next: ")]) == (
        0,
        [],
    )


@pytest.mark.parametrize("words", [["apply", "10", "--tree", "TREE"], ["new", "TREE/new"]], ids=["apply", "new"])
def test_where_output_is_closed_nothing_is_begun(tree, words):
    before = sorted(tree.rglob("*"))
    words = [word.replace("TREE", str(tree)) for word in words]
    assert in_shell(">&-", words, tree)[0] == 6
    assert sorted(tree.rglob("*")) == before
    assert "get_tri_mask" not in (tree / "bit_transformer/model.py").read_text()
    assert in_shell(">&-", [*words, "--quiet"], tree) == (0, "", "")


@pytest.mark.parametrize("ending", ["2>&-", "2>/dev/full", "2>&- >&-", "<&- 2>&-"])
def test_messages_that_cannot_be_written_change_nothing(tree, ending):
    assert in_shell(ending, ["apply", "task-99"], tree)[0] == (2 if ">&- >&-" not in ending else 6)
    if ">&- >&-" not in ending:
        code, out, _ = in_shell(ending, ["list", "--json"], tree)
        assert (code, len(json.loads(out)["tasks"])) == (0, 12)


def test_what_is_opened_does_not_stand_in_for_a_closed_stream():
    """The judges' process is given streams of its own, where one of the parent's sockets would be in their place."""
    assert in_shell("<&- >&- 2>&-", ["verify", "8", "--quiet", "--tree", "TREE"], REFERENCE) == (0, "", "")


WITHOUT_FCNTL = "import sys; sys.modules['fcntl'] = None; from bitpatch.__main__ import main; main()"


@pytest.mark.parametrize("words", [["list"], ["status"], ["--help"], ["apply", "--all"], ["verify"], ["nonsense"]])
def test_a_platform_without_posix_locks_is_refused_in_one_line(words):
    command = [sys.executable, "-c", WITHOUT_FCNTL, *words]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (6, "")
    assert result.stderr == "error: bitpatch runs on Linux and macOS: its locks need POSIX\n"
    result = subprocess.run([*command, "--json"], capture_output=True, text=True)
    jsonschema.validate(json.loads(result.stdout), ERROR)
    assert (result.returncode, json.loads(result.stdout)["error"]["code"]) == (6, 6)


@pytest.mark.parametrize("words", [["bitpatch", "list"], ["bitpatch.verify.sanity_fit", "-h"]], ids=["command", "fit"])
def test_no_module_of_the_folder_one_stands_in_is_run(tmp_path, words):
    for name in ("typer.py", "argparse.py", "itertools.py", "collections/__init__.py", "typing.py", "pathlib.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('the code of a tree was run')\n")
    done = subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("was run")) == (0, 0), done.stderr


def test_it_says_its_version():
    assert subprocess.run([*BITPATCH, "--version"], capture_output=True, text=True).stdout == (
        f"bitpatch {bitpatch.__version__}\n"
    )


def test_alone_it_shows_what_there_is():
    result = subprocess.run(BITPATCH, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Commands:" in result.stderr
