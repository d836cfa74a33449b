"""What a user may ask of a manager, checked and turned into its terms: one door for HTTP and MCP.

Texts become rows of bits as long as the model reads; options are checked by name, type and range, and
what they come to by size (limits.py), before the manager is asked. Requests take turns, and one that is
refused leaves the manager as it was. Wrong requests raise ValueError with the mend. Numbers that are
not finite are answered as None, which JSON can hold.
"""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from typing import Any

import torch
from torch import Tensor

from bit_transformer.bit_io import bits_to_rows, text_to_bits
from bit_transformer.model import BitTransformerLM
from bit_transformer.safety import SafetyError

from .limits import check_options, check_range, check_run, check_update, schema, shown
from .manager import DOUBLE, ModelManager, NotReadyError, TrainingPlan

REFUSALS = (ValueError, OSError, NotReadyError, SafetyError)
MODEL = inspect.signature(BitTransformerLM).parameters
CONFIG = {name: parameter.annotation for name, parameter in MODEL.items()}
PLAN = {field.name: field.type for field in fields(TrainingPlan) if field.name != "rows"}
DEFAULTS = {name: parameter.default for name, parameter in MODEL.items()}
PLAN_DEFAULTS = {field.name: field.default for field in fields(TrainingPlan) if field.default is not MISSING}
GROWS = {"width": ("d_model", "dim_feedforward"), "layers": ("num_layers",), "length": ("max_seq_len",)}
SCHEMAS = {"config": schema(CONFIG, DEFAULTS), "plan": schema(PLAN, PLAN_DEFAULTS)}


def status(manager: ModelManager) -> dict[str, Any]:
    """What model there is, and how far its training has come; it waits for no other request."""
    return finite(manager.status())


def init(manager: ModelManager, text: Any, config: Any = None, plan: Any = None) -> dict[str, Any]:
    """Make a model of the configuration, to be trained on the text by the plan."""
    config, plan = check_options(config, CONFIG), check_options(plan, PLAN)
    rows = text_rows(text, config.get("max_seq_len", DEFAULTS["max_seq_len"]))
    check_run(DEFAULTS | config, PLAN_DEFAULTS | plan, len(rows))
    return finite(manager.init(rows, plan=plan, **config))


def train(manager: ModelManager) -> dict[str, Any]:
    """Carry the plan out: the number of updates, and the record of the last."""
    records = manager.train()
    return finite({"updates": len(records), "last": records[-1]})


def train_step(manager: ModelManager, text: Any) -> dict[str, Any]:
    """Make one update on a text."""
    check_text(text)
    with manager.turn():
        rows = text_rows(text, manager.config["max_seq_len"])
        check_update(manager.config, len(rows))
        return finite(manager.train_step(rows))


def scale_up(manager: ModelManager, dimension: Any, plan: Any = None) -> dict[str, Any]:
    """Double the model's width, layers or length, to train on by the plan."""
    plan = check_options(plan, PLAN)
    if not isinstance(dimension, str) or dimension not in DOUBLE:
        raise ValueError(f"dimension must be one of {', '.join(DOUBLE)}, got {shown(dimension)}")
    with manager.turn():
        config = manager.config | {name: 2 * manager.config[name] for name in GROWS[dimension]}
        rows = 1 if manager.data is None else len(manager.data)
        check_run(config, asdict(manager.plan) | plan, rows)
        return finite(manager.scale_up(dimension, plan=plan))


def infer(manager: ModelManager, text: Any) -> dict[str, Any]:
    """Predict the bit after a text, of which the model reads the end that fits."""
    check_text(text)
    with manager.turn():
        bits = text_to_bits(text)[-manager.config["max_seq_len"] :]
        return finite(manager.infer(torch.tensor([bits])))


def save(manager: ModelManager, name: Any) -> dict[str, Any]:
    """Write a snapshot, and say where."""
    return {"file": str(manager.save(check_text(name, "name")))}


def download(manager: ModelManager, name: Any, text: Any = None, plan: Any = None) -> dict[str, Any]:
    """Go on from a snapshot, with a text to train on if there is one."""
    name, plan = check_text(name, "name"), check_options(plan, PLAN)
    if text is not None:
        check_text(text)
    with manager.turn():
        check_range("bytes of a snapshot", manager.snapshot_file(name).stat().st_size)
        with whole(name):
            config, saved = manager.snapshot_settings(name)
            config = DEFAULTS | check_options(config, CONFIG)
            saved = check_options({key: saved[key] for key in saved if key != "rows"}, PLAN)
        rows = None if text is None else text_rows(text, config["max_seq_len"])
        check_run(config, PLAN_DEFAULTS | saved | plan, 1 if rows is None else len(rows))
        with whole(name):
            return finite(manager.download(name, rows, plan=plan))


@contextmanager
def whole(name: str) -> Iterator[None]:
    """Blame the snapshot for what is wrong while it is read: all else has been checked."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"snapshot {shown(name)} cannot be taken up: {error}") from error


def check_text(text: Any, name: str = "text") -> str:
    """The text; ValueError unless it is one, not empty, not too long, and can be written as UTF-8."""
    if not isinstance(text, str) or not text:
        raise ValueError(f"{name} must be a text that is not empty, got {shown(text)}")
    try:
        check_range("bytes of text", len(text.encode()))
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} must be Unicode, but its character {error.start} is half a surrogate pair") from error
    return text


def text_rows(text: Any, length: int) -> Tensor:
    """Whole rows of bits [rows, length] from a text."""
    return bits_to_rows(text_to_bits(check_text(text)), length)


def finite(value: Any) -> Any:
    """The value, with None for each number in it that is not finite."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
