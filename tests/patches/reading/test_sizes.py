"""Sizes of models are known by what is made of them, whatever they are called."""

import pytest
from samples import ROOT

from bitpatch.patches.reading.code import Code
from bitpatch.patches.reading.files import Files
from bitpatch.patches.reading.sizes import sizes_of

LAYER = """\
import torch
from torch import nn


class Layer(nn.Module):
    def __init__(self, a, b, wide, rate):
        super().__init__()
        self.size = a // b
        self.up, self.down = nn.Linear(a, wide), nn.Linear(wide, a)
        self.out, self.drop = nn.Linear(a, a), nn.Dropout(rate)


"""
PLAIN = """\
class Net(nn.Module):
    def __init__(self, x=64, y=4, n=2, t=288, f=None, z=0.1):
        super().__init__()
        self.bits, self.places = nn.Embedding(2, x), nn.Embedding(t, x)
        self.layers = nn.ModuleList(Layer(x, y, f or 4 * x, z) for _ in range(n))
"""
CONFIGURED = """\
class Net(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.bits = nn.Embedding(2, cfg.x)
        self.places = nn.Parameter(0.02 * torch.randn(1, cfg.t, cfg.x))
        self.layers = nn.ModuleList([Layer(cfg.x, cfg.y, cfg.k * cfg.x, rate=cfg.z) for _ in range(cfg.n)])
"""
SIZES = {"d_model": "x", "nhead": "y", "num_layers": "n", "max_seq_len": "t", "dropout": "z"}


def sizes(text):
    files = Files(["model.py"], lambda _: (LAYER + text).encode())
    file = files.file("model.py")
    return sizes_of(Code(files), file, file.module.body[-1])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("class Net(nn.Module):\n    pass\n", {}, id="no constructor"),
        pytest.param(PLAIN.replace("nn.Embedding(2, x)", "nn.Embedding(256, x)"), {}, id="no model of bits"),
        pytest.param(PLAIN, SIZES | {"dim_feedforward": "f"}, id="parameters"),
        pytest.param(CONFIGURED, SIZES, id="fields of a configuration, of which one is a factor and no size"),
    ],
)
def test_sizes_are_what_is_made_of_them(text, wanted):
    assert sizes(text) == wanted


def test_a_number_is_no_size():
    assert sizes(PLAIN.replace("range(n)", "range(2)")).keys() == {*SIZES, "dim_feedforward"} - {"num_layers"}


def test_the_baselines_are_ours():
    files = Files(["model.py"], lambda _: (ROOT / "baseline/bit_transformer/model.py").read_bytes())
    file = files.file("model.py")
    model = next(each for each in file.module.body if getattr(each, "name", "") == "BitTransformerLM")
    found = sizes_of(Code(files), file, model)
    assert found
    assert all(ours == theirs for ours, theirs in found.items())
