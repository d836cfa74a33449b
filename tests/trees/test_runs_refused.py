import resource
import shutil
import subprocess
import sys

import pytest
from trees.running import CONFIGURATIONS, assert_same_run, words

from bit_transformer import checkpoint, runs
from bit_transformer.checkpoint import read_content, write_content

pytestmark = pytest.mark.usefixtures("one_thread_and_no_pictures")


@pytest.fixture
def stopped(whole, tmp_path):
    """The folder of a run that was stopped: it has a checkpoint, and is not done."""
    out = tmp_path / "run"
    shutil.copytree(whole("task-a: act, reversible, bf16, plateau"), out)
    (out / "report.json").unlink()
    return out


def refusal(capsys, line):
    assert runs.main([str(word) for word in line]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.strip().splitlines()[-1]


def test_other_text_is_refused(stopped, text, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text(text.read_text(encoding="utf-8").replace("fox", "cat"), encoding="utf-8")
    assert "was trained on other text" in refusal(capsys, ["--resume", "--out", stopped, "--data", other])
    assert "was trained on other text" in refusal(capsys, ["--resume", "--out", stopped, "--val_data", other])
    moved = shutil.copyfile(text, tmp_path / "moved.txt")
    assert runs.main(["--resume", "--out", str(stopped), "--data", str(moved)]) == 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "damaged or no checkpoint"),
        (b"\0" * 300, "damaged or no checkpoint"),
        (None, "damaged or no checkpoint"),
    ],
    ids=["empty", "zeros", "cut short"],
)
def test_a_damaged_checkpoint_is_refused(stopped, content, expected, capsys):
    path = stopped / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-7] if content is None else content)
    said = refusal(capsys, ["--resume", "--out", stopped])
    assert expected in said
    assert str(path) in said
    assert "start anew" in said


def test_one_flipped_bit_in_a_checkpoint_is_found(stopped, capsys):
    path = stopped / "checkpoint.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)
    assert "checksum" in refusal(capsys, ["--resume", "--out", stopped])


def test_a_checkpoint_of_a_newer_version_is_refused(stopped, monkeypatch, capsys):
    content = read_content(stopped / "checkpoint.safetensors")
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    write_content(stopped / "checkpoint.safetensors", content)
    monkeypatch.setattr(checkpoint, "VERSION", 1)
    assert "its version is 2, and this code reads 1" in refusal(capsys, ["--resume", "--out", stopped])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: content.update(extra={}), "holds a model, and no run"),
        (lambda content: content.update(extra=None), "holds a model, and no run"),
        (lambda content: content.update(config={**content["config"], "d_model": 32}), "is of another model"),
        (lambda content: content.update(scheduler=None), "does not fit its run.json"),
        (lambda content: content["model"].pop("norm.weight"), "do not both have norm.weight"),
        (lambda content: content["optimizer"]["state"].pop("norm.weight"), "do not both have norm.weight"),
        (lambda content: content["extra"].update(progress={"update": 3}), "does not fit its run.json"),
        (lambda content: content["extra"]["progress"].update(update=99), "99 updates, more than the 8"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(stopped, change, expected, capsys):
    content = read_content(stopped / "checkpoint.safetensors")
    change(content)
    write_content(stopped / "checkpoint.safetensors", content)
    assert expected in refusal(capsys, ["--resume", "--out", stopped])


def test_a_disk_that_is_full_leaves_the_last_checkpoint(text, tmp_path, monkeypatch, capsys, whole):
    configuration = "onecycle, dropout, extra steps, two epochs"
    out, real = tmp_path / "run", runs.write_content

    def full(path, content):
        if content["extra"]["progress"]["update"] < 4:
            return real(path, content)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limit[1]))  # the disk ends in the middle of the file
        try:
            return real(path, content)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    monkeypatch.setattr(runs, "write_content", full)
    said = refusal(capsys, words(out, text, **CONFIGURATIONS[configuration]))
    assert "checkpoint.safetensors cannot be written: " in said
    assert "make room, then go on with --resume" in said
    assert read_content(out / "checkpoint.safetensors")["extra"]["progress"]["update"] == 2
    assert not list(out.glob(".checkpoint*"))
    monkeypatch.setattr(runs, "write_content", real)
    assert runs.main(["--resume", "--out", str(out)]) == 0
    assert_same_run(out, whole(configuration))


def test_a_folder_that_cannot_be_written_is_named(text, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    said = refusal(capsys, words(tmp_path / "file" / "run", text))
    assert f"--out {tmp_path / 'file' / 'run'} cannot be written" in said
    assert "name another folder" in said


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: folder / "none.txt", "--data {}: there is no such file or folder"),
        (lambda folder: folder, "--data {}: expected .txt files in the folder, found none"),
        (lambda folder: written(folder / "a.txt", b"short"), "does not fill one row of 72 bits"),
        (lambda folder: written(folder / "a.txt", b"\xff" * 100), "is not UTF-8"),
        (lambda folder: written(folder / "a.txt", b"twelve bytes"), "fills 1 row of 72 bits, expected 2"),
    ],
    ids=["no file", "no text in the folder", "shorter than a row", "no UTF-8", "one row"],
)
def test_text_that_cannot_be_trained_on_is_named(make, expected, tmp_path, capsys):
    path = make(tmp_path)
    said = refusal(capsys, words(tmp_path / "run", path))
    assert expected.format(path) in said
    assert str(path) in said
    assert not (tmp_path / "run" / "run.json").exists()


def written(path, content):
    path.write_bytes(content)
    return path


def test_a_missing_text_to_validate_on_is_named_by_its_flag(text, tmp_path, capsys):
    line = [*words(tmp_path / "run", text), "--val_data", tmp_path / "none.txt"]
    assert f"--val_data {tmp_path / 'none.txt'}: there is no such file" in refusal(capsys, line)


@pytest.mark.parametrize("name", [".", "model.int8.safetensors", "none.safetensors"])
def test_what_nothing_grows_from_is_named(name, whole, text, tmp_path, capsys):
    source = whole("task-b: int8 aware") / name
    said = refusal(capsys, words(tmp_path, text, preset="task-b", chunk_size=18, overlap=9, grow_from=source))
    assert str(source) in said


HOLDER = """
import fcntl, sys
lock = open(sys.argv[1], "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_that_another_process_trains_in_is_refused(stopped, capsys):
    before = (stopped / "run.json").read_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, stopped / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        said = refusal(capsys, ["--resume", "--out", stopped, "--max_steps", "99"])
        holder.stdin.close()
    assert f"--out {stopped}: another process trains there" in said
    assert (stopped / "run.json").read_bytes() == before
    assert runs.main(["--resume", "--out", str(stopped)]) == 0
