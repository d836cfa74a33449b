"""What changed, as git has it, in repositories that mean harm too."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bitpatch.verify.since.history import NotCompared, history

from .conftest import commit, git, write

Make = Callable[..., Path]


def test_nothing_changed_in_a_fresh_clone(repository: Make) -> None:
    assert history(repository(), "main").changed == frozenset()


def test_changes_are_found_whether_staged_or_not(repository: Make) -> None:
    root = repository()
    write(root, {"scripts/plot.py": "print(2)\n", "staged.py": "", "untracked.py": "", "README.md": "# Bytes\n"})
    git(root, "add", "staged.py", "README.md")
    git(root, "mv", "dashboard/manager.py", "dashboard/managers.py")
    (root / "tests/test_model.py").unlink()
    moved = {"dashboard/manager.py", "dashboard/managers.py"}
    others = {"scripts/plot.py", "staged.py", "untracked.py", "README.md", "tests/test_model.py"}
    assert history(root, "main").changed == moved | others


def test_what_was_committed_since_counts(repository: Make) -> None:
    root = repository()
    write(root, {"scripts/plot.py": "print(2)\n"})
    commit(root)
    assert (history(root, "HEAD~1").changed, history(root, "HEAD").changed) == ({"scripts/plot.py"}, frozenset())


def test_what_is_ignored_is_not_compared(repository: Make) -> None:
    root = repository({".gitignore": "runs/\n"})
    write(root, {"runs/one/model.bin": "x"})
    assert history(root, "main").changed == frozenset()


def test_a_link_is_compared_by_where_it_leads(repository: Make) -> None:
    root = repository()
    (root / "link.py").symlink_to("scripts/plot.py")
    commit(root)
    assert history(root, "main").changed == frozenset()
    (root / "link.py").unlink()
    (root / "link.py").symlink_to("tests/test_model.py")
    assert history(root, "main").changed == {"link.py"}


def test_a_tree_in_a_folder_of_the_repository_is_seen_from_there(repository: Make) -> None:
    root = repository()
    write(root, {"scripts/plot.py": "print(2)\n", "bit_transformer/blocks.py": ""})
    found = history(root / "bit_transformer", "main")
    assert sorted(map(found.shown, found.changed)) == ["../scripts/plot.py", "blocks.py"]


def test_files_are_read_as_they_were(repository: Make) -> None:
    root = repository({"empty.py": "", "lines.py": "1\n\n2"})
    write(root, {"empty.py": "1", "lines.py": "3"})
    assert history(root, "main").at(["empty.py", "lines.py", "nowhere.py"]) == {"empty.py": b"", "lines.py": b"1\n\n2"}


def test_names_of_files_may_be_anything(repository: Make) -> None:
    root = repository()
    write(root, {'a "name"\n\tof é.py': ""})
    assert history(root, "main").changed == {'a "name"\n\tof é.py'}


@pytest.mark.parametrize("ref", ["nowhere", "--all", "^main", "0123456"])
def test_a_commit_that_is_not_there_is_named_with_what_fetches_it(repository: Make, ref: str) -> None:
    with pytest.raises(NotCompared, match="there is no such commit here") as error:
        history(repository(), ref)
    assert (error.value.then, error.value.exit_code) == (f"git fetch origin {ref}", 2)


@pytest.mark.parametrize(("ref", "then"), [("HEAD~1", "--unshallow"), ("before", "--depth=1 origin before")])
def test_a_shallow_clone_is_told_how_to_get_the_commit(repository: Make, tmp_path: Path, ref: str, then: str) -> None:
    root = repository()
    git(root, "branch", "before")
    commit(root)
    git(tmp_path, "clone", "--quiet", "--depth=1", root.as_uri(), "clone")
    with pytest.raises(NotCompared, match="shallow") as error:
        history(tmp_path / "clone", ref)
    assert error.value.then == f"git fetch {then}"
    git(tmp_path / "clone", *error.value.then.split()[1:])
    with contextlib.suppress(NotCompared):  # a name is not fetched under itself everywhere
        assert history(tmp_path / "clone", ref).changed == frozenset()


def test_a_folder_without_a_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotCompared, match="needs a git repository"):
        history(tmp_path, "main")


def test_without_git_it_is_said_what_to_install(repository: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    root = repository()
    monkeypatch.setenv("PATH", "bin")
    with pytest.raises(NotCompared, match="needs git"):
        history(root, "main")


def test_nothing_that_a_repository_sets_up_is_run(repository: Make, tmp_path: Path) -> None:
    root = repository({".gitattributes": "*.py filter=harm diff=harm\n"})
    ran = tmp_path / "ran"
    script = tmp_path / "harm"
    script.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    script.chmod(0o755)
    hook = root / ".git/hooks/post-index-change"
    hook.parent.mkdir(exist_ok=True)
    script.copy(hook) if hasattr(script, "copy") else hook.write_bytes(script.read_bytes())
    hook.chmod(0o755)
    names = ("core.fsmonitor", "core.pager", "diff.external", "diff.harm.command", "diff.harm.textconv")
    for name in (*names, "filter.harm.clean", "filter.harm.smudge", "filter.harm.process", "core.sshCommand"):
        git(root, "config", name, str(script))
    git(root, "config", "core.worktree", str(tmp_path))
    os.utime(root / "scripts/plot.py", (0, 0))
    assert history(root, "main").changed == frozenset()
    assert not ran.exists()


def test_an_object_that_a_clone_lacks_is_not_fetched(repository: Make, tmp_path: Path) -> None:
    root = repository()
    git(root, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "--quiet", "--no-checkout", "--filter=blob:none", root.as_uri(), "clone")
    found = history(tmp_path / "clone", "main")
    with pytest.raises(NotCompared, match=r"lacks scripts/plot\.py as it was"):
        found.at(["scripts/plot.py"])
