"""Text to train and to validate on: files, folders, or a data set by name, as rows of bits in mapped files.

The rule of the split: without texts to validate on, the last twentieth of each text's rows is held out,
one row at least. It is never trained on, and does not depend on the seed.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import ConcatDataset, Dataset, Subset

from data.wikitext_schedule import BitRows, digest

HELD_OUT = 0.05  # of each text's rows


@dataclass(frozen=True, slots=True)
class Corpus:
    """Rows [T] to train on and to validate on, how many bits one has, and a digest of all the text."""

    train: Dataset
    held_out: Dataset
    length: int
    digest: str


def text_files(paths: Sequence[Path], flag: str = "--data") -> list[Path]:
    """The files that a flag's files and folders mean: of a folder, all .txt files under it, in order of name.

    Raises FileNotFoundError where there is nothing, and ValueError where a folder holds no text.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{flag} {path}: there is no such file or folder")
        found = [path] if path.is_file() else sorted(path.rglob("*.txt"))
        if not found:
            raise ValueError(f"{flag} {path}: expected .txt files in the folder, found none")
        files += found
    return files


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
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bit_transformer" / "datasets"
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


def load_corpus(texts: Sequence[Path], held_out: Sequence[Path], max_seq_len: int) -> Corpus:
    """The rows of some texts to train on, and of others, or of their ends, to validate on.

    Each row lies in one text. Raises ValueError where a text is not UTF-8 or is too short.
    """
    loaded = [BitRows.of_text(path, max_seq_len) for path in texts]
    if held_out:
        apart = [BitRows.of_text(path, max_seq_len) for path in held_out]
    else:
        parted = [_parted(rows, path) for rows, path in zip(loaded, texts, strict=True)]
        loaded, apart = [rows for rows, _ in parted], [rows for _, rows in parted]
    hashes = " ".join([*map(digest, texts), "held out:", *map(digest, held_out)])
    return Corpus(_joined(loaded), _joined(apart), loaded[0].length, hashlib.sha256(hashes.encode()).hexdigest())


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
