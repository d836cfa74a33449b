"""BitTransformerLM: a causal transformer language model over raw bits."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .bit_io import bits_to_rows, bits_to_text, text_to_bits
from .checkpoint import load_checkpoint, save_checkpoint
from .compression import compress_bits, decompress_bits, pack_bits, unpack_bits
from .model import BitTransformerLM
from .optimization import configure_optimizer
from .safety import SafetyError, SafetyGate, hil_safe_inference
from .scale import double_layers, double_length, double_width, expand_model
from .telemetry import collect_telemetry

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .training import train_loop

__all__ = [
    "BitTransformerLM",
    "SafetyError",
    "SafetyGate",
    "bits_to_rows",
    "bits_to_text",
    "collect_telemetry",
    "compress_bits",
    "configure_optimizer",
    "decompress_bits",
    "double_layers",
    "double_length",
    "double_width",
    "expand_model",
    "hil_safe_inference",
    "load_checkpoint",
    "pack_bits",
    "save_checkpoint",
    "text_to_bits",
    "train_loop",
    "unpack_bits",
]


def __getattr__(name: str) -> Any:
    # Imported on demand: `python -m bit_transformer.training` would otherwise load that module twice.
    if name == "train_loop":
        return import_module(".training", __name__).train_loop
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
