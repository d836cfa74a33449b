"""What a request may ask for: each size in one table, checked before anything of that size is made.

Above the line in RANGES stand the options of a model, of a training plan and of an answer. Below it
stands what follows from several of them: a request is also refused where a text, a model, an update, a
run or a snapshot would come out larger than that.

The bytes of an update are estimated from above, as if all was float32: 16 a parameter (the weight, its
gradient and AdamW's two moments), and the activations of a micro-batch with its attention maps.
"""

import math
import re
from dataclasses import dataclass
from types import UnionType
from typing import Any, get_args

import torch

from bit_transformer.contexts import WORDS
from bit_transformer.model import BitTransformerLM


@dataclass(frozen=True, slots=True)
class Range:
    """The least and the most that something may be, both allowed."""

    least: float
    most: float


RANGES = {
    "d_model": Range(1, 4096),
    "nhead": Range(1, 256),
    "num_layers": Range(1, 256),
    "dim_feedforward": Range(1, 16_384),
    "max_seq_len": Range(2, 65_536),
    "lambda_K": Range(0.0, 1000.0),
    "lambda_C": Range(0.0, 1000.0),
    "lambda_S": Range(0.0, 1000.0),
    "act_threshold": Range(0.01, 1.0),
    "chunk_size": Range(1, 65_536),
    "overlap": Range(0, 65_536),
    "context_orders": Range(0, 16),
    "context_slots": Range(2, 2**22),
    "batch_size": Range(1, 65_536),
    "epochs": Range(1, 10_000),
    "extra_steps": Range(0, 10_000),
    "lr": Range(1e-8, 1.0),
    "weight_decay": Range(0.0, 1.0),
    "bytes": Range(1, 256),
    "temperature": Range(0.0, 10.0),
    "layer": Range(1, 256),
    "head": Range(1, 256),
    # ---
    "bytes of text": Range(1, 2**20),
    "parameters": Range(1, 2**26),
    "updates of the plan": Range(1, 100_000),
    "bytes of an update": Range(1, 6 * 2**30),
    "bytes of a snapshot": Range(1, 2**30),
}
KINDS = {bool: ("boolean", "true or false"), int: ("integer", "a whole number"), float: ("number", "a number")}
ACTIVATIONS = (20, 4, 7)  # of one layer: copies of a position's channels, of its hidden units, of all scores
OUT_OF_MEMORY = re.compile("out of memory|allocate memory")  # as torch says it, in a RuntimeError
MAPS = 10  # attention maps that are there for a moment, while one a layer is kept


def check_range(name: str, value: float) -> None:
    """Raise ValueError unless the value is in the range of that name."""
    allowed = RANGES[name]
    if not allowed.least <= value <= allowed.most:  # not a number is in no range
        raise ValueError(f"{name} must be from {allowed.least} to {allowed.most}, got {shown(value)}")


def check_options(options: Any, kinds: dict[str, Any]) -> dict[str, Any]:
    """The options, none by default; ValueError unless each is known, of its kind, and in its range.

    A whole number is taken for a float, but true and false are no numbers.
    """
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise ValueError(f"expected an object of options, got {shown(options)}")
    checked = {}
    for name, value in options.items():
        if name not in kinds:
            raise ValueError(f"unknown option {shown(name)}: expected one of {', '.join(kinds)}")
        kind, optional = kind_of(kinds[name])
        if optional and value is None:
            checked[name] = None
            continue
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, int | float if kind is float else kind):
            raise ValueError(f"{name} must be {KINDS[kind][1]}{' or null' * optional}, got {shown(value)}")
        if name in RANGES:
            check_range(name, value)
        checked[name] = kind(value)
    return checked


def check_run(config: dict[str, Any], plan: dict[str, Any], rows: int) -> None:
    """Raise ValueError unless a whole configuration and plan, with so many rows of data, can be carried out."""
    check_model(config)
    check_range("updates of the plan", count_updates(plan, rows))
    check_update(config, min(rows, plan["batch_size"]))


