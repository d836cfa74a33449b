"""A tree is what git tracks: compared with git itself."""

import random
import resource
import struct
import subprocess

import pytest

from bitpatch.patches.files.tracked import python_files
from bitpatch.patches.task import Unreadable

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


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("*a" * 20 + "*b\n", "a" * 200 + ".py"),
        ("**/a/" * 20 + "x\n", "a/" * 60 + "a.py"),
        ("x*\n" * 20_001, "a.py"),
    ],
    ids=["stars on a long name", "stars in a deep folder", "very many lines"],
)
def test_patterns_that_would_take_for_ever_are_refused(tmp_path, text, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("")
    (tmp_path / ".gitignore").write_text(text)
    with pytest.raises(Unreadable, match=r"\.gitignore"):
        python_files(tmp_path)


def test_a_pattern_that_is_none_says_nothing(tmp_path):
    (tmp_path / "a.py").write_text("")
    (tmp_path / ".gitignore").write_text("[z-a]\n*b*c*d*e*.py\n")
    assert python_files(tmp_path).files == ["a.py"]


def _index_of(names, version=2):
    entries = [bytes(60) + struct.pack(">H", min(len(name), 4095)) + name for name in names]
    padded = [each + bytes(8 - len(each) % 8) for each in entries]
    return struct.pack(">4sLL", b"DIRC", version, len(names)) + b"".join(padded)


@pytest.mark.parametrize(
    "index",
    [
        _index_of([b"a/" * 500_000 + b"x.py"]),
        struct.pack(">4sLL", b"DIRC", 4, 100_000) + (bytes(63) + b"abcdefg/\0") * 100_000,
    ],
    ids=["a path of a million bytes", "paths that grow from one to the next"],
)
def test_an_index_that_would_take_all_memory_is_none(tmp_path, index):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/index").write_bytes(index)
    (tmp_path / "a.py").write_text("")
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert python_files(tmp_path).files == ["a.py"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held < 200 << 10  # KiB


@pytest.mark.parametrize("path", [".gitignore", "pkg/.gitignore", ".git", ".git/index"])
def test_what_leads_out_of_the_tree_is_not_read(tmp_path, path):
    for name in ("tree/pkg", "tree/.git", "out"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("tree/pkg/a.py", "tree/.gitignore", "tree/pkg/.gitignore"):
        (tmp_path / name).write_text("")
    link, target = tmp_path / "tree" / path, tmp_path / "out" / "aside"
    if path == ".git":
        link.rmdir()
        target.mkdir()
        (target / "index").write_bytes(_an_index("pkg/a.py"))
        (tmp_path / "tree/.gitignore").write_text("*.py\n")
    else:
        link.unlink(missing_ok=True)
        target.write_bytes(_an_index("pkg/a.py") if path == ".git/index" else b"*.py\n")
        (tmp_path / "tree/.gitignore").write_text("*.py\n") if path == ".git/index" else None
    link.symlink_to(target)
    assert python_files(tmp_path / "tree").files == ([] if path.startswith(".git/") or path == ".git" else ["pkg/a.py"])


def _an_index(name):
    entry = struct.pack(">62sH", b"", 0)[:60] + struct.pack(">H", len(name)) + name.encode()
    return struct.pack(">4sLL", b"DIRC", 2, 1) + entry + b"\0" * (8 - len(entry) % 8)
