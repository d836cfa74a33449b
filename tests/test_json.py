"""--json: every command's result and every end without one is of its published shape, and alone on standard output."""

import json
import os
import subprocess
import sys

import jsonschema
import pytest
from samples import BASELINE, REFERENCE, ROOT, line_of

from bitpatch.patches.task import BitpatchError, Unreadable

PUBLISHED = {file.stem: file for folder in ("patches", "verify") for file in (ROOT / folder / "schemas").glob("*.json")}
BITPATCH = [sys.executable, "-m", "bitpatch"]
MODEL = "bit_transformer/model.py"
MASK = f"{MODEL}:{line_of(MODEL, 'torch.ones(T, T')}"


def shown(out, schema):
    """What was printed: one document, of a published shape."""
    document = json.loads(out)
    jsonschema.validate(document, json.loads(PUBLISHED[schema].read_text()))
    return document


def outcomes(document):
    return {task["id"]: task["outcome"] for task in document["tasks"]}


@pytest.mark.parametrize("schema", PUBLISHED)
def test_a_schema_is_a_schema(schema):
    jsonschema.Draft202012Validator.check_schema(json.loads(PUBLISHED[schema].read_text()))


@pytest.mark.parametrize(
    "words",
    [
        ("list",),
        ("list", "--quiet"),
        ("explain", "11"),
        ("explain", "11", "--tree", "TREE"),
        ("new", "NEW"),
        ("status", "--tree", "TREE"),
        ("status", "10", "--tree", "TREE", "--at", MASK),
        ("seams", "--tree", "TREE"),
        ("diff", "10", "--tree", "TREE", "--at", f"{MASK}:22"),
        ("apply", "10", "--tree", "TREE", "--at", MASK),
        ("diff", "--all", "--tree", "TREE"),
        ("apply", "--all", "--tree", "TREE"),
        ("apply", "4", "--tree", "TREE", "--dry-run"),
        ("revert", "--all", "--tree", "TREE"),
        ("verify", "task-4", "--tree", "TREE"),
    ],
    ids=" ".join,
)
def test_a_result_is_of_its_published_shape_and_nothing_else_is_said(run, tree, tmp_path, words):
    places = {"TREE": tree, "NEW": tmp_path / "new"}
    code, out, err = run(*(places.get(word, word) for word in words), "--json")
    shown(out, words[0])
    assert (code, err) == (4 if words[0] == "verify" else 0, "")


def test_a_run_says_what_it_starts(run, monkeypatch):
    monkeypatch.setattr("os.execve", lambda *_: None)
    found = shown(run("train", "task-a", "--tree", REFERENCE, "--json", "--lr", "1")[1], "train")
    assert (found["preset"], found["command"][-3:]) == ("task-a", ["task-a", "--lr", "1"])


@pytest.mark.parametrize("words", [("diff",), ("apply", "--dry-run"), ("apply", "--check")], ids=" ".join)
def test_what_is_not_written_is_not_called_applied(run, tree, words):
    run("apply", "10", "--tree", tree)
    found = shown(run(*words, "4", "10", "--tree", tree, "--json")[1], words[0])
    assert (found["written"], outcomes(found)) == (False, {"task-4": "would-apply", "task-10": "already-applied"})
    assert found["changed"]


@pytest.mark.parametrize("option", ["--dry-run", "--check"])
def test_what_is_not_written_is_not_called_reverted(run, tree, option):
    run("apply", "10", "--tree", tree)
    found = shown(run("revert", "4", "10", "--tree", tree, "--json", option)[1], "revert")
    assert (found["written"], outcomes(found)) == (False, {"task-4": "not-applied", "task-10": "would-revert"})


def test_what_is_written_is_called_so(run, tree):
    assert outcomes(shown(run("apply", "10", "--tree", tree, "--json")[1], "apply")) == {"task-10": "applied"}
    assert outcomes(shown(run("revert", "10", "--tree", tree, "--json")[1], "revert")) == {"task-10": "reverted"}


