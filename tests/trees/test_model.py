import copy
import math
import pickle

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bit_transformer.compression import compress_bits
from bit_transformer.model import SelfAttention

SHAPES = {
    "dense": {},
    "chunks": {"chunk_size": 4},
    "chunks that overlap": {"chunk_size": 4, "overlap": 3},
    "overlap wider than a chunk": {"chunk_size": 2, "overlap": 5},
    "one chunk longer than the row": {"chunk_size": 40, "overlap": 3},
}
STACKS = {
    "plain": {},
    "halting": {"use_act": True},
    "reversible": {"reversible": True},
    "reversible and halting": {"reversible": True, "use_act": True},
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
stacks = pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return out


@shapes
@stacks
@pytest.mark.parametrize("length", [1, 7, 8, 19])
def test_a_bit_changes_no_logits_before_it(make_model, shape, stack, length):
    model = make_model(**shape, **stack, full_attn_logging=False)
    bits = torch.randint(0, 2, (1, length))
    logits, _ = model(bits)
    assert logits.shape == (1, length, 2)
    for changed in range(length):
        other = bits.clone()
        other[0, changed] ^= 1
        difference = (model(other)[0] - logits).abs().sum(-1)[0]
        assert difference[:changed].eq(0).all()
        assert difference[changed] > 0


@stacks
def test_without_causality_early_logits_see_late_bits(make_model, stack):
    model = make_model(**stack)
    bits = torch.randint(0, 2, (1, 9))
    other = bits.clone()
    other[0, -1] ^= 1
    assert (model(bits, causal=False)[0] - model(other, causal=False)[0])[0, 0].abs().sum() > 0


@shapes
@stacks
def test_rows_of_a_batch_do_not_mix(make_model, shape, stack):
    model = make_model(**shape, **stack, full_attn_logging=False)
    bits = torch.randint(0, 2, (3, 13))
    apart = torch.cat([model(row[None])[0] for row in bits])
    torch.testing.assert_close(model(bits)[0], apart, atol=1e-12, rtol=0)


@pytest.mark.parametrize("causal", [True, False])
def test_dense_attention_is_the_softmax_of_scaled_products(causal):
    attention = SelfAttention(12, 3).double().eval()
    x = torch.randn(2, 7, 12, dtype=torch.double)
    out, attn_map = attention(x, causal)
    for head in range(3):
        rows = slice(4 * head, 4 * head + 4)
        q, k = (F.weight[rows] @ x.mT + F.bias[rows, None] for F in (attention.q_proj, attention.k_proj))
        scores = q.mT @ k / math.sqrt(4)
        if causal:
            scores += torch.full((7, 7), -math.inf, dtype=torch.double).triu(1)
        torch.testing.assert_close(attn_map[:, head], scores.softmax(-1), atol=1e-12, rtol=0)
    values = attention.v_proj(x).unflatten(-1, (3, 4)).transpose(1, 2)
    expected = attention.out_proj((attn_map @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("length", [4, 12])
def test_chunks_that_do_not_overlap_are_rows_of_their_own(length):
    chunked = SelfAttention(8, 2, chunk_size=4, full_attn_logging=False).double().eval()
    dense = SelfAttention(8, 2).double().eval()
    dense.load_state_dict(chunked.state_dict())
    x = torch.randn(2, length, 8, dtype=torch.double)
    expected = torch.cat([dense(part)[0] for part in x.split(4, dim=1)], dim=1)
    torch.testing.assert_close(chunked(x)[0], expected, atol=1e-12, rtol=0)


def test_a_chunk_as_long_as_the_row_is_dense_attention(make_model):
    dense = make_model()
    chunked = make_model(chunk_size=16)
    chunked.load_state_dict(dense.state_dict())
    bits = torch.randint(0, 2, (2, 16))
    torch.testing.assert_close(chunked(bits)[0], dense(bits)[0], atol=1e-12, rtol=0)


@stacks
def test_chunks_without_logging_make_no_tensor_of_t_times_t(make_model, stack):
    length = 512
    model = make_model(chunk_size=8, overlap=8, full_attn_logging=False, max_seq_len=length, **stack)
    with LargestTensor() as largest:
        model(torch.randint(0, 2, (1, length)))[0].sum().backward()
    assert largest.elements < length * length / 4


def test_logging_changes_nothing_but_the_maps(make_model):
    quiet = make_model(full_attn_logging=False)
    loud = make_model(full_attn_logging=True)
    loud.load_state_dict(quiet.state_dict())
    bits = torch.randint(0, 2, (2, 9))
    torch.manual_seed(1)
    expected, without = quiet.train()(bits)
    torch.manual_seed(1)
    found, telemetry = loud.train()(bits)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert not without["attention_maps"]
    assert [attn_map.shape for attn_map in telemetry["attention_maps"]] == [(2, 2, 9, 9)] * 2


def test_a_logged_map_is_a_distribution_over_the_past(make_model):
    _, telemetry = make_model(full_attn_logging=True)(torch.randint(0, 2, (2, 9)))
    for attn_map in telemetry["attention_maps"]:
        assert attn_map.triu(1).eq(0).all()
        torch.testing.assert_close(attn_map.sum(-1), torch.ones(2, 2, 9, dtype=torch.double), atol=1e-12, rtol=0)


@pytest.mark.parametrize("use_act", [False, True])
@pytest.mark.parametrize("chunk_size", [None, 4])
def test_checkpointing_leaves_the_gradients_as_they_are(make_model, use_act, chunk_size):
    plain = make_model(use_checkpoint=False, use_act=use_act, chunk_size=chunk_size).train()
    saving = make_model(use_checkpoint=True, use_act=use_act, chunk_size=chunk_size).train()
    saving.load_state_dict(plain.state_dict())
    bits = torch.randint(0, 2, (2, 10))
    gradients = []
    for model in (plain, saving):
        torch.manual_seed(2)
        gradients.append(torch.autograd.grad(model(bits)[0].square().sum(), [*model.parameters()]))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@stacks
def test_every_parameter_has_a_gradient(make_model, stack):
    model = make_model(**stack).train()
    model(torch.randint(0, 2, (2, 10)))[0].square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_dropout_acts_in_training_only(make_model):
    model = make_model()
    bits = torch.randint(0, 2, (2, 10))
    assert torch.equal(model(bits)[0], model(bits)[0])
    model.train()
    assert not torch.equal(model(bits)[0], model(bits)[0])


def test_compressed_rows_score_as_the_rows_themselves(make_model):
    model = make_model()
    bits = torch.randint(0, 2, (3, 20))
    assert torch.equal(model.forward_compressed([compress_bits(row) for row in bits])[0], model(bits)[0])


def test_a_row_longer_than_the_model_reads_is_refused(make_model):
    with pytest.raises(ValueError, match="max_seq_len=48"):
        make_model()(torch.zeros(1, 49, dtype=torch.long))


@pytest.mark.parametrize("config", [{"d_model": 9}, {"chunk_size": 0}, {"overlap": -1}])
def test_a_configuration_that_cannot_be_is_refused(make_model, config):
    with pytest.raises(ValueError, match=next(iter(config))):
        make_model(**config)


@shapes
@stacks
def test_copies_and_pickles_compute_the_same(make_model, shape, stack):
    model = make_model(**shape, **stack, full_attn_logging=False)
    bits = torch.randint(0, 2, (2, 11))
    logits = model(bits)[0]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(bits)[0], logits)


def test_a_trace_leaves_nothing_behind(make_model):
    bits = torch.randint(0, 2, (1, 12))
    attention = make_model().layers[0].attention
    x = torch.randn(1, 12, attention.q_proj.in_features, dtype=torch.double)
    expected = attention(x)[0]
    exported = torch.export.export(attention, (x,)).module()
    assert torch.allclose(exported(x)[0], expected)
    assert torch.equal(attention(x)[0], expected)
    assert make_model()(bits)[0].isfinite().all()
