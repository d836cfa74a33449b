"""Rows of a text, and what may befall them: workers, other processes, another text. In child processes only."""

import contextlib
import os
import pickle
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from .forks import Outcome, finish, in_fork, start
from .operations import fresh_modules
from .text_loads import each_line, load_apart, loading, sample, set_time, write_text, wrong_rows
from .tree import Tree
from .world import FILES, differences, draw_from_every_stream, settings, streams


def wrong_batches(rows: Any, way: str, workers: int, path: Path) -> str:
    """What is wrong with the rows that two epochs of a data loader give, which asks for them backwards."""
    context, again = way if workers else None, [0, 3, 3, 1]
    try:
        loader = DataLoader(
            rows,
            8,
            sampler=[*range(len(rows))[::-1], *again],
            num_workers=workers,
            multiprocessing_context=context,
            persistent_workers=workers > 0,
        )
        epochs = [torch.cat(list(loader)) for _ in range(2)]
        if any(not torch.equal(epoch[len(rows) :], epoch[: len(rows)].flip(0)[again]) for epoch in epochs):
            return "a row that is asked for again in a batch is another one"
        epochs = [epoch[: len(rows)].flip(0) for epoch in epochs]
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


def traces_of_reading(load_rows: Callable[[], Any]) -> str:
    """What loading and reading rows leaves behind, or what comes of writing into what was read; empty if nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draw_from_every_stream()  # who sets one as it was at the start, moves it
        before, moved = settings(), streams()
        rows = load_rows()
        rows[0]  # opens now what is opened once
        opened = open_files()
        for index in [*range(len(rows)), *range(min(len(rows), 200))]:
            row = rows[index]
            kept = row.clone()
            with contextlib.suppress(RuntimeError, ValueError):  # it may refuse
                row[:] = 1 - row
            if not torch.equal(rows[index], kept):
                return "who writes into a row that was read, changes the row"
        if open_files() > opened + 4:
            return f"{open_files() - opened} files stay open"
        changed = differences(before, settings()) + differences(moved, streams())
    if changed := [name for name in changed if name != FILES]:  # as what is kept for the next run
        return f"{changed[0]}: no longer what it was"
    return ""


def open_files() -> int:
    """How many files this process has open, where the system tells."""
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0


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
    content, rows = path.read_bytes(), loading(tree)(path, length)
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


def trouble_with_workers(tree: Tree, path: Path, length: int) -> tuple[str, str] | None:
    """What is wrong with rows that other processes read, pickled, forked, or spawned, and how to see it."""
    rows, line = loading(tree)(path, length), f"pickle.dumps(load_rows(path, {length}))"
    rows[0]  # opens now what is opened once
    try:
        pickled = pickle.dumps(rows)
    except Exception as error:  # whatever it is, is the finding
        return f"the data set cannot be pickled for a worker: {error!r}", line
    if len(pickled) > path.stat().st_size / 2:
        return f"a pickled data set, which goes to each worker, has {len(pickled)} bytes", line
    if wrong := trouble_as_a_tensor(rows):
        return wrong, f"rows = load_rows(path, {length})"
    if wrong := Outcome(*in_fork(lambda: unpickle_afresh(tree, pickled, path, length))).text:
        return f"unpickled by a process that is new to the tree: {wrong}", line
    if (is_same := in_fork(lambda: reads_undisturbed(rows))) is not True:
        what = "a row is another one" if is_same is False else str(Outcome(*is_same))
        return f"{what} where a forked process reads at the same time", f"{line}, os.fork(), rows[1]"
    for way, workers in (("fork", 0), ("fork", 2), ("spawn", 1)):
        line = f"DataLoader(load_rows(path, {length}), num_workers={workers}, multiprocessing_context={way!r})"
        if wrong := wrong_batches(rows, way, workers, path):
            return f"{workers} workers by {way}: {wrong}", line
    return None


def trouble_as_a_tensor(rows: Any) -> str:
    """What is wrong with slices of rows, and with batches in order, where a data set gives them as a tensor does."""
    try:
        inner = rows[2:][1:4]
        found = [inner[index] for index in range(3)]
    except Exception:  # it need not
        return ""
    if not all(torch.equal(row, rows[index]) for index, row in enumerate(found, start=3)):
        return "a slice of a slice, rows[2:][1:4], is not rows[3:6]"
    for size in (3, 2) if hasattr(rows, "split") else ():
        batches = list(rows.split(size))
        if max(map(len, batches)) != size or not torch.equal(
            torch.cat(batches), torch.stack([*map(rows.__getitem__, range(len(rows)))])
        ):
            return f"rows.split({size}) does not give the rows in order, {size} at a time"
    return ""


def changed_texts(step: int, length: int) -> dict[str, bytes]:
    """What a text of some hundred rows may become behind its file's back, in rows that each step-th is compared of."""
    size = (step * 30 + 1) * length // 9
    first = b"#%" + bytes(48 + byte % 64 for byte in sample(size)) + b"tail"
    at = step * 15 * length // 9
    return {
        "one byte in the middle": first[:at] + b"#" + first[at + 1 :],
        "the first byte": b"." + first[1:],
        "the last byte of the last row": first[: size - 1] + b"#" + first[size:],
        "the first two bytes, which changed places": b"%#" + first[2:],
        "its length": first[: at + 128],
        "the first text again": first,
    }


def trouble_far_behind(tree: Tree) -> tuple[str, str] | None:
    """What is wrong with the rows of a large text, and of ones that differ from it in a byte amid it or far behind."""
    path, step, length = write_text("large.txt", b""), 48, 1152
    large = sample(3_000_000)
    for row in (None, 243, 400):  # in blocks of a megabyte neither in the first nor in the last, and in the last
        at = (row or 0) * step * length // 9
        content = large if row is None else large[:at] + b"#" + large[at + 1 :]
        path.write_bytes(content.decode(errors="ignore").encode())
        set_time(path)
        if (outcome := load_apart(tree, path, length, step)).kind != "right":
            return f"after a change of byte {at}: {outcome}", f"load_rows(path, {length}) of 3 MB"
    return None


def mistaken_for_others(tree: Tree) -> tuple[str, str] | None:
    """Load texts of like names, of one size and time, in turn; what is wrong with that, and how to see it."""
    names = ("a.txt", "a.md", "A.txt", "b/a.txt", "a")
    paths = [write_text(name, sample(900, seed)) for seed, name in enumerate(names)]
    for path in paths:
        set_time(path)
    for turn in range(2):
        for path in paths:
            outcome = load_apart(tree, path, 1152)
            if outcome.kind != "right":
                line = f"load_rows of {', '.join(names)}, {turn + 1} times"
                return f"{path.name} after texts of like names: {outcome}", line
    return None
