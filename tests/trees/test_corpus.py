import hashlib
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import ConcatDataset
from trees import running  # noqa: F401 - skips this file where it cannot run

from bit_transformer.bit_io import bits_to_rows, text_to_bits
from bit_transformer.corpus import dataset_files, evenly, load_corpus, text_files
from bit_transformer.run_folder import rows_folder


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


def test_what_is_no_text_is_passed_over(tmp_path, monkeypatch):
    taken = [write(tmp_path / name, "abcd") for name in ("a.txt", "kept.txt/inner.txt", "sub/b.txt")]
    for name in ("._a.txt", ".hidden/c.txt", "sub/.d.txt", "e.md"):
        write(tmp_path / name, "abcd").write_bytes(b"\0\5\26\7 Mac OS X \377")
    os.mkfifo(tmp_path / "pipe.txt")
    server = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    server.bind("s.txt")
    server.close()
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    (tmp_path / "round.txt").symlink_to("round.txt")
    (tmp_path / "gone.txt").symlink_to("nowhere.txt")
    (tmp_path / "up").symlink_to("..")
    assert text_files([tmp_path]) == sorted(taken)


def test_a_link_is_the_text_that_it_leads_to_and_counts_once(tmp_path):
    folder, outside = tmp_path / "texts", write(tmp_path / "outside.txt", "abcd")
    inside = write(folder / "b.txt", "abcd")
    (folder / "a.txt").symlink_to(inside)
    (folder / "c.txt").symlink_to(outside)
    assert text_files([folder]) == [inside, folder / "c.txt"]


@pytest.mark.parametrize("name", ["pipe.txt", "/dev/null"])
def test_a_pipe_or_a_device_that_is_named_is_refused(name, tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(ValueError, match="expected a file or a folder, found a device"):
        text_files([tmp_path / name])


# Where rows are kept -------------------------------------------------------------------------------


def files_under(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_rows_are_kept_in_the_users_cache_by_what_is_in_the_text(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    texts = [write(tmp_path / "texts" / name, "abcd" * 5) for name in ("a.txt", "b.txt")]
    texts.append(write(tmp_path / "texts" / "c.txt", "wxyz" * 5))
    load_corpus(texts, [], 36)
    load_corpus(texts[:1], [], 27)
    assert files_under(tmp_path / "texts") == ["a.txt", "b.txt", "c.txt"]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in texts]
    kept = [f"bit_transformer/rows/{name}.36.bits" for name in set(hashes)]
    assert files_under(tmp_path / "cache") == sorted([*kept, f"bit_transformer/rows/{hashes[0]}.27.bits"])


def test_rows_are_kept_in_a_folder_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = write(tmp_path / "texts" / "a.txt", "abcd" * 5)
    loaded = load_corpus([text], [], 36, tmp_path / "texts")
    assert listed(loaded.train) == rows_of("abcd" * 5)[:-1]
    assert len(files_under(tmp_path / "texts")) == 2
    assert not (tmp_path / "cache").exists()


def test_a_cache_is_under_home_and_without_one_it_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    text = write(tmp_path / "texts" / "a.txt", "abcd" * 5)
    load_corpus([text], [], 36)
    assert len(files_under(tmp_path / ".cache" / "bit_transformer" / "rows")) == 1
    monkeypatch.setenv("HOME", "")
    with pytest.raises(OSError, match="set HOME or XDG_CACHE_HOME"):
        load_corpus([text], [], 36)
    monkeypatch.delenv("HOME")
    with pytest.raises(OSError, match="set HOME or XDG_CACHE_HOME"):
        load_corpus([text], [], 36)


@pytest.mark.parametrize("problem", ["no home", "a file where the cache should be"])
def test_a_run_without_a_cache_keeps_its_rows_itself(problem, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "" if problem == "no home" else str(write(tmp_path / "cache", "")))
    assert rows_folder(tmp_path / "run") == tmp_path / "run" / "rows"


def test_each_text_is_read_once_to_be_known_again(tmp_path, monkeypatch):
    text = write(tmp_path / "a.txt", "abcd" * 5)
    load_corpus([text], [], 36)
    read, real = [], Path.open
    monkeypatch.setattr(Path, "open", lambda path, *rest, **named: read.append(path) or real(path, *rest, **named))
    load_corpus([text], [text], 36)
    assert read.count(text) == 2  # as one to train on, and as one to validate on


def test_there_may_be_more_texts_than_files_that_are_open_at_once(tmp_path):
    texts = [write(tmp_path / f"{number}.txt", f"{number:04}" * 2) for number in range(40)]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 20, limit[1]))
    try:
        assert len(load_corpus(texts, [], 36).train) == 40
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


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
