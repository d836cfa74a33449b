"""Text to train and to validate on: files, folders, or a data set by name, as rows of bits in mapped files.

The rule of the split: without texts to validate on, the last twentieth of each text's rows is held out,
one row at least. It is never trained on, and does not depend on the seed.
"""

import hashlib
import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import ConcatDataset, Dataset, Subset

from data.wikitext_schedule import BitRows, cache_folder

HELD_OUT = 0.05  # of each text's rows
OTHER_FILES = 1024  # that a run may have open beside its texts' rows


@dataclass(frozen=True, slots=True)
class Corpus:
    """Rows [T] to train on and to validate on, how many bits one has, and a digest of all the text."""

    train: Dataset
    held_out: Dataset
    length: int
    digest: str


def text_files(paths: Sequence[Path], flag: str = "--data") -> list[Path]:
    """The files that a flag's files and folders mean; of a folder, its texts.

    Raises FileNotFoundError where there is nothing, and ValueError where a folder holds no text, or a path
    is neither file nor folder.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{flag} {path}: there is no such file or folder")
        if not path.is_file() and not path.is_dir():
            raise ValueError(f"{flag} {path}: expected a file or a folder, found a device, a pipe or a socket")
        found = [path] if path.is_file() else texts_under(path)
        if not found:
            raise ValueError(f"{flag} {path}: expected .txt files in the folder, found none")
        files += found
    return files


def texts_under(folder: Path) -> list[Path]:
    """The .txt files under a folder, in order of name: no hidden ones, nor any in hidden folders.

    A link counts as the file that it leads to, which is taken once; links to folders are not followed.
    """
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if name.endswith(".txt") and not name.startswith(".")]
    texts = sorted((path for path in found if path.is_file()), key=lambda path: not path.is_symlink())
    return sorted({path.resolve(): path for path in texts}.values())


def dataset_files(name: str) -> tuple[list[Path], list[Path]]:
    """A Hugging Face data set, NAME or NAME:CONFIGURATION, as text files to train and to validate on.

    Each split's column `text` is written once, to the user's cache. Raises ImportError without the
    package `datasets`, and ValueError where there is no such split or column.
    """
    try:
        from datasets import load_dataset  # noqa: PLC0415 - only who asks for a data set needs it
    except ImportError as error:
        raise ImportError("--dataset needs the package datasets: pip install 'bitpatch[train]'") from error
    path, _, configuration = name.partition(":")
    try:
        splits = load_dataset(path, configuration or None)
    except Exception as error:  # of many kinds, its own and those of the network
        raise ValueError(f"--dataset {name} cannot be loaded: {error}") from error
    if "train" not in splits or "text" not in splits["train"].column_names:
        raise ValueError(f"--dataset {name}: expected a split `train` with a column `text`, found {splits}")
    cache = cache_folder().with_name("datasets")
    written = {}
    for split in ("train", "validation"):
        if split in splits:
            folder = cache / hashlib.sha256(f"{name} {splits[split]._fingerprint}".encode()).hexdigest()[:16]
            written[split] = [_written(folder / f"{split}.txt", splits[split]["text"])]
    return written["train"], written.get("validation", [])


def _written(path: Path, texts: Sequence[str]) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        with part.open("w", encoding="utf-8") as file:
            file.writelines(text if text.endswith("\n") else f"{text}\n" for text in texts if text is not None)
        part.replace(path)
    return path


def load_corpus(
    texts: Sequence[Path], held_out: Sequence[Path], max_seq_len: int, folder: Path | None = None
) -> Corpus:
    """The rows of some texts to train on, and of others, or of their ends, to validate on.

    Each row lies in one text. They are kept in a folder, or else in the user's cache. Raises ValueError
    where a text is not UTF-8 or is too short.
    """
    allow_open_files(len(texts) + len(held_out) + OTHER_FILES)
    loaded = [BitRows.of_text(path, max_seq_len, folder=folder) for path in texts]
    apart = [BitRows.of_text(path, max_seq_len, folder=folder) for path in held_out]
    hashes = " ".join([*(rows.text_hash for rows in loaded), "held out:", *(rows.text_hash for rows in apart)])
    if not held_out:
        parted = [_parted(rows, path) for rows, path in zip(loaded, texts, strict=True)]
        loaded, apart = [rows for rows, _ in parted], [rows for _, rows in parted]
    return Corpus(_joined(loaded), _joined(apart), loaded[0].length, hashlib.sha256(hashes.encode()).hexdigest())


def allow_open_files(count: int) -> None:
    """Let this process have so many files open, or as many as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count if hard == unlimited else min(count, hard), hard))


def evenly(rows: Dataset, count: int) -> Dataset:
    """So many of the rows, from all over them; all of them for a count of 0, or where there are no more."""
    have = len(rows)
    return rows if not 0 < count < have else Subset(rows, [place * have // count for place in range(count)])


def _parted(rows: BitRows, path: Path) -> tuple[BitRows, BitRows]:
    if len(rows) < 2:
        raise ValueError(
            f"{path} fills 1 row of {rows.length} bits, expected 2, one to train on and one to validate on: give more "
            "text, --val_data, or a smaller --max_seq_len"
        )
    count = max(1, round(HELD_OUT * len(rows)))
    return rows[:-count], rows[-count:]


def _joined(parts: list[BitRows]) -> Dataset:
    return parts[0] if len(parts) == 1 else ConcatDataset(parts)
