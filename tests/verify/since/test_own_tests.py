"""When a tree's own tests shrank, and when they only moved."""

import pytest

from bitpatch.verify.running.evidence import Verdict
from bitpatch.verify.since.own_tests import compared

ONE, TWO = "def test_one():\n    assert f(1)\n", "def test_two():\n    assert f(2)\n"
BOTH = f"import pytest\n\n{ONE}\n{TWO}"
CLASS = "class TestIt:\n    def test_one(self):\n        assert f(1)\n"
UNIT = "class It(unittest.TestCase):\n    def testOne(self):\n        self.assertEqual(f(1), 1)\n"
PATH = "tests/test_a.py"
SAME = {
    "nothing changed": ({PATH: BOTH}, {PATH: BOTH}),
    "one was added": ({PATH: ONE}, {PATH: BOTH}),
    "a file was renamed": ({PATH: BOTH}, {"tests/test_b.py": BOTH}),
    "a test moved to another file": ({PATH: BOTH}, {PATH: ONE, "tests/b_test.py": TWO}),
    "a test moved into a class": ({PATH: ONE}, {PATH: CLASS}),
    "a test was renamed": ({PATH: ONE}, {PATH: ONE.replace("one", "first")}),
    "a test was renamed and mended": ({PATH: BOTH}, {PATH: BOTH.replace("two", "second").replace("f(2)", "f(3)")}),
    "a skipped one is gone": ({PATH: BOTH.replace("def test_two", "@pytest.mark.skip\ndef test_two")}, {PATH: ONE}),
    "a skipped one still is": ({PATH: f"@pytest.mark.skip\n{ONE}"}, {PATH: f"import os\n\n@pytest.mark.skip\n{ONE}"}),
    "one is no longer skipped": ({PATH: f"@pytest.mark.skip\n{ONE}"}, {PATH: ONE}),
    "asserted by a function of its own": (
        {PATH: ONE},
        {PATH: "def ok(x):\n    assert x\n\ndef test_one():\n    ok(1)\n"},
    ),
    "asserted by another file": (
        {PATH: ONE, "tests/helping.py": ""},
        {PATH: "def test_one():\n    ok(1)\n", "tests/helping.py": "def ok(x):\n    assert x\n"},
    ),
    "asserted by raises": ({PATH: ONE}, {PATH: "def test_one():\n    with pytest.raises(ValueError):\n        f(1)\n"}),
    "asserted by assert_close": ({PATH: ONE}, {PATH: "def test_one():\n    torch.testing.assert_close(f(1), 1)\n"}),
    "what was ignored still is": (
        {"pyproject.toml": '[tool.pytest.ini_options]\naddopts = "--ignore=slow"\n'},
        {"pyproject.toml": '[tool.pytest.ini_options]\naddopts = ["-q", "--ignore=slow"]\n'},
    ),
    "no test file": ({"tests/helping.py": ONE}, {"tests/helping.py": ""}),
    "a marker that skips what it decorates": ({PATH: BOTH}, {PATH: f"slow = pytest.mark.skip('slow')\n{BOTH}"}),
}
SKIPPED = {
    "skip": ("@pytest.mark.skip\n", "skip"),
    "skip with a reason": ("@pytest.mark.skip(reason='slow')\n", "skip"),
    "skipif": ("@pytest.mark.skipif(sys.platform == 'x', reason='')\n", "skipif"),
    "a certain skipif": ("@pytest.mark.skipif(True, reason='')\n", "skip"),
    "xfail": ("@pytest.mark.xfail\n", "xfail"),
    "unittest.skip": ("@unittest.skip('slow')\n", "skip"),
    "unittest.skipIf": ("@unittest.skipIf(x, 'slow')\n", "skipIf"),
    "a name for a marker": ("slow = pytest.mark.skip\n@slow\n", "skip"),
    "no case": ("@pytest.mark.parametrize('x', [])\n", "parametrize without a case"),
    "pytestmark": ("pytestmark = pytest.mark.skip\n", "skip"),
    "a list of pytestmark": ("pytestmark = [pytest.mark.slow, pytest.mark.skip('x')]\n", "skip"),
    "all of a module": ("pytest.skip('slow', allow_module_level=True)\n", "skip"),
    "a module under a condition": ("if x:\n    pytest.skip('x', allow_module_level=True)\n", "skip under a condition"),
    "importorskip": ("numpy = pytest.importorskip('numpy')\n", "importorskip"),
    "SkipTest": ("raise unittest.SkipTest('slow')\n", "SkipTest"),
    "__test__": ("__test__ = False\n", "__test__"),
}


