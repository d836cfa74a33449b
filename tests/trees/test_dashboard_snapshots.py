"""Snapshots that are none: odd names, links, pipes, damage, sizes without bounds, disks that are full."""

import errno
import json
import os
import resource

import pytest

from bit_transformer.checkpoint import read_content, write_content
from dashboard.manager import LONGEST_NAME


@pytest.mark.parametrize(
    "name",
    [
        "a" * (LONGEST_NAME + 1),
        "a" * 300,
        "..",
        ".",
        "../up",
        "a/b",
        "a\\b",
        "/etc/passwd",
        "a..b",
        "a.",
        ".a",
        "a b",
        "a\n",
        "a\0b",
        "-a",
        "é",
        "~",
        "nul",
        "CON",
        "com1.x",
        "",
        7,
        None,
        ["a"],
    ],
)
@pytest.mark.parametrize("path", ["save", "download"])
def test_a_name_that_is_odd_is_refused(asked, path, name):
    assert "name" in asked.refuses(400, f"/{path}", {"name": name})


@pytest.mark.parametrize("name", ["a", "a" * LONGEST_NAME, "run-1.step_200", "_", "console"])
def test_a_name_that_is_plain_is_taken(asked, name):
    body = json.dumps({"name": name}).encode()
    assert asked.post("/save", body).status_code == 200
    assert asked.post("/download", body).status_code == 200


@pytest.mark.parametrize("odd", ["a link", "a link to nothing", "a folder", "a pipe"])
@pytest.mark.parametrize("path", ["save", "download"])
def test_a_snapshot_that_is_no_file_is_refused(asked, path, odd):
    file = asked.manager.save("one").rename(asked.manager.snapshots / "precious")
    place = asked.manager.snapshots / "one.pt"
    if odd.startswith("a link"):
        place.symlink_to(file if odd == "a link" else "nowhere")
    elif odd == "a folder":
        place.mkdir()
    else:
        os.mkfifo(place)
    raw = file.read_bytes()
    assert "'one' is a link, a folder or a pipe" in asked.refuses(400, f"/{path}", {"name": "one"})
    assert file.read_bytes() == raw


def with_content(change):
    def damage(path):
        content = read_content(path)
        change(content)
        write_content(path, content)

    return damage


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "one bit off": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "text": lambda path: path.write_bytes(b"judge my vow\n" * 100),
    "a long header": lambda path: path.write_bytes(b"\xff" * 8 + b"{" * 5000),
    "many gigabytes of zeros": lambda path: os.truncate(path, 2**33),
    "no plan": with_content(lambda content: content["extra"].pop("plan")),
    "no extra": with_content(lambda content: content.pop("extra")),
    "no config": with_content(lambda content: content.pop("config")),
    "no step": with_content(lambda content: content["extra"].pop("step")),
    "no gate": with_content(lambda content: content["extra"].update(gate=None)),
    "no moments": with_content(lambda content: content.update(optimizer=None)),
    "moments of none": with_content(lambda content: content["optimizer"].update(state=7)),
    "a plan without end": with_content(lambda content: content["extra"]["plan"].update(epochs=10**18)),
    "a plan of words": with_content(lambda content: content["extra"]["plan"].update(batch_size="many")),
    "a plan of more": with_content(lambda content: content["extra"]["plan"].update(more=1)),
    "a plan of no rows": with_content(lambda content: content["extra"]["plan"].update(rows="none")),
    "layers without end": with_content(lambda content: content["config"].update(num_layers=10**18)),
    "too wide": with_content(lambda content: content["config"].update(d_model=2_000_000_000)),
    "another shape": with_content(lambda content: content["config"].update(d_model=32)),
    "another option": with_content(lambda content: content["config"].update(depth=3)),
    "no weights": with_content(lambda content: content.update(model={})),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_snapshot_that_is_damaged_or_too_large_is_refused(asked, damage):
    DAMAGES[damage](asked.manager.save("one"))
    asked.refuses(400, "/download", {"name": "one"})


def test_a_disk_that_takes_no_more_is_said_and_nothing_is_left(asked):
    asked.manager.save("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        reason = asked.refuses(507, "/save", {"name": "new"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.strerror(errno.EFBIG) in reason
    assert os.listdir(asked.manager.snapshots) == ["old.pt"]


def test_a_folder_that_cannot_be_is_said(asked, tmp_path):
    asked.manager.snapshots = tmp_path / "a file" / "snapshots"
    (tmp_path / "a file").write_text("no folder")
    asked.refuses(500, "/save", {"name": "one"})
    asked.refuses(500, "/download", {"name": "one"})
