from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bit_transformer import contexts
from bit_transformer.contexts import MOST, PRIOR, Contexts, pack, unpack
from bit_transformer.evaluation import rows_of_bytes
from bit_transformer.scale import double_layers, double_width

TEXT = b"The cat sat on the mat, and the dog on the log; the cat's hat. \xc3\x9cber \xc3\xbcber allem 42 cats sat"
ROWS = rows_of_bytes(TEXT * 3, 21 * 9).long()
ORDERS, SLOTS = 3, 1 << 20
LETTERS = {*b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", *range(128, 256)}


def counted(rows=ROWS, slots=SLOTS):
    found = Contexts(8, ORDERS, slots).eval()
    found.count(rows)
    return found


def bytes_of(row):
    return [int("".join(map(str, row[start : start + 8])), 2) for start in range(0, len(row) - 8, 9)]


def word_start(data, end):
    start = end
    while start and data[start - 1] in LETTERS:
        start -= 1
    return start


def contexts_of(row, place):
    """The contexts of a bit of a row, by their meaning."""
    end = place // 9
    data = bytes_of(row)[:end]
    word = before = word_start(data, end)
    while before and data[before - 1] not in LETTERS:
        before -= 1
    starts = [max(end - order, 0) for order in range(1, ORDERS + 1)] + [word, word_start(data, before)]
    return [(kind, tuple(data[start:end]), tuple(row[9 * end : place])) for kind, start in enumerate(starts)]


def naive(rows):
    found = Counter()
    for row in rows.tolist():
        for place in range(1, len(row)):
            found.update((context, row[place]) for context in contexts_of(row, place))
    return found


def assert_evidence(found, rows, counts):
    for row, each in zip(rows.tolist(), found.tolist(), strict=True):
        for place in range(1, len(row)):
            seen = [[counts[context, bit] for bit in (0, 1)] for context in contexts_of(row, place)]
            odds = torch.tensor([(one + PRIOR) / (zero + PRIOR) for zero, one in seen]).log()
            assert each[place - 1][0] == pytest.approx(odds.tolist(), abs=1e-5)
            assert each[place - 1][1] == pytest.approx(torch.tensor(seen).sum(1).log1p().tolist(), abs=1e-5)


def test_evidence_is_what_followed_each_context_in_the_rows():
    assert_evidence(counted().evidence(ROWS[:3]), ROWS[:3], naive(ROWS))


def test_of_other_rows_too():
    others = rows_of_bytes(b"the hat sat. A Cat on the th" * 2, 28 * 9).long()
    assert_evidence(counted().evidence(others), others, naive(ROWS))


def test_in_training_a_row_does_not_know_its_own_part():
    found = counted().train().evidence(ROWS[:3])
    for number in range(3):
        without = torch.cat([ROWS[:number], ROWS[number + 1 :]])
        assert_evidence(found[number : number + 1], ROWS[number : number + 1], naive(without))


def test_counting_in_parts_is_counting_at_once(monkeypatch):
    at_once = counted().tables
    monkeypatch.setattr(contexts, "COUNTED_AT_ONCE", 2 * ROWS.shape[1])
    assert torch.equal(counted().tables, at_once)
    assert at_once.any()


def test_counting_again_starts_anew():
    found = counted()
    found.count(ROWS)
    assert torch.equal(found.tables, counted().tables)


def test_in_a_small_table_the_more_frequent_have_their_place():
    small, all_of_them = counted(slots=64), counted()
    (few, many) = (each._look_up(each._keys(ROWS)) for each in (small, all_of_them))
    seen = few[0] + few[1] > 0
    assert 0 < seen.float().mean() < 1
    assert (many[0] + many[1])[seen].float().mean() > 2 * (many[0] + many[1])[~seen].float().mean()


def test_evidence_knows_no_later_bit():
    found = counted()
    for place in (1, 8, 9, 50, 100):
        changed = ROWS[:1].clone()
        changed[:, place:] = 1 - changed[:, place:]
        assert torch.equal(found.evidence(changed)[:, :place], found.evidence(ROWS[:1])[:, :place])


@pytest.mark.parametrize("length", [1, 8, 9, 10, 17, 18])
def test_rows_may_end_anywhere(length):
    found = counted()
    assert torch.equal(found.evidence(ROWS[:2, :length]), found.evidence(ROWS[:2])[:, :length])


@given(st.integers(0, 255), st.integers(0, MOST), st.integers(0, MOST))
def test_a_place_holds_its_parts(check, zeros, ones):
    place = pack(*(torch.tensor([each]) for each in (check, zeros, ones)))
    assert place.dtype == torch.int32
    assert [each.item() for each in unpack(place)] == [check, zeros, ones]


def test_counts_that_are_too_large_shrink_alike():
    zeros, ones = (torch.tensor(each) for each in ([3 * MOST, 10 * MOST, 0], [MOST, 1, 2 * MOST]))
    _, few, many = unpack(pack(torch.tensor([1, 2, 255]), zeros, ones))
    assert few.tolist() == [MOST, MOST, 0]
    assert many.tolist() == [MOST // 3, 1, MOST]


@pytest.mark.parametrize(
    ("orders", "slots", "message"),
    [(0, 64, "context_orders must be at least 1, got 0"), (2, 48, "power of 2, got 48"), (2, 1, "power of 2, got 1")],
)
def test_sizes_that_are_none_are_refused(orders, slots, message):
    with pytest.raises(ValueError, match=message):
        Contexts(8, orders, slots)


@pytest.fixture
def model(make_model):
    found = make_model(max_seq_len=ROWS.shape[1], context_orders=2, context_slots=256)
    torch.nn.init.normal_(found.contexts.weigh.weight)
    found.contexts.count(ROWS)
    return found


def test_what_a_model_weighs_is_nothing_where_no_context_is_known(model):
    known = model(ROWS[:2])[0]
    model.contexts.tables.zero_()
    unknown = model(ROWS[:2])[0]
    assert not torch.allclose(known, unknown)
    model.contexts.weigh.weight.data.zero_()
    assert torch.equal(model(ROWS[:2])[0], unknown)


def test_a_model_with_contexts_is_causal(model):
    changed = ROWS[:1].clone()
    changed[:, 100:] = 1 - changed[:, 100:]
    before, after = model(ROWS[:1])[0], model(changed)[0]
    assert torch.equal(before[:, :100], after[:, :100])
    assert not torch.allclose(before[:, 100:], after[:, 100:])


@pytest.mark.parametrize("grow", [double_width, double_layers])
def test_a_grown_model_weighs_the_same(model, grow):
    assert torch.allclose(grow(model)(ROWS[:2])[0], model(ROWS[:2])[0], atol=1e-9)


def test_gradients_reach_what_weighs_and_what_enters(model):
    model.train()(ROWS[:2])[0].square().sum().backward()
    assert model.contexts.embed.weight.grad.any()
    assert model.contexts.weigh.weight.grad.any()


def test_without_contexts_a_model_has_no_further_weights(make_model):
    assert make_model().contexts is None
    assert not [name for name in make_model().state_dict() if "contexts" in name]
