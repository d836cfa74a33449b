"""What is taken from reference/, and where it lands."""

import pytest
from samples import source

from bitpatch.patches.editing.donor import definitions, parameter
from bitpatch.patches.editing.edits import apply_edits
from bitpatch.patches.task import State

GIVEN = '''\
"""Given."""

import math
import os
from itertools import chain, islice

LIMIT = 3


def first(a, limit=LIMIT):
    """Doc.

    More.
    """
    return islice(a, limit)


def second(
    a,
    b,
):
    return math.ceil(a)


def third():
    return second(first(1), 2)


class Loop:
    pass


def run(model, *, epochs=1, steps: int = 1, log=False):
    pass


def main(parser):
    parser.add_argument("--epochs")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--log")
    args = parser.parse_args()
    run(1, epochs=args.epochs, steps=args.steps, log=args.log)
'''


def brought(target_text, *names):
    target = source(target_text)
    return apply_edits(target, definitions(target, source(GIVEN), *names).edits).raw.decode()


def test_nothing_to_bring_is_no_edit():
    finding = definitions(source(GIVEN), source(GIVEN), "third")
    assert (finding.state, finding.edits) == (State.APPLIED, ())


def test_a_definition_brings_its_constants_and_imports():
    assert brought("import os\n\n\nclass Loop:\n    pass\n", "first") == (
        "import os\nfrom itertools import islice\n\nLIMIT = 3\n\n\n"
        'def first(a, limit=LIMIT):\n    """Doc.\n\n    More.\n    """\n    return islice(a, limit)\n\n\nclass Loop:\n    pass\n'
    )


def test_a_definition_brings_the_functions_it_calls():
    text = brought('"""Target."""\n\n\nclass Loop:\n    pass\n', "third")
    assert [line for line in text.splitlines() if line.startswith(("def", "class", "LIMIT"))] == [
        "LIMIT = 3",
        "def first(a, limit=LIMIT):",
        "def second(",
        "def third():",
        "class Loop:",
    ]


@pytest.mark.parametrize("order", [("first", "second"), ("second", "first")])
def test_the_order_of_bringing_leaves_no_trace(order):
    text = "import os\n\n\ndef own():\n    pass\n\n\nclass Loop:\n    pass\n"
    for name in order:
        text = brought(text, name)
    assert text == brought("import os\n\n\ndef own():\n    pass\n\n\nclass Loop:\n    pass\n", "first", "second")


@pytest.mark.parametrize("order", [("first", "fourth"), ("fourth", "first")])
def test_the_order_of_bringing_constants_leaves_no_trace(order):
    given = source(GIVEN.replace("LIMIT = 3\n", "LIMIT = 3\nMOST = 4\n") + "\n\ndef fourth():\n    return MOST\n")
    target = source("import os\n\n\ndef own():\n    pass\n")
    for name in order:
        target = apply_edits(target, definitions(target, given, name).edits)
    assert "import os\nfrom itertools import islice\n\nLIMIT = 3\nMOST = 4\n\n\ndef " in target.raw.decode()


def test_newline_indent_and_docstring_are_the_targets():
    text = brought("class Loop:\r\n\tpass\r\n", "first")
    assert "\r\n\t'''" not in text
    assert 'def first(a, limit=LIMIT):\r\n\t"""Doc.\r\n\r\n\tMore.\r\n\t"""\r\n\treturn islice(a, limit)\r\n' in text
    assert "\n" not in text.replace("\r\n", "")


def test_continuation_lines_take_on_the_indent():
    assert "def second(\n\ta,\n\tb,\n):\n\treturn" in brought("class Loop:\n\tpass\n", "second")


def test_an_import_joins_the_one_of_its_module():
    text = brought("from itertools import (\n    chain,\n)\n\n\nclass Loop:\n    pass\n", "first")
    assert text.startswith("from itertools import (\n    chain,\n    islice,\n)\n")