def count_updates(plan: dict[str, Any], rows: int) -> int:
    """How many updates carry a plan out."""
    return plan["epochs"] * (math.ceil(rows / plan["batch_size"]) + plan["extra_steps"])


def check_model(config: dict[str, Any]) -> None:
    """Raise ValueError unless there is a model of a whole configuration, and it is not too large."""
    for name in RANGES.keys() & config.keys():
        if config[name] is not None:
            check_range(name, config[name])
    if config["overlap"] and config["chunk_size"] is None:
        raise ValueError(f"overlap is of chunks: give a chunk_size too, got overlap {config['overlap']} alone")
    for name in ("chunk_size", "overlap"):
        if (config[name] or 0) > config["max_seq_len"]:
            raise ValueError(f"{name} must be at most max_seq_len ({config['max_seq_len']}), got {config[name]}")
    check_range("parameters", count_parameters(config))


def check_update(config: dict[str, Any], rows: int) -> None:
    """Raise ValueError where an update on so many rows would take more memory than there may be."""
    try:
        check_range("bytes of an update", update_bytes(config, rows))
    except ValueError as error:
        raise ValueError(f"{error}: take fewer rows at once, or a smaller model") from error


def count_parameters(config: dict[str, Any]) -> int:
    """How many parameters a model has, which is made without its memory. Raises ValueError with the model's reason."""
    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in BitTransformerLM(**config).parameters())
    except Exception as error:
        raise ValueError(f"there is no such model: {error}") from error


def update_bytes(config: dict[str, Any], rows: int) -> int:
    """The memory of one update on so many rows of max_seq_len bits, estimated from above."""
    C, H, L, T = (config[name] for name in ("d_model", "nhead", "num_layers", "max_seq_len"))
    chunk = config["chunk_size"] or T
    windows, width = math.ceil(T / chunk), chunk + config["overlap"]
    channels, hidden, scores = ACTIVATIONS
    layer = T * (channels * C + hidden * config["dim_feedforward"]) + scores * H * windows * chunk * width
    if config["chunk_size"] is not None:
        layer += 2 * windows * width * C  # keys and values, once for each window that sees them
    logs = config["full_attn_logging"]
    maps = H * T * T if (config["chunk_size"] is None if logs is None else logs) else 0
    recomputed = config["reversible"] or config["use_checkpoint"]
    elements = (1 if recomputed else L) * layer + L * (2 * T * C + maps) + MAPS * maps
    tables = (config["context_orders"] + WORDS) * config["context_slots"] if config["context_orders"] else 0
    return 4 * (rows * elements + tables) + 16 * count_parameters(config)


def schema(kinds: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of an object of options: their types, ranges and defaults, and no others."""
    properties = {}
    for name, annotation in kinds.items():
        kind, optional = kind_of(annotation)
        properties[name] = {"type": [KINDS[kind][0], "null"] if optional else KINDS[kind][0], "default": defaults[name]}
        if name in RANGES:
            properties[name] |= {"minimum": RANGES[name].least, "maximum": RANGES[name].most}
    return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}


def kind_of(annotation: Any) -> tuple[type, bool]:
    """bool, int or float, and whether there may be None instead."""
    parts = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return next(kind for kind in KINDS if kind in parts), type(None) in parts


def shown(value: Any) -> str:
    """What was given, in one short line."""
    if isinstance(value, dict | list):  # these may be deeper than repr goes
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a whole number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def in_words(error: BaseException) -> str:
    """Why something failed, in one line that says what to do where that is known."""
    if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
        return "out of memory: take fewer rows at once, a smaller model, or shorter rows"
    return one_line(error) if str(error).strip() else type(error).__name__


def one_line(text: object) -> str:
    """A reason in one line of bounded length."""
    line = " ".join(str(text).split())
    return line if len(line) <= 400 else f"{line[:397]}..."
