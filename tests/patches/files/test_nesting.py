"""How deep a text nests is counted before it is parsed, and what is too deep is named; the rest can be worked on."""

import subprocess
import sys

import pytest
from samples import BASELINE, REFERENCE

from bitpatch.patches.files.nesting import TooDeep, require_shallow
from bitpatch.patches.reading.source import Source
from bitpatch.patches.task import Unparsable

CHAINS = {
    "brackets": lambda n: "x = " + "(" * n + "1" + ")" * n,
    "lists": lambda n: "x = " + "[" * n + "1" + "]" * n,
    "calls in calls": lambda n: "x = " + "f(" * n + ")" * n,
    "a sum": lambda n: "x = " + " + ".join(["1"] * n),
    "a sum on lines": lambda n: "x = (\n    " + "\n    + ".join(["1"] * n) + "\n)",
    "signs": lambda n: "x = " + "-" * n + "1",
    "not": lambda n: "x = " + "not " * n + "1",
    "and": lambda n: "x = " + "a and " * n + "a",
    "powers": lambda n: "x = " + "a ** " * n + "a",
    "attributes": lambda n: "x = a" + ".b" * n,
    "calls of calls": lambda n: "x = a" + "()" * n,
    "subscripts": lambda n: "x = a" + "[0]" * n,
    "texts side by side": lambda n: "x = (" + "\n'a'" * n + ")",
    "lambdas": lambda n: "x = " + "lambda: " * n + "0",
    "alternatives": lambda n: "x = " + "a if b else " * n + "c",
    "elif": lambda n: "if a:\n    pass\n" + "elif a:\n    pass\n" * n,
    "a formatted text": lambda n: "x = f'{" + "(" * n + "1" + ")" * n + "}'",
    "blocks": lambda n: "".join(" " * i + "if a:\n" for i in range(min(n, 2000))) + " " * min(n, 2000) + "pass",
    "a dotted module": lambda n: "import a" + ".a" * min(n, 5000),  # Python itself takes the square of its length
    "comprehensions": lambda n: "x = " + "[a for a in " * n + "b" + "]" * n,
}
PARSE = """
import sys
from bitpatch.patches.reading.source import Source
from bitpatch.patches.task import Unparsable
try:
    source = Source("file.py", sys.stdin.buffer.read())
    source.require_faithful()
    source.names.top_level("x")
    print("read")
except Unparsable as error:
    print(error)
"""


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("length", [1000, 3000, 50_000])
def test_any_depth_is_read_or_refused_with_its_place(chain, length):
    """In a process of its own: what is not caught here ends it by a signal."""
    text = chain(length)
    done = subprocess.run([sys.executable, "-c", PARSE], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    is_deep = done.stdout.startswith("file.py:") and (
        "nested too deeply" in done.stdout or "syntax error" in done.stdout
    )
    assert is_deep or (done.stdout, length) == ("read\n", 1000), done.stdout


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_what_people_write_is_shallow(chain):
    assert Source("file.py", chain(60).encode()).require_faithful() is None


def test_long_is_not_deep():
    for text in (
        "x = [" + "f(a, b), " * 5000 + "]",
        "def f():\n    g()\n" * 5000,
        "x = {" + "'a': b.c.d(1), " * 3000 + "}",
    ):
        require_shallow(text)
    for tree in (BASELINE, REFERENCE):
        for file in tree.rglob("*.py"):
            require_shallow(file.read_text() * 3)


def test_the_place_is_where_it_becomes_too_deep():
    with pytest.raises(TooDeep) as deep:
        require_shallow("a = 1\nb = (\n    " + "-" * 2000 + "1\n)\n")
    assert (deep.value.line, deep.value.column) == (3, 996)


def test_a_deep_statement_is_no_matter_where_nothing_looks_at_it():
    source = Source("file.py", ("def f():\n    return " + "-" * 2000 + "1\n\n\ndef g():\n    return 1\n").encode())
    assert source.opened(source.parts[1]).name == "g"
    with pytest.raises(Unparsable, match=r"^file\.py:2:10\d\d: expressions or blocks are nested too deeply: split"):
        source.opened(source.parts[0])
