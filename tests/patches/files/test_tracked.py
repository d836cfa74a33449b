"""A tree is what git tracks: compared with git itself."""

import random
import subprocess

import pytest

from bitpatch.patches.files.tracked import python_files

PLACES = ["", "a/", "b/", "a/b/", "a/c/", "data/", "a/data/"]
NAMES = ["x.py", "model.py", "b.py", "data.py"]
PATTERNS = [
    *(
        "*",
        "*/",
        "*.py",
        "/*",
        "a",
        "/a",
        "a/",
        "/a/",
        "b",
        "a/b",
        "/a/b/",
        "a/*",
        "a/**",
        "**/b",
        "**/b/",
        "data",
        "data/",
    ),
    *(
        "/data/",
        "x.py",
        "/x.py",
        "a/x.py",
        "**/x.py",
        "[ab]",
        "?",
        "mod*.py",
        "a/*/x.py",
        "a/**/x.py",
        "# x.py",
        "",
        "\\#",
        "b/*.py",
    ),
]


def git(folder, *words):
    config = ["-c", "init.defaultBranch=main", "-c", "user.name=n", "-c", "user.email=e", "-c", "core.excludesFile="]
    return subprocess.run(["git", *config, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def as_git_sees_it(folder):
    known = git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py").split("\0")
    return sorted(set(known) - {""})


@pytest.fixture
def folder(tmp_path):
    for place in PLACES:
        for name in NAMES:
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            (tmp_path / place / name).write_text("")
    git(tmp_path, "init", "--quiet")
    return tmp_path


def ignore_at_random(folder, seed):
    draw = random.Random(seed)
    for place in ["", *draw.sample(PLACES[1:], 2)]:
        lines = ["!" * (draw.random() < 0.4) + draw.choice(PATTERNS) for _ in range(draw.randint(1, 4))]
        (folder / place / ".gitignore").write_text("\n".join(lines) + "\n" * draw.randint(0, 1))


@pytest.mark.parametrize("seed", range(60))
def test_what_is_ignored_is_what_git_ignores(folder, seed):
    ignore_at_random(folder, seed)
    assert sorted(python_files(folder).files) == as_git_sees_it(folder)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_what_is_tracked_is_not_ignored(folder, version):
    git(folder, "add", "--force", "data/model.py", "a/b/x.py")
    if version == 3:
        git(folder, "add", "--intent-to-add", "--force", "a/b/b.py")
    git(folder, "update-index", f"--index-version={version}")
    (folder / ".gitignore").write_text("data/\na/b/\n*.py\n")
    found = sorted(python_files(folder).files)
    assert found == as_git_sees_it(folder)
    assert {"a/b/x.py", "data/model.py"} <= set(found)


@pytest.mark.parametrize("text", ["/*\n!/a/\n!/data/\n!/x.py\n", "*\n!*/\n!*.py\n", "*\n!*/\n!a/*.py\n"])
def test_a_list_of_what_is_allowed(folder, text):
    (folder / ".gitignore").write_text(text)
    assert sorted(python_files(folder).files) == as_git_sees_it(folder)


@pytest.mark.parametrize(
    "damage", [b"", b"DIRC", b"DIRC\0\0\0\2\0\0\0\2", b"x" * 100, b"DIRC\0\0\0\4\0\0\0\1" + b"\xff" * 99]
)
def test_an_index_that_cannot_be_read_is_none(folder, damage):
    (folder / ".git/index").write_bytes(damage)
    (folder / ".gitignore").write_text("a/\nb/\n/data/\n")
    assert sorted(python_files(folder).files) == sorted(NAMES)


def test_a_deep_folder_is_listed(tmp_path):
    (tmp_path / "/".join("d" * 900)).mkdir(parents=True)
    assert python_files(tmp_path).files == []
