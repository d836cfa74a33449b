"""docs/any-loop.md says what is so."""

import re
import shutil

from samples import ROOT

from bitpatch.verify.rendering.report import Outcome, text_of
from bitpatch.verify.running.runner import Zygote
from bitpatch.verify.scripts.judging import run_script

TEXT = (ROOT / "docs/any-loop.md").read_text()


def test_what_the_page_shows_is_what_is_said(tmp_path, monkeypatch):
    script, better, _ = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    (shown,) = re.findall(r"--script train.py\n(.*?)```", TEXT, re.S)
    monkeypatch.chdir(tmp_path)
    path, lines = tmp_path / "train.py", script.splitlines()
    with Zygote() as zygote:
        path.write_text(script)
        found = text_of(run_script(zygote, path, (), 200, 60, tmp_path))
        lines[14], lines[16] = better.splitlines()
        path.write_text("\n".join(lines))
        mended = run_script(zygote, path, (), 200, 60, tmp_path)
    name = str(path)
    assert re.sub(r" in [0-9.]+ s", "", found.replace(name, "train.py")) == re.sub(r" in [0-9.]+ s", "", shown)
    assert mended.verdict is Outcome.VERIFIED


def test_what_the_page_shows_of_a_tree_is_what_is_said(tmp_path, monkeypatch, run):
    (shown,) = re.findall(r"bitpatch verify 4\n(.*?)```", TEXT, re.S)
    tree = shutil.copytree(ROOT / "tests/others/digits", tmp_path / "digits")
    assert (tree / "bitpatch_seams.py").read_text() in TEXT
    text = (tree / "src/digits/fit.py").read_text()
    (tree / "src/digits/fit.py").write_text(text.replace("accumulate=2", "accumulate=3"))
    monkeypatch.chdir(tree)
    code, out, _ = run("verify", "4")
    assert code == 4
    timed = r" in [0-9.]+ s| +[0-9.]+$"
    assert re.sub(timed, "", out, flags=re.M).replace(str(tree), "/home/me/digits") == re.sub(
        timed, "", shown, flags=re.M
    )


def test_the_page_names_every_property():
    from bitpatch.verify.scripts.asking import PROPERTIES
    from bitpatch.verify.scripts.judged import judge

    assert judge
    assert [name for name, _, _ in PROPERTIES if name not in TEXT and name != "the-script-runs"] == []
