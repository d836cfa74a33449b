"""INT8 linear layers and position table, after training or with training that is aware of them.

Weights [out, in] are 8-bit whole numbers with a scale for each row. Inputs are rounded to 7 bits as they
come, with one scale and zero point for all of a call: a CPU without VNNI adds products in pairs of 16 bits,
and 8 bits times 8 would overflow there. `out`, `halt` and `embedding` stay in floating point: they are 3 kB,
and their error would go straight into the scores.

Of the ways that `python benchmarks/int8.py` compares, this is among the fastest. CPU time of 8 layers of 128
over 2 rows of 1,152 bits, as many times as fast as float32 (one thread of a busy AVX2 CPU without VNNI, torch
2.13, torchao 0.18; float32 against itself: 0.83 to 1.10 in single rounds, median 1.04):

    this 1.09, torch.ao dynamic 1.10, a scale for each position 1.00, this in floating point 0.78,
    torchao 0.09; in a second run torchao compiled 0.09, float32 compiled 1.02

torchao has no fast kernel on such a CPU. torch.ao is deprecated, packs its weights in the file, and calls the
same kernels. One scale for all of a call has a price: a score moves by rounding noise with everything else in
the call, later bits and other rows too (by up to 0.03 at initial weights). A scale for each position would
not, and is no faster than float32.

A file holds `weight`, `scale` and `bias`, whatever computes with them: FBGEMM's kernel on a CPU that has it,
the same arithmetic in floating point elsewhere.
"""

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KEPT_FLOAT = ("embedding", "halt", "out")
INPUT_LEVELS = 127  # steps between the smallest and the largest input
TINY = torch.finfo(torch.float32).smallest_normal


class Int8Linear(nn.Module):
    """An nn.Linear for inference, its weight [out, in] kept as int8 with a scale [out, 1]."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantize(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.to(linear.weight.dtype))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())
        self._packed: tuple[tuple[Any, ...], Any] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        scale, zero_point = choose_input_scale(x)
        if self.runs_in_int8(x) and math.isfinite(step := scale.item()):
            with torch.no_grad():
                return _int8_kernel()(x, step, int(zero_point.item()), self._pack())
        rounded = ((x * (1 / scale)).round() + zero_point).clamp(0, INPUT_LEVELS)
        return F.linear((rounded - zero_point) * scale, self.weight * self.scale, self.bias)

    def runs_in_int8(self, x: Tensor) -> bool:
        """Whether x is multiplied by a kernel for INT8: float32 on a CPU that FBGEMM supports."""
        on_cpu = x.device.type == self.weight.device.type == "cpu"
        return on_cpu and x.dtype == torch.float32 and _int8_kernel() is not None

    def _pack(self) -> Any:
        """The weight as the kernel wants it, packed again when a buffer was replaced or written to."""
        buffers = (self.weight, self.scale, self.bias)
        state = tuple((tensor, None if tensor is None else tensor._version) for tensor in buffers)
        if self._packed is None or any(
            old is not new or before != now for (old, before), (new, now) in zip(self._packed[0], state, strict=True)
        ):
            self._packed = state, _pack_weight(self.weight, self.scale, self.bias)
        return self._packed[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}


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


def quantize_dynamic(model: nn.Module) -> nn.Module:
    """A copy of the model, in evaluation mode, that is INT8 but for KEPT_FLOAT and the norms."""
    with torch.inference_mode(False):
        return _replace_layers(copy.deepcopy(model), Int8Linear, Int8Embedding).eval()


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


def convert_qat(model: nn.Module) -> nn.Module:
    """The INT8 model that a prepared model was trained to be: it computes what that one evaluates to."""
    if not any(isinstance(module, FakeQuantLinear) for module in model.modules()):
        raise ValueError("the model has no layers that prepare_qat made: prepare and train it first")
    return quantize_dynamic(model)


def float_linears(model: nn.Module) -> list[str]:
    """The names of the linear layers whose weights are in floating point."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def quantize(values: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers [..., in] as int8, and the float32 scale [..., 1] that takes them back to values [..., in]."""
    values = values.float()
    scale = (values.abs().amax(-1, keepdim=True) / 127.5).clamp(min=TINY)
    return (values * (1 / scale)).round().clamp(-128, 127).to(torch.int8), scale


def choose_input_scale(x: Tensor) -> tuple[Tensor, Tensor]:
    """The scale of x and the level, a whole number in 0..INPUT_LEVELS, that stands for 0: two tensors []."""
    low, high = torch.aminmax(x)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = ((high - low) / INPUT_LEVELS).clamp(min=TINY)
    return scale, -(low / scale).round()


def _replace_layers(
    model: nn.Module,
    linear: Callable[[nn.Linear], nn.Module],
    embedding: Callable[[nn.Embedding], nn.Module],
) -> nn.Module:
    for name, module in list(model.named_modules()):
        if name in KEPT_FLOAT or not name:
            continue
        if isinstance(module, nn.Linear):
            model.set_submodule(name, linear(module))
        elif isinstance(module, nn.Embedding):
            model.set_submodule(name, embedding(module))
    return model


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
