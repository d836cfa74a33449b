from .lm import BitTransformerLM

__all__ = ["BitTransformerLM"]
