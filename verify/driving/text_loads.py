"""Loads of a text in processes of their own, the files they leave, and the states that those go through.

Memory that one process keeps does not serve another, so a load that follows another in a process of its
own learns of it by way of files only, as the next run of a program does. In child processes only.
"""

import contextlib
import functools
import os
import pickle
import random
import re
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...patches.files.spellings import DRIVER
from ..running.evidence import Evidence, failed
from .forks import Outcome, counted, finish, in_fork, start, wait_until_asleep
from .operations import modules_of
from .seams import MissingSeam, function_of, loaded
from .tree import Tree

CODEWORDS = np.array(
    [[*(byte >> shift & 1 for shift in range(7, -1, -1)), byte.bit_count() & 1] for byte in range(256)]
)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
LETTERS = np.array([ord(letter) for letter in "etaoin shrdlu,." * 4 + "\r\n\0\x85\u2028\ufeffé中😀"], dtype="<u4")
TEXTS = {
    "ASCII": b"The quick brown fox jumps over the lazy dog.\n" * 5,
    "more than ASCII": "Grüße, 世界, мир \N{OK HAND SIGN} \u2028 \x85 \ufeff e\u0301\n".encode() * 4,
    "ends of lines of all kinds": b"\xef\xbb\xbfone\r\ntwo\rthree\nfour\n\r five\x0b\x0c six\r\r\n" * 5,
    "no newline at the end": b"a\nb\n" * 30 + b"the last line",
    "one long line": b"0123456789abcdef" * 12,
    "empty lines": b"\n" * 150,
    "NUL and DEL": bytes(100) + b"\x7f" * 100,
}
UNREADABLE = {
    "a byte that no text has": b"\xff",
    "a character cut short": "é".encode()[:1],
    "a surrogate": b"\xed\xa0\x80",
    "an overlong NUL": b"\xc0\x80",
}
EVENTS = 2000  # of a build that are looked at one by one


def schedule(tree: Tree) -> ModuleType:
    """The tree's module wikitext_schedule, in data/ or at its root. Raises MissingSeam where it loads no rows."""
    in_folder = (tree.path / "data" / "wikitext_schedule.py").exists()
    module: ModuleType = loaded(f"{'data.' * in_folder}wikitext_schedule:", function_of("rows"))
    if not hasattr(module, "load_rows"):
        raise MissingSeam("rows", f"{module.__name__} has no load_rows", function_of("rows"))
    return module


def training_on(tree: Tree, path: Path, length: int) -> tuple[Callable[[list[str]], object], list[str], str]:
    """What trains on a text, a round of the schedule or else the command line; its words; and both as a line."""
    words = f"--data {path} --epochs 1 --layers 1 --d_model 8 --nhead 2 --max_seq_len {length}".split()
    try:
        run, words = schedule(tree).main, [*words, "--rounds", "1"]
        return run, words, f"python -m data.wikitext_schedule {' '.join(words)}"
    except (MissingSeam, AttributeError):  # its command line may train without
        where = tree.seams.part("command-line").where if tree.seams.own("main") is None else DRIVER
        return tree.seams.command, words, f"{where.rstrip(':')} {' '.join(words)}"


@functools.cache
def loading(tree: Tree) -> Callable[[Path, int], Any]:
    """What loads a text's rows of a length: as the tree says, in our layout, or at the seam, which is tried first."""
    if (own := tree.seams.own("rows")) is not None:
        return own
    load_rows: Callable[[Path, int], Any]
    with contextlib.suppress(MissingSeam):
        load_rows = schedule(tree).load_rows
        return load_rows
    part = tree.seams.part("rows")
    load_rows, path = part.load(), write_text("tried.txt", sample(400))
    before = contents(path)
    tried = "it is a method" if part.is_method else in_fork(lambda: len(load_rows(path, 72)[0]))
    restore(before)
    if not isinstance(tried, int):
        raise MissingSeam("rows", f"{part.where}(path, 72)[0] is no row: {tried}", function_of("rows"))
    return load_rows


