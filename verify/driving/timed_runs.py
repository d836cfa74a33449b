"""A short training run and a load of text, timed: what a turn measures. In child processes only.

Time is processor time, on one thread: what else the machine does moves it little.
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from .seams import MissingSeam
from .text_loads import CODEWORDS, schedule, write_text
from .tree import Tree

ROWS, EPOCHS = 32, 2  # rows are a multiple of every batch and group that options ask for
BYTES_PER_ROW = 24
CONFIG = {"d_model": 64, "nhead": 4, "num_layers": 2, "dim_feedforward": 256, "max_seq_len": 9 * BYTES_PER_ROW}
CHUNKS = {"chunk_size": 36, "overlap": 12}  # where a tree has them
RUN = {"epochs": EPOCHS, "extra_steps": 0, "compress_prob": 0.0, "direct_prob": 0.0}
TEXT = 1 << 17  # bytes of the text that is loaded
TICK = 1 / 250  # seconds: some systems count processor time in such steps, and less as nothing


def play(tree: Tree, options: Mapping[str, Any], sample: bytes) -> dict[str, Any]:
    """The figures of a turn, and why others are not among them: of training with options, and of loading a text."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no processes that nobody waits for
    figures, lacks = dict[str, float](), dict[str, str]()

    def tried(names: tuple[str, ...], measure: Callable[[], tuple[float, ...]]) -> None:
        try:
            figures.update(zip(names, measure(), strict=True))
        except MissingSeam as lack:
            lacks.update(dict.fromkeys(names, str(lack)))
        except Exception as error:  # whatever it is, the other figures stand
            lacks.update(dict.fromkeys(names, f"{type(error).__name__}: {error}"))

    tried(("bits_per_second", "peak_mb"), lambda: trained(tree, options, sample))
    tried(("start_seconds",), lambda: (started(tree, sample),))
    return {"figures": figures, "lacks": lacks}


def trained(tree: Tree, options: Mapping[str, Any], sample: bytes) -> tuple[float, float]:
    """Bits a second of all updates but the first, and the megabytes by which resident memory rose at its highest."""
    chunked = all(tree.model_takes(name) for name in CHUNKS)
    model = tree.seams.model(CONFIG | (CHUNKS if chunked else {})).float()  # with the dropout that it has
    codes = CODEWORDS[np.frombuffer(sample[: ROWS * BYTES_PER_ROW], np.uint8)]
    rows, ends = torch.from_numpy(codes).reshape(ROWS, -1), list[float]()
    before = peak_mb()
    with register_optimizer_step_post_hook(lambda *_: ends.append(time.process_time())):
        tree.train(model, rows, **RUN | dict(options))
    if len(ends) < 2:  # noqa: PLR2004
        raise ValueError(f"{len(ends)} steps of an optimizer were seen: there is no time from one to the next")
    bits = EPOCHS * rows.numel() * (1 - 1 / len(ends))
    return bits / (ends[-1] - ends[0]), max(peak_mb() - before, 1 / 256)  # a page at least


def started(tree: Tree, sample: bytes) -> float:
    """Seconds from a text that was never read before to its first row."""
    path, load_rows = write_text("text.txt", (sample * (TEXT // len(sample) + 1))[:TEXT]), loader_of(tree)
    began = time.process_time()
    _ = load_rows(path, CONFIG["max_seq_len"])[0]
    return max(time.process_time() - began, TICK)


def loader_of(tree: Tree) -> Callable[[Path, int], Any]:
    """What loads rows of a text: load_rows of wikitext_schedule, or a function that is found and takes so much."""
    try:
        load_rows: Callable[[Path, int], Any] = schedule(tree).load_rows
    except MissingSeam:
        part = tree.seams.part("rows")
        if part.is_method or [part.roles.get(name) for name in part.parameters] != ["data", None]:
            raise
        load_rows = part.load()
    return load_rows


def peak_mb() -> float:
    """The most memory, in MB, that has been resident in this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
