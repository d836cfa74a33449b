"""INT8 linear layers and position table, after training or with training that is aware of them.

Weights [out, in] are 8-bit whole numbers with a scale for each row. Inputs are rounded to 7 bits, between the
smallest and the largest that a layer had on text of the training set: a CPU without VNNI adds products in pairs
of 16 bits, and 8 bits times 8 would overflow there. `out`, `halt`, `embedding` and what weighs contexts stay in
floating point: they are 15 kB, and their error would go straight into the scores. Training that is aware of INT8
rounds inputs between the smallest and the largest of the call, which come to much the same.

Of the ways in torch that `python benchmarks/int8.py` compares, this is among the fastest, and the scores stay
causal: none moves with a later bit, or with another row. How many times as fast as float32, with the 95%
interval: 8 layers of 128 over 2 rows of 1,152 bits, 41 rounds, two threads of an AVX2 CPU without VNNI, torch
2.13, torchao 0.18:

    this                     1.11 (1.08-1.15)    this in floating point  0.78 (0.73-0.80)
    torch.ao dynamic         1.13 (1.07-1.17)    torchao                 0.07 (0.07-0.07)
    a scale for each call    1.03 (1.00-1.09)    torchao, compiled       0.07 (0.07-0.07)
    a scale for a position   1.00 (0.96-1.05)    float32, compiled       1.01 (0.99-1.03)
    float32 against itself   1.02 (0.98-1.05)

torchao has no fast kernel on such a CPU. torch.ao is deprecated, packs its weights in a file of 0.33 of float32's
size, and scales inputs by the call: a score moves with later bits (by up to 0.02 at initial weights).

A file holds `weight`, `scale`, `bias` and `input_range`, whatever computes with them: FBGEMM's kernel on a CPU
that has it, the same arithmetic in floating point elsewhere. Inputs far beyond their range may differ between
the two by what overflows.
"""

import copy
import math
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .generation import evaluation_mode

KEPT_FLOAT = ("embedding", "halt", "out", "contexts.embed", "contexts.weigh")
INPUT_LEVELS = 127  # steps between the smallest and the largest input that calibration saw
LARGEST_INPUT = 255  # in such steps above the smallest: what is larger than all that it saw has some room
TINY = torch.finfo(torch.float32).smallest_normal


class Int8Linear(nn.Module):
    """An nn.Linear for inference, its weight [out, in] kept as int8 with a scale [out, 1].

    `input_range` [2] is what its inputs lie between; NaN, as are all outputs, until it is known.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantize(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.to(linear.weight.dtype))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())
        self.register_buffer("input_range", linear.weight.new_full((2,), math.nan))
        self._prepared: tuple[Any, ...] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        if self.runs_in_int8(x):
            packed, step, zero_point = self._prepare()
            if math.isfinite(step):
                with torch.no_grad():
                    return _int8_kernel()(x, step, zero_point, packed)
        scale, zero_point = choose_input_scale(self.input_range)
        rounded = ((x * (1 / scale)).round() + zero_point).clamp(0, LARGEST_INPUT)
        return F.linear((rounded - zero_point) * scale, self.weight * self.scale, self.bias)

    def runs_in_int8(self, x: Tensor) -> bool:
        """Whether x is multiplied by a kernel for INT8: float32 on a CPU that FBGEMM supports."""
        on_cpu = x.device.type == self.weight.device.type == "cpu"
        return on_cpu and x.dtype == torch.float32 and _int8_kernel() is not None

    def _prepare(self) -> tuple[Any, float, int]:
        """Weight, input scale and zero as the kernel wants them, made again when a buffer was replaced or written."""
        buffers = [each for each in (self.weight, self.scale, self.bias, self.input_range) if each is not None]
        if any(each.is_inference() for each in buffers):  # nobody counts what is written to such a tensor
            return self._pack()
        state = [(id(each), each._version) for each in buffers]
        if self._prepared is None or self._prepared[0] != state:
            self._prepared = state, self._pack(), buffers  # kept, so that an id is of one tensor
        return self._prepared[1]

    def _pack(self) -> tuple[Any, float, int]:
        step, zero_point = (value.item() for value in choose_input_scale(self.input_range))
        packed = _pack_weight(self.weight, self.scale, self.bias)
        return packed, step, int(zero_point) if math.isfinite(step) else 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prepared": None}


class Int8Embedding(nn.Module):
    """An nn.Embedding for inference, its weight [entries, C] kept as int8 with a scale [entries, 1]."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        weight, scale = quantize(embedding.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.to(embedding.weight.dtype))

    def forward(self, indices: Tensor) -> Tensor:
        """Look indices [...] up: [..., C]."""
        return self.weight[indices] * self.scale[indices]