def test_a_future_import_stays_first():
    text = brought('"""Doc."""\nfrom __future__ import annotations\n\nclass Loop:\n    pass\n', "second")
    assert text.index("__future__") < text.index("import math")


def test_definitions_stay_above_the_main_guard():
    text = brought('x = 1\nif __name__ == "__main__":\n    print(x)\n', "second")
    assert text.index("def second") < text.index("__main__")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("def first():\n    pass\n", "another definition of first", id="another function"),
        pytest.param(
            "import numpy as islice\n\n\nclass Loop:\n    pass\n",
            "the name islice, which is to be itertools.islice, stands for something else",
            id="another import",
        ),
        pytest.param(
            "def islice():\n    pass\n", "the name islice, which is to be itertools.islice", id="own function"
        ),
    ],
)
def test_a_name_that_is_taken_is_a_near_miss_with_its_place(text, reason):
    finding = definitions(source(text), source(GIVEN), "first")
    assert finding.state is State.UNRECOGNISED
    assert str(finding.site).startswith(f"file.py:1:1: {reason}")


def test_abstract_classes_of_typing_are_those_of_collections():
    given = source("from collections.abc import Iterator\n\n\ndef first(a: Iterator):\n    pass\n")
    target = source("from typing import Iterator\n\n\nclass Loop:\n    pass\n")
    edited = apply_edits(target, definitions(target, given, "first").edits)
    assert edited.raw.count(b"import") == 1


def test_an_import_for_type_checkers_does_not_count():
    given = source("from collections.abc import Iterator\n\n\ndef first(a: Iterator):\n    pass\n")
    target = source("if TYPE_CHECKING:\n    from collections.abc import Iterator\n\n\nclass Loop:\n    pass\n")
    edited = apply_edits(target, definitions(target, given, "first").edits)
    assert edited.raw.startswith(b"from collections.abc import Iterator\nif TYPE_CHECKING")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            "def run(model, *, epochs=1):\n    pass\n",
            "def run(model, *, epochs=1, steps: int = 1):\n    pass\n",
            id="last",
        ),
        pytest.param(
            "def run(model, *, epochs=1, log=False):\n    pass\n",
            "def run(model, *, epochs=1, steps: int = 1, log=False):\n    pass\n",
            id="in reference order",
        ),
        pytest.param(
            "def run(model):\n    pass\n", "def run(model, steps: int = 1):\n    pass\n", id="no keyword-only section"
        ),
        pytest.param(
            "def run(model, **kw):\n    pass\n",
            "def run(model, steps: int = 1, **kw):\n    pass\n",
            id="before the rest",
        ),
        pytest.param(
            "def run(\n    model,\n    *,\n    epochs=1,  # how often\n):\n    pass\n",
            "def run(\n    model,\n    *,\n    epochs=1,  # how often\n    steps: int = 1,\n):\n    pass\n",
            id="one a line",
        ),
    ],
)
def test_parameter(before, after):
    target = source(before)
    assert apply_edits(target, parameter(target, source(GIVEN), "run", "steps").edits).raw.decode() == after


def test_a_constant_without_neighbours_comes_behind_the_imports():
    text = brought('"""Doc."""\nimport sys\n\nprint(sys.path)\n', "LIMIT")
    assert text == '"""Doc."""\nimport sys\n\nLIMIT = 3\n\nprint(sys.path)\n'


def test_what_a_script_runs_is_defined_before():
    text = brought("import sys\n\nfor each in sys.argv:\n    print(each)\n", "second")
    assert text.index("def second") < text.index("for each")


@pytest.mark.parametrize("text", ["SIZE = 9\n\n\ndef own():\n    pass\n", "LIMIT = 3\n\n\nclass Loop:\n    pass\n"])
def test_a_constant_comes_behind_what_it_is_made_by(text):
    target, given = source(text), source(GIVEN + "\n\nTABLE = [Loop() for _ in range(LIMIT)]\n")
    made = apply_edits(target, definitions(target, given, "TABLE").edits).raw.decode()
    exec(made, names := {})
    assert len(names["TABLE"]) == 3
