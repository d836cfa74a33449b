"""Patch a BitTransformerLM tree, and prove by behaviour that each patch holds."""

__version__ = "0.1.0"
