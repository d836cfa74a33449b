import bz2
import gzip
import lzma
import math
import sys
import types
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bit_transformer.bit_io import SAMPLE
from bit_transformer.ladder import LABELS, alone, count_ladder, entropy, given_train

texts = st.lists(st.sampled_from([0, 1, 7, 255]), min_size=1, max_size=60).map(bytes)


def naive(data, train, row_bytes, longest):
    """Witten and Bell's back-off by the book."""
    followed = defaultdict(Counter)
    for order in range(longest + 1):
        for at in range(len(train) - order):
            followed[train[at : at + order]][train[at + order]] += 1

    def probability(context, byte):
        shorter = probability(context[1:], byte) if context else 1 / 256
        seen = followed.get(context)
        return (seen[byte] + len(seen) * shorter) / (seen.total() + len(seen)) if seen else shorter

    spent = 0.0
    for at, byte in enumerate(data):
        start = max(at - at % row_bytes, at - longest)
        spent -= math.log2(probability(data[start:at], byte))
    return spent / len(data)


@given(texts, texts, st.integers(1, 12))
def test_counts_are_those_of_the_book(data, train, row_bytes):
    found = count_ladder(data, train, row_bytes)
    assert found == {f"counts_{order}": pytest.approx(naive(data, train, row_bytes, order)) for order in range(2, 7)}


def test_what_follows_always_costs_little_and_what_never_did_costs_much():
    found = given_train(b"abababab", b"ab" * 500, 8)
    assert found["counts_2"] < 0.2
    assert found["counts_2"] < count_ladder(b"bbbbbbbb", b"ab" * 500, 8)["counts_2"] - 5


def test_compressors_are_at_the_settings_they_are_named_for():
    data = SAMPLE.read_bytes() + SAMPLE.read_bytes()[::-1]  # enough for each setting to give another size
    found = alone(data)
    assert found["gzip_9"] == 8 * len(gzip.compress(data, 9)) / len(data)
    assert found["bz2_9"] == 8 * len(bz2.compress(data, 9)) / len(data)
    assert found["xz_9e"] == 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) / len(data)
    assert found.keys() <= LABELS.keys()


def test_given_the_text_a_compressor_pays_for_what_is_new():
    train = SAMPLE.read_bytes()[:20_000]
    data = train[5_000:9_000]
    known, new = given_train(data, train, 64), given_train(data[::-1], train, 64)
    assert known["xz_9e"] < new["xz_9e"] / 20
    expected = 8 * (len(lzma.compress(train + data, preset=9 | lzma.PRESET_EXTREME)) - xz(train)) / len(data)
    assert known["xz_9e"] == expected
    assert known.keys() <= LABELS.keys()


def xz(data):
    return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


def test_ppmd_is_there_where_its_package_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyppmd", None)
    assert "ppmd_8" not in alone(b"abc")
    asked = []
    package = types.SimpleNamespace(compress=lambda data, **settings: asked.append(settings) or data[: len(data) // 2])
    monkeypatch.setitem(sys.modules, "pyppmd", package)
    assert alone(b"abcd")["ppmd_8"] == 4
    assert asked[0]["max_order"] == 8


@pytest.mark.parametrize(("data", "train"), [(b"", b"a"), (b"a", b"")])
def test_no_bytes_have_no_ladder(data, train):
    with pytest.raises(ValueError, match=r"got [01] and [01]"):
        given_train(data, train, 8)


def test_nothing_has_nothing_beside_it():
    with pytest.raises(ValueError, match="got none"):
        alone(b"")


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0), (b"a", 0), (b"ab", 1), (b"aaaaaaaa", 0), (bytes(range(256)), 8), (b"aab", math.log2(3) - 2 / 3)],
)
def test_the_entropy_of_single_bytes_has_its_closed_form(data, expected):
    assert entropy(data) == pytest.approx(expected, abs=1e-12)
