import pytest
import torch

from bit_transformer.scale import double_layers, double_length, double_width, expand_model

STACKS = {
    "plain": {},
    "halting": {"use_act": True},
    "reversible and halting": {"reversible": True, "use_act": True},
    "chunked": {"chunk_size": 4, "overlap": 2, "full_attn_logging": False},
}
GROWTH = {double_width: "d_model", double_layers: "num_layers", double_length: "max_seq_len"}
stacks = pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
growths = pytest.mark.parametrize("grow", GROWTH)


def shuffle_parameters(model):
    """Leave no parameter at a special initial value, such as a bias of 0."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@stacks
@growths
def test_growing_keeps_what_is_computed(make_model, stack, grow):
    model = shuffle_parameters(make_model(**stack))
    bits = torch.randint(0, 2, (2, 13))
    torch.testing.assert_close(grow(model)(bits)[0], model(bits)[0], atol=1e-10, rtol=0)


@growths
def test_growing_doubles_one_dimension_and_keeps_the_rest_of_the_configuration(make_model, grow):
    model = make_model(lambda_K=0.3, use_act=True, act_threshold=0.8, chunk_size=4, full_attn_logging=False)
    grown, name = grow(model), GROWTH[grow]
    doubled = {name, "dim_feedforward"} if name == "d_model" else {name}
    assert grown.config == {key: 2 * value if key in doubled else value for key, value in model.config.items()}


@growths
@pytest.mark.parametrize("training", [False, True])
def test_growing_keeps_dtype_and_mode_and_leaves_the_old_model_alone(make_model, grow, training):
    model = make_model().train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    grown = grow(model)
    for parameter in grown.parameters():
        torch.nn.init.zeros_(parameter)
    assert grown.training is training
    assert {parameter.dtype for parameter in grown.parameters()} == {torch.double}
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


@growths
def test_a_grown_model_trains(make_model, grow):
    grown = grow(make_model())
    grown(torch.randint(0, 2, (2, 13)))[0].square().sum().backward()
    assert [name for name, parameter in grown.named_parameters() if parameter.grad is None] == []


def test_a_longer_model_reads_longer_rows(make_model):
    logits, _ = make_model().double_length()(torch.randint(0, 2, (1, 96)))
    assert logits.shape == (1, 96, 2)


def test_expanding_copies_what_both_shapes_share(make_model):
    model = make_model()
    expanded = expand_model(model, d_model=12, num_layers=3, max_seq_len=20)
    assert expanded.config == {**model.config, "d_model": 12, "num_layers": 3, "max_seq_len": 20}
    for name, old in model.state_dict().items():
        new = expanded.state_dict()[name]
        shared = tuple(slice(min(sizes)) for sizes in zip(old.shape, new.shape, strict=True))
        assert torch.equal(new[shared], old[shared]), name
    assert not torch.equal(expanded.layers[0].norm1.weight, torch.zeros(12))


def test_expanding_to_the_same_configuration_is_a_copy(make_model):
    model = make_model()
    bits = torch.randint(0, 2, (2, 13))
    assert torch.equal(expand_model(model)(bits)[0], model(bits)[0])
