"""[tool.bitpatch] in a tree's pyproject.toml: what it settles, and what is wrong with it, by its line."""

import os
import shutil

import pytest
from samples import contents

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.files.settled import WronglySettled, read_settings
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Unreadable

MODEL = "bit_transformer/model.py"
TASKS = [task_named("10"), task_named("8")]


def settled(tree, text, *, under="[tool.bitpatch]\n"):
    (tree / "pyproject.toml").write_text(under + text)
    return tree


@pytest.fixture
def twice(tree):
    """A tree with two copies of its package, neither nearer than the other."""
    (tree / "old").mkdir()
    (tree / "new").mkdir()
    shutil.copytree(tree / "bit_transformer", tree / "old/bit_transformer")
    shutil.move(tree / "bit_transformer", tree / "new/bit_transformer")
    return tree


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("[project]\nname = 'bitpatch'\n", id="a project of that name"),
        pytest.param("[tool.other]\nbitpatch = 1\n", id="another tool's"),
        pytest.param("[project\nno TOML, and not a word of us", id="no TOML, and nothing of ours"),
        pytest.param("[tool.bitpatch]\n", id="an empty table"),
    ],
)
def test_what_settles_nothing_changes_nothing(tree, text):
    before = plan(open_tree(tree), TASKS).changes
    assert plan(open_tree(settled(tree, text, under="")), TASKS).changes == before


def test_of_two_copies_the_package_that_is_named_holds_the_model(run, twice):
    code, _, err = run("apply", "10", "--tree", twice)
    assert code == 3
    assert '[tool.bitpatch], package = "FOLDER"' in err
    settled(twice, 'package = "new/bit_transformer"\n')
    old = contents(twice / "old")
    code, out, err = run("apply", "1", "9", "10", "--tree", twice)
    assert (code, contents(twice / "old")) == (0, old)
    assert "as pyproject.toml says; left alone: old/bit_transformer/model.py" in err
    assert "wrote new/bit_transformer/model.py" in out


@pytest.mark.parametrize("package", ["old/", "./old", "old/bit_transformer"])
def test_a_package_may_be_a_folder_above(twice, package):
    assert open_tree(settled(twice, f'package = "{package}"\n')).model_path == "old/bit_transformer/model.py"


def test_a_package_may_be_the_folder_itself(tree):
    assert open_tree(settled(tree, 'package = "."\n')).model_path == MODEL


def test_a_seam_names_the_file_of_the_model(twice):
    seam = '[tool.bitpatch.seams]\nmodel = "old.bit_transformer.model:BitTransformerLM"\n'
    assert open_tree(settled(twice, seam, under="")).model_path == "old/bit_transformer/model.py"


def test_a_seam_names_a_model_that_is_not_found_otherwise(tree):
    path = tree / MODEL
    path.write_text(
        path.read_text().replace("BitTransformerLM", "Net").replace("nn.Embedding(2,", "nn.Embedding(VOCABULARY,")
    )
    seam = 'seams.model = "bit_transformer.model:Net"\n'
    assert open_tree(settled(tree, seam)).model_path == MODEL


def test_a_seam_names_the_file_of_the_update(run, tree):
    shutil.copy(tree / "bit_transformer/training.py", tree / "bit_transformer/more.py")
    code, _, err = run("status", "4", "--tree", tree)
    assert code == 3
    assert 'update = "MODULE:train_loop"' in err
    settled(tree, 'seams = {update = "bit_transformer.more:train_loop"}\n')
    assert open_tree(tree).training_path == "bit_transformer/more.py"


def test_what_is_excluded_is_not_read(run, tree):
    before = open_tree(tree).paths
    (tree / "old").mkdir()
    shutil.copytree(tree / "bit_transformer", tree / "old/bit_transformer")
    (tree / "draft_loop.py").write_text("import torch\ndef train_loop(:\n")
    settled(tree, 'exclude = ["old/", "*_loop.py"]\n')
    assert open_tree(tree).paths == before
    assert run("status", "--tree", tree)[0] == 0


