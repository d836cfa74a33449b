"""Compiled training, with the compiler that users have."""

import shutil

import pytest
import torch
from trees.running import words  # noqa: F401 - skipped where the tree has not all patches

from bit_transformer.training import compile_where_supported, next_bit_loss

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor wants a C++ compiler"),
    pytest.mark.filterwarnings("ignore"),  # the compiler warns of itself
]


def test_attention_in_chunks_has_the_same_gradients(make_model):
    model = make_model(chunk_size=16, overlap=8, use_checkpoint=False).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    bits = torch.randint(2, (2, 48))

    def gradients():
        return torch.autograd.grad(next_bit_loss(model(bits)[0], bits), [*model.parameters()], allow_unused=True)

    expected = gradients()
    compile_where_supported(model, "table")
    found = gradients()
    assert model._compiled_call_impl is not None  # it did not fall back
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
