import itertools

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from bit_transformer.reversible import halting_weights, run_reversible


def plain_stack(layers, x, causal, halt, threshold):
    """The same coupling, its activations kept by autograd."""
    x1, x2 = x, x
    means, probabilities = [], []
    for layer in layers:
        x1 = x1 + layer.attend(x2, causal)[0]
        x2 = x2 + layer.feed(x1)
        means.append((x1 + x2) / 2)
        if halt is not None:
            probabilities.append(torch.sigmoid(halt(means[-1])))
    if halt is None:
        return means[-1]
    return (halting_weights(torch.stack(probabilities), threshold) * torch.stack(means)).sum(0)


def run(model, x, stack=None):
    arguments = (model.layers, x, True, model.halt, model.act_threshold)
    return stack(*arguments) if stack else run_reversible(*arguments)[0]


def gradients(model, x, stack=None, amp=False):
    """The output, and the gradients of x and of every trained parameter of the stack."""
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        y = run(model, x, stack)
    used = [*model.layers.parameters(), *(model.halt.parameters() if model.halt is not None else [])]
    inputs = [tensor for tensor in (x, *used) if tensor.requires_grad]
    return [y, *torch.autograd.grad(y.square().sum(), inputs)]


def assert_all_close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@pytest.fixture(params=[False, True], ids=["without halting", "with halting"])
def model(request, make_model):
    return make_model(reversible=True, num_layers=4, use_act=request.param)


@pytest.fixture
def x():
    return torch.randn(2, 11, 8, dtype=torch.double, requires_grad=True)


@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "with dropout"])
def test_gradients_are_those_of_the_plain_stack(model, x, training):
    model.train(training)
    assert_all_close(gradients(model, x), gradients(model, x, plain_stack), 1e-10)


def test_gradients_exist_where_only_parameters_take_them(model, x):
    x = x.detach()
    assert_all_close(gradients(model, x), gradients(model, x, plain_stack), 1e-10)


def test_frozen_parameters_are_left_alone(model, x):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" in name)
    assert_all_close(gradients(model, x), gradients(model, x, plain_stack), 1e-10)


@pytest.mark.parametrize("count", range(5))
@pytest.mark.parametrize("is_input_trained", [True, False])
def test_gradients_are_those_of_the_plain_stack_whichever_layers_are_frozen(model, x, count, is_input_trained):
    model.train()
    for frozen in itertools.combinations(model.layers, count):
        model.requires_grad_(True)
        for layer in frozen:
            layer.requires_grad_(False)
        given = x.detach().requires_grad_(is_input_trained)
        if count < len(model.layers) or is_input_trained or model.halt is not None:
            assert_all_close(gradients(model, given), gradients(model, given, plain_stack), 1e-12)


def test_gradients_pass_a_frozen_halting(model, x):
    if model.halt is not None:
        model.halt.requires_grad_(False)
    assert_all_close(gradients(model, x), gradients(model, x, plain_stack), 1e-12)


class WithoutGraph(torch.nn.Module):
    """A layer some of whose branches are computed as frozen modules often are: under no_grad."""

    def __init__(self, layer, branches):
        super().__init__()
        self.layer, self.branches = layer, branches

    def attend(self, x, causal):
        with torch.set_grad_enabled(torch.is_grad_enabled() and "attend" not in self.branches):
            return self.layer.attend(x, causal)

    def feed(self, x):
        with torch.set_grad_enabled(torch.is_grad_enabled() and "feed" not in self.branches):
            return self.layer.feed(x)


@pytest.mark.parametrize("branches", [["attend"], ["feed"], ["attend", "feed"]], ids=" and ".join)
@pytest.mark.parametrize("places", [[0], [1, 2], [3], [0, 1, 2, 3]], ids=str)
def test_gradients_pass_by_branches_without_a_graph(model, x, places, branches):
    for place in places:
        layer = WithoutGraph(model.layers[place], branches).requires_grad_(False)
        model.layers[place] = layer
    assert_all_close(gradients(model, x), gradients(model, x, plain_stack), 1e-12)


def test_what_is_frozen_after_the_forward_lets_gradients_pass(model, x):
    results = []
    for stack in (None, plain_stack):
        model.requires_grad_(True).zero_grad(set_to_none=True)
        given = x.detach().requires_grad_()
        loss = run(model, given, stack).square().sum()
        model.layers[2].requires_grad_(False)
        loss.backward()
        assert model.layers[2].norm1.weight.grad is None
        results.append([given.grad, *(parameter.grad for parameter in model.layers[0].parameters())])
    assert_all_close(*results, 1e-12)


