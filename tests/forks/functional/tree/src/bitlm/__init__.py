from bitlm.config import ModelConfig, TrainConfig
from bitlm.model import BitLM

__all__ = ["BitLM", "ModelConfig", "TrainConfig"]
