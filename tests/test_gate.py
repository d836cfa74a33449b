"""The gate's steps, run here under bash as a runner would run them."""

import os
import shutil
import subprocess
import sys
import sysconfig

import pytest
import yaml
from samples import BASELINE, CODE_ONLY, REFERENCE, ROOT

GATE = yaml.safe_load((ROOT / ".github/workflows/gate.yml").read_text())
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())


@pytest.fixture(scope="module")
def clean_python(tmp_path_factory):
    """A virtual environment that has this one's packages, but no bitpatch of its own yet."""
    venv = tmp_path_factory.mktemp("runner") / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    for old in (*packages.glob("setuptools*"), *packages.glob("_distutils_hack")):
        shutil.rmtree(old)  # the shared one is new enough to build with
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv / "bin"


def run_step(step, folder, bin_folder, **env):
    """Run a step's script as a runner does: bash with -e and pipefail, in the checkout."""
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_CONSTRAINT": ""}
    env = {**os.environ, **offline, **env, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
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
    return env


def test_the_gate_of_this_repository_judges_the_reference(clean_python, tmp_path):
    checkout = shutil.copytree(
        ROOT, tmp_path / "checkout", ignore=shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info")
    )
    install, verify = [step for step in GATE["jobs"]["verify"]["steps"] if "run" in step]
    installed = run_step(install, checkout, clean_python)
    assert installed.returncode == 0, installed.stderr
    verified = run_step(verify, checkout, clean_python)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert str(checkout / "reference") in verified.stderr


@pytest.mark.parametrize(("tree", "code"), [(REFERENCE, 0), (BASELINE, 4)], ids=["reference", "baseline"])
def test_the_action_judges_the_tree_of_a_fork(clean_python, tmp_path, tree, code):
    fork = tmp_path / "fork"
    shutil.copytree(tree, fork / "a tree", ignore=CODE_ONLY)
    install, verify = ACTION["runs"]["steps"]
    installed = run_step(install, fork, clean_python, GITHUB_ACTION_PATH=str(ROOT))
    assert installed.returncode == 0, installed.stderr
    verified = run_step(verify, fork, clean_python, **expanded(verify, {"tree": "a tree", "tasks": "task-7 task-10"}))
    assert verified.returncode == code, verified.stdout + verified.stderr


def test_the_gate_runs_on_pull_requests_and_has_nothing_to_take():
    assert GATE[True] == "pull_request"  # YAML reads the key `on` as true
    assert GATE["permissions"] == {"contents": "read"}
    (checkout,) = [step for step in GATE["jobs"]["verify"]["steps"] if "checkout" in step.get("uses", "")]
    assert checkout["with"]["persist-credentials"] is False
    assert "secrets" not in str(GATE)
