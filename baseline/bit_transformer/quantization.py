"""INT8 linear layers, after training or with training that is aware of them.

Weights are rounded to 8 bits with a scale for each output, inputs with a scale for each position,
measured as they come. Weights take a quarter of the memory; products are those of an INT8 kernel
computed in floating point, so that results are the same on every device.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """An nn.Linear for inference, its weight [out, in] kept as int8 with a scale [out, 1]."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantize(linear.weight.detach())
        self.register_buffer("weight", weight.to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        return F.linear(round_to_int8(x), self.weight * self.scale, self.bias)


class FakeQuantLinear(nn.Linear):
    """An nn.Linear that computes with rounded weights and inputs, and trains the unrounded ones."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]; gradients pass the rounding as if it were not there."""
        return F.linear(straight_through(x), straight_through(self.weight), self.bias)


def quantize_dynamic(model: nn.Module) -> nn.Module:
    """A copy of the model whose linear layers are INT8, in evaluation mode."""
    return _replace_linears(copy.deepcopy(model), Int8Linear).eval()


def prepare_qat(model: nn.Module) -> nn.Module:
    """A copy of the model that trains as if its linear layers were INT8; its state has the same names."""

    def fake(linear: nn.Linear) -> FakeQuantLinear:
        layer = FakeQuantLinear(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        layer.weight, layer.bias = linear.weight, linear.bias
        return layer.train(linear.training)

    return _replace_linears(copy.deepcopy(model), fake)


def convert_qat(model: nn.Module) -> nn.Module:
    """The INT8 model that a prepared model was trained to be: it computes what that one evaluates to."""
    if not any(isinstance(module, FakeQuantLinear) for module in model.modules()):
        raise ValueError("the model has no layers that prepare_qat made: prepare and train it first")
    return quantize_dynamic(model)


def quantize(values: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers in -127..127 of the shape of values [..., in], and their scale [..., 1]."""
    largest = values.abs().amax(-1, keepdim=True)
    scale = largest.clamp(min=torch.finfo(values.dtype).tiny * 127) / 127
    return (values / scale).round(), scale


def round_to_int8(values: Tensor) -> Tensor:
    """The nearest values that INT8 can hold."""
    rounded, scale = quantize(values)
    return rounded * scale


def straight_through(values: Tensor) -> Tensor:
    """round_to_int8 with the gradient of the identity (Bengio et al. 2013, arXiv:1308.3432)."""
    return values + (round_to_int8(values) - values).detach()


def _replace_linears(module: nn.Module, replacement: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, replacement(child))
        else:
            _replace_linears(child, replacement)
    return module
