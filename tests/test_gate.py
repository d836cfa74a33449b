"""The gate's steps, run here under bash as a runner would run them."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig

import jsonschema
import pytest
import yaml
from published import schema
from samples import BASELINE, CODE_ONLY, REFERENCE, ROOT

GATE = yaml.safe_load((ROOT / ".github/workflows/gate.yml").read_text())
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    """A runner's folder, where the action's own step has installed bitpatch, beside the packages of this environment."""
    temp = tmp_path_factory.mktemp("runner")
    subprocess.run([sys.executable, "-m", "venv", temp / "bitpatch"], check=True)
    (packages,) = temp.glob("bitpatch/lib/python*/site-packages")
    for old in (*packages.glob("setuptools*"), *packages.glob("_distutils_hack")):
        shutil.rmtree(old)  # the shared one is new enough to build with
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    installed = run_step(steps()["install"], temp, temp, {})
    assert installed.returncode == 0, installed.stderr
    return temp


def steps():
    return {step["name"]: step for step in ACTION["runs"]["steps"]}


def run_step(step, folder, temp, inputs):
    """Run a step's script as a runner does: bash with -e and pipefail, in the checkout; gives what it says and sets."""
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_CONSTRAINT": ""}
    env = {**os.environ, **offline, **expanded(step, inputs), "RUNNER_TEMP": str(temp), "GITHUB_ACTION_PATH": str(ROOT)}
    env |= {"GITHUB_OUTPUT": str(temp / "output"), "GITHUB_STEP_SUMMARY": str(temp / "summary")}
    (temp / "output").write_text("")
    (temp / "summary").write_text("")
    env.pop("PYTHONPATH", None)  # of whoever runs the tests: a runner has none
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def expanded(step, inputs):
    """A step's environment, with the action's inputs in it."""
    env = {}
    for name, value in step.get("env", {}).items():
        for each in ACTION["inputs"]:
            value = value.replace("${{ inputs." + each + " }}", inputs.get(each, ACTION["inputs"][each]["default"]))
        env[name] = value
    env.pop("PIP_CACHE_DIR", None)
    return env


@pytest.mark.parametrize(("tree", "code"), [(REFERENCE, 0), (BASELINE, 4)], ids=["reference", "baseline"])
def test_the_action_judges_the_tree_of_a_fork(runner, tmp_path, tree, code):
    fork = tmp_path / "fork"
    shutil.copytree(tree, fork / "a tree", ignore=CODE_ONLY)
    inputs = {"tree": "a tree", "tasks": "task-7\ntask-10\n"}
    judged = run_step(steps()["verify"], fork, runner, inputs)
    assert judged.returncode == code, judged.stdout + judged.stderr
    verdict = {0: "verified", 4: "violated"}[code]
    assert all(f"| {task} " in (runner / "summary").read_text() for task in ("task-7", "task-10"))
    reports = runner / "bitpatch-reports"
    assert (runner / "output").read_text() == f"verdict={verdict}\nreport={reports}/report.html\n"
    assert f"bitpatch: {verdict} (exit code {code})" in (runner / "summary").read_text()
    assert sorted(path.name for path in reports.iterdir()) == [
        f"report.{form}" for form in ("html", "json", "sarif", "xml")
    ]
    annotated = [line for line in judged.stdout.splitlines() if line.startswith("::error file=")]
    assert bool(annotated) is (code != 0)
    assert all(",line=1," not in line for line in annotated)


def test_a_step_has_no_verdict_of_a_step_before(runner, tmp_path):
    reports = runner / "bitpatch-reports"
    reports.mkdir(exist_ok=True)
    (reports / "report.json").write_text('{"verdict": "verified"}')
    judged = run_step(steps()["verify"], tmp_path, runner, {"tree": "nowhere"})
    assert judged.returncode not in (0, 4, 5)
    assert "verdict" not in (runner / "output").read_text()
    assert list(reports.iterdir()) == []


def test_the_action_fails_where_the_trees_own_tests_shrank(runner, tmp_path):
    fork = tmp_path / "fork"
    shutil.copytree(BASELINE, fork, ignore=CODE_ONLY)
    (fork / "test_it.py").write_text("def test_it():\n    assert 1\n")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "before"]):
        subprocess.run([*git, *words], cwd=fork, check=True)
    (fork / "test_it.py").write_text("")
    judged = run_step(steps()["verify"], fork, runner, {"since": "HEAD"})
    assert judged.returncode == 4, judged.stdout + judged.stderr
    assert "::error file=test_it.py,line=1,col=1,title=the tree's own tests shrank::test_it is gone" in judged.stdout
    assert "no task is left to be judged" in (runner / "summary").read_text()


@pytest.mark.parametrize("path", ["action.yml", ".github/workflows/gate.yml", ".github/workflows/test.yml"])
def test_they_are_what_github_reads(path):
    kind = "action" if path == "action.yml" else "workflow"
    content = yaml.safe_load((ROOT / path).read_text())
    content = {"on" if key is True else key: value for key, value in content.items()}  # as YAML 1.1 reads that word
    jsonschema.validate(content, schema(f"https://json.schemastore.org/github-{kind}.json"))


def test_what_others_run_for_us_is_pinned_by_commit():
    texts = [(ROOT / "action.yml").read_text(), *(path.read_text() for path in (ROOT / ".github").rglob("*.yml"))]
    used = [
        line.partition("uses:")[2].split()[0]
        for text in texts
        for line in text.splitlines()
        if "uses:" in line and "#     -" not in line
    ]
    assert len(used) >= 6
    assert [each for each in used if each != "./" and not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", each)] == []


def test_the_gate_of_this_repository_uses_the_action_on_the_reference():
    (gate,) = [step for step in GATE["jobs"]["verify"]["steps"] if step.get("uses") == "./"]
    assert gate["with"]["tree"] == "reference"
    assert set(gate["with"]) <= set(ACTION["inputs"])


HOOKS = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}


def hook_runs(hook, tmp_path, *args, **env):
    """The words that bitpatch is started with by a hook to which a user gives arguments."""
    (tmp_path / "bitpatch").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "bitpatch").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **env}
    words = [*shlex.split(HOOKS[hook]["entry"]), *args]
    return subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout.splitlines()


def test_hooks_work_without_files(tmp_path):
    assert [hook["pass_filenames"] for hook in HOOKS.values()] == [False, False]
    for hook, option, code in (("bitpatch-status", "--quiet", 1), ("bitpatch-verify", "--help", 0)):
        words = hook_runs(hook, tmp_path, option)
        ended = subprocess.run([sys.executable, "-m", "bitpatch", *words], cwd=BASELINE, capture_output=True, text=True)
        assert ended.returncode == code, ended.stderr


def test_a_push_judges_what_is_pushed(tmp_path):
    """Before a push all is committed: since the last commit nothing has changed."""
    assert hook_runs("bitpatch-verify", tmp_path, "--tree", "a b") == ["verify", "--tree", "a b"]
    pushed = hook_runs("bitpatch-verify", tmp_path, "--tree", "a b", PRE_COMMIT_FROM_REF="abc")
    assert pushed == ["verify", "--since", "abc", "--tree", "a b"]


def test_the_gate_runs_on_pull_requests_and_has_nothing_to_take():
    assert GATE[True] == "pull_request"  # YAML reads the key `on` as true
    assert GATE["permissions"] == {"contents": "read"}
    (checkout,) = [step for step in GATE["jobs"]["verify"]["steps"] if "checkout" in step.get("uses", "")]
    assert checkout["with"]["persist-credentials"] is False
    assert "secrets" not in str(GATE)
