"""Rows in a file, after task-5: what is open stays what it is, whatever becomes of the file."""

import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader

from bit_transformer.bit_io import bits_to_rows, text_to_bits
from data import wikitext_schedule
from data.wikitext_schedule import load_rows

if not hasattr(wikitext_schedule, "BitRows"):
    pytest.skip("this tree has its rows in memory", allow_module_level=True)

TEXT, OTHER = "first text " * 40, "other text " * 40


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def expected(content):
    return bits_to_rows(text_to_bits(content), 72)


def overwrite(rows, tmp_path):
    """Put the rows of another text in the place of a data set's file."""
    other = tmp_path / "other.txt"
    other.write_text(OTHER)
    os.replace(load_rows(other, 72).file, rows.file)


@pytest.mark.parametrize("change", ["replaced", "removed", "read before, and replaced"])
def test_a_data_set_that_is_open_keeps_its_rows(change, text, tmp_path):
    rows = load_rows(text, 72)
    if change.startswith("read"):
        assert torch.equal(rows[0], expected(TEXT)[0])
    if change == "removed":
        rows.file.unlink()
    else:
        overwrite(rows, tmp_path)
    for loader in (DataLoader(rows, 5), rows.split(5), DataLoader(rows[3:], 5)):
        assert torch.equal(torch.cat(list(loader)), expected(TEXT)[len(expected(TEXT)) - len(loader.dataset) :])


def test_another_process_reads_the_same_file_or_says_that_it_cannot(text, tmp_path):
    rows = load_rows(text, 72)
    kept = pickle.dumps(rows[2:])
    assert torch.equal(torch.stack(list(pickle.loads(kept))), expected(TEXT)[2:])
    overwrite(rows, tmp_path)
    with pytest.raises(OSError, match=f"{rows.file} is not the file that these rows were read from: load them again"):
        pickle.loads(kept)
    rows.file.unlink()
    with pytest.raises(FileNotFoundError, match=rows.file.name):
        pickle.loads(kept)


def test_a_text_that_changes_while_it_is_encoded_is_not_kept_as_what_it_was(text, monkeypatch):
    real = wikitext_schedule.write_cache

    def late(file, path, *rest):
        path.write_text(OTHER)
        return real(file, path, *rest)

    monkeypatch.setattr(wikitext_schedule, "write_cache", late)
    text.write_text("never seen before " * 9)
    with pytest.raises(ValueError, match=r"text\.txt changed while its rows were written: load it again"):
        load_rows(text, 72)


@pytest.mark.parametrize("kind", ["folder", "fifo", "empty", "other"])
def test_what_stands_in_the_caches_place_is_no_cache(kind, text, tmp_path):
    text.write_text(f"{kind} {tmp_path} " * 9)
    file = load_rows(text, 72).file
    file.unlink()
    if kind == "folder":
        file.mkdir()
        with pytest.raises(OSError, match="cannot be written"):
            load_rows(text, 72)
        return
    os.mkfifo(file) if kind == "fifo" else file.write_bytes(b"x" * 999 if kind == "other" else b"")
    assert torch.equal(torch.stack(list(load_rows(text, 72))), expected(text.read_text()))


READ = """
import pickle, sys
rows = pickle.load(sys.stdin.buffer)
print(sum(int(rows[place].sum()) for place in range(len(rows))))
"""


def test_a_process_that_is_new_to_the_tree_opens_the_file_again(text, tree):
    rows = load_rows(text, 72)
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", READ]
    read = subprocess.run(command, input=pickle.dumps(rows), env=environment, capture_output=True, check=True)
    assert int(read.stdout) == int(expected(TEXT).sum())


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(lambda rows, at: rows[at(5, 0, 5)], id="places"),
        pytest.param(lambda rows, at: rows[at(5, 0, 5).tolist()], id="a list of places"),
        pytest.param(lambda rows, at: rows[at(0, 1)[1]], id="a place in a tensor"),
        pytest.param(lambda rows, at: rows[at().long()], id="no place"),
        pytest.param(lambda rows, at: rows[at(*range(len(rows))) > 9], id="mask"),
        pytest.param(lambda rows, at: rows[3:][at(0, -1)], id="places of a slice"),
        pytest.param(lambda rows, at: rows[::3].to(torch.device("cpu"), torch.uint8), id="device and type"),
        pytest.param(lambda rows, at: rows[2:2].to("cpu"), id="no row"),
        pytest.param(lambda rows, at: torch.cat(list(rows.split(split_size=7))), id="split by name"),
        pytest.param(lambda rows, at: rows.split([1, len(rows) - 1])[1], id="parts of given sizes"),
        pytest.param(lambda rows, at: rows.split(9, 1)[2], id="parts of rows"),
        pytest.param(lambda rows, at: torch.tensor([rows.dim(), rows.ndim, *rows.shape]), id="axes"),
    ],
)
def test_rows_are_asked_for_as_a_tensor_is(asked, text):
    rows = load_rows(text, 72)
    found, wanted = (asked(each, lambda *places: torch.tensor(places)) for each in (rows, expected(TEXT)))
    assert torch.equal(found, wanted)
    assert found.dtype is wanted.dtype
