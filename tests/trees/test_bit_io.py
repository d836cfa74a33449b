import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bit_transformer.bit_io import bits_to_rows, bits_to_text, text_to_bits


def test_the_empty_text_is_no_bits():
    assert text_to_bits("") == []
    assert bits_to_text([]) == ""


def test_a_byte_is_eight_bits_most_significant_first_and_their_parity():
    assert text_to_bits("A") == [0, 1, 0, 0, 0, 0, 0, 1, 0]
    assert text_to_bits("C") == [0, 1, 0, 0, 0, 0, 1, 1, 1]


@given(st.text())
def test_decoding_undoes_encoding(text):
    bits = text_to_bits(text)
    assert len(bits) == 9 * len(text.encode("utf-8"))
    assert bits_to_text(bits) == text
    assert bits_to_text(torch.tensor(bits, dtype=torch.long)) == text


@given(st.text(min_size=1), st.data())
def test_any_flipped_bit_is_found_and_its_byte_named(text, data):
    bits = text_to_bits(text)
    place = data.draw(st.integers(0, len(bits) - 1))
    bits[place] ^= 1
    with pytest.raises(ValueError, match=rf"\bbyte {place // 9}\b"):
        bits_to_text(bits)


@pytest.mark.parametrize("length", [1, 8, 10])
def test_a_part_of_a_codeword_is_refused(length):
    with pytest.raises(ValueError, match="whole codewords"):
        bits_to_text([0] * length)


def test_bytes_that_are_not_utf8_are_refused():
    with pytest.raises(ValueError, match="utf-8"):
        bits_to_text([1, 1, 1, 1, 1, 1, 1, 1, 0])


@given(st.lists(st.integers(0, 1), min_size=1, max_size=60), st.integers(1, 60))
def test_rows_are_the_bits_in_order_without_the_tail(bits, length):
    if len(bits) < length:
        with pytest.raises(ValueError, match="do not fill one row"):
            bits_to_rows(bits, length)
        return
    rows = bits_to_rows(bits, length)
    assert rows.dtype == torch.long
    assert rows.shape == (len(bits) // length, length)
    assert rows.flatten().tolist() == bits[: rows.numel()]


def test_rows_of_no_bits_are_refused():
    with pytest.raises(ValueError, match="length=0"):
        bits_to_rows([0, 1], 0)
