"""What a user may ask of a manager, checked and turned into its terms: one door for HTTP and MCP.

Texts become rows of bits as long as the model reads; options are checked by name and type. Wrong
requests raise ValueError with the mend.
"""

import inspect
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from bit_transformer.bit_io import bits_to_rows, text_to_bits
from bit_transformer.model import BitTransformerLM
from bit_transformer.safety import SafetyError

from .manager import ModelManager, NotReadyError, TrainingPlan

REFUSALS = (ValueError, FileNotFoundError, NotReadyError, SafetyError)
MODEL = inspect.signature(BitTransformerLM).parameters
CONFIG = {name: parameter.annotation for name, parameter in MODEL.items()}
PLAN = {field.name: field.type for field in fields(TrainingPlan) if field.name != "rows"}


def init(manager: ModelManager, text: Any, config: Any = None, plan: Any = None) -> dict[str, Any]:
    """Make a model of the configuration, to be trained on the text by the plan."""
    config = check_options(config, CONFIG)
    rows = text_rows(text, config.get("max_seq_len", MODEL["max_seq_len"].default))
    return manager.init(rows, plan=check_options(plan, PLAN), **config)


def train(manager: ModelManager) -> dict[str, Any]:
    """Carry the plan out: the number of updates, and the record of the last."""
    records = manager.train()
    return {"updates": len(records), "last": records[-1]}


def train_step(manager: ModelManager, text: Any) -> dict[str, Any]:
    """Make one update on a text."""
    return manager.train_step(text_rows(text, manager.config["max_seq_len"]))


def scale_up(manager: ModelManager, dimension: Any, plan: Any = None) -> dict[str, Any]:
    """Double the model's width, layers or length, to train on by the plan."""
    return manager.scale_up(check_text(dimension), plan=check_options(plan, PLAN))


def infer(manager: ModelManager, text: Any) -> dict[str, Any]:
    """Predict the bit after a text, of which the model reads the end that fits."""
    bits = text_to_bits(check_text(text))[-manager.config["max_seq_len"] :]
    return manager.infer(torch.tensor([bits]))


def save(manager: ModelManager, name: Any) -> dict[str, Any]:
    """Write a snapshot, and say where."""
    return {"file": str(manager.save(check_text(name)))}


def download(manager: ModelManager, name: Any, text: Any = None, plan: Any = None) -> dict[str, Any]:
    """Go on from a snapshot, with a text to train on if there is one."""
    name, plan = check_text(name), check_options(plan, PLAN)
    rows = None if text is None else text_rows(text, manager.snapshot_config(name)["max_seq_len"])
    return manager.download(name, rows, plan=plan)


def check_options(options: Any, allowed: dict[str, Any]) -> dict[str, Any]:
    """The options, none by default; ValueError unless each is allowed and of its type."""
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise ValueError(f"expected an object of options, got {options!r}")
    for name, value in options.items():
        if name not in allowed:
            raise ValueError(f"unknown option {name!r}: expected one of {', '.join(allowed)}")
        if not fits(value, allowed[name]):
            kind = getattr(allowed[name], "__name__", allowed[name])
            raise ValueError(f"option {name!r} must be of type {kind}, got {value!r}")
    return options


def fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of a type: whole numbers are floats, but true and false are no numbers."""
    if isinstance(value, bool):
        return kind in (bool, bool | None)
    return isinstance(value, int | float if kind is float else kind)


def check_text(text: Any) -> str:
    """The text; ValueError unless it is one and not empty."""
    if not isinstance(text, str) or not text:
        raise ValueError(f"expected a text that is not empty, got {text!r}")
    return text


def text_rows(text: Any, length: int) -> Tensor:
    """Whole rows of bits [rows, length] from a text."""
    return bits_to_rows(text_to_bits(check_text(text)), length)
