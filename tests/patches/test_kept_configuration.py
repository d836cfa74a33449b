"""Configurations that modules keep on self: their fields and properties, what these are, and what hangs on them."""

import pytest
from drift.rewrites import REWRITES

from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import State

HEAD = """\
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn


"""
FIELDS = "    width: int = 64\n    heads: int = 4\n    window: Optional[int] = None\n    keep_maps: bool = True\n"
HEAD_WIDTH = "\n    @property\n    def head_width(self):\n        return self.width // self.heads\n"
CONFIG = "@dataclass\nclass Config:\n" + FIELDS + HEAD_WIDTH
ATTENTION = """

class Attention(nn.Module):
    def __init__(self, cfg: Config):
        super().__init__()
        self.cfg = cfg
        self.scale = cfg.head_width**-0.5
        self.drop = nn.Dropout(0.1)

    @property
    def in_windows(self):
        return self.cfg.window is not None

    def whole(self, q, k, v):
        w = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)
        if self.cfg.keep_maps:
            self.last_map = w.detach()
        return self.drop(w) @ v

    def cut(self, x):
        B, T, C = x.shape
        canvas = x.new_zeros(B, T, T) if self.cfg.keep_maps else None
        out = []
        for s in range(0, T, self.cfg.window):
            part = x[:, s : s + self.cfg.window]
            w = (part @ part.transpose(-2, -1) * self.scale).softmax(-1)
            if canvas is not None:
                canvas[:, s : s + w.size(1), s : s + w.size(1)] = w
            out.append(w @ part)
        self.last_map = canvas
        return torch.cat(out, 1)

    def forward(self, x):
        q, k, v = x.unsqueeze(1).chunk(3, dim=-1)
        return self.cut(x) if self.in_windows else self.whole(q, k, v)
"""
SCALED = {
    "a property of a data class": CONFIG,
    "frozen": CONFIG.replace("@dataclass", "@dataclass(frozen=True)"),
    "a named tuple": CONFIG.replace("@dataclass\nclass Config", "class Config(NamedTuple)"),
    "a cached property": CONFIG.replace("@property", "@cached_property"),
    "a field": "@dataclass\nclass Config:\n" + FIELDS + "    head_width: int = 16\n",
    "inherited": CONFIG.replace("class Config", "class Base")
    + "\n\n@dataclass\nclass Config(Base):\n    name: str = ''\n",
    "set by a constructor": "class Config:\n    def __init__(self, width=64, heads=4):\n        self.width = width\n"
    "        self.head_width = width // heads\n",
    "constants of a class": "class Config:\n    width = 64\n    head_width = 16\n",
}
UNSCALED = {
    "a tensor": CONFIG.replace(
        "def head_width(self):\n        return", "def head_width(self):\n        return torch.ones(1) *"
    ),
    "an annotation of a tensor": "@dataclass\nclass Config:\n    head_width: Tensor\n",
    "a parameter": "class Config(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    "        self.head_width = nn.Parameter(torch.ones(()))\n",
    "set by another method too": "class Config:\n    def __init__(self, width=64):\n        self.head_width = width\n\n"
    "    def learn(self):\n        self.head_width = nn.Parameter(torch.ones(()))\n",
    "another meaning in a subclass": CONFIG + "\n\nclass Learned(Config):\n    @property\n    def head_width(self):\n"
    "        return self.learned\n",
}


@pytest.fixture
def state(model_of, state_of):
    return lambda text, task: state_of(open_tree(model_of(HEAD + text)), task)


@pytest.mark.parametrize("config", SCALED.values(), ids=SCALED)
@pytest.mark.parametrize("hint", [": Config", ': "Optional[Config]"', ""], ids=["hint", "text", "no hint"])
def test_a_number_of_a_configuration_scales(state, config, hint):
    made = "" if hint else "\n\ndef main():\n    return Attention(Config())\n"
    assert state(config + ATTENTION.replace(": Config", hint) + made, "task-9") is State.MISSING


@pytest.mark.parametrize("config", UNSCALED.values(), ids=UNSCALED)
def test_what_may_be_a_tensor_does_not(state, config):
    assert state(config + ATTENTION, "task-9") is State.UNRECOGNISED