@pytest.mark.parametrize("command", ["diff", "apply"])
def test_where_one_task_is_refused_no_other_is_called_applied(run, tree, command):
    path = tree / "bit_transformer/training.py"
    path.write_text(path.read_text().replace("            loss.backward()\n", ""))
    code, out, err = run(command, "4", "10", "--tree", tree, "--json")
    found = shown(out, command)
    assert (code, found["written"], found["changed"]) == (3, False, [])
    assert outcomes(found) == {"task-4": "refused", "task-10": "would-apply"}
    assert err.startswith("error: refused, and nothing was written\n")


def test_where_one_task_is_refused_no_other_is_called_reverted(run, tree):
    run("apply", "4", "10", "--tree", tree)
    path = tree / "bit_transformer/model.py"
    path.write_text(path.read_text().replace("get_tri_mask(T, ", "get_tri_mask(T + 0, "))
    code, out, _ = run("revert", "4", "10", "--tree", tree, "--json")
    found = outcomes(shown(out, "revert"))
    assert (code, found["task-10"]) == (3, "refused")
    assert "reverted" not in found.values()


@pytest.mark.parametrize(
    ("words", "code", "then"),
    [
        pytest.param(("apply", "--json"), 2, "bitpatch list", id="no task"),
        pytest.param(("apply", "task-99", "--json"), 2, "bitpatch list", id="unknown task"),
        pytest.param(("explain", "task-99", "--json"), 2, "bitpatch list", id="unknown task to explain"),
        pytest.param(("apply", "--json", "--nonsense"), 2, "bitpatch apply -h", id="unknown option"),
        pytest.param(("--json", "apply", "11"), 2, "bitpatch -h", id="an option before its command"),
        pytest.param(("verify", "--json", "--output"), 2, "-h", id="an option without its value"),
        pytest.param(("status", "--tree", "--json"), 2, "bitpatch status -h", id="an option for a value"),
        pytest.param(("verify", "8", "--output", "--json"), 2, "bitpatch verify -h", id="an option for a file"),
        pytest.param(("nonsense", "--json"), 2, "bitpatch -h", id="unknown command"),
        pytest.param(("apply", "11", "-j", "2", "--format", "json"), 2, "bitpatch apply -h", id="-j elsewhere"),
        pytest.param(("diff", "11", "--format=json", "--nonsense"), 2, "bitpatch diff -h", id="another spelling"),
        pytest.param(("train", "--json"), 2, "bitpatch train --plan", id="no run"),
        pytest.param(("train", "task-z", "--json"), 2, "bitpatch train -h", id="unknown run"),
        pytest.param(("train", "task-a", "--json", "--tree", BASELINE), 3, "bitpatch apply --all", id="a bare tree"),
        pytest.param(("status", "--json", "--tree", "EMPTY"), 3, "bitpatch new", id="no tree"),
        pytest.param(("diff", "--at", "--json"), 2, "bitpatch diff -h", id="an option for a place"),
        pytest.param(("apply", "10", "--json", "--tree", BASELINE, "--at", "a"), 2, "as a refusal does", id="no place"),
        pytest.param(("apply", "10", "9", "--json", "--tree", BASELINE, "--at", "a:1"), 2, "list", id="a place of two"),
        pytest.param(
            ("status", "10", "--json", "--tree", BASELINE, "--at", "a:1"), 2, "bitpatch status task-10", id="no file"
        ),
        pytest.param(("new", BASELINE, "--json"), 3, "choose another name", id="a folder that is there"),
        pytest.param(("revert", "11", "--json", "--tree", "EMPTY/no"), 6, "--tree DIR", id="no folder"),
        pytest.param(("validate", "task-a", "--json", "--run", "EMPTY"), 6, "run the command again", id="no run there"),
    ],
)
def test_an_end_without_a_result_is_told_to_programs_too(run, tmp_path, words, code, then):
    found, out, err = run(*(str(word).replace("EMPTY", str(tmp_path)) for word in words))
    error = shown(out, "error")["error"]
    assert (found, error["code"]) == (code, code)
    assert then in error["next"]
    assert err == f"error: {error['message']}\n"


