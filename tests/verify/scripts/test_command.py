"""`bitpatch verify --script`, as it is typed."""

import json

import jsonschema
import pytest
from samples import ROOT

SCHEMA = json.loads((ROOT / "verify/schemas/verify.json").read_text())
WRONG = ROOT / "tests/loops/wrong/first_group_one.py"


def test_a_script_is_judged_in_every_form(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reports = [f"--report={tmp_path / name}" for name in ("r.html", "r.sarif", "r.xml")]
    code, out, _ = run("verify", "--script", WRONG, "--json", *reports)
    found = json.loads(out)
    jsonschema.validate(found, SCHEMA)
    assert (code, found["verdict"], found["script"]["updates"]) == (4, "violated", 12)
    place = "first_group_one.py"
    assert [each["at"].partition(":")[0] for each in found["tasks"][0]["checks"] if each["verdict"] == "fail"] == [
        place
    ] * 2
    page = (tmp_path / "r.html").read_text()
    assert "what the losses of each update weigh" in page
    assert place in (tmp_path / "r.sarif").read_text()
    assert 'failures="2"' in (tmp_path / "r.xml").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--script", "nowhere.py"), "no such script as nowhere.py"),
        (("--script", WRONG, "--all", "--since", "HEAD"), "--all, --since: for trees, and no script"),
        (("--script", WRONG, "--report", "r.txt"), "its name is to end in one of"),
    ],
    ids=["is not there", "and a tree", "in no known form"],
)
def test_what_makes_no_sense_is_said_before_anything_is_run(run, words, said):
    code, _, err = run("verify", *words)
    assert code == 2
    assert said in err