class FakeQuantLinear(nn.Linear):
    """An nn.Linear that computes with rounded weights and inputs, and trains the unrounded ones."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]; gradients pass the rounding as if it were not there."""
        return F.linear(_simulate_input(x), _simulate_weight(self.weight), self.bias)


class FakeQuantEmbedding(nn.Embedding):
    """An nn.Embedding that looks up rounded weights, and trains the unrounded ones."""

    def forward(self, indices: Tensor) -> Tensor:
        """Look indices [...] up: [..., C]."""
        return F.embedding(indices, _simulate_weight(self.weight))


def quantize_static(model: nn.Module, rows: Tensor | Dataset, batch_size: int = 8) -> nn.Module:
    """A copy of the model, in evaluation mode, that is INT8 but for KEPT_FLOAT and the norms.

    Inputs of its layers are rounded between the smallest and the largest that rows [rows, T] give, so
    give rows that are like what the model will read, and none that it is evaluated on. Raises ValueError
    where there are no rows, and where an input is not finite.
    """
    small = int8_form(model)
    for name, found in input_ranges(model, rows, batch_size).items():
        layer = small.get_submodule(name)
        with torch.inference_mode(False):
            layer.input_range.copy_(found)
    return small


def int8_form(model: nn.Module) -> nn.Module:
    """quantize_static's copy of a model before the ranges of inputs are known: what a state is loaded into."""
    with torch.inference_mode(False):
        return _replace_layers(copy.deepcopy(model), Int8Linear, Int8Embedding).eval()