@pytest.mark.parametrize("task", ["11", "7"])
def test_an_explanation_has_what_apply_would_write(run, tree, task):
    found, planned = (shown(run(name, task, "--tree", tree, "--json")[1], name) for name in ("explain", "diff"))
    assert found["diff"] == planned["diff"] != ""
    run("apply", task, "--tree", tree)
    assert shown(run("explain", task, "--tree", tree, "--json")[1], "explain")["diff"] == ""


def test_what_a_tree_lacks_is_of_the_published_shape_too(run, tree):
    path = tree / "bit_transformer/model.py"
    path.write_text(path.read_text().replace("triu(", "no("))
    found = shown(run("explain", "10", "--tree", tree, "--json")[1], "explain")
    assert [each["condition"] for each in found["conditions"]] == ["absent"]


def test_without_torch_a_verify_is_unproven_and_says_what_to_install(run, tree, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, out, err = run("verify", "task-11", "--tree", tree, "--json")
    error = shown(out, "error")["error"]
    assert (code, error["code"], error["next"]) == (5, 5, "pip install 'bitpatch[verify]'")
    assert err


@pytest.mark.parametrize(
    ("raised", "code", "then"),
    [
        pytest.param(KeyboardInterrupt(), 130, "run the command again", id="Ctrl-C"),
        pytest.param(ZeroDivisionError("x"), 3, "report it, with what --debug shows", id="our own failure"),
        pytest.param(OSError(28, "No space left on device", "x.py"), 6, "run the command again", id="a full disk"),
        pytest.param(BrokenPipeError(32, "Broken pipe"), 6, "run the command again", id="a pipe that is not ours"),
        pytest.param(Unreadable("x.py: is read-only; make it writable"), 6, "make it writable", id="unreadable"),
        pytest.param(BitpatchError("x.py:1: no"), 3, "run the command again", id="no word of what to do"),
    ],
)
def test_a_failure_is_told_to_programs_too(run, tree, monkeypatch, raised, code, then):
    def fails(*_):
        raise raised

    monkeypatch.setattr("bitpatch.patches.applying.survey.survey", fails)
    found, out, err = run("status", "--tree", tree, "--json")
    error = shown(out, "error")["error"]
    assert (found, error["code"]) == (code, code)
    assert then in error["next"]
    assert err == f"error: {error['message']}\n"


@pytest.mark.parametrize(
    ("message", "then"),
    [
        ("a.py: is read-only; nothing was changed. Make it writable (chmod u+w), then try again", "Make it writable"),
        ("a.py: changed; nothing was written. Run the command again", "Run the command again"),
        ("a.py: changed by hand. To keep yours, do x; to take ours, do y; then try again", "then try again"),
        ("a.py: No space left on device; nothing was changed", ""),
        ("a.py:1: nothing of that kind", ""),
    ],
)
def test_what_to_do_is_the_last_thing_that_a_message_says(message, then):
    error = BitpatchError(message)
    assert str(error) == message
    assert error.then.startswith(then)
    assert bool(error.then) is bool(then)
    assert BitpatchError(message, then="bitpatch list").then == "bitpatch list"


def test_debug_shows_the_traceback_and_changes_nothing_else(run, tmp_path):
    plain = run("status", "--tree", tmp_path, "--json")
    code, out, err = run("status", "--tree", tmp_path, "--json", "--debug")
    assert (code, out) == plain[:2]
    assert err.startswith("Traceback")
    assert err.endswith(plain[2])


def test_a_verdict_that_cannot_be_kept_in_its_file_is_told(run):
    code, out, err = run("verify", "task-8", "--tree", REFERENCE, "--json", "--output", "/dev/full")
    assert (code, shown(out, "error")["error"]["code"]) == (6, 6)
    assert err == "error: /dev/full: No space left on device\n"


def test_names_that_are_not_unicode_are_printed(tree):
    name = os.fsencode(tree) + b"/bit_transformer/caf\xe9.py"
    with open(name, "w") as file:
        file.write("def train_loop(model):\n    pass\n")
    for words in (["status", "--json"], ["status"]):
        result = subprocess.run(
            [*BITPATCH, *words, "--tree", tree], capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}
        )
        assert (result.returncode, result.stderr) == (3, result.stderr), result.stderr
        assert b"itself failed" not in result.stderr
