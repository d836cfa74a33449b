"""Where a result is written: what takes none is refused before the judges run, and the rest is written all the same."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from results import HOSTILE, report, result, shown
from samples import BASELINE

from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.screen import Failure, OutputLost
from bitpatch.verify.rendering.report import TaskReport, text_of
from bitpatch.verify.rendering.terminal import give, look
from bitpatch.verify.running.evidence import failed


def looked(root, *, output=None, files=()):
    return look(open_tree(root), [task_named("11")], "tree", "text", output, files)


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "bit_transformer").mkdir(parents=True)
    (root / "bit_transformer/model.py").write_bytes((BASELINE / "bit_transformer/model.py").read_bytes())
    return root


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing/x.html", "no such folder"),
        ("tree/bit_transformer/model.py/x.html", "no such folder"),
        ("folder.html", "a folder"),
        ("kept.html", "cannot be written to"),
    ],
)
@pytest.mark.parametrize("option", ["--report", "--output"])
def test_what_takes_no_result_is_refused_before_the_judges_run(tmp_path, tree, monkeypatch, name, why, option):
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "kept.html").write_text("")
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "kept.html")  # root may write anywhere
    file = tmp_path / name
    with pytest.raises(Failure, match=why) as error:
        looked(tree, **({"output": file} if option == "--output" else {"files": [file]}))
    assert error.value.code == 6
    assert option in error.value.then


@pytest.mark.parametrize("option", ["--report", "--output"])
def test_no_link_of_a_tree_leads_a_result_out_of_its_repository(tmp_path, tree, option):
    (tmp_path / "home").mkdir()
    (tree / "folder").symlink_to(tmp_path / "home")
    (tree / "report.html").symlink_to(tmp_path / "home/profile")
    for file in (tree / "report.html", tree / "folder/report.html"):
        with pytest.raises(Failure, match="a link of the tree leads out of it"):
            looked(tree, **({"output": file} if option == "--output" else {"files": [file]}))
    (tmp_path / "mine.html").symlink_to(tmp_path / "home/mine")
    looked(tree, output=Path("/dev/stdout"), files=[tmp_path / "mine.html"])


def test_each_report_is_written_though_another_cannot_be(tmp_path, capsys):
    files = [tmp_path / "a.json", tmp_path / "full.xml", tmp_path / "b.json"]
    files[1].symlink_to("/dev/full")
    with pytest.raises(Failure, match=r"full\.xml") as error:
        give(shown(), "text", tmp_path / "missing/out", files, quiet=True)
    assert error.value.code == 6
    assert all("violated" in files[place].read_text() for place in (0, 2))


def test_reports_are_written_though_nobody_reads_the_output(tmp_path, monkeypatch):
    class Lost(io.StringIO):
        def write(self, _):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Lost())
    with pytest.raises(OutputLost) as lost:
        give(shown(), "json", None, [tmp_path / "a.json"], quiet=False)
    assert lost.value.code == 4
    assert "violated" in (tmp_path / "a.json").read_text()


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
def test_a_reader_that_leaves_makes_nothing_verified(more):
    words = [sys.executable, "-m", "bitpatch", "verify", "11", "--tree", BASELINE, *more]
    reader, writer = os.pipe()
    os.close(reader)
    assert subprocess.run(words, stdout=writer, stderr=subprocess.DEVNULL).returncode == 4
    os.close(writer)


def test_what_a_tree_says_moves_no_terminal():
    text = text_of(report(TaskReport(7, (result(7, "one", failed(HOSTILE)),))))
    assert "\x1b" not in text
    assert "\\x1b[31m" in text