def look(before: dict[str, str], now: dict[str, str]) -> tuple[int, int, tuple[str, ...]]:
    sides = ({path: text.encode() for path, text in files.items()} for files in (before, now))
    found = compared(*sides)
    assert (found.verdict is Verdict.FAIL) == bool(found.detail)
    return found.before, found.now, found.detail


@pytest.mark.parametrize(("before", "now"), SAME.values(), ids=SAME)
def test_they_did_not_shrink(before: dict[str, str], now: dict[str, str]) -> None:
    assert look(before, now)[2] == ()


@pytest.mark.parametrize(("mark", "how"), SKIPPED.values(), ids=SKIPPED)
def test_one_is_skipped(mark: str, how: str) -> None:
    line = mark.count("\n") + 1
    said = f"{PATH}:{line}: test_one is skipped now ({how})"
    assert look({PATH: ONE}, {PATH: mark + ONE}) == (1, 0, (said,))


@pytest.mark.parametrize(
    "body", ["pytest.skip('x')", "x = 1\n    pytest.importorskip('x')", "if x:\n        pytest.skip()"]
)
def test_one_skips_itself(body: str) -> None:
    _, now, (said,) = look({PATH: ONE}, {PATH: f"def test_one():\n    {body}\n    assert f(1)\n"})
    assert (now, "is skipped now" in said) == (0, True)


@pytest.mark.parametrize(
    "text", [f"@unittest.skip\n{UNIT}", UNIT.replace("(self):", "(self):\n        self.skipTest('x')")]
)
def test_one_of_a_class_is_skipped(text: str) -> None:
    assert look({PATH: UNIT}, {PATH: text})[:2] == (1, 0)


def test_one_is_gone_and_none_new() -> None:
    assert look({PATH: BOTH}, {PATH: ONE}) == (2, 1, (f"{PATH}:6: test_two is gone (the line is that of before)",))


def test_a_file_that_no_longer_parses_has_no_test() -> None:
    assert look({PATH: BOTH}, {PATH: f"{BOTH}def"})[:2] == (2, 0)


def test_one_that_another_of_its_name_hides_is_gone() -> None:
    text = BOTH + TWO.replace("two", "three")
    assert look({PATH: text}, {PATH: text.replace("three", "two").replace("f(2)", "f(3)")})[:2] == (3, 2)


def test_one_whose_class_is_no_longer_collected_is_gone() -> None:
    assert look({PATH: CLASS}, {PATH: CLASS.replace("TestIt", "It")})[:2] == (1, 0)


def test_a_new_one_that_asserts_nothing_stands_for_none() -> None:
    _, _, (said,) = look({PATH: BOTH}, {PATH: f"{ONE}\ndef test_new():\n    f(2)\n"})
    assert "test_two is gone" in said


@pytest.mark.parametrize("body", ["pass", "f(1)", "assert True", "return\n    assert f(1)"])
def test_one_asserts_nothing_any_more(body: str) -> None:
    found = look({PATH: ONE}, {PATH: f"def test_one():\n    {body}\n"})
    assert found == (1, 1, (f"{PATH}:1: test_one asserts nothing any more",))


CONFIGURED = {
    "pyproject.toml": '[tool.pytest.ini_options]\naddopts = "-q --ignore=tests/slow"\n',
    "pytest.ini": "[pytest]\naddopts = -q\n  --ignore=tests/slow\n",
    "setup.cfg": "[tool:pytest]\naddopts = --ignore=tests/slow\n",
    "tox.ini": "[pytest]\naddopts = --ignore=tests/slow -x\n",
}


@pytest.mark.parametrize(("path", "text"), CONFIGURED.items())
def test_an_option_leaves_some_out(path: str, text: str) -> None:
    _, _, (said,) = look({}, {path: text})
    line = next(number for number, each in enumerate(text.splitlines(), 1) if "--ignore" in each)
    assert said == f"{path}:{line}: --ignore=tests/slow leaves out tests"


@pytest.mark.parametrize("words", ["-k 'not slow'", "--deselect tests/test_a.py::test_one", "-m fast", "-kfast"])
def test_other_options_do_so_too(words: str) -> None:
    assert look({}, {"pytest.ini": f"[pytest]\naddopts = {words}\n"})[2]


@pytest.mark.parametrize(
    "text",
    ["collect_ignore = ['test_a.py']\n", "collect_ignore_glob = ['*']\n", "collect_ignore.append('test_a.py')\n"],
)
def test_a_conftest_leaves_some_out(text: str) -> None:
    _, _, (said,) = look({"tests/conftest.py": ""}, {"tests/conftest.py": text})
    assert said.startswith("tests/conftest.py:1: collect_ignore")
