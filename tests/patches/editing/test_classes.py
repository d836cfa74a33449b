"""How classes, functions and displays are given more."""

import libcst as cst
import pytest
from samples import source

from bitpatch.patches.editing.classes import class_of, member, more_entries, more_parameters, put_before, put_behind
from bitpatch.patches.editing.edits import apply_edits
from bitpatch.patches.task import State

GIVEN = '''\
"""Given."""

import math
from bit_transformer.model import Model
from bit_transformer.training import count


class Plan:
    def first(self):
        return 1

    @property
    def second(self) -> int:
        """Doc.

        More.
        """
        return math.ceil(count(self))

    def third(self):
        return 3
'''


def brought(text, name="second"):
    target, given = source(text), source(GIVEN)
    found = member(target, next(target.walk(cst.ClassDef)), given, class_of(given, "Plan"), name)
    return found, apply_edits(target, found.edits).raw.decode()


def test_a_member_comes_behind_the_one_before_it():
    found, text = brought("class P:\n    def first(self):\n        pass\n\n    def other(self):\n        pass\n")
    assert found.state is State.MISSING
    assert text.startswith("import math\nfrom bit_transformer.training import count\n")
    assert text.index("def first") < text.index("def second") < text.index("def other")
    assert "        pass\n\n    @property\n    def second(self) -> int:\n" in text


def test_a_member_comes_last_where_none_before_it_is_there():
    text = brought("class P:\n    a: int\n    b: int = 1  # one\n")[1]
    assert "    b: int = 1  # one\n\n    @property\n    def second" in text


def test_a_member_takes_on_the_files_style():
    text = brought("class P:\r\n\ta = 1\r\n")[1]
    assert text.count("\n") == text.count("\r\n")
    assert '\t\t"""Doc.\r\n\r\n\t\tMore.\r\n\t\t"""\r\n\t\treturn math' in text


def test_a_member_that_is_there_is_left():
    text = brought("class P:\n    a = 1\n")[1]
    again, same = brought(text)
    assert (again.state, same) == (State.APPLIED, text)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("class P:\n    def second(self):\n        return 2\n", "another second of P"),
        ("class P:\n    second: int = 2\n", "another second of P"),
        ("class P: a: int = 1\n", "all of it is on one line"),
        ("math = 3\n\n\nclass P:\n    a = 1\n", "stands for something else"),
    ],
)
def test_a_member_that_cannot_be_brought_is_refused(text, note):
    found, same = brought(text)
    assert (found.state, same) == (State.UNRECOGNISED, text)
    assert note in found.site.note


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f(self, a=1):", "def f(self, a=1, n=2):"),
        ("def f(self, a=1, *, k=3, **more):", "def f(self, a=1, *, k=3, n=2, **more):"),
        ("def f(self, *all):", "def f(self, *all, n=2):"),
        ("def f(\n    self,\n    a=1,\n):", "def f(\n    self,\n    a=1,\n    n=2,\n):"),
    ],
)
def test_parameters_come_last(text, expected):
    target = source(f"{text}\n    pass\n")
    function = next(target.walk(cst.FunctionDef))
    new = next(source("def g(n=2): pass\n").walk(cst.Param))
    assert apply_edits(target, [more_parameters(target, function, [new])]).raw.decode() == f"{expected}\n    pass\n"


@pytest.mark.parametrize(
    ("put", "text", "expected"),
    [
        (put_behind, "a = 1\nb = 2\n", "a = 1\nnew()\nb = 2\n"),
        (put_before, "x()\n# on a\na = 1\n", "x()\nnew()\n# on a\na = 1\n"),
        (put_behind, "def f(): a = 1; return a  # all\n", "def f():\n    a = 1\n    new()\n    return a  # all\n"),
        (put_before, "def f(): a = 1\n", "def f():\n    new()\n    a = 1\n"),
        (put_behind, "def f():\n    a = 1; return a\n", "def f():\n    new()\n    a = 1; return a\n"),
    ],
)
def test_statements_are_put_beside_one(put, text, expected):
    target = source(text)
    assert apply_edits(target, [put(target, next(target.walk(cst.Assign)), "new()")]).raw.decode() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{'a': me.a}", "{'a': me.a, 'b': me.b}"),
        ("dict(a=me.a)", "dict(a=me.a, b=me.b)"),
        ('{\n            "a": me.a,\n        }', '{\n            "a": me.a,\n            "b": me.b,\n        }'),
    ],
)
def test_entries_are_added_in_the_layout_of_the_others(text, expected):
    head = "class A:\n    def f(me):\n        return "
    target = source(f"{head}{text}\n")
    display = next(node for kind in (cst.Dict, cst.Call) for node in target.walk(kind))
    assert apply_edits(target, [more_entries(target, display, {"b": "me.b"})]).raw.decode() == f"{head}{expected}\n"
