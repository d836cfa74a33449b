from .bit_io import bits_to_text, text_to_bits
from .compression import compress_bits, decompress_bits
from .model import BitTransformerLM, infer_long_sequence
from .optimization import adjust_learning_rate, configure_optimizer
from .safety import SafetyGate, hil_safe_inference
from .scale import expand_model
from .training import train_loop
from .utils import cosine_ramp, load_model, save_model, set_dropout

__all__ = [
    "BitTransformerLM",
    "SafetyGate",
    "adjust_learning_rate",
    "bits_to_text",
    "compress_bits",
    "configure_optimizer",
    "cosine_ramp",
    "decompress_bits",
    "expand_model",
    "hil_safe_inference",
    "infer_long_sequence",
    "load_model",
    "save_model",
    "set_dropout",
    "text_to_bits",
    "train_loop",
]
