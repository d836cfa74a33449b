"""Configuration: a nested dict, overridden from the command line as ``group.name=value``."""
from ast import literal_eval
from copy import deepcopy

DEFAULTS = {
    "model": {
        "width": 128,
        "heads": 8,
        "depth": 4,
        "hidden": 512,
        "max_len": 1152,
        "chunk": None,
        "lookback": 0,
        "keep_maps": None,
        "dropout": 0.1,
        "checkpointing": False,
    },
    "optim": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01, "clip": 1.0},
    "train": {
        "epochs": 1,
        "extra_steps": 0,
        "compress_prob": 0.5,
        "accumulate": 1,
        "fp16": False,
        "device": "cpu",
        "seed": 0,
        "out": "",
    },
    "data": {"path": "wiki.train.txt", "held_out": 0.1},
    "gate": {"limit": 2.0},
}


def compose(words=()):
    """The defaults with overrides such as ``train.epochs=3`` merged in."""
    conf = deepcopy(DEFAULTS)
    for word in words:
        path, _, value = word.partition("=")
        *groups, name = path.split(".")
        node = conf
        for group in groups:
            node = node[group]
        if name not in node:
            raise SystemExit(f"unknown setting: {path}")
        try:
            node[name] = literal_eval(value)
        except (ValueError, SyntaxError):
            node[name] = value
    return conf
