"""What loads rows is found where a tree has it, and asked only for what it takes."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bitpatch.patches.files.spellings import DRIVER
from bitpatch.verify.driving.seams import MissingSeam
from bitpatch.verify.driving.text_loads import load, loading, sample, write_text
from bitpatch.verify.driving.tree import Tree
from bitpatch.verify.running.evidence import Verdict
from bitpatch.verify.task_05_memory_map import schedule_uses_the_rows

SOURCE = """
    from pathlib import Path

    import torch

    def bits_of(byte):
        return [*(byte >> shift & 1 for shift in range(7, -1, -1)), byte.bit_count() & 1]

    def read_rows(file, width=72):
        bits = [bit for byte in Path(file).read_bytes() for bit in bits_of(byte)]
        Path(file).with_suffix(".kept").write_text("kept")
        return [torch.tensor(bits[at : at + width]) for at in range(0, len(bits) - width + 1, width)]

    def read_all(file):
        return read_rows(file)
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "bitrows_read.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("home", "scratch", "cwd"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.chdir(tmp_path / "cwd")
    yield tmp_path
    sys.modules.pop("bitrows_read", None)


def tree_of(root: Path, name: str = "read_rows") -> Any:
    rows = {"where": f"bitrows_read:{name}", "options": {}, "roles": {}}
    return Tree(root, driving={"roots": [""], "seams": {"rows": rows}})


def test_rows_are_loaded_at_their_seam(root: Path) -> None:
    assert load(tree_of(root), write_text("a.txt", sample(99)), 72).kind == "right"


def test_a_trial_leaves_nothing_behind(root: Path) -> None:
    loading(tree_of(root))
    assert not [each for each in (root / "cwd").rglob("*") if each.is_file()]


def test_what_takes_other_things_is_not_judged_by_them(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MissingSeam, match=r"read_all\(path, 72\)\[0\] is no row.*a function rows\(path, max_seq_len\)"):
        loading(tree_of(root, "read_all"))
    assert "TypeError" in capfd.readouterr().err


def test_what_the_tree_says_itself_comes_first(root: Path) -> None:
    (root / DRIVER).write_text("def rows(path, max_seq_len):\n    return 'rows'\n")
    assert loading(tree_of(root, "read_all"))(Path("a.txt"), 72) == "rows"


COMMAND = """
    import argparse

    import torch
    from bitrows_read import read_rows

    class Net(torch.nn.Module):
        def forward(self, bits):
            return bits

    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--d_model", type=int)
    parser.add_argument("--nhead", type=int)
    parser.add_argument("--max_seq_len", type=int, default=72)

    def main():
        asked = parser.parse_args()
        rows = read_rows(asked.data, asked.max_seq_len)
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", "nothing is trained by bitrows_command:main --data"),
        ("        raise ValueError('no such device')", "raises ValueError"),
        ("        Net()(torch.stack(rows[:40]))", "0 rows enter the model that are not in the text, 3 of 43 never do"),
    ],
    ids=["it only asks its options", "it raises", "it holds rows out that it never asks for"],
)
def test_a_command_that_does_not_train_on_all_of_a_text_proves_nothing(root: Path, code: str, said: str) -> None:
    (root / "bitrows_command.py").write_text(textwrap.dedent(COMMAND + code))
    words = {"max_seq_len": "--max_seq_len", "num_layers": "--layers"}
    found = {
        "model": {"where": "bitrows_command:Net", "options": {}, "roles": {}},
        "command-line": {"where": "bitrows_command:main", "options": words, "roles": {}},
    }
    tree = Tree(root, driving={"roots": [""], "seams": found})
    try:
        evidence = schedule_uses_the_rows(tree)
        found = (evidence.verdict, evidence.detail)
    except MissingSeam as missing:
        found = (Verdict.UNPROVEN, str(missing))
    finally:
        sys.modules.pop("bitrows_command", None)
    assert found[0] is Verdict.UNPROVEN
    assert said in found[1]
