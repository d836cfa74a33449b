"""apply --prove writes only what the judges verify; apply --keep-going applies what it can, and names the rest."""

import json
import os
import subprocess
import sys

import jsonschema
import pytest
from samples import ROOT, contents

MODEL = "bit_transformer/model.py"
SCHEMA = json.loads((ROOT / "patches/schemas/apply.json").read_text())


def bitpatch(*words, **environment):
    command = [sys.executable, "-m", "bitpatch", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def edit(tree, *pairs):
    text = (tree / MODEL).read_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    (tree / MODEL).write_text(text)


def test_what_is_verified_is_written(tree):
    result = bitpatch("apply", "10", "--prove", "--tree", tree, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    jsonschema.validate(found, SCHEMA)
    assert (found["written"], found["changed"], found["tasks"][0]["outcome"]) == (True, [MODEL], "applied")
    assert "get_tri_mask" in (tree / MODEL).read_text()


def test_what_is_violated_is_not_written(tree):
    """Something else as large as a map is made, and thrown away: with the patch as without it."""
    edit(tree, ("        B, T = bits.shape\n", "        B, T = bits.shape\n        torch.ones(B, 2, T, T)\n"))
    before = contents(tree)
    result = bitpatch("apply", "12", "--prove", "--tree", tree, "--json")
    assert result.returncode == 4
    found = json.loads(result.stdout)
    jsonschema.validate(found, SCHEMA)
    assert (found["written"], found["tasks"][0]["outcome"]) == (False, "refused")
    assert "task-12 would not hold" in found["tasks"][0]["reason"]
    assert "refused, and nothing was written" in result.stderr
    assert contents(tree) == before


def test_what_cannot_be_judged_is_not_written(tree):
    edit(tree, ("        B, T = bits.shape\n", "        B, T = bits.shape\n        raise OSError('no such bits')\n"))
    before = contents(tree)
    result = bitpatch("apply", "10", "--prove", "--tree", tree)
    assert (result.returncode, contents(tree)) == (5, before)
    assert "no such bits" in result.stderr


def test_without_torch_it_says_what_to_install(tree, run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    before = contents(tree)
    code, _, said = run("apply", "10", "--prove", "--tree", tree)
    assert (code, contents(tree)) == (5, before)
    assert "pip install 'bitpatch[verify]'" in said


def test_a_proof_keeps_the_callers_secrets_from_the_tree(tree):
    edit(tree, ("import math\n", "import math\nimport os\n\nassert 'GITHUB_TOKEN' not in os.environ\n"))
    assert bitpatch("apply", "10", "--prove", "--tree", tree, GITHUB_TOKEN="secret").returncode == 0


@pytest.fixture
def no_mask(tree):
    """A tree of which one task is refused: its masks are kept, but built in any mode."""
    edit(
        tree,
        (
            "        weights = torch.softmax(scores, dim=-1)\n        out = self.dropout(weights) @ v\n",
            "        weights = torch.softmax(scores * self.extra, dim=-1)\n        out = self.dropout(weights) @ v\n",
        ),
    )
    return tree


def test_the_rest_is_applied_and_the_refused_is_named(no_mask, run):
    before = contents(no_mask)
    code, _, said = run("apply", "9", "10", "--tree", no_mask)
    assert (code, contents(no_mask)) == (3, before)
    code, out, said = run("apply", "9", "10", "--tree", no_mask, "--keep-going")
    assert code == 3
    assert "refused, and the rest was written" in said
    assert "near miss at bit_transformer/model.py" in said
    assert "task-10 mask-cache: applied" in out
    text = (no_mask / MODEL).read_text()
    assert ("get_tri_mask" in text, "scaled_dot_product" in text) == (True, False)


def test_what_was_applied_on_the_way_comes_off_again(no_mask, run):
    before = contents(no_mask)
    run("apply", "--all", "--tree", no_mask, "--keep-going", "--quiet")
    assert contents(no_mask) != before
    assert run("revert", "--all", "--tree", no_mask)[0] == 0
    assert contents(no_mask) == before


def test_where_nothing_is_refused_keep_going_changes_nothing(tree, run):
    assert run("apply", "10", "--tree", tree, "--keep-going")[0] == 0


@pytest.mark.parametrize("option", ["--prove", "--keep-going"])
def test_revert_has_neither(tree, run, option):
    assert run("revert", "10", "--tree", tree, option)[0] == 2
