"""docs/any-loop.md says what is so."""

import re

from samples import ROOT

from bitpatch.verify.rendering.report import Outcome, text_of
from bitpatch.verify.running.runner import Zygote
from bitpatch.verify.scripts.judging import run_script

TEXT = (ROOT / "docs/any-loop.md").read_text()


def test_what_the_page_shows_is_what_is_said(tmp_path, monkeypatch):
    script, better = re.findall(r"```python\n(.*?)```", TEXT, re.S)
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


def test_the_page_names_every_property():
    from bitpatch.verify.scripts.asking import PROPERTIES
    from bitpatch.verify.scripts.judged import judge

    assert judge
    assert [name for name, _, _ in PROPERTIES if name not in TEXT and name != "the-script-runs"] == []