def test_exclusion_wins_over_the_index_of_git(tree):
    import subprocess

    subprocess.run(["git", "init", "--quiet"], cwd=tree, check=True)
    subprocess.run(["git", "add", "."], cwd=tree, check=True)
    assert "mcp_server.py" not in open_tree(settled(tree, 'exclude = ["/mcp_server.py"]\n')).paths


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param('packages = "a"\n', ["2: tool.bitpatch.packages: there is no such setting"], id="unknown key"),
        pytest.param("package = 1\n", ["2: tool.bitpatch.package: expected a folder"], id="package is a number"),
        pytest.param('package = "../x"\n', ["2: tool.bitpatch.package: expected a folder in the tree"], id="package outside"),
        pytest.param('package = "/x"\n', ["2: tool.bitpatch.package: expected a folder in the tree"], id="package absolute"),
        pytest.param('\n\npackage = "dashboard"\n', ["4: tool.bitpatch.package: no model is in dashboard; one is in: bit_transformer"], id="package without a model"),
        pytest.param('exclude = "old/"\n', ["2: tool.bitpatch.exclude: expected a list"], id="exclude is a text"),
        pytest.param("exclude = [1]\n", ["2: tool.bitpatch.exclude: expected paths or globs"], id="exclude of a number"),
        pytest.param('exclude = ["../a"]\n', ["2: tool.bitpatch.exclude: expected paths or globs in the tree"], id="exclude outside"),
        pytest.param('exclude = [""]\n', ["2: tool.bitpatch.exclude: expected paths or globs"], id="exclude nothing"),
        pytest.param("seams = 3\n", ["2: tool.bitpatch.seams: expected a table"], id="seams is a number"),
        pytest.param('[tool.bitpatch.seams]\nmodel = "model.py"\n', ['3: tool.bitpatch.seams.model: expected "module:qualified.name"'], id="no seam"),
        pytest.param('[tool.bitpatch.seams]\nupdate = "a:b"\n', ["3: tool.bitpatch.seams.update: the tree has no module a"], id="no such module"),
        pytest.param('[tool.bitpatch.seams]\nupdate = "bit_transformer.model:train_loop"\n', ["3: tool.bitpatch.seams.update: bit_transformer/model.py defines no function train_loop"], id="no such function"),
        pytest.param('[tool.bitpatch.seams]\nmodel = "bit_transformer.model:SelfAttention.forward"\n', ["3: tool.bitpatch.seams.model: bit_transformer/model.py defines no class"], id="no class"),
        pytest.param('[tool.bitpatch.seams]\n"gate" = "a:b"\n', ["3: tool.bitpatch.seams.gate: the tree has no module a"], id="no such module of a gate"),
        pytest.param('[tool.bitpatch.seams]\nnonsense = "a:b"\n', ["3: tool.bitpatch.seams.nonsense: there is no such seam"], id="unknown seam"),
        pytest.param('a = 1\nb = 2\nexclude = "c"\n', ["2: tool.bitpatch.a: there", "3: tool.bitpatch.b: there", "4: tool.bitpatch.exclude: expected"], id="all at once"),
        pytest.param("exclude = [\n", ["is no TOML"], id="no TOML"),
        pytest.param("package = 'a' 'b'\n", ["2:15: is no TOML"], id="no TOML, with its place"),
        pytest.param("exclude = " + "[" * 5000 + "\n", ["is no TOML"], id="nested too deeply"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["status", "apply", "verify"])
def test_what_is_wrong_is_named_with_its_line_and_nothing_is_written(run, tree, text, said, command):
    settled(tree, text)
    before = contents(tree)
    code, out, err = run(command, *(["--all"] if command == "apply" else ["10"]), "--tree", tree)
    assert (code, out, contents(tree)) == (3, "", before)
    lines = err.removeprefix("error: ").splitlines()
    assert [line.startswith("pyproject.toml:") for line in lines] == [True] * len(said), err
    assert [each for each, line in zip(said, lines, strict=True) if each not in line] == []


@pytest.mark.parametrize("text", [b"[tool]\nbitpatch = 1\n", b"[[tool.bitpatch]]\n"])
def test_a_table_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "pyproject.toml").write_bytes(text)
    with pytest.raises(
        WronglySettled, match=r"pyproject\.toml:\d: tool\.bitpatch: expected a table \[tool\.bitpatch\]"
    ):
        read_settings(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "pyproject.toml").write_bytes(b"[tool.bitpatch]\npackage = '\xff'\n")
    with pytest.raises(WronglySettled, match=r"pyproject\.toml:2: expected UTF-8"):
        read_settings(tmp_path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["a." * 60_000 + "a = 1", "x = {" + "a." * 60_000 + "a = 1}", "#" * (1 << 20)])
def test_what_would_take_minutes_to_read_is_refused(tmp_path, text):
    (tmp_path / "pyproject.toml").write_text(f"[tool.bitpatch]\n{text}\n")
    with pytest.raises(
        WronglySettled, match=r"pyproject\.toml: is larger than 1 MiB, or has a key of more than 100 parts"
    ):
        read_settings(tmp_path)


def test_here_a_settlement_that_is_wrong_is_no_missing_tree(run, tree, monkeypatch):
    """Without --tree, verify falls back to the reference where there is no tree: here is one."""
    monkeypatch.chdir(settled(tree, "package = 1\n"))
    code, _, err = run("verify", "10")
    assert code == 3
    assert "tool.bitpatch.package" in err


def test_a_link_out_of_the_tree_is_named_and_not_read(run, tree, tmp_path):
    (tmp_path / "away.toml").write_text("[tool.bitpatch]\nnonsense = 1\n")
    (tree / "pyproject.toml").symlink_to(tmp_path / "away.toml")
    code, _, err = run("status", "10", "--tree", tree)
    assert code == 0
    assert "note: pyproject.toml leads out of the tree, and is not followed" in err


def test_a_link_inside_the_tree_is_followed(tree):
    settled(tree, "exclude = ['mcp_server.py']\n")
    (tree / "pyproject.toml").rename(tree / "settings.toml")
    (tree / "pyproject.toml").symlink_to("settings.toml")
    assert "mcp_server.py" not in open_tree(tree).paths


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_an_error(run, tree, make):
    make(tree / "pyproject.toml")
    with pytest.raises(Unreadable, match="no regular file"):
        open_tree(tree)
    assert run("status", "10", "--tree", tree)[0] == 6


def test_what_was_settled_is_asked_again(run, tree):
    """What is remembered of a tree depends on its settlement."""
    (tree / "bit_transformer/extra.py").write_text((tree / MODEL).read_text().replace("BitTransformerLM", "Other"))
    assert "extra.py" in run("status", "10", "--tree", tree)[1]
    settled(tree, "exclude = ['extra.py']\n")
    assert "extra.py" not in run("status", "10", "--tree", tree)[1]