def wrong_rows(rows: Any, path: Path, length: int, step: int = 1) -> str:
    """What is wrong with the rows, or with each step-th of them, of a text; nothing of the text is held."""
    size, count = length // 9, path.stat().st_size * 9 // length
    if len(rows) != count:
        return f"{len(rows)} rows of a text that fills {count} of {length} bits"
    with path.open("rb", buffering=0) as text:
        for index in range(0, count, step):
            row = rows[index]
            if not isinstance(row, Tensor) or row.dtype not in INTEGERS or row.shape != (length,):
                kind = f"{row.dtype} {tuple(row.shape)}" if isinstance(row, Tensor) else type(row).__name__
                return f"row {index} is {kind}, not a tensor of {length} integers"
            text.seek(index * size)
            differs = row.numpy() != CODEWORDS[np.frombuffer(text.read(size), np.uint8)].reshape(-1)
            if differs.any():
                return f"row {index} is not the text at bit {differs.argmax()}"
    with contextlib.suppress(Exception):
        rows[count]
        return f"there is a row {count} after the last"
    return ""


ASKED: dict[str, Callable[[Any], Any]] = {  # of rows as of a tensor
    "shape": lambda rows: tuple(rows.shape),
    "size()": lambda rows: tuple(rows.size()),
    "size(0)": lambda rows: rows.size(0),
    "size(1)": lambda rows: rows.size(1),
    "size(-1)": lambda rows: rows.size(-1),
    "dim()": lambda rows: rows.dim(),
    "ndim": lambda rows: rows.ndim,
    "split(3)": lambda rows: [[row.tolist() for row in part] for part in rows.split(3)],
    "split([1, len(rows) - 1])": lambda rows: [[*map(Tensor.tolist, part)] for part in rows.split([1, len(rows) - 1])],
    "rows[tensor]": lambda rows: [row.tolist() for row in rows[torch.tensor([2, 0, 2, -1])]],
    "rows[mask]": lambda rows: [row.tolist() for row in rows[torch.arange(len(rows)) % 3 == 1]],
}
REFUSALS = (TypeError, ValueError, LookupError, NotImplementedError, AttributeError)


def trouble_with_parts(rows: Any) -> str:
    """What a data set says of itself otherwise than the tensor of its rows, or of its slices; none where it refuses."""
    tensor = torch.stack([rows[index] for index in range(len(rows))])
    for name, ask in ASKED.items():
        with contextlib.suppress(Exception):
            if (found := ask(rows)) != (wanted := ask(tensor)):
                return f"{name} is {str(found)[:99]}, of a tensor of these rows {str(wanted)[:99]}"
    return trouble_with_slices(rows)


