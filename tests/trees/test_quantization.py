import copy
import pickle
import sys

import pytest
import torch
from torch import nn

from bit_transformer.checkpoint import load_checkpoint, save_checkpoint
from bit_transformer.quantization import (
    INPUT_LEVELS,
    Int8Linear,
    choose_input_scale,
    convert_qat,
    float_linears,
    input_ranges,
    int8_form,
    prepare_qat,
    quantize,
    quantize_static,
)

ONE_TIE = 1e-3  # of a score: a few inputs half-way between two levels may go either way


@pytest.fixture
def bits():
    return torch.randint(0, 2, (2, 12))


@pytest.fixture
def prepare():
    """prepare_qat, where there is torchao to simulate with."""
    pytest.importorskip("torchao")
    return prepare_qat


@pytest.fixture
def in_floating_point(monkeypatch):
    """A computer without a kernel for INT8."""
    monkeypatch.setattr("bit_transformer.quantization._int8_kernel", lambda: None)


def calibrated(linear, x):
    """The layer in INT8, for inputs such as x."""
    layer = Int8Linear(linear)
    layer.input_range.copy_(torch.stack(torch.aminmax(x)))
    return layer


def in_int8(layer, x):
    if not layer.runs_in_int8(x):
        pytest.skip("no kernel for INT8 on this computer")
    return layer(x)


def test_rounding_stays_within_half_a_step():
    values = torch.randn(5, 40)
    whole, scale = quantize(values)
    assert whole.dtype == torch.int8
    assert whole.int().abs().amax(1).min() >= 127
    assert ((whole * scale - values).abs() <= scale * 0.50001).all()


def test_zeros_stay_zeros():
    whole, scale = quantize(torch.zeros(3, 4))
    assert not whole.any()
    assert (scale > 0).all()
    zeros = torch.zeros(3, 4)
    assert not calibrated(nn.Linear(4, 2, bias=False), zeros)(zeros).any()


@pytest.mark.parametrize("shift", [-9.0, -0.3, 0.0, 0.3, 9.0])
def test_the_levels_reach_from_the_smallest_input_to_the_largest_with_zero_among_them(shift):
    x = torch.randn(4, 50) + shift
    scale, zero_point = choose_input_scale(torch.stack(torch.aminmax(x)))
    low, high = -zero_point * scale, (INPUT_LEVELS - zero_point) * scale
    assert low <= x.min() + scale / 2 * 1.0001
    assert high >= x.max() - scale / 2 * 1.0001
    assert low <= 0 <= high
    assert zero_point == zero_point.round()


@pytest.mark.parametrize("rows", [1, 37])
@pytest.mark.parametrize("bias", [True, False])
def test_the_kernel_computes_what_floating_point_does(rows, bias, monkeypatch):
    x = torch.randn(3, rows, 40)
    layer = calibrated(nn.Linear(40, 24, bias), x[:2])  # the last of x are partly out of range
    fast = in_int8(layer, x)
    with monkeypatch.context() as patch:
        patch.setattr("bit_transformer.quantization._int8_kernel", lambda: None)
        torch.testing.assert_close(fast, layer(x), atol=ONE_TIE, rtol=0)


def test_the_kernel_does_not_overflow_where_every_product_is_the_largest():
    linear = nn.Linear(64, 8, bias=False)
    nn.init.constant_(linear.weight, 1.0)
    x = torch.full((5, 64), 3.0)
    torch.testing.assert_close(calibrated(linear, x)(x), linear(x), atol=0, rtol=0.01)


def test_a_layer_adds_little_noise():
    linear, x = nn.Linear(128, 64), torch.randn(50, 128)
    noise = calibrated(linear, x)(x) - linear(x)
    assert 0 < noise.square().mean() < 1e-3 * linear(x).square().mean()


