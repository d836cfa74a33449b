"""The command line of runs that are kept: what a flag may be, and what it comes to."""

import argparse
import difflib
import json
import math
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .distributed import PARALLEL, place_of
from .presets import PRESETS
from .training import build_parser

Values = dict[str, Any]

SCHEDULES = ("onecycle", "progressive_plateau")
TRACKERS = ("tensorboard", "wandb", "mlflow")
# What may differ when a run goes on; all else would make it another run.
FREE = {
    "config",
    "data",
    "val_data",
    "cache",
    "out",
    "device",
    "num_workers",
    "log_interval",
    "resume",
    "force",
    "tensorboard",
    "report_to",
    "parallel",
}
LEAST = {
    "layers": 1, "d_model": 1, "nhead": 1, "max_seq_len": 9, "chunk_size": 1, "overlap": 0, "batch_size": 1,
    "accum_steps": 1, "num_workers": 0, "epochs": 1, "max_steps": 1, "extra_steps": 0, "eval_interval": 1,
    "eval_rows": 0, "log_interval": 1, "lr_warmup": 0, "patience": 1, "warmup_steps": 0, "context_orders": 0,
    "context_slots": 2,
}  # fmt: skip


INFINITY, ABOVE_ONE = float("inf"), math.nextafter(1, 2)
RANGES = {
    "lr": (0, INFINITY, "a finite number above 0"),
    "lr_floor": (0, INFINITY, "a finite number, 0 or more"),
    "weight_decay": (0, INFINITY, "a finite number, 0 or more"),
    "loss_threshold": (0, INFINITY, "a finite number, 0 or more"),
    "compress_prob": (0, ABOVE_ONE, "a probability in 0..1"),
    "direct_prob": (0, ABOVE_ONE, "a probability in 0..1"),
    "dropout": (0, 1, "a probability below 1"),
    "seed": (0, 2**63, "in 0..2**63 - 1"),
}
# Flags that mean something only beside another, and what they want.
NEEDS = {
    "overlap": ("--chunk_size", lambda values: values["chunk_size"] is not None),
    "lr_warmup": ("--lr_schedule progressive_plateau", lambda values: values["lr_schedule"] != "onecycle"),
    "patience": ("--lr_schedule progressive_plateau", lambda values: values["lr_schedule"] != "onecycle"),
    "lr_floor": ("--lr_schedule progressive_plateau", lambda values: values["lr_schedule"] != "onecycle"),
    "context_slots": ("--context_orders", lambda values: values["context_orders"]),
    "compile_policy": ("--compile", lambda values: values["compile"]),
}


class RunError(ValueError):
    """A run cannot start, or go on; the message says what to do."""


def run_parser() -> argparse.ArgumentParser:
    """The command line of the training loop, and what only a run that is kept has."""
    parser = build_parser()
    parser.add_argument("preset", nargs="?", choices=sorted(PRESETS), help="flags that were chosen for a purpose")
    group = parser.add_argument_group("runs that are kept in a folder")
    group.add_argument("--config", type=Path, metavar="FILE", help="flags in a TOML file; those given beside it win")
    group.add_argument(
        "--dataset", metavar="NAME", help="a Hugging Face data set instead of --data; NAME:CONFIGURATION"
    )
    group.add_argument("--val_data", type=Path, action="append", help="text to validate on; default: the end of --data")
    group.add_argument("--cache", type=Path, metavar="DIR", help="where texts are kept as bits; default: ~/.cache")
    group.add_argument("--max_steps", type=int, help="optimizer updates, instead of --epochs")
    group.add_argument("--eval_interval", type=int, default=100, help="updates between evaluations and checkpoints")
    group.add_argument("--eval_rows", type=int, default=64, help="held-out rows of an evaluation; 0 is all")
    group.add_argument("--log_interval", type=int, default=10, help="updates between records of the training loss")
    group.add_argument("--lr_schedule", choices=SCHEDULES, default="onecycle")
    group.add_argument(
        "--lr_warmup", type=int, default=100, help="updates until a progressive plateau's rate is reached"
    )
    group.add_argument(
        "--patience", type=int, default=3, help="evaluations without a gain of 0.1%% that make a plateau"
    )
    group.add_argument("--lr_floor", type=float, default=1e-5, help="where a progressive plateau's rate stays")
    group.add_argument("--loss_threshold", type=float, default=2.0, help="of the safety gate, in nats a bit")
    group.add_argument("--dropout", type=float, default=0.1)
    group.add_argument(
        "--context_orders",
        type=int,
        default=0,
        help="weigh in what followed the last 1 to N bytes in the text to train on",
    )
    group.add_argument("--context_slots", type=int, default=1 << 20, help="places of each table of what followed")
    group.add_argument("--quantization", choices=("none", "int8"), default="none", help="also keep the model in INT8")
    group.add_argument("--qat", action=argparse.BooleanOptionalAction, default=False, help="train for INT8")
    group.add_argument(
        "--grow_from", type=Path, metavar="FILE", help="start from a smaller model, doubled until it fits"
    )
    group.add_argument("--device", help="cpu, cuda; default: a GPU where there is one")
    group.add_argument("--parallel", choices=PARALLEL, default="ddp", help="how torchrun's processes share the work")
    group.add_argument("--resume", action="store_true", help="go on where the last checkpoint is")
    group.add_argument("--force", action="store_true", help="start although the data are few for the parameters")
    group.add_argument("--tensorboard", action="store_true", help="write TensorBoard events to the folder too")
    group.add_argument("--report_to", action="append", choices=TRACKERS, help="send figures there too; may be repeated")
    return parser


