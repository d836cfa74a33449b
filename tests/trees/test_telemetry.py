import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bit_transformer.telemetry import (
    attention_entropy,
    collect_telemetry,
    count_phrases,
    kcs_score,
    lz_complexity,
    most_phrases,
    negentropy,
    symbiosis,
)

SCORES = ["negentropy", "lz_complexity", "symbiosis", "kcs_score"]
LAMBDAS = {"lambda_K": 1.0, "lambda_C": 1.0, "lambda_S": 1.0}


def count_phrases_plainly(bits):
    known, phrase, phrases = {()}, (), 0
    for bit in bits:
        phrase += (bit,)
        if phrase not in known:
            known.add(phrase)
            phrase, phrases = (), phrases + 1
    return phrases + bool(phrase)


@given(st.lists(st.integers(0, 1), max_size=200))
def test_phrases_are_counted_as_ziv_and_lempel_do(bits):
    assert count_phrases(bits) == count_phrases_plainly(bits) <= most_phrases(len(bits))


@pytest.mark.parametrize("length", range(13))
def test_the_most_phrases_are_the_most_of_all_rows(length):
    rows = [[number >> place & 1 for place in range(length)] for number in range(2**length)]
    assert most_phrases(length) == max(map(count_phrases_plainly, rows))


def test_noise_is_more_complex_than_repetition():
    noise, repetition = lz_complexity(torch.stack([torch.randint(0, 2, (512,)), torch.zeros(512, dtype=torch.long)]))
    assert 0 < repetition < 0.4
    assert 0.8 < noise <= 1


def test_negentropy_is_zero_for_noise_and_one_for_certainty():
    logits = torch.zeros(2, 5, 2)
    logits[1, :, 0] = 1000.0
    torch.testing.assert_close(negentropy(logits), torch.tensor([0.0, 1.0]))


def test_symbiosis_is_lost_where_order_and_complexity_disagree():
    K, C = torch.tensor([1.0, 1.0, 0.5, 0.0]), torch.tensor([1.0, 0.0, 0.5, 0.0])
    torch.testing.assert_close(symbiosis(K, C), torch.tensor([1.0, 0.0, 0.5, 0.0]))


def test_the_score_is_the_weighted_mean():
    K, C, S = torch.tensor([0.1]), torch.tensor([0.4]), torch.tensor([0.7])
    assert kcs_score(K, C, S, {"lambda_K": 2.0, "lambda_C": 1.0, "lambda_S": 1.0}).item() == pytest.approx(0.325)
    assert kcs_score(K, C, S, {"lambda_K": 0.0, "lambda_C": 0.0, "lambda_S": 0.0}).item() == 0


def test_attention_entropy_is_in_nats_a_query():
    even, sure = torch.full((2, 3, 4, 4), 0.25), torch.eye(4).expand(2, 3, 4, 4)
    torch.testing.assert_close(attention_entropy([even, sure]), torch.full((2,), math.log(4) / 2))


@pytest.mark.parametrize("logging", [True, False])
def test_a_forward_reports_every_score_outside_the_graph(make_model, logging):
    bits = torch.randint(0, 2, (3, 12))
    _, telemetry = make_model(full_attn_logging=logging)(bits)
    for name in SCORES:
        assert telemetry[name].shape == (3,)
        assert ((telemetry[name] >= 0) & (telemetry[name] <= 1)).all()
        assert not telemetry[name].requires_grad
    assert telemetry["activations"].shape == (3, 12, 8)
    assert not telemetry["activations"].requires_grad
    if logging:
        assert (telemetry["attention_entropy"] > 0).all()
    else:
        assert telemetry["attention_entropy"] is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_score_is_ever_nan(value):
    telemetry = collect_telemetry(torch.full((2, 5, 2), value), torch.zeros(2, 5, 4), [], LAMBDAS)
    assert all(telemetry[name].isfinite().all() for name in SCORES)


def test_an_empty_row_has_scores():
    telemetry = collect_telemetry(torch.zeros(2, 0, 2), torch.zeros(2, 0, 4), [], LAMBDAS)
    assert all(telemetry[name].isfinite().all() for name in SCORES)


def test_telemetry_draws_no_random_numbers():
    state = torch.get_rng_state()
    collect_telemetry(torch.zeros(2, 5, 2), torch.zeros(2, 5, 4), [], LAMBDAS)
    assert torch.equal(torch.get_rng_state(), state)