@pytest.mark.parametrize("kernel", [True, False])
def test_inputs_larger_than_any_seen_have_room_and_smaller_ones_stay_at_the_smallest(kernel, monkeypatch):
    if not kernel:
        monkeypatch.setattr("bit_transformer.quantization._int8_kernel", lambda: None)
    linear = nn.Linear(2, 1, bias=False)
    linear.weight.data = torch.tensor([[0.5, 0.0]])  # a second weight could overflow beside the largest input
    layer = calibrated(linear, torch.tensor([-1.0, 1.0]))
    found = layer(torch.tensor([[2.5, 0.0], [-2.5, 0.0], [9.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[1.25], [-0.5], [1.5]]), atol=0.02, rtol=0)


def test_a_layer_without_a_range_scores_nothing():
    assert Int8Linear(nn.Linear(8, 4))(torch.randn(3, 8)).isnan().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_makes_no_score(make_model, bits, value):
    small = quantize_static(make_model().float(), bits)
    with torch.no_grad():
        small.embedding.weight[1, 0] = value
    assert small(torch.ones_like(bits))[0].isnan().all()


def test_ranges_are_those_of_all_rows_whatever_the_batches(make_model):
    model, rows = make_model().float(), torch.randint(0, 2, (5, 12))
    together, apart = input_ranges(model, rows, 5), input_ranges(model, rows, 2)
    assert together.keys() == apart.keys() == set(float_linears(model)) - {"out"}
    for name, range_ in together.items():
        torch.testing.assert_close(range_, apart[name])
        assert range_[0] < range_[1]
    assert not torch.equal(
        together["layers.0.attention.q_proj"], input_ranges(model, rows[:1])["layers.0.attention.q_proj"]
    )


def test_calibration_leaves_the_model_as_it_was(make_model, bits):
    model = make_model().float().train()
    state = torch.get_rng_state()
    input_ranges(model, bits)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_calibration_wants_rows_and_finite_inputs(make_model, bits):
    model = make_model().float()
    with pytest.raises(ValueError, match="no rows"):
        quantize_static(model, bits[:0])
    with torch.no_grad():
        model.embedding.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"layers\.0\.attention\.q_proj are not finite"):
        quantize_static(model, bits)


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("stack", [{}, {"use_act": True, "reversible": True, "chunk_size": 5, "overlap": 2}])
def test_a_score_moves_neither_with_later_bits_nor_with_other_rows(make_model, stack, kernel, monkeypatch):
    if not kernel:
        monkeypatch.setattr("bit_transformer.quantization._int8_kernel", lambda: None)
    rows = torch.randint(0, 2, (3, 12))
    small = quantize_static(make_model(**stack).float(), rows)
    scores = small(rows)[0]
    torch.testing.assert_close(small(rows[1:2])[0], scores[1:2], atol=1e-6, rtol=0)
    rows[0, 7:] ^= 1
    changed = small(rows)[0]
    assert torch.equal(changed[0, :7], scores[0, :7])
    assert not torch.equal(changed[0, 7:], scores[0, 7:])
    assert torch.equal(changed[1:], scores[1:])


def test_weights_that_are_written_to_after_a_call_are_used_by_the_next():
    x = torch.randn(3, 8)
    layer, other, third = (calibrated(nn.Linear(8, 4), x) for _ in range(3))
    assert not torch.equal(layer(x), other(x))
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(x), other(x))
    layer.load_state_dict(copy.deepcopy(third.state_dict()), assign=True)
    assert torch.equal(layer(x), third(x))
    layer.input_range.mul_(2)
    assert not torch.equal(layer(x), third(x))


def test_the_engine_of_the_user_is_left_alone(monkeypatch):
    others = [engine for engine in torch.backends.quantized.supported_engines if engine not in ("none", "fbgemm")]
    if not others:
        pytest.skip("one engine only on this computer")
    monkeypatch.setattr(torch.backends.quantized, "engine", others[-1])
    x = torch.randn(3, 8)
    calibrated(nn.Linear(8, 4), x)(x)
    assert torch.backends.quantized.engine == others[-1]


@pytest.mark.parametrize("stack", [{}, {"use_act": True, "reversible": True}])
def test_an_int8_model_scores_nearly_the_same_and_leaves_the_float_one_alone(make_model, bits, stack):
    model = make_model(**stack).float()
    before = copy.deepcopy(model.state_dict())
    small = quantize_static(model, bits)
    error = (small(bits)[0] - model(bits)[0]).abs().max()
    assert 0 < error < 0.2
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert len(float_linears(model)) == 2 * 6 + 1 + bool(stack)


def test_the_linear_layers_that_stay_in_floating_point_are_listed(make_model):
    assert float_linears(int8_form(make_model())) == ["out"]
    assert float_linears(int8_form(make_model(use_act=True))) == ["halt", "out"]


def test_a_state_is_plain_tensors_with_a_byte_a_weight(make_model, bits):
    small = quantize_static(make_model().float(), bits)
    small(bits)
    state = small.state_dict()
    prefix = "layers.0.feedforward.0."
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items() if name.startswith(prefix)} == {
        prefix + "weight": (torch.int8, (16, 8)),
        prefix + "scale": (torch.float32, (16, 1)),
        prefix + "bias": (torch.float32, (16,)),
        prefix + "input_range": (torch.float32, (2,)),
    }
    assert state["position.weight"].dtype == torch.int8
    assert all(type(tensor) is torch.Tensor for tensor in state.values())