def test_nobody_says_what_a_configuration_is(state):
    assert state(CONFIG + ATTENTION.replace(": Config", ""), "task-9") is State.UNRECOGNISED


def test_maps_hang_on_a_field_in_either_branch_of_an_expression(state):
    assert state(CONFIG + ATTENTION, "task-12") is State.MISSING


PLAIN = """\
class Config:
    model_type = "bit"

    def __init__(self, width=64, head_width=16, window: Optional[int] = None, keep_maps: bool = True, **kwargs):
        self.width, self.head_width = width, head_width
        self.window = window
        self.keep_maps = keep_maps
        for name, value in kwargs.items():
            setattr(self, name, value)

    def to_dict(self):
        return dict(self.__dict__)
"""
READ = "self.cfg = cfg\n"
KEPT = "self.cfg = cfg\n        self.keep_maps = {}\n"


@pytest.mark.parametrize("read", ["cfg.keep_maps", 'getattr(cfg, "keep_maps", True)'])
@pytest.mark.parametrize("base", ["", "(Pretrained)"])
def test_maps_hang_on_what_the_constructor_of_a_plain_class_is_told(model_of, after, read, base):
    attention = ATTENTION.replace(READ, KEPT.format(read)).replace("self.cfg.keep_maps", "self.keep_maps")
    text = (
        HEAD + "from library import Pretrained\n\n\n" + PLAIN.replace("class Config", f"class Config{base}") + attention
    )
    made = after(open_tree(model_of(text)), "task-12")
    assert "keep_maps: Optional[bool] = None, **kwargs" in made.replace("bool | None", "Optional[bool]")
    assert f"self.keep_maps = cfg.window is None if {read} is None else {read}\n" in made
    assert "        self.keep_maps = keep_maps\n" in made  # what the user said


OTHERS = {
    "kept as something else": ("self.keep_maps = keep_maps", "self.keep_maps = not keep_maps"),
    "set again": ("    def to_dict", "    def quiet(self):\n        self.keep_maps = False\n\n    def to_dict"),
    "set twice": ("self.keep_maps = keep_maps", "self.keep_maps = keep_maps\n        self.keep_maps = window is None"),
    "a subclass is told otherwise": (
        "    def to_dict",
        "    def to_dict",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_may_be_another_than_the_constructor_is_told_is_named(model_of, refusal, other):
    old, new = OTHERS[other]
    under = "\n\nclass Quiet(Config):\n    def __init__(self):\n        super().__init__(keep_maps=False)\n"
    text = PLAIN.replace(old, new) + (under if "subclass" in other else "")
    assert "no setting of a constructor" in refusal(open_tree(model_of(HEAD + text + ATTENTION)), "task-12")


def test_a_map_that_is_kept_is_no_mask(state):
    masked = ATTENTION.replace(
        "        w = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)\n",
        "        T = q.size(2)\n        future = torch.ones(T, T, device=q.device).triu(1).bool()\n"
        '        w = (q @ k.transpose(-2, -1) * self.scale).masked_fill(future, float("-inf")).softmax(-1)\n',
    )
    assert state(CONFIG + masked, "task-10") is State.MISSING


@pytest.mark.parametrize("kind", ["Tensor", "torch.Tensor", "Tensor | None", "Optional[Tensor]"])
@pytest.mark.parametrize("form", ["class Scored(NamedTuple):", "@dataclass\nclass Scored:"])
def test_a_record_of_tensors_is_no_configuration(tree, patched, kind, form):
    REWRITES["predict_named_tuple"](tree)
    path = tree / "bit_transformer/training.py"
    imports = "from dataclasses import dataclass\nfrom typing import Any, NamedTuple, Optional\n"
    text = path.read_text().replace("from typing import Any\n", imports)
    record = f"{form}\n    logits: {kind}\n    bits: {kind}\n\n\n"
    before = "class Scored(NamedTuple):\n    logits: Tensor\n    bits: Tensor\n\n\n"
    assert before in text
    path.write_text(text.replace(before, record))
    after = (patched(tree, "task-3") / "bit_transformer/training.py").read_text()
    assert record in after
    assert "with autocast(device, amp):" in after