def trouble_with_slices(rows: Any) -> str:
    """What is wrong with slices of a data set, of slices too, and pickled; nothing where it has none, or refuses."""
    whole, stream = [rows[index].tolist() for index in range(len(rows))], random.Random(0)  # noqa: S311 - no secret
    ends = (None, *range(-3, 4), len(whole) // 2, len(whole) + 5)
    for turn in range(60):
        cut, again = (slice(stream.choice(ends), stream.choice(ends), stream.choice((None, 1, 2))) for _ in range(2))
        try:
            part = rows[cut][again] if turn % 2 else rows[cut]
            part = pickle.loads(pickle.dumps(part)) if turn % 3 == 0 else part  # noqa: S301 - our own
        except REFUSALS:
            continue
        wanted, name = (whole[cut][again], f"rows[{cut}][{again}]") if turn % 2 else (whole[cut], f"rows[{cut}]")
        found = list[list[int]]()
        with contextlib.suppress(IndexError):
            found += (part[index].tolist() for index in range(len(wanted) + 1))
        with contextlib.suppress(IndexError):  # from the end, if it counts so
            found = [*found[:-1], part[-1].tolist()] if found else [part[-1].tolist()]
        if len(part) != len(wanted) or found != wanted:
            return f"{name} has not the {len(wanted)} rows that it has of a list"
    return ""


def load(
    tree: Tree, path: Path, length: int, step: int = 1, act: Callable[[], None] | None = None, asked: int = 0
) -> Outcome:
    """Load a text in this process, acting before each line if so asked, and compare its rows with it."""
    load_rows = loading(tree)
    try:
        with each_line(act) if act else contextlib.nullcontext():
            rows = load_rows(path, asked or length)
            rows[0]  # a tree may put its work off until then
        wrong = wrong_rows(rows, path, length, step)
    except (Exception, SystemExit) as error:  # whatever it is, is the finding
        return Outcome("raised", f"{type(error).__name__}: {error}")
    return Outcome("wrong", wrong) if wrong else Outcome("right")


def load_apart(tree: Tree, path: Path, length: int, step: int = 1) -> Outcome:
    """Load a text in a process of its own, which leaves nothing but files."""
    loading(tree)
    return Outcome(*in_fork(lambda: counted(lambda: load(tree, path, length, step))))


def write_text(name: str, content: bytes) -> Path:
    path = Path.cwd() / "texts" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def written(name: str, content: bytes, given: str) -> Path:
    """A path of a text, as it may be given."""
    path = write_text(f"{name} .é.txt" if given == "spaces" else f"{name}.txt", content)
    if given == "a link":
        link = path.with_name(f"link to {name}")
        link.symlink_to(path)
        return link
    return Path(os.path.relpath(path)) if given == "relative" else path


def set_time(path: Path) -> None:
    os.utime(path, ns=(10**18, 10**18))


def sample(size: int, seed: int = 0) -> bytes:
    """So many bytes of UTF-8, characters of 1 to 4 bytes in an order that never repeats."""
    letters = np.random.default_rng(seed).choice(LETTERS, size).tobytes().decode("utf-32-le").encode()
    return letters[:size].decode(errors="ignore").encode().ljust(size, b".")


def write_sample(size: int) -> str:
    """Write so many bytes of sample() to a text of that name."""
    return str(write_text(f"{size}.txt", sample(size)))


def kept(*texts: Path) -> list[Path]:
    """The files in this process's folders that are none of these texts."""
    folders = [Path.cwd(), Path.home(), Path(os.environ["TMPDIR"])]
    files = [Path(folder, name) for top in folders for folder, _, names in os.walk(top) for name in names]
    return sorted(file for file in files if file not in texts and not file.is_symlink())


def contents(*texts: Path) -> dict[str, str]:
    """The files that are none of these texts, by path; their bytes as Latin-1, for JSON has none."""
    found = {}
    for file in kept(*texts):
        with contextlib.suppress(FileNotFoundError):  # it may be another process's
            found[str(file)] = file.read_bytes().decode("latin-1")
    return found


def restore(files: dict[str, str], *texts: Path) -> None:
    """Have these files, and these texts, and no others."""
    for file in kept(*texts):
        file.unlink()
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content.encode("latin-1"))


def build(tree: Tree, path: Path, length: int, step: int = 1) -> dict[str, str] | Evidence:
    """Load a text for the first time; the files that this leaves, or what is wrong with that."""
    outcome = load_apart(tree, path, length, step)
    files = {name: content for name, content in contents(path).items() if content}
    line = f"load_rows(Path('a.txt'), {length}) of {path.stat().st_size} bytes of text"
    if outcome.kind != "right":
        return failed(f"a first load: {outcome}", line)
    return files or failed("load_rows leaves no file for the next run: each run encodes the text again", line)


def states_of_a_build(tree: Tree, path: Path, length: int) -> list[dict[str, str]]:
    """The different contents of files that a load of a text goes through."""
    states: list[dict[str, str]] = []

    def note() -> None:
        state = contents(path)
        if state not in states:
            states.append(state)

    load(tree, path, length, act=note, step=10**6)
    return states


@contextlib.contextmanager
def each_line(act: Callable[[], None]) -> Iterator[None]:
    """Act before each line of Python that runs; of very many, before each 50th."""
    events = 0

    def trace(_: FrameType, __: str, ___: Any) -> Any:
        nonlocal events
        events += 1
        if events < EVENTS or events % 50 == 0:
            act()
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)


