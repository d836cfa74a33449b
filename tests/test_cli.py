"""The command line: what it prints, where, and the exit code of each outcome."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from samples import BASELINE, CODE_ONLY, REFERENCE, contents

from bitpatch.patches.known import all_tasks
from bitpatch.verify.running.runner import Zygote


def test_list_names_every_task(run):
    code, out, _ = run("list", "--json")
    tasks = json.loads(out)["tasks"]
    assert code == 0
    assert [task["id"] for task in tasks] == [task.id for task in all_tasks()]
    assert {tuple(task) for task in tasks} == {("id", "slug", "title", "contract", "summary")}


def test_list_in_a_pipe_is_tab_separated(run):
    assert run("list")[1].splitlines()[0].split("\t")[:3] == ["task-1", "batch-size", "fixes"]


@pytest.mark.parametrize("name", ["task-11", "11", "stitched-attention"])
def test_explain_takes_every_name_of_a_task(run, name):
    code, out, _ = run("explain", name)
    assert code == 0
    assert "task-11 stitched-attention" in out
    assert "negative" in out


def test_new_makes_a_baseline(run, tmp_path):
    assert run("new", tmp_path / "tree")[0] == 0
    assert contents(tmp_path / "tree") == contents(BASELINE)


def test_new_over_something_is_refused(run, tree):
    before = contents(tree)
    code, _, err = run("new", tree)
    assert (code, contents(tree)) == (3, before)
    assert "choose another name" in err


def test_status_of_a_fresh_tree(run, tree):
    code, out, _ = run("status", "--tree", tree, "--json")
    tasks = json.loads(out)["tasks"]
    assert (code, {task["state"] for task in tasks}) == (0, {"missing"})
    assert {tuple(site) for task in tasks for site in task["sites"]} == {("path", "line", "column", "note")}


@pytest.mark.parametrize("command", [("status", "--check"), ("apply", "--all", "--check")])
def test_check_says_one_while_something_is_missing_and_writes_nothing(run, tree, patched, command):
    before = contents(tree)
    assert run(*command, "--tree", tree)[0] == 1
    assert contents(tree) == before
    patched(tree, *(task.id for task in all_tasks()))
    assert run(*command, "--tree", tree)[0] == 0


def test_diff_is_what_git_applies(run, tree, tmp_path):
    code, out, _ = run("diff", "--all", "--tree", tree, "--format", "patch")
    (tmp_path / "all.patch").write_text(out)
    subprocess.run(
        ["git", "apply", "--unsafe-paths", "--directory", str(tree), str(tmp_path / "all.patch")], check=True, cwd="/"
    )
    assert code == 0
    assert contents(tree) == contents(REFERENCE)


def test_diff_of_a_file_without_a_final_newline(run, tree, tmp_path):
    path = tree / "bit_transformer/training.py"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    (tmp_path / "all.patch").write_text(run("diff", "task-4", "--tree", tree, "--format", "patch")[1])
    subprocess.run(
        ["git", "apply", "--check", "--unsafe-paths", "--directory", str(tree), str(tmp_path / "all.patch")],
        check=True,
        cwd="/",
    )


def test_apply_then_again(run, tree):
    code, out, _ = run("apply", "task-11", "--tree", tree, "--json")
    first = json.loads(out)
    once = contents(tree)
    assert (code, first["written"], first["changed"]) == (0, True, ["bit_transformer/model.py"])
    assert [(task["id"], task["outcome"]) for task in first["tasks"]] == [("task-11", "applied")]
    code, out, _ = run("apply", "task-11", "--tree", tree, "--json")
    second = json.loads(out)
    assert (code, second["written"], second["changed"], contents(tree)) == (0, False, [], once)
    assert second["tasks"][0]["outcome"] == "already-applied"


def test_a_dry_run_writes_nothing(run, tree):
    before = contents(tree)
    code, out, _ = run("apply", "--all", "--dry-run", "--tree", tree)
    assert (code, contents(tree)) == (0, before)
    assert "would write bit_transformer/model.py" in out


def test_revert_gives_the_tree_back_and_leaves_nothing(run, tree, state):
    before = contents(tree)
    run("apply", "--all", "--tree", tree)
    assert list(state.rglob("*.json"))
    code, out, err = run("revert", "--all", "--tree", tree)
    assert (code, contents(tree), list(state.rglob("*.json"))) == (0, before, [])
    assert err == f"next: bitpatch status --tree {tree}\n"
    assert "task-11 stitched-attention: reverted" in out
    assert "wrote bit_transformer/model.py" in out


def test_revert_then_again(run, tree):
    run("apply", "10", "11", "--tree", tree)
    first = json.loads(run("revert", "task-10", "--tree", tree, "--json")[1])
    once = contents(tree)
    assert (first["written"], first["changed"]) == (True, ["bit_transformer/model.py"])
    assert [(task["id"], task["outcome"]) for task in first["tasks"]] == [("task-10", "reverted")]
    assert first["tasks"][0]["sites"]
    code, out, _ = run("revert", "task-10", "--tree", tree, "--json")
    second = json.loads(out)
    assert (code, second["written"], second["changed"], contents(tree)) == (0, False, [], once)
    assert second["tasks"][0]["outcome"] == "not-applied"


def test_a_dry_revert_writes_nothing_and_check_says_one(run, tree, state):
    run("apply", "10", "--tree", tree)
    before = contents(tree), contents(state)
    code, out, _ = run("revert", "10", "--dry-run", "--tree", tree)
    assert (code, contents(tree), contents(state)) == (0, *before)
    assert "task-10 mask-cache: would be reverted" in out
    assert "would write bit_transformer/model.py" in out
    assert run("revert", "10", "--check", "--tree", tree)[0] == 1
    assert (contents(tree), contents(state)) == before
    run("revert", "10", "--tree", tree)
    assert run("revert", "10", "--check", "--tree", tree)[0] == 0


def test_a_conflict_refuses_the_revert_and_is_named(run, tree):
    run("apply", "10", "--tree", tree)
    path = tree / "bit_transformer/model.py"
    path.write_text(path.read_text().replace("get_tri_mask(T, ", "get_tri_mask(T + 0, "))
    before = contents(tree)
    code, out, err = run("revert", "10", "--tree", tree)
    assert (code, out, contents(tree)) == (3, "", before)
    assert "refused, and nothing was written" in err
    assert "bit_transformer/model.py:" in err
    assert "get_tri_mask(T + 0, " in err


def test_a_revert_without_originals_is_refused(run, tree, patched):
    patched(tree, "task-10")
    code, out, err = run("revert", "10", "--tree", tree)
    assert (code, out) == (3, "")
    assert "there are no originals to go back to" in err


def test_where_no_journal_can_be_kept_nothing_is_written(run, tree, tmp_path, monkeypatch):
    before = contents(tree)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file/state"))
    code, out, err = run("apply", "10", "--tree", tree)
    assert (code, out, contents(tree)) == (6, "", before)
    assert "Not a directory; nothing was changed" in err
    assert run("status", "10", "--tree", tree)[0] == 0


@pytest.mark.parametrize("home", [None, ""])
def test_without_a_home_a_tree_is_read_and_not_written(run, tree, monkeypatch, home):
    before = contents(tree)
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    assert run("status", "10", "--tree", tree)[0] == 0
    code, out, err = run("apply", "10", "--tree", tree)
    assert (code, out, contents(tree)) == (6, "", before)
    assert "there is no home folder: set HOME or XDG_STATE_HOME; nothing was changed" in err


def test_a_second_copy_is_told_and_left_alone(run, tree):
    shutil.copytree(tree / "bit_transformer", tree / "scripts/bit_transformer")
    code, out, err = run("apply", "10", "--tree", tree)
    assert (code, [line for line in out.splitlines() if line.startswith("wrote")]) == (
        0,
        ["wrote bit_transformer/model.py"],
    )
    assert "left alone: scripts/bit_transformer/model.py" in err


def test_a_file_that_is_a_link_out_of_the_tree_is_refused_with_its_place(run, tree, tmp_path):
    away = tmp_path / "training.py"
    (tree / "bit_transformer/training.py").rename(away)
    (tree / "bit_transformer/training.py").symlink_to(away)
    before = away.read_bytes()
    code, out, err = run("apply", "10", "--tree", tree, "--json")
    assert (code, away.read_bytes()) == (3, before)
    assert "bit_transformer/training.py:1:1: leads out of the tree" in err
    (task,) = json.loads(out)["tasks"]
    assert [site["path"] for site in task["sites"]] == ["bit_transformer/training.py"]
    assert run("status", "--tree", tree)[0] == 0


def test_files_that_do_not_parse_are_named_at_once(run, tree):
    for path in ("bit_transformer/model.py", "bit_transformer/training.py"):
        (tree / path).write_text((tree / path).read_text() + "\nx = (\n")
    code, _, err = run("apply", "9", "4", "--tree", tree)
    assert code == 3
    assert [path for path in ("model.py", "training.py") if f"{path}:" in err] == ["model.py", "training.py"]


def test_a_refusal_that_found_nothing_gives_no_advice_about_near_misses(run, model_of):
    code, _, err = run("apply", "12", "--tree", model_of("import torch"))
    assert code == 3
    assert "and found none, nor anything like it" in err
    assert "near miss" not in err


def test_a_diff_names_files_as_git_does(run, tree):
    odd = tree / 'bit_transformer/tab\tand "quote".py'
    (tree / "bit_transformer/model.py").rename(odd)
    code, out, _ = run("diff", "10", "--format", "patch", "--tree", tree)
    assert code == 0
    patch = tree.parent / "patch"
    patch.write_text(out)
    subprocess.run(["git", "init", "--quiet"], cwd=tree, check=True)
    subprocess.run(["git", "apply", "--check", patch], cwd=tree, check=True)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("apply",), id="no task"),
        pytest.param(("apply", "task-11", "--all"), id="a task and all"),
        pytest.param(("revert",), id="no task to revert"),
        pytest.param(("revert", "task-99"), id="unknown task to revert"),
        pytest.param(("apply", "task-99"), id="unknown task"),
        pytest.param(("apply", "--nonsense"), id="unknown option"),
        pytest.param(("nonsense",), id="unknown command"),
        pytest.param(("diff", "11", "--format", "nonsense"), id="unknown format"),
    ],
)
def test_wrong_usage_is_two(run, words):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err


@pytest.mark.parametrize("command", ["status", "diff", "apply", "revert", "verify"])
def test_a_folder_without_a_tree_is_refused(run, tmp_path, command):
    code, out, err = run(command, *(["11"]), "--tree", tmp_path)
    assert (code, out, len(err.splitlines())) == (3, "", 1)
    assert "expected a BitTransformerLM tree" in err


@pytest.mark.parametrize("command", ["status", "diff", "apply", "revert", "verify"])
def test_a_folder_that_is_not_there_cannot_be_read(run, tmp_path, command):
    code, out, err = run(command, "11", "--tree", tmp_path / "nowhere")
    assert (code, out, len(err.splitlines())) == (6, "", 1)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        pytest.param(b"class BitTransformerLM(:\n", "model.py:1:24: syntax error", id="syntax"),
        pytest.param(
            b"class BitTransformerLM:\n    triu = softmax = '\xff'\n", "convert the file to UTF-8", id="not UTF-8"
        ),
    ],
)
def test_a_file_that_cannot_be_parsed_is_refused_in_one_line(run, tree, broken, message):
    (tree / "bit_transformer/model.py").write_bytes(broken + b"# triu softmax\n")
    before = contents(tree)
    code, _, err = run("apply", "--all", "--tree", tree)
    assert (code, len(err.splitlines()), contents(tree)) == (3, 1, before)
    assert message in err


def test_one_refusal_refuses_all(run, tree):
    path = tree / "bit_transformer/training.py"
    path.write_text(path.read_text().replace("            loss.backward()\n", ""))
    before = contents(tree)
    code, out, err = run("apply", "--all", "--tree", tree, "--json")
    outcomes = {task["id"]: task["outcome"] for task in json.loads(out)["tasks"]}
    assert (code, contents(tree), outcomes["task-4"]) == (3, before, "refused")
    assert "nothing was written" in err


def test_a_read_only_tree_is_not_written(run, tree):
    (tree / "bit_transformer").chmod(0o555)
    before = contents(tree)
    code, _, err = run("apply", "task-11", "--tree", tree)
    (tree / "bit_transformer").chmod(0o755)
    assert (code, len(err.splitlines()), contents(tree)) == (6, 1, before)


def test_verify_of_a_fresh_tree_is_violated_and_of_the_reference_verified(run, tree):
    assert run("verify", "task-11", "--tree", tree)[0] == 4
    code, out, _ = run("verify", "task-11", "--tree", REFERENCE, "--json")
    assert (code, json.loads(out)["verdict"]) == (0, "verified")


def test_verify_leaves_the_tree_as_it_was(run, tree):
    run("verify", "task-10", "--tree", tree)
    assert set(os.listdir(tree / "bit_transformer")) == set(os.listdir(BASELINE / "bit_transformer")) - {"__pycache__"}


def test_verify_of_a_tree_that_does_not_import_is_an_error(run, tree):
    (tree / "bit_transformer/telemetry.py").write_text("import nonsense_that_is_not_there\n")
    code, out, _ = run("verify", "task-11", "--tree", tree, "--json")
    assert (code, json.loads(out)["verdict"]) == (5, "error")


def test_verify_without_a_tree_judges_the_reference_and_says_so(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("verify", "task-10")
    assert code == 0
    assert "judging the embedded reference" in err


def test_verify_without_torch_says_what_to_install(run, tree, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = run("verify", "task-11", "--tree", tree)
    assert code == 5
    assert "pip install 'bitpatch[verify]'" in err


def test_an_interrupt_is_no_traceback(run, tree, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Zygote, "__enter__", interrupt)
    code, _, err = run("verify", "task-11", "--tree", tree)
    assert (code, err) == (130, "error: interrupted; nothing is half done\n")


def test_our_own_failure_is_no_traceback(run, tree, monkeypatch):
    monkeypatch.setattr("bitpatch.patches.applying.revert.plan", lambda *_: 1 / 0)
    code, _, err = run("apply", "--all", "--tree", tree)
    assert (code, len(err.splitlines())) == (3, 1)
    assert "please report it" in err


@pytest.mark.parametrize("command", ["apply", "revert"])
def test_killed_at_any_replacement_the_next_command_recovers(run, tree, tmp_path, command):
    """SIGKILL at each of the first replacements; a status then finds the old tree or the new one."""
    baseline = contents(tree)
    script = (
        "import os, signal, sys\n"
        "from bitpatch.patches.applying import transaction\n"
        "from bitpatch.patches.files import places\n"
        "from bitpatch.cli import main\n"
        "calls = [0]\n"
        "def counted(real):\n"
        "    def call(*args, **kwargs):\n"
        "        calls[0] += 1\n"
        "        if calls[0] == int(sys.argv[1]):\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return real(*args, **kwargs)\n"
        "    return call\n"
        "transaction.os.replace = counted(os.replace)\n"
        "os.unlink = counted(os.unlink)\n"
        "places._exchange = counted(places._exchange)\n"
        "main([sys.argv[3], '10', '--tree', sys.argv[2]])\n"
    )
    run("apply", "10", "--tree", tree)
    patched = contents(tree)
    old, new = (baseline, patched) if command == "apply" else (patched, baseline)
    seen = set()
    for moment in range(1, 12):
        copy = shutil.copytree(BASELINE, tmp_path / str(moment), ignore=CODE_ONLY)
        if command == "revert":
            run("apply", "10", "--tree", copy)
        words = [sys.executable, "-c", script, str(moment), str(copy), command]
        killed = subprocess.run(words, capture_output=True).returncode
        assert run("status", "10", "--tree", copy)[0] == 0
        found = contents(copy)
        assert found in (old, new)
        seen.add((killed == -signal.SIGKILL, found == old))
        assert run("revert", "10", "--tree", copy)[0] == 0
        assert contents(copy) == baseline
    assert {(True, True), (True, False), (False, False)} >= seen >= {(True, True), (True, False)}


def test_nothing_heavy_is_imported_for_help_or_status(tree):
    code = "import atexit, sys; atexit.register(lambda: print([m for m in ('torch', 'numpy', 'rich', 'libcst') if m in sys.modules])); from bitpatch.__main__ import main; main()"
    for words, heavy in ((["--help"], []), (["status", "--tree", str(tree)], ["libcst"])):
        result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        assert result.stdout.splitlines()[-1] == str(heavy), result.stderr