@pytest.mark.parametrize("amp", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("frozen", ["embedding", "layers.0", "layers.1", "layers.3", "layers", "halt", "attention"])
def test_freezing_a_part_changes_no_gradient_of_another(model, frozen, amp):
    model, bits, found = model.float().train(), torch.randint(0, 2, (2, 9)), []
    for parts in ("nothing", frozen):
        model.zero_grad(set_to_none=True)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parts not in name)
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            logits, _ = model(bits)
        logits.float().square().sum().backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, grad in found[1].items():
        assert (grad is None) == (frozen in name)
        assert grad is None or torch.equal(grad, found[0][name]), name


def test_backward_recomputes_under_the_autocast_of_the_forward(model, x):
    model, x = model.float(), x.detach().float().requires_grad_()
    # The recomputed states differ in rounding, which bfloat16 can blow up to one of its steps.
    assert_all_close(gradients(model, x, amp=True), gradients(model, x, plain_stack, amp=True), 3e-2)


def test_recompute_casts_as_the_forward_did(model, x):
    model, x, dtypes = model.float(), x.detach().float().requires_grad_(), []
    model.layers[0].feedforward[0].register_forward_hook(lambda _layer, _inputs, out: dtypes.append(out.dtype))
    gradients(model, x, amp=True)
    assert dtypes == [torch.bfloat16, torch.bfloat16]


def test_the_random_stream_goes_on_as_if_nothing_were_recomputed(model, x):
    model.train()
    gradients(model, x)
    after_reversible = torch.rand(4)
    gradients(model, x, plain_stack)
    assert torch.equal(after_reversible, torch.rand(4))


def test_gradients_can_be_taken_twice(model, x):
    y = run(model, x).sum()
    first = torch.autograd.grad(y, x, retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(y, x)[0])


@pytest.mark.parametrize("use_act", [False, True])
def test_what_backward_keeps_does_not_grow_with_the_layers(make_model, x, use_act):
    def kept(num_layers):
        sizes = []
        with saved_tensors_hooks(lambda tensor: sizes.append(tensor.shape) or tensor, lambda tensor: tensor):
            run(make_model(reversible=True, num_layers=num_layers, use_act=use_act), x)
        return [size for size in sizes if size[-1] != 1]  # what is left out are halting decisions

    assert kept(6) == kept(2) == [x.shape, x.shape]


def test_maps_are_logged_in_the_forward_only(make_model, x):
    model = make_model(reversible=True, full_attn_logging=True)
    y, attn_maps = run_reversible(model.layers, x, True, None, 0.9)
    y.sum().backward()
    assert [attn_map.shape for attn_map in attn_maps] == [(2, 2, 11, 11)] * 2
    assert not any(attn_map.requires_grad for attn_map in attn_maps)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_result_is_the_same(model, x, mode):
    expected = run(model, x)
    with mode():
        found = run(model, x)
    assert torch.equal(found, expected)
    assert not found.requires_grad


@pytest.mark.filterwarnings("ignore")  # the compiler warns of itself
def test_a_compiled_model_has_the_same_gradients(make_model):
    model = make_model(reversible=True, use_act=True)
    bits = torch.randint(0, 2, (2, 12))
    compiled = torch.compile(model, backend="eager")
    expected = torch.autograd.grad(model(bits)[0].sum(), [*model.parameters()])
    assert_all_close(torch.autograd.grad(compiled(bits)[0].sum(), [*model.parameters()]), expected, 1e-10)


def test_halting_weights_follow_the_rule_of_graves():
    probabilities = torch.tensor([0.5, 0.3, 0.4, 0.9], dtype=torch.double).view(4, 1, 1, 1)
    weights = halting_weights(probabilities, 0.9).flatten()
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=torch.double))


def test_the_last_layer_takes_what_remains():
    weights = halting_weights(torch.full((3, 1, 1, 1), 0.1, dtype=torch.double), 0.9).flatten()
    torch.testing.assert_close(weights, torch.tensor([0.1, 0.1, 0.8], dtype=torch.double))


@pytest.mark.parametrize("threshold", [0.01, 0.5, 0.99, 1.0])
def test_halting_weights_are_shares(threshold):
    weights = halting_weights(torch.rand(7, 3, 5, 1, dtype=torch.double), threshold)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(0), torch.ones(3, 5, 1, dtype=torch.double), atol=1e-14, rtol=0)


def test_halting_weights_pass_gradients():
    probabilities = torch.rand(4, 2, 3, 1, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: halting_weights(p, 0.9), probabilities)


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_a_threshold_that_cannot_be_reached_is_refused(threshold):
    with pytest.raises(ValueError, match="act_threshold"):
        halting_weights(torch.rand(2, 1, 1, 1), threshold)
