"""Three-way merges: byte for byte, the same from both sides, and never a guess."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitpatch.patches.applying.merge import Conflict, merge

ENDS = [b"\n", b"\r\n", b"\r"]
LINES = st.lists(st.sampled_from([b"a", b"b", b"c", b"", b"    d", b"\xff\xfe"]), max_size=12)


@st.composite
def texts(draw):
    """Some lines, with any line ends, and with or without the last one."""
    lines = [line + draw(st.sampled_from(ENDS)) for line in draw(LINES)]
    text = b"".join(lines) + draw(st.sampled_from([b"", b"last"]))
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + text


@given(base=texts(), text=texts())
def test_what_one_side_changed_is_taken(base, text):
    assert merge(base, base, text) == (text, [])
    assert merge(base, text, base) == (text, [])
    assert merge(base, text, text) == (text, [])


@given(base=texts(), ours=texts(), theirs=texts())
def test_both_sides_see_the_same(base, ours, theirs):
    merged, conflicts = merge(base, ours, theirs)
    mirrored, others = merge(base, theirs, ours)
    assert [(c.ours, c.theirs) for c in conflicts] == [(c.theirs, c.ours) for c in others]
    assert conflicts or merged == mirrored


@given(base=texts(), ours=texts(), theirs=texts())
def test_a_conflict_names_our_lines_and_leaves_them(base, ours, theirs):
    for conflict in merge(base, ours, theirs)[1]:
        ahead = ours.splitlines(keepends=True)[conflict.line - 1 :]
        assert b"".join(ahead).startswith(conflict.ours)


@settings(max_examples=300)
@given(data=st.data(), size=st.integers(0, 12))
def test_no_line_is_lost_doubled_or_moved(data, size):
    """Every line is unique, so what became of each one shows."""
    base = [b"base %d\n" % n for n in range(size)]
    sides = []
    for name in (b"ours", b"theirs"):
        side = [line for line in base if data.draw(st.integers(0, 5))]
        for n in range(data.draw(st.integers(0, 2))):
            side.insert(data.draw(st.integers(0, len(side))), name + b" %d\n" % n)
        sides.append(side)
    ours, theirs = sides
    merged, conflicts = merge(*(b"".join(lines) for lines in (base, ours, theirs)))
    if conflicts:
        return
    expected = {line for line in base if line in ours and line in theirs} | ({*ours, *theirs} - {*base})
    lines = merged.splitlines(keepends=True)
    assert (set(lines), len(lines)) == (expected, len(expected))
    for side in sides:
        assert [line for line in lines if line in side] == [line for line in side if line in expected]


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        pytest.param(b"a\nb\nc\n", b"A\nb\nc\n", b"a\nb\nC\n", b"A\nb\nC\n", id="apart"),
        pytest.param(b"a\nb\nc\n", b"b\nc\n", b"a\nb\n", b"b\n", id="both take away"),
        pytest.param(b"a\r\nb\r\nc", b"A\r\nb\r\nc", b"a\r\nb\r\nc\r\nd", b"A\r\nb\r\nc\r\nd", id="no final newline"),
        pytest.param(b"a\nb\nc\nd\n", b"X\nb\nc\nY\n", b"X\nb\nc\nd\n", b"X\nb\nc\nY\n", id="one change in common"),
    ],
)
def test_changes_that_do_not_touch_are_both_taken(base, ours, theirs, merged):
    assert merge(base, ours, theirs) == (merged, [])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param(b"a\nB\nc\n", b"a\nX\nc\n", id="one line, two ways"),
        pytest.param(b"a\nB\nc\n", b"a\nc\n", id="changed and taken away"),
        pytest.param(b"a\nb\nnew\nc\n", b"a\nc\n", id="a line after what is taken away"),
        pytest.param(b"a\nnew\nb\nc\n", b"a\nc\n", id="a line before what is taken away"),
        pytest.param(b"a\nx\nb\nc\n", b"a\ny\nb\nc\n", id="two lines for one place"),
    ],
)
def test_changes_that_touch_conflict(ours, theirs):
    merged, conflicts = merge(b"a\nb\nc\n", ours, theirs)
    assert (merged, len(conflicts)) == (ours, 1)


def test_the_line_of_a_conflict_counts_what_came_before_it():
    base, ours = b"a\nb\nc\nd\n", b"new\nnew\na\nb\nC\nd\n"
    assert merge(base, ours, b"a\nb\nX\nd\n")[1] == [Conflict(5, b"C\n", b"X\n")]
