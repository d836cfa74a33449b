import os
import subprocess
import sys

import pytest
import torch
from torch.utils.data import ConcatDataset
from trees import running  # noqa: F401 - skips this file where it cannot run

from bit_transformer.bit_io import bits_to_rows, text_to_bits
from bit_transformer.corpus import dataset_files, evenly, load_corpus, text_files


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def rows_of(text):
    return bits_to_rows(text_to_bits(text), 36).tolist()


def listed(rows):
    return [rows[place].tolist() for place in range(len(rows))]


@pytest.mark.parametrize(("count", "held"), [(2, 1), (19, 1), (20, 1), (30, 2), (40, 2), (100, 5)])
def test_the_last_twentieth_is_held_out(count, held, tmp_path):
    text = "".join(f"{number:04}" for number in range(count))
    loaded = load_corpus([write(tmp_path / "a.txt", text)], [], 36)
    assert listed(loaded.train) == rows_of(text)[:-held]
    assert listed(loaded.held_out) == rows_of(text)[-held:]
    assert loaded.length == 36


def test_each_text_gives_its_own_end(tmp_path):
    a, b = "abcd" * 5, "wxyz" * 3
    paths = [write(tmp_path / name, text) for name, text in (("a.txt", a), ("b.txt", b))]
    loaded = load_corpus(paths, [], 36)
    assert isinstance(loaded.train, ConcatDataset)
    assert listed(loaded.train) == rows_of(a)[:-1] + rows_of(b)[:-1]
    assert listed(loaded.held_out) == rows_of(a)[-1:] + rows_of(b)[-1:]


def test_a_text_to_validate_on_leaves_the_other_whole(tmp_path):
    train, other = write(tmp_path / "a.txt", "abcd" * 5), write(tmp_path / "b.txt", "wxyz")
    loaded = load_corpus([train], [other], 36)
    assert (listed(loaded.train), listed(loaded.held_out)) == (rows_of("abcd" * 5), rows_of("wxyz"))


def test_the_digest_tells_texts_and_their_parts_apart(tmp_path):
    a, b = write(tmp_path / "a.txt", "abcd" * 5), write(tmp_path / "b.txt", "wxyz" * 5)
    parts = [([a], []), ([b], []), ([a, b], []), ([b, a], []), ([a], [b]), ([b], [a])]
    assert len({load_corpus(*part, 36).digest for part in parts}) == len(parts)
    moved = write(tmp_path / "elsewhere" / "c.txt", "abcd" * 5)
    assert load_corpus([moved], [], 36).digest == load_corpus([a], [], 36).digest


def test_a_folder_means_its_texts_in_order(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/y.txt", "notes.md", "b.txt.36.bits"):
        write(tmp_path / name, "abcd")
    found = [path.relative_to(tmp_path).as_posix() for path in text_files([tmp_path])]
    assert found == ["a/y.txt", "a/z.txt", "b.txt"]
    assert text_files([tmp_path / "notes.md", tmp_path / "b.txt"]) == [tmp_path / "notes.md", tmp_path / "b.txt"]


@pytest.mark.parametrize(("count", "expected"), [(0, range(10)), (10, range(10)), (99, range(10)), (4, [0, 2, 5, 7])])
def test_rows_are_taken_from_all_over(count, expected):
    rows = torch.arange(10)[:, None]
    assert [row.item() for row in evenly(rows, count)] == list(expected)


# Data sets by name ---------------------------------------------------------------------------------

LOAD = """
import sys
from bit_transformer.corpus import dataset_files
for files in dataset_files(sys.argv[1]):
    print([path.read_text(encoding="utf-8") for path in files])
"""


def test_a_data_set_is_written_as_text_once(tree, tmp_path):
    pytest.importorskip("datasets")
    folder = tmp_path / "set"
    write(folder / "train.txt", "first\n\nthird\n")
    write(folder / "validation.txt", "held out\n")
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", LOAD, str(folder)]
    loaded = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.splitlines() == ["['first\\n\\nthird\\n']", "['held out\\n']"]
    kept = sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert kept == ["train.txt", "validation.txt"]


@pytest.mark.parametrize("problem", ["no split", "no column", "not found"])
def test_a_data_set_that_is_none_is_named(problem, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load_dataset(path, configuration):
        assert (path, configuration) == ("name", "part")
        if problem == "not found":
            raise datasets.exceptions.DatasetNotFoundError("no such data set")
        made = datasets.Dataset.from_dict({"other" if problem == "no column" else "text": ["a"]})
        return {"test" if problem == "no split" else "train": made}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ValueError, match=r"--dataset name:part") as caught:
        dataset_files("name:part")
    assert ("cannot be loaded" if problem == "not found" else "expected a split `train`") in str(caught.value)
