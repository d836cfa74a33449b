"""Law 5: what a patch does not own stays byte-identical, in every dress that a file may wear."""

import difflib
import itertools
import random
import re

import pytest
from samples import REFERENCE, contents

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import all_tasks
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Unparsable

FILES = (
    "bit_transformer/model.py",
    "bit_transformer/training.py",
    "bit_transformer/safety.py",
    "dashboard/manager.py",
    "data/wikitext_schedule.py",
)
NAMES = [task.id for task in all_tasks()]


def crlf(raw):
    return raw.replace(b"\n", b"\r\n")


def tabs(raw):
    lines = raw.split(b"\n")
    indents = [(len(line) - len(line.lstrip(b" "))) // 4 for line in lines]
    return b"\n".join(b"\t" * n + line[4 * n :] for n, line in zip(indents, lines, strict=True))


def bom(raw):
    return b"\xef\xbb\xbf" + raw


def cookie(raw):
    return b"# -*- coding: latin-1 -*-\n# caf\xe9\n" + raw


def no_final_newline(raw):
    return raw.rstrip(b"\n")


def two_strings(raw):
    """The docstring of the module, made of two strings."""
    end = raw.index(b'"""', 3) + 3
    return b'"What this is" " for."' + raw[end:]


def imports_in_try(raw):
    return raw.replace(b"\nimport torch\n", b"\ntry:\n    import torch\nexcept ImportError:\n    torch = None\n", 1)


def decorated(raw):
    return re.sub(
        rb"(?m)^(?=def train_loop|def load_rows|class SafetyGate|class SelfAttention|class ModelManager)",
        b"@seen\n",
        raw,
    )


def one_line_suites(raw):
    return re.sub(rb"(?m)^( +)(if log|if args\.out is not None):\n +(.*)\n", rb"\1\2: \3\n", raw)


DRESSES = {
    d.__name__: d
    for d in (crlf, tabs, bom, cookie, no_final_newline, two_strings, imports_in_try, decorated, one_line_suites)
}
DRESSES |= {
    "tabs and crlf": lambda raw: crlf(tabs(raw)),
    "bom and crlf, no final newline": lambda raw: bom(crlf(no_final_newline(raw))),
}


@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES)
def test_patching_a_dressed_file_is_dressing_the_patched_one(tree, patched, dress):
    for path in FILES:
        (tree / path).write_bytes(dress((tree / path).read_bytes()))
    patched(tree, *NAMES)
    for path in FILES:
        assert (tree / path).read_bytes() == dress((REFERENCE / path).read_bytes())


@pytest.mark.parametrize("path", FILES)
def test_a_file_with_a_form_feed_is_refused_and_nothing_is_written(tree, path):
    (tree / path).write_bytes((tree / path).read_bytes() + b"\x0cx = 1\n")
    before = contents(tree)
    with pytest.raises(Unparsable, match="form feed"):
        plan(open_tree(tree), all_tasks())
    assert contents(tree) == before


@pytest.mark.parametrize("name", NAMES)
def test_untouched_lines_are_untouched(tree, patched, name):
    before = contents(tree)
    after = contents(patched(tree, name))
    for path in before:
        old, new = before[path].splitlines(keepends=True), after[path].splitlines(keepends=True)
        removed = [
            line for line in difflib.ndiff([str(x) for x in old], [str(x) for x in new]) if line.startswith("- ")
        ]
        assert len(removed) <= 12, path


@pytest.mark.parametrize("seed", range(6))
def test_comments_and_blank_lines_anywhere_survive(tree, patched, seed):
    """A comment put above any line of any statement is still there after all patches, and so is every blank line."""
    drawn = random.Random(seed)
    for path in FILES:
        lines = (tree / path).read_text().split("\n")
        spots = [n for n in range(len(lines)) if lines[n].strip() and not _in_text(lines, n)]
        if path.startswith("data"):  # comments on the code that task-5 takes out go with it
            spots = [n for n in spots if not 24 <= n < 32]
        for count, n in enumerate(sorted(drawn.sample(spots, drawn.randint(0, 8)), reverse=True)):
            indent = lines[n][: len(lines[n]) - len(lines[n].lstrip())]
            lines.insert(n, f"{indent}# note {count}")
        (tree / path).write_text("\n".join(lines))
    before = {path: (tree / path).read_text() for path in FILES}
    patched(tree, *NAMES)
    for path in FILES:
        after = (tree / path).read_text()
        notes = [line.strip() for line in before[path].split("\n") if line.strip().startswith("# note")]
        assert [line.strip() for line in after.split("\n") if line.strip().startswith("# note")] == notes
    once = contents(tree)
    assert contents(patched(tree, *NAMES)) == once


def _in_text(lines, n):
    """Whether a line stands inside a docstring, where a comment would be text."""
    return sum(line.count('"""') for line in itertools.islice(lines, n)) % 2 == 1
