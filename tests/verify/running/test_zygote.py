import json
import os
import sys
import types
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bitpatch.verify.running import child as module
from bitpatch.verify.running.clean_start import scrubbed_environment
from bitpatch.verify.running.limits import Limits
from bitpatch.verify.running.runner import Zygote, verify

MakeTree = Callable[..., Path]
SURROUNDINGS = 4
LISTED = {
    "HOME", "PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONUSERBASE", "LC_ALL", "TZ", "PYTHONHASHSEED",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "WANDB_MODE",
    "TMPDIR", "PYTHONDONTWRITEBYTECODE", "TORCHINDUCTOR_CACHE_DIR",
}  # fmt: skip


@pytest.fixture
def surroundings(make_tree: MakeTree, zygote: Zygote) -> Callable[[], dict[str, Any]]:
    """What a check finds around itself, each time it is asked."""
    tree = make_tree()

    def look() -> dict[str, Any]:
        evidence = verify(tree, [SURROUNDINGS], zygote=zygote).tasks[0].checks[0].evidence
        found: dict[str, Any] = json.loads(evidence.detail)
        return found

    return look


def test_checks_are_known_before_any_tree_is(zygote: Zygote) -> None:
    assert zygote.checks[1] == [("the-tree-imports", "the tree imports")]
    assert sorted(zygote.checks) == [1, 2, 4, 5]


def test_a_judge_that_does_not_import_takes_no_other_along(zygote: Zygote) -> None:
    assert list(zygote.broken) == [3]
    assert zygote.broken[3].rstrip().endswith("ModuleNotFoundError: No module named 'no_such_module'")


def test_a_check_sees_only_the_listed_environment(surroundings: Callable[[], dict[str, Any]]) -> None:
    found = surroundings()
    assert set(found["environment"]) - LISTED == set()
    assert "swordfish" not in found["at_start"]


def test_home_and_working_directory_are_temporary(surroundings: Callable[[], dict[str, Any]], zygote: Zygote) -> None:
    found = surroundings()
    names = ("HOME", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR")
    for path in (found["cwd"], found["scratch"], *(found["environment"][name] for name in names)):
        assert Path(path).is_relative_to(zygote.folder)
        assert not Path(path).exists()


def test_chance_repeats_itself(surroundings: Callable[[], dict[str, Any]]) -> None:
    first, second = surroundings(), surroundings()
    assert first["drawn"] == second["drawn"]
    assert first["derandomized"] is True
    assert first["environment"]["PYTHONHASHSEED"] == "0"


def test_one_thread_computes(surroundings: Callable[[], dict[str, Any]]) -> None:
    assert surroundings()["threads"] == [1, 1]


def test_a_check_is_alone_in_its_session_without_input_or_core_dumps(
    surroundings: Callable[[], dict[str, Any]],
) -> None:
    found = surroundings()
    assert (found["session"], found["stdin"], found["core"]) == (True, "", [0, 0])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no such attribute")
def test_a_check_may_look_at_itself_and_not_at_the_zygote(surroundings: Callable[[], dict[str, Any]]) -> None:
    assert surroundings()["traced"] == [False, True]


def test_what_an_optimizer_would_import_is_there_already(surroundings: Callable[[], dict[str, Any]]) -> None:
    assert surroundings()["preloaded"] is True


def test_the_environment_drops_what_is_not_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PYTHONSTARTUP", "LD_PRELOAD"):
        monkeypatch.setenv(name, "secret")
    environment = scrubbed_environment(tmp_path)
    assert set(environment) - LISTED == set()
    assert environment["HOME"] == str(tmp_path)


def test_paths_to_import_from_do_not_follow_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "lib", "/else"]))
    assert scrubbed_environment(tmp_path)["PYTHONPATH"] == os.pathsep.join([str(tmp_path / "lib"), "/else"])


@pytest.mark.parametrize(
    ("file", "foreign"),
    [("tree/bit_transformer/model.py", None), ("installed/bit_transformer/model.py", True), (None, None)],
    ids=["in the tree", "elsewhere", "a namespace"],
)
def test_a_module_from_elsewhere_is_foreign(
    file: str | None, foreign: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "bit_transformer"]:
        monkeypatch.delitem(sys.modules, name)  # of tests that import a tree in this process
    loaded = types.ModuleType("bit_transformer.model")
    loaded.__file__ = None if file is None else str(tmp_path / file)
    monkeypatch.setitem(sys.modules, "bit_transformer.model", loaded)
    assert module.foreign_module(tmp_path / "tree") == (foreign and str(tmp_path / file))


def test_an_exception_is_told_in_a_line_with_its_place_in_the_tree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = compile("def half(x):\n    return x / 0\n\nhalf(1)", str(tmp_path / "model.py"), "exec")
    with pytest.raises(ZeroDivisionError) as raised:
        exec(code, {})
    assert module.describe(raised.value, tmp_path) == "ZeroDivisionError: division by zero at model.py:2"
    assert "Traceback" in capsys.readouterr().err


def test_closing_the_socket_ends_the_zygote_and_its_children(make_tree: MakeTree, fake_judges: str) -> None:
    tree = make_tree(
        "import os; open(os.path.dirname(os.path.dirname(__file__)) + '/alive', 'w').write('x')\nwhile True: pass"
    )
    with Zygote(fake_judges) as zygote:
        request = {"id": 0, "nonce": "", "task": 1, "index": 0, "limits": asdict(Limits()), "tree": str(tree)}
        request |= {"seconds": 0.0, "driving": None, "turn": None, "script": None}
        folder = zygote.folder / "child"
        folder.mkdir()
        reading, writing = os.pipe()
        zygote.send(request | {"folder": str(folder)}, writing)
        assert (tree / "alive").read_text() == "x"
    os.close(writing)
    assert os.read(reading, 1) == b""  # nobody holds the other end
    os.close(reading)
    assert zygote.process.returncode == 0
