import pytest
import torch

from bit_transformer.bit_io import text_to_bits
from bit_transformer.decoding import STEPS, Reader, can_keep
from bit_transformer.generation import generate_bits
from bit_transformer.quantization import quantize_static

STACKS = [
    {},
    {"use_act": True},
    {"reversible": True},
    {"use_act": True, "reversible": True},
    {"chunk_size": 4},
    {"chunk_size": 4, "overlap": 3, "use_act": True, "reversible": True},
    {"chunk_size": 3, "overlap": 7},
    {"chunk_size": 100, "overlap": 2},
    {"context_orders": 2, "context_slots": 64},
]
TEXT = text_to_bits("abcde")


@pytest.fixture
def make_sharp(make_model):
    """Build a small model whose attention is far from even; keywords change its configuration."""

    def make(**config):
        model = make_model(**config)
        for layer in model.layers:
            torch.nn.init.normal_(layer.attention.q_proj.weight)
            torch.nn.init.normal_(layer.attention.k_proj.weight)
        if model.contexts is not None:
            model.contexts.count(torch.tensor([text_to_bits("abcab"), text_to_bits("bcabc")]))
        return model

    return make


@pytest.fixture
def calls(monkeypatch):
    """The lengths of what models read by their own forward."""
    from bit_transformer.model import BitTransformerLM

    lengths, forward = [], BitTransformerLM.forward

    def counting(self, bits, *arguments):
        lengths.append(bits.shape[1])
        return forward(self, bits, *arguments)

    monkeypatch.setattr(BitTransformerLM, "forward", counting)
    return lengths


@pytest.fixture
def patched(make_model):
    if not can_keep(make_model()):
        pytest.skip("without task-11 a tree reads all again for each bit")


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("stack", STACKS, ids=str)
@pytest.mark.parametrize("first", [1, 6])
@torch.no_grad()
def test_reading_on_scores_as_reading_all_again(make_sharp, stack, first, calls):
    model = make_sharp(**stack)
    reader = Reader(model)
    ends = [first, *range(first + 2, 46)]
    found = [reader(TEXT[:end]) for end in ends]
    assert calls == [first]
    assert not any("forward" in vars(layer.attention) for layer in model.layers)
    expected = model(torch.tensor([TEXT]))[0][0]
    torch.testing.assert_close(torch.stack(found), expected[torch.tensor(ends) - 1], atol=1e-12, rtol=0)
    assert expected.std(0).min() > 1e-3


@pytest.mark.usefixtures("patched")
@torch.no_grad()
def test_another_context_is_read_anew(make_sharp, calls):
    model = make_sharp()
    reader = Reader(model)
    contexts = [TEXT[:9], TEXT[9:18], TEXT[9:18], TEXT[9:12], TEXT[9 : 12 + STEPS], TEXT[9 : 22 + STEPS], [1]]
    found = [reader(context) for context in contexts]
    assert calls == [9, 9, 3, 13 + STEPS, 1]
    for context, logits in zip(contexts, found, strict=True):
        torch.testing.assert_close(logits, model(torch.tensor([context]))[0][0, -1], atol=1e-12, rtol=0)


@pytest.mark.usefixtures("patched")
def test_a_text_takes_one_forward_until_places_shift_and_then_one_a_byte(make_model, calls):
    generate_bits(make_model(max_seq_len=45), text_to_bits("ab"), 3)
    assert calls == [18]
    calls.clear()
    generate_bits(make_model(max_seq_len=45), text_to_bits("abcd"), 4)
    assert calls == [36, 37, 37, 37]


@pytest.mark.usefixtures("patched")
@torch.no_grad()
def test_an_int8_model_reads_on(make_model):
    model = make_model(use_act=True, chunk_size=4, overlap=2).float()
    small = quantize_static(model, torch.tensor([TEXT]))
    reader = Reader(small)
    found = torch.stack([reader(TEXT[:end]) for end in range(1, 46)])
    torch.testing.assert_close(found, small(torch.tensor([TEXT]))[0][0], atol=2e-3, rtol=0)


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_the_text_is_the_one_that_the_models_own_forward_makes_likely(make_sharp, stack):
    model = make_sharp(**stack)
    bits = generate_bits(model, text_to_bits("a"), 3, temperature=0)
    with torch.no_grad():
        for end in range(9, 36):
            if end % 9 != 8:
                assert bits[end] == model(torch.tensor([bits[:end]]))[0][0, -1].argmax()