def input_ranges(model: nn.Module, rows: Tensor | Dataset, batch_size: int = 8) -> dict[str, Tensor]:
    """The smallest and the largest input [2] of each layer that would be INT8, by its name, over rows [rows, T].

    Raises ValueError where there are no rows, and where an input is not finite.
    """
    ranges: dict[str, Tensor] = {}

    def see(name: str, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        low, high = torch.aminmax(inputs[0])
        if not (low.isfinite() and high.isfinite()):
            raise ValueError(f"inputs of {name} are not finite: calibrate a sound model")
        before = ranges.get(name, torch.stack([low, high]))
        ranges[name] = torch.stack([torch.minimum(low, before[0]), torch.maximum(high, before[1])])

    hooks = [
        layer.register_forward_pre_hook(partial(see, name))
        for name, layer in model.named_modules()
        if _is_replaced(name, layer, nn.Linear)
    ]
    device = next(model.parameters()).device
    try:
        with evaluation_mode(model), torch.no_grad():
            for batch in DataLoader(rows, batch_size, generator=torch.Generator()):
                model(batch.to(device).long())
    finally:
        for hook in hooks:
            hook.remove()
    if not ranges:
        raise ValueError("there are no rows to calibrate on: give text that the model was trained on")
    return ranges


def prepare_qat(model: nn.Module) -> nn.Module:
    """A copy of the model that trains as if it were INT8; its state has the same names.

    Rounding is torchao's fake quantization. Raises ImportError where torchao is absent.
    """
    _fake_quantizers()

    def fake_linear(linear: nn.Linear) -> FakeQuantLinear:
        layer = FakeQuantLinear(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        layer.weight, layer.bias = linear.weight, linear.bias
        return layer.train(linear.training)

    def fake_embedding(embedding: nn.Embedding) -> FakeQuantEmbedding:
        layer = FakeQuantEmbedding(embedding.num_embeddings, embedding.embedding_dim, device="meta")
        layer.weight = embedding.weight
        return layer.train(embedding.training)

    return _replace_layers(copy.deepcopy(model), fake_linear, fake_embedding)


def convert_qat(model: nn.Module, rows: Tensor | Dataset, batch_size: int = 8) -> nn.Module:
    """The INT8 model that a prepared model was trained to be; rows [rows, T] as in quantize_static."""
    if not any(isinstance(module, FakeQuantLinear) for module in model.modules()):
        raise ValueError("the model has no layers that prepare_qat made: prepare and train it first")
    return quantize_static(model, rows, batch_size)


def float_linears(model: nn.Module) -> list[str]:
    """The names of the linear layers whose weights are in floating point."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def quantize(values: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers [..., in] as int8, and the float32 scale [..., 1] that takes them back to values [..., in]."""
    values = values.float()
    scale = (values.abs().amax(-1, keepdim=True) / 127.5).clamp(min=TINY)
    return (values * (1 / scale)).round().clamp(-128, 127).to(torch.int8), scale


def choose_input_scale(input_range: Tensor) -> tuple[Tensor, Tensor]:
    """The scale of inputs in a range [2], and the level, a whole number in 0..INPUT_LEVELS, that stands for 0."""
    low, high = input_range[0].clamp(max=0), input_range[1].clamp(min=0)
    scale = ((high - low) / INPUT_LEVELS).clamp(min=TINY)
    return scale, -(low / scale).round()


def _replace_layers(
    model: nn.Module,
    linear: Callable[[nn.Linear], nn.Module],
    embedding: Callable[[nn.Embedding], nn.Module],
) -> nn.Module:
    for name, module in list(model.named_modules()):
        if _is_replaced(name, module, nn.Linear):
            model.set_submodule(name, linear(module))
        elif _is_replaced(name, module, nn.Embedding):
            model.set_submodule(name, embedding(module))
    return model


def _is_replaced(name: str, module: nn.Module, kind: type[nn.Module]) -> bool:
    return isinstance(module, kind) and name not in KEPT_FLOAT


@cache
def _int8_kernel() -> Any:
    """FBGEMM's linear layer, which rounds float inputs itself and returns floats; None where it is absent."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return None
    if not hasattr(torch, "_make_per_channel_quantized_tensor"):
        return None
    return getattr(torch.ops.quantized, "linear_with_input_q_dq_qweight_dq_output_fp32", None)


def _pack_weight(weight: Tensor, scale: Tensor, bias: Tensor | None) -> Any:
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        with warnings.catch_warnings():
            # PyTorch means to drop quantized tensors, and has no other way yet to this kernel.
            warnings.simplefilter("ignore", UserWarning)
            zeros = torch.zeros(len(weight), dtype=torch.int64)
            quantized = torch._make_per_channel_quantized_tensor(weight, scale.flatten().double(), zeros, axis=0)
            return torch.ops.quantized.linear_prepack(quantized, None if bias is None else bias.float())
    finally:
        torch.backends.quantized.engine = engine


def _simulate_input(x: Tensor) -> Tensor:
    return _fake_quantizers()[0](x.float().reshape(1, -1)).view_as(x).to(x.dtype)  # one token: one scale


def _simulate_weight(weight: Tensor) -> Tensor:
    return _fake_quantizers()[1](weight.float()).to(weight.dtype)


def _fake_quantizers() -> tuple[nn.Module, nn.Module]:
    """Those of torchao for inputs and for weights, made anew: they keep the scales that they saw last."""
    try:
        from torchao.quantization.qat import IntxFakeQuantizeConfig, IntxFakeQuantizer  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("training that is aware of INT8 needs torchao: pip install 'bitpatch[train]'") from error
    inputs = IntxFakeQuantizeConfig(torch.int7, "per_token", is_symmetric=False)
    return IntxFakeQuantizer(inputs), IntxFakeQuantizer(IntxFakeQuantizeConfig(torch.int8, "per_channel"))
