"""Open rows of a text, and what may befall them: workers, other processes, a rebuild. In child processes only."""

import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from .forks import Outcome, finish, in_fork, start
from .operations import fresh_modules
from .text_loads import each_line, load_apart, schedule, wrong_rows
from .tree import Tree


def wrong_batches(rows: Any, way: str, workers: int, path: Path) -> str:
    """What is wrong with the rows that two epochs of a data loader give, which asks for them backwards."""
    context = way if workers else None
    try:
        loader = DataLoader(
            rows,
            8,
            sampler=range(len(rows))[::-1],
            num_workers=workers,
            multiprocessing_context=context,
            persistent_workers=workers > 0,
        )
        epochs = [torch.cat(list(loader)).flip(0) for _ in range(2)]
    except Exception as error:  # whatever a worker raises is the finding
        return repr(error)
    return next(filter(None, (wrong_rows(epoch, path, len(rows[0])) for epoch in epochs)), "")


def reads_undisturbed(rows: Any) -> bool:
    """Whether a row stays itself if a forked process, that shares open files, reads another at each line."""
    (asked, ask), (told, tell) = os.pipe(), os.pipe()
    expected = [row.clone() for row in (rows[1], rows[7])]

    def read_when_asked() -> None:
        os.close(ask)
        while os.read(asked, 1):
            rows[len(rows) - 1]
            os.write(tell, b".")

    other = start(read_when_asked)
    os.close(asked)

    def disturb() -> None:
        os.write(ask, b".")
        os.read(told, 1)

    with each_line(disturb):
        read = [rows[1], rows[7]]
    os.close(ask)
    finish(*other)
    return all(map(torch.equal, read, expected))


def unpickle_afresh(tree: Tree, pickled: bytes, path: Path, length: int) -> Outcome:
    """Read a pickled data set where the tree has not been imported, as a spawned worker does."""
    with fresh_modules(tree):
        try:
            wrong = wrong_rows(pickle.loads(pickled), path, length)  # noqa: S301 - made by this check
        except Exception as error:  # whatever it is, is the finding
            return Outcome("raised", f"{type(error).__name__}: {error}")
    return Outcome("wrong", wrong) if wrong else Outcome("right")


def rows_after_a_rebuild(tree: Tree, path: Path, length: int, others: Sequence[bytes]) -> Outcome:
    """Open a text's rows, have other runs load other texts under its name, and read what was opened.

    Here, in forked workers, and unpickled: the rows are still those of the text, or an error says that they are gone.
    """
    content, rows = path.read_bytes(), schedule(tree).load_rows(path, length)
    rows[0]  # opens now what is opened once
    pickled = pickle.dumps(rows)
    for other in others:
        path.write_bytes(other)
        if (outcome := load_apart(tree, path, length)).kind != "right":
            return outcome
    first = path.with_name("first")
    first.write_bytes(content)
    try:
        wrong = wrong_rows(rows, first, length)
    except Exception as error:  # it says so
        return Outcome("raised", f"{type(error).__name__}: {error}")
    if wrong := wrong or wrong_batches(rows, "fork", 2, first):
        return Outcome("wrong", wrong)
    return Outcome(*in_fork(lambda: unpickle_afresh(tree, pickled, first, length)))
