"""BitTransformerLM: a language model whose alphabet is {0, 1}."""

from .bit_io import bits_to_text, text_to_bits
from .model import BitTransformerLM
from .optimization import adjust_learning_rate, configure_optimizer
from .safety import SafetyGate, hil_safe_inference
from .training import train_loop

__version__ = "1.4.2"

__all__ = [
    "BitTransformerLM",
    "SafetyGate",
    "adjust_learning_rate",
    "bits_to_text",
    "configure_optimizer",
    "hil_safe_inference",
    "text_to_bits",
    "train_loop",
]
