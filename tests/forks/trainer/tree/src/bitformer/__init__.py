from .codec import bits_to_text, text_to_bits
from .config import ModelConfig, TrainConfig
from .guard import SafetyGate, TrainingHalted
from .network import BitTransformerLM
from .trainer import Trainer

__version__ = "0.4.2"

__all__ = [
    "BitTransformerLM",
    "ModelConfig",
    "SafetyGate",
    "TrainConfig",
    "Trainer",
    "TrainingHalted",
    "bits_to_text",
    "text_to_bits",
]
