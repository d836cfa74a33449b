"""Tests of parts: a file cut into its statements is the file that LibCST parses, and is parsed no further than asked."""

import itertools

import libcst as cst
import pytest

from bitpatch.patches.reading.parts import Style, cut, part_of
from bitpatch.patches.reading.source import Source

STATEMENTS = {
    "docstring": '"""Say\n\nwhat."""\n',
    "imports": "import a, b; import c\nfrom d import (\n    e,  # why\n)\n",
    "function": "# above\n\n@decorated\n# between\ndef f(x: int = 1) -> int:\n    # inside\n    return (\n        x\n    )\n",
    "class": "class A:\n\n    def f(self):\n        pass\n\n    # behind\n    x = 1\n",
    "tabs": "if a:\n\tb\nelse:\n\tc  # d\n",
    "two": "while True:\n  break\n",
    "line": "if a: b\n",
    "text": 's = """\ndef g():\n    # no comment\n"""\n',
    "blank": "\n\n# alone\n\n",
    "footer": "def h():\n    pass\n    # of the block\n\n# of the file\n",
    "loose": "def i():\n    pass\n    \n\nx = 1\n",
}


@pytest.mark.parametrize("names", list(itertools.permutations(STATEMENTS, 2)), ids="-".join)
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("ending", ["", "\n", "z"], ids=["as-it-is", "blank-line", "no-final-newline"])
def test_a_file_in_parts_is_the_module_that_libcst_parses(names, newline, ending):
    text = "".join(STATEMENTS[name] for name in names) + ending
    raw = text.replace("\n", newline).encode()
    source, parsed = Source("file.py", raw), cst.parse_module(raw)
    around = ("default_indent", "default_newline", "has_trailing_newline", "encoding")
    assert [getattr(source.module, name) for name in around] == [getattr(parsed, name) for name in around]
    assert len(source.module.body) == len(parsed.body)
    lines = [(*module.header, *module.body, *module.footer) for module in (source.module, parsed)]
    assert all(own.deep_equals(other) for own, other in zip(*lines, strict=True))
    source.require_faithful()


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\f\ny = 2\n",
        "# coding: latin-1\nx = 1\n",
        "\ufeffx = 1\n",
        "x = 1\ry = 2\n",
        "",
        "# only a comment\n",
        "x = (\n",
    ],
    ids=["form feed", "cookie", "byte order mark", "old Mac", "empty", "comment", "does not parse"],
)
def test_what_python_may_see_in_another_way_is_left_to_libcst(text):
    assert cut(text.encode()) is None


def test_a_definition_is_parsed_only_when_it_is_asked_for():
    source = Source("file.py", b"import a\n\ndef f():\n    g()\n\n\ndef g():\n    a.h()\n")
    assert [call.func.attr.value for call in source.walk(cst.Call, having=("h",))] == ["h"]
    assert [each.imported for each in source.names.top_level("a")] == ["a"]
    assert ["statement" in vars(part) for part in source.parts] == [True, False, True]


def test_a_word_may_go_by_another_name_at_the_top_of_the_file():
    source = Source("file.py", b"from a import h as k\n\ndef f():\n    k()\n")
    assert [source.code(call) for call in source.walk(cst.Call, having=("h",))] == ["k()"]


def test_files_share_the_statements_that_they_have_in_common():
    a, b = Source("a.py", b"x = 1\n\ndef f():\n    pass\n"), Source("b.py", b"x = 2\n\ndef f():\n    pass\n")
    assert (a.parts[0] is b.parts[0], a.parts[1] is b.parts[1]) == (False, True)


def test_a_statement_that_stands_twice_has_nodes_of_its_own_each_time():
    source = Source("file.py", b"f()\nf()\n")
    first, second = source.walk(cst.Call)
    assert (first is second, source.order[first] < source.order[second]) == (False, True)
    assert source.site(second, "").line == 2


def test_a_part_is_laid_out_as_its_file():
    part = part_of("if a:\n\tb\n", Style("    ", "\n"), "")
    assert part.statement.body.indent == "\t"
    assert part.printed.text == part.text
