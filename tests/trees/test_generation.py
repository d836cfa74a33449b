import math

import pytest
import torch
from torch import nn

from bit_transformer.bit_io import text_to_bits
from bit_transformer.generation import generate, generate_bits

STACKS = [
    {},
    {"chunk_size": 4, "overlap": 2, "full_attn_logging": False},
    {"reversible": True},
    {"use_act": True, "reversible": True},
]


class Scripted(nn.Module):
    """Scores the next bit by a function of the bits before it, and keeps what it was asked."""

    def __init__(self, score, max_seq_len=36):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout()
        self.score, self.max_seq_len, self.asked = score, max_seq_len, []

    def forward(self, bits):
        assert not self.training
        assert not self.dropout.training
        assert not torch.is_grad_enabled()
        self.asked.append(bits[0].tolist())
        logits = torch.zeros(*bits.shape, 2)
        logits[0, -1, 1] = self.score(bits[0].tolist())
        return logits, {}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def words_of(bits):
    return [bits[start : start + 9] for start in range(0, len(bits), 9)]


def test_no_bytes_asked_for_is_the_prompt(make_model):
    assert generate(make_model(), "héllo", 0) == "héllo"


@pytest.mark.parametrize("stack", STACKS, ids=str)
@pytest.mark.parametrize("prompt", ["", "no", "longer than the model reads"])
def test_the_prompt_is_kept_and_every_word_has_even_parity(make_model, stack, prompt):
    bits = generate_bits(make_model(**stack), text_to_bits(prompt), 7, generator=generator(1))
    assert bits[: 9 * len(prompt)] == text_to_bits(prompt)
    assert len(bits) == 9 * (len(prompt) + 7)
    assert [sum(word) % 2 for word in words_of(bits)] == [0] * (len(prompt) + 7)


def test_the_ninth_bit_is_never_asked_of_the_model():
    model = Scripted(lambda bits: 0.0)
    generate_bits(model, text_to_bits("a"), 3, generator=generator(0))
    assert [len(bits) % 9 for bits in model.asked] == [0, 1, 2, 3, 4, 5, 6, 7] * 3


@pytest.mark.parametrize("max_seq_len", [9, 10, 17, 18, 20, 36])
def test_the_context_is_the_most_that_fits_and_begins_at_a_codeword(max_seq_len):
    model = Scripted(lambda bits: 0.0, max_seq_len)
    bits = generate_bits(model, text_to_bits("ab"), 5, generator=generator(0))
    ends = [end for end in range(18, len(bits)) if end % 9 != 8]
    assert len(model.asked) == len(ends)
    for end, asked in zip(ends, model.asked, strict=True):
        starts = [start for start in range(0, end, 9) if end - start <= max_seq_len]
        assert asked == bits[starts[0] : end]


def test_a_model_that_knows_its_text_writes_it():
    text = "Twas brillig, äöü €"
    known = text_to_bits(text)
    model = Scripted(lambda bits: 1000.0 if known[len(bits)] else -1000.0, max_seq_len=len(known))
    assert generate(model, "Twas", len(text.encode()) - 4) == text


def test_a_seed_fixes_the_text_and_another_gives_another(make_model):
    model = make_model()
    texts = [generate(model, "a", 12, generator=generator(seed)) for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]


def test_a_generator_leaves_the_global_one_alone(make_model):
    model, before = make_model(), torch.get_rng_state()
    generate(model, "", 3, generator=generator(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_temperature_0_takes_the_likelier_bit_whatever_the_seed(make_model):
    model = make_model()
    bits = generate_bits(model, text_to_bits("ab"), 2, temperature=0)
    assert bits == generate_bits(model, text_to_bits("ab"), 2, temperature=0, generator=generator(9))
    for end in range(18, 36):
        if end % 9 != 8:
            with torch.no_grad():
                assert bits[end] == model(torch.tensor([bits[:end]]))[0][0, -1].argmax()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_bits_are_drawn_as_often_as_the_logits_say(temperature):
    bits = generate_bits(Scripted(lambda bits: 1.0), [], 400, temperature, generator(0))
    data = [bit for word in words_of(bits)[1:] for bit in word[:8]]
    expected = 1 / (1 + math.exp(-1 / temperature))
    assert abs(sum(data) / len(data) - expected) < 4 * math.sqrt(expected * (1 - expected) / len(data))


def test_before_the_first_bit_both_are_as_likely():
    model = Scripted(lambda bits: 1000.0)
    first = [generate_bits(model, [], 1, generator=generator(seed))[0] for seed in range(200)]
    assert all(model.asked)
    assert abs(sum(first) - 100) < 4 * math.sqrt(50)


def test_bytes_that_are_not_utf_8_are_replaced():
    assert generate(Scripted(lambda bits: 1000.0), "a", 2) == "a\ufffd\ufffd"


@pytest.mark.parametrize("training", [False, True])
def test_each_module_is_left_in_its_mode(training):
    model = Scripted(lambda bits: 0.0).train(training)
    model.dropout.train(not training)
    generate(model, "", 1, generator=generator(0))
    assert (model.training, model.dropout.training) == (training, not training)


def test_a_model_that_fails_is_left_in_its_mode():
    model = Scripted(lambda bits: math.nan).train()
    with pytest.raises(ValueError, match="not finite"):
        generate(model, "a", 1)
    assert model.training
    assert model.dropout.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1.0}, r"temperature must be 0 or more, and finite, got -1\.0"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"temperature": math.inf}, "temperature must be"),
        ({"bytes_": -1}, "number of bytes must be 0 or more, got -1"),
        ({"bits": [0, 1, 0]}, "whole codewords of 9 bits, got 3"),
        ({"bits": text_to_bits("a") + [1] * 9}, "byte 1 is no codeword"),
    ],
)
def test_a_wrong_request_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate_bits(Scripted(lambda bits: 0.0), **{"bits": [], "bytes_": 1, **arguments})


def test_a_model_shorter_than_a_codeword_is_named():
    with pytest.raises(ValueError, match="reads 8 bits, a codeword has 9"):
        generate(Scripted(lambda bits: 0.0, max_seq_len=8), "", 1)
