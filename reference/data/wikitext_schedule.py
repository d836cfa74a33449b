"""Train on a text corpus such as WikiText-2, and let the model grow while it learns.

    python -m data.wikitext_schedule --data wiki.train.txt --rounds 12 --out model.pt

Once the validation loss stops falling, the model doubles its length, then its width, then its layers,
in turn, up to the limits that are given.
"""

import argparse
import codecs
import hashlib
import mmap
import os
import random
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bit_transformer.bit_io import BITS_PER_BYTE, CODEWORDS
from bit_transformer.checkpoint import save_checkpoint
from bit_transformer.model import BitTransformerLM
from bit_transformer.training import next_bit_loss, train_loop

CACHE_VERSION = 1
HEADER_SIZE = 256  # bytes of a cache before its first row
BLOCK_ROWS = 4096  # rows that are encoded at a time
BLOCK_SIZE = 1 << 20  # bytes that are checked at a time


class BitRows(Dataset):
    """Rows of bits in a file that is mapped into memory; nothing of it stays resident.

    A row [length] is a LongTensor of whole codewords. In the file each row is packed, most significant
    bit first, and starts at a byte of its own. The map is that of the file that was opened: another that
    takes its name, or its removal, changes nothing here. Slices are views, of the same map.
    """

    ndim, dtype = 2, torch.long  # as a tensor's

    def __init__(self, file: Path, packed: mmap.mmap, length: int, rows: range, num_workers: int = 2) -> None:
        self.file = file
        self.packed = packed
        self.length = length
        self.rows = rows
        self.num_workers = num_workers
        self._loader: RowBatches | None = None

    @classmethod
    def of_text(cls, path: Path, max_seq_len: int, num_workers: int = 2, folder: Path | None = None) -> "BitRows":
        """The rows of a UTF-8 text, encoded once and kept in a folder, or else in the user's cache.

        Rows have as many bits as whole codewords fit into max_seq_len; the tail that fills no row is
        dropped. Raises ValueError where the text is not UTF-8, or fills no row, and OSError where the
        file cannot be written.
        """
        length = max_seq_len - max_seq_len % BITS_PER_BYTE
        if length < BITS_PER_BYTE:
            raise ValueError(f"a row must hold a codeword of {BITS_PER_BYTE} bits, got max_seq_len={max_seq_len}")
        if length != max_seq_len:
            warnings.warn(f"rows have {length} bits, the most whole codewords in {max_seq_len}", stacklevel=3)
        if path.stat().st_size * BITS_PER_BYTE < length:
            raise ValueError(f"{path} does not fill one row of {length} bits: give more text or shorter rows")
        text_hash = digest(path)
        file = (folder or cache_folder()) / f"{text_hash}.{length}.bits"
        packed = open_cache(file, length, text_hash) or write_cache(file, path, length, text_hash)
        return cls(file, packed, length, range((len(packed) - HEADER_SIZE) // row_size(length)), num_workers)

    @property
    def text_hash(self) -> str:
        """The SHA-256 of the text."""
        return self.packed[:HEADER_SIZE].split()[3].decode()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and bits a row."""
        return len(self), self.length

    def size(self, dim: int | None = None) -> tuple[int, int] | int:
        """The shape, or one of its sizes, as a TensorDataset asks for it."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """The number of axes, as a tensor's."""
        return len(self.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> "Tensor | BitRows":
        if isinstance(index, slice):
            return BitRows(self.file, self.packed, self.length, self.rows[index], self.num_workers)
        if not isinstance(index, int):  # places or a mask, which choose rows as they do of a tensor
            chosen = torch.arange(len(self))[index]
            return self._stacked(chosen.flatten().tolist()).view(*chosen.shape, self.length)
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Tensor]:
        """The rows of a batch, which a DataLoader asks for in one call."""
        numbers, size = [self.rows[index] for index in indices], row_size(self.length)
        packed = np.frombuffer(self.packed, np.uint8, offset=HEADER_SIZE).reshape(-1, size)[numbers]
        self.packed.madvise(mmap.MADV_DONTNEED)  # else every page that was ever read would stay resident
        return torch.from_numpy(np.unpackbits(packed, axis=1, count=self.length)).long().unbind()

    def __getstate__(self) -> dict[str, object]:
        # Workers of the loader are this process's own, and so is the map: another opens the file again.
        return {**self.__dict__, "_loader": None, "packed": self.packed[:HEADER_SIZE]}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        header, self.packed = state["packed"], map_file(self.file)
        if self.packed[:HEADER_SIZE] != header:
            raise OSError(f"{self.file} is not the file that these rows were read from: load them again")

    def _stacked(self, indices: Sequence[int]) -> Tensor:
        return torch.stack([*self.__getitems__(indices)]) if indices else torch.empty(0, self.length, dtype=torch.long)

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """The rows [rows, length] of a slice in one tensor, on a device, as Tensor.to puts it there."""
        return self._stacked(range(len(self))).to(*args, **kwargs)

    def split(self, split_size: int | list[int], dim: int = 0) -> "RowBatches | tuple[Tensor, ...]":
        """The rows in order, in batches [B, length], read by workers that stay for the next pass.

        What else a tensor is split into, parts of given sizes or of rows, is a tensor's.
        """
        if dim or not isinstance(split_size, int):
            return self.to("cpu").split(split_size, dim)
        if self._loader is None or self._loader.batch_size != split_size:
            workers = self.num_workers
            self._loader = RowBatches(self, split_size, num_workers=workers, persistent_workers=workers > 0)
        return self._loader


class RowBatches(DataLoader):
    """Rows in batches, of which each can be asked for by its number too."""

    def __getitem__(self, index: int) -> Tensor:
        start = range(0, len(self.dataset), self.batch_size)[index]
        return self.dataset[start : start + self.batch_size].to("cpu")


def row_size(length: int) -> int:
    """The bytes of a packed row of so many bits."""
    return -(-length // 8)


def cache_folder() -> Path:
    """Where rows are kept: in $XDG_CACHE_HOME, or else in ~/.cache. OSError where there is neither."""
    home, cache = os.environ.get("HOME", ""), os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache) and not os.path.isabs(home):
        raise OSError("there is no home to keep rows in: set HOME or XDG_CACHE_HOME, or name a folder")
    return Path(cache if os.path.isabs(cache) else f"{home}/.cache") / "bit_transformer" / "rows"


def map_file(file: Path) -> mmap.mmap:
    """A file's map, which stays that of the file that is opened here."""
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:  # a pipe is not waited for
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


def open_cache(file: Path, length: int, text_hash: str) -> mmap.mmap | None:
    """The map of a file with the rows of just this text, at this length, undamaged; None of any other."""
    with suppress(OSError, ValueError):  # as of no file, and of an empty one
        packed = map_file(file)
        rows_hash = hashlib.sha256()
        for start in range(HEADER_SIZE, len(packed), BLOCK_SIZE):
            rows_hash.update(packed[start : start + BLOCK_SIZE])
            packed.madvise(mmap.MADV_DONTNEED)
        if packed[:HEADER_SIZE] == cache_header(length, text_hash, rows_hash.hexdigest()):
            return packed
    return None


def write_cache(file: Path, path: Path, length: int, text_hash: str) -> mmap.mmap:
    """Encode a text, and return the file's map.

    The file is whole or absent, whoever else writes it and whenever this one is stopped.
    """
    table = np.array(CODEWORDS, dtype=np.uint8)  # [256, 9]
    row_bytes = length // BITS_PER_BYTE
    decoder, read_hash, rows_hash = codecs.getincrementaldecoder("utf-8")(), hashlib.sha256(), hashlib.sha256()
    part = ""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        with os.fdopen(handle, "wb") as cache, path.open("rb") as text:
            cache.write(bytes(HEADER_SIZE))
            while block := text.read(BLOCK_ROWS * row_bytes):
                decoder.decode(block)
                read_hash.update(block)
                whole = np.frombuffer(block, np.uint8)[: len(block) // row_bytes * row_bytes]
                packed = np.packbits(table[whole].reshape(-1, length), axis=1)
                rows_hash.update(packed)
                cache.write(packed)
            decoder.decode(b"", final=True)
            if read_hash.hexdigest() != text_hash:
                raise ValueError(f"{path} changed while its rows were written: load it again")
            cache.seek(0)
            cache.write(cache_header(length, text_hash, rows_hash.hexdigest()))
            cache.flush()
            os.fsync(cache.fileno())
        packed = map_file(Path(part))
        shutil.copymode(path, part)
        os.replace(part, file)
        return packed
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    except OSError as error:
        raise OSError(error.errno, f"the rows of {path} cannot be written: {error.strerror}", str(file)) from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)


def cache_header(length: int, text_hash: str, rows_hash: str) -> bytes:
    """The first HEADER_SIZE bytes of a cache; written last."""
    return f"bits {CACHE_VERSION} {length} {text_hash} {rows_hash}\n".encode().ljust(HEADER_SIZE)


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_rows(path: Path, max_seq_len: int) -> BitRows:
    """The rows [rows, max_seq_len] of a text file's bits; the tail that fills no row is dropped."""
    return BitRows.of_text(path, max_seq_len)


def split_rows(rows: Tensor, share: float = 0.1) -> tuple[Tensor, Tensor]:
    """The rows to train on, and the last `share` of them, one at least, to validate on."""
    if len(rows) < 2:
        raise ValueError("the text fills 1 row, expected 2: one to train on, one to validate on; give more text")
    held_out = max(1, int(share * len(rows)))
    return rows[:-held_out], rows[-held_out:]


@torch.no_grad()
def evaluate(model: BitTransformerLM, rows: Tensor) -> float:
    """The mean loss in nats a bit on rows [rows, T]."""
    model.eval()
    losses = [next_bit_loss(model(batch)[0], batch) * len(batch) for batch in rows.split(8)]
    return (torch.stack(losses).sum() / len(rows)).item()


def grow(model: BitTransformerLM, turn: int, limits: dict[str, int]) -> BitTransformerLM:
    """Double the dimension whose turn it is, or the next that its limit lets grow; else the same model."""
    doubles = {
        "max_seq_len": model.double_length,
        "d_model": model.double_width,
        "num_layers": model.double_layers,
    }
    names = list(doubles)
    for name in names[turn % len(names) :] + names[: turn % len(names)]:
        if 2 * model.config[name] <= limits[name]:
            print(f"grow: {name} {model.config[name]} -> {2 * model.config[name]}")
            return doubles[name]()
    return model


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m data.wikitext_schedule`."""
    parser = argparse.ArgumentParser(prog="data.wikitext_schedule", description="Train on text, and grow.")
    parser.add_argument("--data", type=Path, required=True, help="text file to train on")
    parser.add_argument("--out", type=Path, help="where to write the checkpoint")
    parser.add_argument("--rounds", type=int, default=12, help="how often to train, validate, and maybe grow")
    parser.add_argument("--epochs", type=int, default=1, help="epochs a round")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--d_model", type=int, default=64)
    parser.add_argument("--nhead", type=int, default=8)
    parser.add_argument("--max_seq_len", type=int, default=576, help="bits a row at first; 9 a byte")
    parser.add_argument("--most_layers", type=int, default=8)
    parser.add_argument("--most_width", type=int, default=256)
    parser.add_argument("--most_bits", type=int, default=1152, help="bits a row at most")
    parser.add_argument("--min_gain", type=float, default=0.002, help="a round that gains less nats a bit is a plateau")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train round by round, and save what was learned."""
    args = build_parser().parse_args(argv)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    limits = {"max_seq_len": args.most_bits, "d_model": args.most_width, "num_layers": args.most_layers}
    model = BitTransformerLM(
        d_model=args.d_model,
        nhead=args.nhead,
        num_layers=args.layers,
        dim_feedforward=4 * args.d_model,
        max_seq_len=args.max_seq_len,
    )
    rows, held_out = split_rows(load_rows(args.data, model.max_seq_len))
    best, turn = float("inf"), 0
    global_step = 0
    for round_ in range(args.rounds):
        record = train_loop(model, rows, epochs=args.epochs, lr=args.lr, global_step=global_step)[-1]
        global_step = record["global_step"]
        val_loss = evaluate(model, held_out)
        print(f"round {round_}: loss {record['loss']:.4f}, validation {val_loss:.4f}")
        if val_loss > best - args.min_gain and round_ + 1 < args.rounds:
            model, turn = grow(model, turn, limits), turn + 1
            if model.max_seq_len != rows.shape[1]:
                rows, held_out = split_rows(load_rows(args.data, model.max_seq_len))
        best = min(best, val_loss)
    if args.out is not None:
        save_checkpoint(args.out, model)


if __name__ == "__main__":
    main()