def values_of(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> Values:
    """The value of every flag: what was given, over --config, over what a resumed run had, the preset's, the default.

    Raises RunError where they make no run, and where the folder holds one that is not to be resumed.
    """
    argv = with_switches(parser, sys.argv[1:] if argv is None else argv)
    refuse_unknown_flags(parser, argv)
    defaults = vars(parser.parse_args([]))
    given = given_in(parser, argv)
    if "config" in given:
        given = {**configured(given["config"]), **given}
    preset = PRESETS[given["preset"]].values if "preset" in given else {}
    out = given.get("out") or Path("runs") / given.get("preset", "run")
    values = {**defaults, **preset, **given, "out": out}
    if values["resume"]:
        values = {**resumed_values(out, given), "out": out, "resume": True}
    elif (out / "checkpoint.safetensors").exists():
        raise RunError(f"{out} holds a run: add --resume to go on with it, or name another folder with --out")
    require_sound(values, given)
    say_what_is_skipped(values, given)
    return values


def given_in(parser: argparse.ArgumentParser, words: Sequence[str]) -> Values:
    """The flags that some words give, without the defaults of others."""
    nothing = dict.fromkeys(vars(parser.parse_args([])))
    found = vars(parser.parse_args(words, argparse.Namespace(**nothing)))
    return {name: value for name, value in found.items() if value is not None}


def configured(path: Path) -> Values:
    """The flags in a TOML file, checked as those of a command line are; tables only group them. Raises RunError."""
    parser = run_parser()

    def refuse(why: object) -> NoReturn:
        raise RunError(f"--config {path}: {why}")

    parser.error = refuse  # type: ignore[method-assign]
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        refuse(error.strerror)
    except ValueError as error:
        refuse(error)
    flat: Values = {}
    for name, value in found.items():
        flat |= value if isinstance(value, dict) else {name: value}
    known = {action.dest for action in parser._actions} - {"help", "config", "resume"}
    for name, value in flat.items():
        if name not in known or isinstance(value, dict):
            near = difflib.get_close_matches(name, known, 1)
            refuse(f"there is no flag {name}" + (f": did you mean {near[0]}?" if near else "; see --help"))
    return given_in(parser, words_of(parser, flat))


def words_of(parser: argparse.ArgumentParser, values: Mapping[str, Any]) -> list[str]:
    """The words of a command line that give flags these values."""
    words: list[str] = []
    for name, value in values.items():
        if name == "preset":
            words += [value] if value else []
        elif isinstance(value, bool):
            no_words = [f"--no-{name}"] if name in two_sided(parser) else []
            words += [f"--{name}"] if value else no_words
        elif value is not None:
            words += [f"--{name}={item}" for item in (value if isinstance(value, list) else [value])]
    return list(map(str, words))


def with_switches(parser: argparse.ArgumentParser, argv: Sequence[str]) -> list[str]:
    """The words of a command line, with a switch's `true` or `false`, apart or after a `=`, as argparse has it.

    `--flag true` and `--flag=true` become `--flag`, `--flag false` and `--flag=false` `--no-flag` or nothing.
    """
    switches = {f"--{name}" for name in (*two_sided(parser), *one_sided(parser))}
    words: list[str] = []
    for given in argv:
        name, _, value = given.partition("=")
        is_one_word = name in switches and value.lower() in ("true", "false")
        for word in (name, value) if is_one_word else (given,):
            flag = words[-1] if words and word.lower() in ("true", "false") else ""
            if flag not in switches:
                words.append(word)
            elif word.lower() == "false":
                words[-1:] = [flag.replace("--", "--no-", 1)] if flag[2:] in two_sided(parser) else []
    return words


def refuse_unknown_flags(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Exit, naming the flag, where there is none of a name: argparse would take its value for a preset."""
    known = {option for action in parser._actions for option in action.option_strings}
    for word in argv:
        flag = word.partition("=")[0]
        if flag.startswith("--") and not any(option.startswith(flag) for option in known):
            near = difflib.get_close_matches(flag, known, 1)
            parser.error(f"there is no flag {flag}" + (f": did you mean {near[0]}?" if near else "; see --help"))


def two_sided(parser: argparse.ArgumentParser) -> set[str]:
    """The names of the flags that have a --no- form."""
    return {action.dest for action in parser._actions if isinstance(action, argparse.BooleanOptionalAction)}


def one_sided(parser: argparse.ArgumentParser) -> set[str]:
    """The names of the flags that only say yes."""
    return {action.dest for action in parser._actions if action.const is True}


def resumed_values(out: Path, given: Values) -> Values:
    """The flags of the run in a folder, with those that may change as they were given."""
    kept = kept_values(out / "run.json")
    free = FREE | ({"epochs", "max_steps"} if kept["lr_schedule"] == "progressive_plateau" else set())
    for name, value in given.items():
        if name not in free and kept[name] != value:
            flag = name if name == "preset" else f"--{name}"
            raise RunError(
                f"{flag} is {kept[name]} in the run in {out}, got {value}: a run goes on as it began; "
                "start another in a folder of its own"
            )
    if "epochs" in given and "max_steps" not in given:
        kept["max_steps"] = None
    return {**kept, **given}


def kept_values(path: Path) -> Values:
    """The flags in a run.json, checked as those of a command line are; RunError where they are not sound."""
    parser = run_parser()

    def refuse(why: object) -> NoReturn:
        raise RunError(f"--resume: {path} is damaged ({why}); start anew in another folder")

    parser.error = refuse  # type: ignore[method-assign]
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"--resume: {path.parent} holds no run; start one without --resume") from None
    except ValueError as error:
        refuse(error)
    if not isinstance(kept, dict):
        refuse(f"expected flags, found {type(kept).__name__}")
    return vars(parser.parse_args(words_of(parser, kept)))


def require_sound(values: Values, given: Values) -> None:
    """Raise RunError, naming the flag, on a value that no run can have."""
    for name, least in LEAST.items():
        if values[name] is not None and values[name] < least:
            raise RunError(f"--{name} must be at least {least}, got {values[name]}")
    if values["d_model"] % values["nhead"]:
        raise RunError(
            f"--d_model must be a multiple of --nhead, got {values['d_model']} and {values['nhead']}: "
            f"try --nhead {math.gcd(values['d_model'], values['nhead'])}"
        )
    for name, (least, below, range_) in RANGES.items():
        if not least <= values[name] < below:
            raise RunError(f"--{name} must be {range_}, got {values[name]}")
    if not values["lr"] > 0:
        raise RunError(f"--lr must be greater than 0, got {values['lr']}")
    if values["device"] is not None:
        try:
            place_of(values["device"])
        except ValueError as error:
            raise RunError(f"--{error}") from None
    if "epochs" in given and "max_steps" in given:
        raise RunError("--epochs and --max_steps both say how long the run is: give one of them")
    if values["data"] and values["dataset"]:
        raise RunError("--data and --dataset both say what to train on: give one of them")
    if values["qat"] and values["quantization"] == "none":
        raise RunError("--qat trains for INT8: add --quantization int8")
    if not values["causal"]:
        raise RunError("--no-causal: a model that sees the bits it predicts has nothing to learn; leave it out")


def say_what_is_skipped(values: Values, given: Values) -> None:
    """Warn, once for all processes, of flags that were given and do nothing."""
    for name, (needed, is_met) in NEEDS.items():
        if name in given and not is_met(values) and os.environ.get("RANK", "0") == "0":
            print(f"warning: --{name} does nothing without {needed}", file=sys.stderr)


def jsonable(value: Any) -> Any:
    """A flag's value as run.json has it."""
    if isinstance(value, list):
        return [jsonable(item) for item in value]
    return str(value) if isinstance(value, Path) else value
