"""What is found of a tree of another model, and what its bitpatch_seams.py is begun with."""

import json
import shutil

import jsonschema
import pytest
from samples import ROOT

SCHEMA = json.loads((ROOT / "patches" / "schemas" / "seams.json").read_text())


@pytest.fixture
def other(tmp_path):
    """A copy of a tree that says nothing of itself yet."""

    def copied(name):
        ignore = shutil.ignore_patterns("__pycache__", "bitpatch_seams.py")
        return shutil.copytree(ROOT / "tests" / "others" / name, tmp_path / name, ignore=ignore)

    return copied


@pytest.mark.parametrize(
    ("name", "model", "train"),
    [
        ("translate", "translate.net:Translator is a module", "translate.trainer:Trainer.fit makes the updates"),
        ("gpt", "model:GPT is a module", "train.py is run as a script, perhaps by runpy.run_path"),
        ("digits", "digits.net:Net is a module", "digits.fit:fit makes the updates"),
    ],
)
def test_what_is_found_is_said_beside_what_is_asked(name, model, train, other, run):
    code, out, _ = run("seams", "--tree", tree := other(name), "--json")
    found = json.loads(out)
    jsonschema.validate(found, SCHEMA)
    asked = {each["name"]: each for each in found["seams"]}
    assert code == 0
    assert [asked[each]["state"] for each in ("model", "batch", "loss", "train")] == ["missing"] * 4
    assert model in asked["model"]["settle"]
    assert train in asked["train"]["settle"]
    assert run("seams", "--tree", tree, "--write", "--quiet")[0] == 0
    text = (tree / "bitpatch_seams.py").read_text()
    compile(text, "bitpatch_seams.py", "exec")
    assert f"# {train}\n# def train():" in text
    assert run("seams", "--tree", tree, "--write")[0] == 3, "it is not written over"


def test_what_a_tree_says_is_settled_at_its_line(run):
    code, out, _ = run("seams", "--tree", ROOT / "tests" / "others" / "digits", "--json")
    found = {each["name"]: each for each in json.loads(out)["seams"]}
    assert code == 0
    assert {each: found[each]["state"] for each in ("model", "batch", "loss", "train")} == dict.fromkeys(
        ("model", "batch", "loss", "train"), "settled"
    )
    assert found["model"]["at"]["line"] == 8, "a class that was imported, by its other name"


def test_a_folder_without_torch_is_no_tree(tmp_path, run):
    (tmp_path / "a.py").write_text("print('loss')\n")
    assert run("seams", "--tree", tmp_path)[0] == 3
