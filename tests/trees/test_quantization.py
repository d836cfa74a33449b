import pytest
import torch
from torch import nn

from bit_transformer.quantization import convert_qat, prepare_qat, quantize, quantize_dynamic


def test_rounding_stays_within_half_a_step():
    values = torch.randn(5, 40, dtype=torch.double)
    whole, scale = quantize(values)
    assert whole.abs().max() == 127
    assert torch.equal(whole, whole.round())
    assert ((whole * scale - values).abs() <= scale * 0.5000001).all()


def test_zeros_stay_zeros():
    whole, scale = quantize(torch.zeros(3, 4))
    assert not whole.any()
    assert scale.isfinite().all()


@pytest.mark.parametrize("stack", [{}, {"use_act": True, "reversible": True}])
def test_an_int8_model_keeps_a_byte_a_weight_and_scores_nearly_the_same(make_model, stack):
    model, bits = make_model(**stack).float(), torch.randint(0, 2, (2, 12))
    small = quantize_dynamic(model)
    assert not any(isinstance(module, nn.Linear) for module in small.modules())
    assert small.layers[0].feedforward[0].weight.dtype == torch.int8
    error = (small(bits)[0] - model(bits)[0]).abs().max()
    assert 0 < error < 0.2
    assert any(isinstance(module, nn.Linear) for module in model.modules())


def test_a_prepared_model_has_the_same_state_and_trains(make_model):
    model = make_model().train()
    prepared = prepare_qat(model)
    assert prepared.training
    assert prepared.state_dict().keys() == model.state_dict().keys()
    prepared(torch.randint(0, 2, (2, 9)))[0].square().sum().backward()
    assert [name for name, parameter in prepared.named_parameters() if parameter.grad is None] == []
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_converted_model_computes_what_was_trained(make_model):
    prepared, bits = prepare_qat(make_model()), torch.randint(0, 2, (2, 12))
    converted = convert_qat(prepared)
    torch.testing.assert_close(converted(bits)[0], prepared(bits)[0], atol=1e-9, rtol=0)
    assert not torch.equal(converted(bits)[0], make_model()(bits)[0])


def test_training_aware_of_int8_lowers_the_loss(make_model):
    prepared, bits = prepare_qat(make_model()).train(), torch.arange(32).view(2, 16) % 2
    optimizer = torch.optim.AdamW(prepared.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(prepared(bits)[0][:, :-1].flatten(0, 1), bits[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_a_model_that_was_not_prepared_cannot_be_converted(make_model):
    with pytest.raises(ValueError, match="prepare"):
        convert_qat(make_model())
