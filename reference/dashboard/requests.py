"""What a user may ask of a manager, checked and turned into its terms: one door for HTTP and MCP.

Texts become rows of bits as long as the model reads; options are checked by name, type and range, and
what they come to by size (limits.py), before the manager is asked. Requests take turns, and one that is
refused leaves the manager as it was. Wrong requests raise ValueError with the mend. Numbers that are
not finite are answered as None, which JSON can hold.
"""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, asdict, fields
from typing import Any

import torch
from torch import Tensor

from bit_transformer.bit_io import BITS_PER_BYTE, BYTES, bits_to_rows, text_to_bits
from bit_transformer.generation import generate_bits
from bit_transformer.model import BitTransformerLM
from bit_transformer.safety import SafetyError, hil_safe_inference

from .background import BackgroundRun, BusyError
from .limits import check_options, check_range, check_run, check_update, schema, shown
from .manager import DOUBLE, ModelManager, NotReadyError, TrainingPlan

REFUSALS = (ValueError, OSError, NotReadyError, BusyError, SafetyError)
MODEL = inspect.signature(BitTransformerLM).parameters
CONFIG = {name: parameter.annotation for name, parameter in MODEL.items()}
PLAN = {field.name: field.type for field in fields(TrainingPlan) if field.name != "rows"}
DEFAULTS = {name: parameter.default for name, parameter in MODEL.items()}
PLAN_DEFAULTS = {field.name: field.default for field in fields(TrainingPlan) if field.default is not MISSING}
GROWS = {"width": ("d_model", "dim_feedforward"), "layers": ("num_layers",), "length": ("max_seq_len",)}
WRITING, LOOK = {"bytes": 32, "temperature": 1.0}, {"layer": 1, "head": 1}  # unless asked otherwise
SCORES = ("negentropy", "lz_complexity", "symbiosis")
MAP_BITS = 144  # that an attention map shows at most: 16 bytes
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


def run(background: BackgroundRun) -> dict[str, Any]:
    """Begin to carry the plan out in the background."""
    background.start()
    return finite(background.progress())


def stop(background: BackgroundRun) -> dict[str, Any]:
    """Let the run in the background end after the update under way."""
    background.stop()
    return finite(background.progress())


def progress(manager: ModelManager, background: BackgroundRun, since: int = 0) -> dict[str, Any]:
    """The run in the background, the gate, and the latest records from a step on; it waits for no other request."""
    records = [record for record in manager.history.copy() if record["step"] >= since]
    gate, judged = manager.gate, manager.gate.state_dict()
    seen = {"threshold": gate.threshold, "tripped": gate.tripped, "average": judged.get("ema_val")}
    seen |= {"steps": judged.get("steps", 0), "burn_in_steps": getattr(gate, "burn_in_steps", 0)}
    return finite({"run": background.progress(), "gate": seen, "records": records})


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


def generate(manager: ModelManager, text: Any, bytes_: Any = None, temperature: Any = None) -> dict[str, Any]:
    """Go on from a text: what follows it, and the K/C/S scores of both. Bytes that are not UTF-8 become U+FFFD."""
    check_text(text)
    options = WRITING | check_options(
        only_given({"bytes": bytes_, "temperature": temperature}), {"bytes": int, "temperature": float}
    )
    with manager.turn():
        length, chance = manager.config["max_seq_len"], torch.Generator()
        chance.seed()  # what training draws stays as it is
        given = text_to_bits(text)
        bits = generate_bits(manager.model, given, options["bytes"], options["temperature"], chance)
        scores = manager.infer(torch.tensor([bits[-length:]]))
        words = (bits[start : start + BITS_PER_BYTE] for start in range(len(given), len(bits), BITS_PER_BYTE))
        written = bytes(BYTES[tuple(word)] for word in words).decode("utf-8", errors="replace")
        return finite({"text": written, **{name: scores[name][0] for name in SCORES}})


def attention(manager: ModelManager, text: Any, layer: Any = None, head: Any = None) -> dict[str, Any]:
    """How the end of a text attends to itself: the bits, and a row of weights for each. Layers and heads are from 1 on.

    Raises NotReadyError where the model logs no maps.
    """
    check_text(text)
    look = LOOK | check_options(only_given({"layer": layer, "head": head}), {"layer": int, "head": int})
    with manager.turn():
        config = manager.config
        for name, option in {"layer": "num_layers", "head": "nhead"}.items():
            if look[name] > config[option]:
                raise ValueError(f"{name} must be at most {config[option]}, got {look[name]}")
        bits = text_to_bits(text)[-min(config["max_seq_len"], MAP_BITS) :]
        floors = (manager.c_floor, manager.s_floor)
        maps = hil_safe_inference(manager.model, torch.tensor([bits]), *floors)[1]["attention_maps"]
        if not maps:
            raise NotReadyError("the model logs no attention maps: make one with full_attn_logging true")
        weights = maps[look["layer"] - 1][0, look["head"] - 1]
        return finite({**look, "bits": bits, "map": [[round(each, 4) for each in row] for row in weights.tolist()]})


def snapshots(manager: ModelManager) -> dict[str, Any]:
    """The names of the snapshots that there are."""
    names = []
    for path in sorted(manager.snapshots.glob("*.pt")):
        with suppress(ValueError, OSError):  # what is no snapshot
            manager.snapshot_file(path.stem)
            names.append(path.stem)
    return {"snapshots": names}


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


def only_given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


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
