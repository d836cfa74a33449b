"""Law 5: what a patch does not own stays byte-identical, in every dress that a file may wear."""

import difflib
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import REFERENCE, contents

from bitpatch.patches.engine import all_tasks

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


DRESSES = {d.__name__: d for d in (crlf, tabs, bom, cookie, no_final_newline)}
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


@pytest.mark.parametrize("name", NAMES)
def test_untouched_lines_are_untouched(tree, patched, name):
    before = contents(tree)
    after = contents(patched(tree, name))
    for path in before:
        old, new = before[path].splitlines(keepends=True), after[path].splitlines(keepends=True)
        removed = [
            line for line in difflib.ndiff([str(x) for x in old], [str(x) for x in new]) if line.startswith("- ")
        ]
        assert len(removed) <= 8, path


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_comments_and_blank_lines_anywhere_survive(tmp_path_factory, patched, data):
    """A comment put above any line of any statement is still there after all patches, and so is every blank line."""
    import shutil

    from samples import BASELINE, CODE_ONLY

    tree = shutil.copytree(BASELINE, tmp_path_factory.mktemp("noted") / "tree", ignore=CODE_ONLY)
    for path in FILES:
        lines = (tree / path).read_text().split("\n")
        spots = [n for n in range(len(lines)) if lines[n].strip() and not _in_text(lines, n)]
        for count, n in enumerate(sorted(data.draw(st.sets(st.sampled_from(spots), max_size=8)), reverse=True)):
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