def test_a_file_is_less_than_three_tenths_of_float32(make_model):
    size = {"d_model": 128, "nhead": 8, "num_layers": 8, "dim_feedforward": 512, "max_seq_len": 1152}
    model = make_model(**size).float()
    plain, small = (
        sum(tensor.numel() * tensor.element_size() for tensor in each.state_dict().values())
        for each in (model, int8_form(model))
    )
    assert small / plain < 0.28


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_that_has_run_can_be_copied(make_model, bits, copied):
    small = quantize_static(make_model().float(), bits)
    scores = small(bits)[0]
    assert torch.equal(copied(small)(bits)[0], scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_int8_model_comes_back_from_its_file(make_model, bits, dtype, tmp_path):
    small = quantize_static(make_model(use_act=True).to(dtype), bits)
    save_checkpoint(tmp_path / "small", small)
    loaded = load_checkpoint(tmp_path / "small")["model"]
    assert torch.equal(loaded(bits)[0], small(bits)[0])
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.int8, dtype}


def test_a_copy_made_for_inference_scores_the_same_and_takes_what_is_written_to_it(make_model, bits):
    small = quantize_static(make_model().float(), bits)
    scores = small(bits)[0]
    with torch.inference_mode():
        copied = copy.deepcopy(small)
        assert torch.equal(copied(bits)[0], scores)
        copied.layers[0].attention.v_proj.scale.mul_(2)
        assert not torch.equal(copied(bits)[0], scores)


def test_a_model_that_was_made_for_inference_can_be_written_to(make_model, bits):
    with torch.inference_mode():
        small = quantize_static(make_model().float(), bits)
        scores = small(bits)[0]
    small.load_state_dict(small.state_dict())
    assert torch.equal(small(bits)[0], scores)


def test_training_that_is_aware_of_int8_names_what_to_install(make_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization.qat", None)
    with pytest.raises(ImportError, match=r"pip install 'bitpatch\[train\]'"):
        prepare_qat(make_model())


def test_a_prepared_model_has_the_same_state_and_trains(make_model, prepare):
    model = make_model().train()
    prepared = prepare(model)
    assert prepared.training
    assert prepared.state_dict().keys() == model.state_dict().keys()
    prepared(torch.randint(0, 2, (2, 9)))[0].square().sum().backward()
    assert [name for name, parameter in prepared.named_parameters() if parameter.grad is None] == []
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_pass_the_rounding(prepare):
    layer = prepare(nn.Sequential(nn.Linear(8, 4)))[0]
    x = torch.randn(3, 8, requires_grad=True)
    layer(x).sum().backward()
    levels, scale = quantize(layer.weight.detach())
    torch.testing.assert_close(x.grad, (levels * scale).sum(0).expand(3, 8))


def test_a_reversible_stack_trains_for_int8_with_the_gradients_of_a_plain_one(make_model, prepare, bits):
    # Recomputed activations differ in the last digit, so that an input may round the other way.
    gradients = []
    for use_checkpoint in (False, True):
        torch.manual_seed(0)
        model = prepare(make_model(reversible=True, use_checkpoint=use_checkpoint).train())
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        model(bits)[0].square().sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stack", [{}, {"use_act": True, "reversible": True, "chunk_size": 5, "overlap": 2}])
def test_a_converted_model_computes_what_was_trained(make_model, bits, prepare, stack, dtype):
    prepared = prepare(make_model(**stack).to(dtype))
    converted = convert_qat(prepared, bits)
    torch.testing.assert_close(converted(bits)[0], prepared.eval()(bits)[0], atol=ONE_TIE, rtol=0)
    assert not torch.allclose(converted(bits)[0], make_model(**stack).to(dtype)(bits)[0], atol=ONE_TIE)


@pytest.mark.usefixtures("in_floating_point")
def test_without_a_kernel_a_converted_model_is_the_trained_one_bit_for_bit(make_model, bits, prepare):
    prepared = prepare(make_model().float())
    assert torch.equal(convert_qat(prepared, bits)(bits)[0], prepared(bits)[0])


def test_training_aware_of_int8_lowers_the_loss_and_keeps_it_in_the_file(make_model, prepare, tmp_path):
    prepared, bits = prepare(make_model().float()).train(), torch.arange(32).view(2, 16) % 2

    def loss_of(model):
        return nn.functional.cross_entropy(model(bits)[0][:, :-1].flatten(0, 1), bits[:, 1:].flatten())

    optimizer = torch.optim.AdamW(prepared.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = loss_of(prepared)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    trained = loss_of(copy.deepcopy(prepared).eval()).item()
    save_checkpoint(tmp_path / "small", convert_qat(prepared, bits))
    assert loss_of(load_checkpoint(tmp_path / "small")["model"]).item() == pytest.approx(trained, abs=0.01)


def test_a_model_that_was_not_prepared_cannot_be_converted(make_model):
    with pytest.raises(ValueError, match="prepare"):
        convert_qat(make_model(), torch.zeros(1, 9))
