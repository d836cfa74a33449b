import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bit_transformer.compression import (
    compress_bits,
    decompress_bits,
    decompress_rows,
    pack_bits,
    pad_rows,
    unpack_bits,
)

bit_lists = st.lists(st.integers(0, 1), max_size=80)
long_runs = st.lists(st.integers(1, 300), max_size=6).map(
    lambda runs: [i % 2 for i, n in enumerate(runs) for _ in range(n)]
)


@given(bit_lists | long_runs, st.sampled_from([torch.uint8, torch.long, torch.bool]))
def test_decompression_undoes_compression(bits, dtype):
    compressed = compress_bits(torch.tensor(bits, dtype=dtype))
    assert compressed.dim() == 1
    assert set(compressed.tolist()) <= {0, 1}
    assert decompress_bits(compressed).tolist() == bits


def test_the_stream_is_the_first_bit_and_the_runs_in_gamma_code():
    stream = compress_bits(torch.tensor([1, 0, 0, 0, 0, 0]))
    assert stream.tolist() == [1, 1, 0, 0, 1, 0, 1]


def test_long_runs_become_short():
    assert len(compress_bits(torch.zeros(1024, dtype=torch.long))) == 22


@pytest.mark.parametrize("stream", [[1], [0, 0], [0, 0, 0, 1], [1, 1, 0]])
def test_a_stream_that_is_cut_short_is_refused(stream):
    with pytest.raises(ValueError, match="stream"):
        decompress_bits(torch.tensor(stream))


@pytest.mark.parametrize("bits", [torch.tensor([0, 2]), torch.zeros(2, 2), torch.tensor(1)])
@pytest.mark.parametrize("function", [compress_bits, decompress_bits, pack_bits])
def test_what_is_no_row_of_bits_is_refused(function, bits):
    with pytest.raises(ValueError, match="expected"):
        function(bits)


def test_rows_of_one_length_are_stacked():
    rows = torch.randint(0, 2, (3, 17))
    decoded = decompress_rows([compress_bits(row) for row in rows])
    assert decoded.dtype == torch.long
    assert torch.equal(decoded, rows)


@pytest.mark.parametrize("lengths", [(), (3, 4)])
def test_rows_of_other_lengths_are_refused(lengths):
    with pytest.raises(ValueError, match="one length"):
        decompress_rows([compress_bits(torch.zeros(length)) for length in lengths])


@given(st.lists(bit_lists, min_size=1, max_size=5), st.integers(1, 90))
def test_padding_is_exactly_what_no_row_fills(rows, max_len):
    padded, is_padding = pad_rows([torch.tensor(row, dtype=torch.uint8) for row in rows], max_len)
    assert padded.dtype == torch.long
    assert is_padding.dtype == torch.bool
    assert padded.shape == is_padding.shape == (len(rows), min(max_len, max(map(len, rows))))
    for row, bits, filler in zip(rows, padded, is_padding, strict=True):
        assert bits[~filler].tolist() == row[:max_len]
        assert not bits[filler].any()


@given(bit_lists)
def test_unpacking_undoes_packing_and_invents_nothing(bits):
    packed, count = pack_bits(torch.tensor(bits, dtype=torch.long))
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-len(bits) // 8)
    assert unpack_bits(packed, count).tolist() == bits


def test_packing_puts_the_first_bit_in_the_highest_place():
    packed, count = pack_bits(torch.tensor([1, 0, 0, 0, 0, 0, 0, 0, 1]))
    assert packed.tolist() == [128, 128]
    assert count == 9


@pytest.mark.parametrize("count", [-1, 9])
def test_more_bits_than_there_are_cannot_be_unpacked(count):
    with pytest.raises(ValueError, match="count"):
        unpack_bits(torch.tensor([255], dtype=torch.uint8), count)
