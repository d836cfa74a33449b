"""No tree crashes bitpatch, holds it up for long, or is changed without success; what was applied comes off again.

A sample; `make fuzz` tries a thousand. `python tests/fuzz/commands.py FIRST END` tries the trees of some seeds.
"""

import signal

import commands
import hypothesmith
import odd_trees
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from samples import BASELINE, CODE_ONLY

pytestmark = pytest.mark.filterwarnings("ignore")  # of the texts that are made


def test_a_tree_that_nobody_would_write(tmp_path, seed):
    made = odd_trees.make(seed, tmp_path / "tree")
    assert commands.fates(tmp_path / "tree", tmp_path) == [], made


def test_any_program_in_a_file_of_the_tree(tmp_path_factory, programs):
    import shutil

    @settings(
        max_examples=programs,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # to shrink what fails would take hours
        suppress_health_check=list(HealthCheck),
    )
    @given(hypothesmith.from_grammar())
    def holds(text):
        folder = tmp_path_factory.mktemp("program")
        shutil.copytree(BASELINE, folder / "tree", ignore=CODE_ONLY)
        for path in ("model.py", "training.py"):
            file = folder / "tree/bit_transformer" / path
            file.write_text(file.read_text() + "\n\n" + text, newline="")
        assert commands.fates(folder / "tree", folder) == [], text
        shutil.rmtree(folder)

    holds()


def test_what_would_be_wrong_is_seen(tmp_path, monkeypatch):
    """The harness itself: a command that crashes, and one that changes a tree and fails."""
    odd_trees.make(0, tmp_path / "tree")
    monkeypatch.setattr("bitpatch.patches.applying.opening.open_tree", lambda *_, **__: 1 / 0)
    assert any("exit" in fate for fate in commands.fates(tmp_path / "tree", tmp_path))
    monkeypatch.setattr(commands, "_run", lambda _: (tmp_path / "tree/new.py").write_text("") or (3, ""))
    assert any("and the tree has changed" in fate for fate in commands.fates(tmp_path / "tree", tmp_path))
    monkeypatch.setattr(commands, "_run_all", lambda _: signal.raise_signal(signal.SIGKILL))
    assert commands.fates(tmp_path / "tree", tmp_path) == ["ended by SIGKILL"]