def load_disturbed(tree: Tree, path: Path, length: int, step: int, moment: int) -> list[Outcome]:
    """Load a text; when its files have changed so often, another process does so too, until it ends or waits for us."""
    states: list[dict[str, str]] = []
    asked, ask = os.pipe()

    def load_when_asked() -> Outcome | None:
        os.close(ask)
        return load(tree, path, length, step) if os.read(asked, 1) else None

    other = start(load_when_asked)  # now: later it would share our locks

    def disturb() -> None:
        state = {} if len(states) > moment else contents(path)
        if len(states) > moment or state in states:
            return
        states.append(state)
        if len(states) > moment:
            os.write(ask, b".")
            wait_until_asleep(*other)

    outcome = load(tree, path, length, step, disturb)
    os.close(ask)
    answer = finish(*other)
    return [outcome] if answer is None else [outcome, Outcome(*answer)]


def peak(tree: Tree, path: Path) -> int | str:
    """Load a text twice, read every part of its rows each time, and return the bytes that were resident at most."""
    outcomes = [load(tree, path, 1152, step) for step in (499, 401)]
    if wrong := [str(outcome) for outcome in outcomes if outcome.kind != "right"]:
        return wrong[0]
    return int(re.findall(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[0]) * 1024


def load_counting_calls(tree: Tree, path: Path, length: int) -> tuple[Outcome, int]:
    """Load a text with spies on what encodes."""
    pack = encode = np.packbits
    with contextlib.suppress(MissingSeam):  # a tree may encode otherwise
        encode = tree.part("bit_io", "text_to_bits")
    calls: list[Callable[..., Any]] = []

    def spy(original: Callable[..., Any]) -> Callable[..., Any]:
        def spied(*args: Any, **kwargs: Any) -> Any:
            calls.append(original)
            return original(*args, **kwargs)

        return spied

    loading(tree)
    for module in [np, *(sys.modules[name] for name in modules_of(tree))]:
        for name, value in list(vars(module).items()):
            if value is encode or value is pack:
                setattr(module, name, spy(value))
    return load(tree, path, length), len(calls)


def load_within(tree: Tree, path: Path, length: int, size: int) -> Outcome:
    """Load a text while no file may have more than so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    return load(tree, path, length)


def damages(content: str) -> Iterator[tuple[str, str]]:
    """Ways to damage a file, and what it then holds."""
    for size in (0, 1, len(content) // 2, len(content) - 13, len(content) - 1):
        yield f"cut to {size} bytes", content[:size]
    yield "with a copy of its end", content + content[-13:]
    for at in (0, 9, *range(len(content) // 6, len(content) - 1, len(content) // 6), len(content) - 1):
        yield f"with a bit of byte {at} flipped", content[:at] + chr(ord(content[at]) ^ 16) + content[at + 1 :]


def trouble_with_refusal(tree: Tree, path: Path, length: int) -> str:
    """What is wrong with how a text is refused that cannot be encoded; nothing, if a clear error is raised."""
    try:
        rows = loading(tree)(path, length)
    except (ValueError, OSError) as error:
        short = path.stat().st_size * 9 < length
        return f"the error does not name the file: {error!r}" if short and path.name not in str(error) else ""
    except Exception as error:  # whatever it is, is the finding
        return f"not a ValueError: {error!r}"
    return f"{len(rows)} rows and no error"


def load_in_turn(tree: Tree, texts: list[Path], length: int) -> list[Outcome]:
    """Load some texts one after the other, and then all of them again."""
    return [load_apart(tree, path, length) for path in (*texts, *texts)]


def watch_rows(kind: type[Any]) -> dict[bool, set[tuple[int, ...]]]:
    """The rows that enter the models of a class from now on, by whether it was to train."""
    seen: dict[bool, set[tuple[int, ...]]] = {True: set(), False: set()}
    original = kind.forward

    def forward(model: Any, bits: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen[model.training].update(map(tuple, bits.tolist()))
        return original(model, bits, *args, **kwargs)

    kind.forward = forward
    return seen
