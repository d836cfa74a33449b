"""What is published: a wheel of one package with both trees, an sdist with its tests, a repository without litter."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest
from samples import BASELINE, REFERENCE, ROOT, contents

NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HOUSE = {
    *("baseline", "reference", "patches", "verify", "tests", "benchmarks", "docs", ".ci", ".github"),
    *(
        "cli.py",
        "parameters.py",
        "screen.py",
        "__init__.py",
        "__main__.py",
        "py.typed",
        "pyproject.toml",
        "constraints.txt",
    ),
    *("Makefile", "MANIFEST.in", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "action.yml"),
    *(".gitignore", ".pre-commit-config.yaml", ".pre-commit-hooks.yaml"),
}
WITHOUT_TORCH = """
import sys
for name in ("torch", "numpy", "hypothesis", "matplotlib"):
    sys.modules[name] = None
from bitpatch.cli import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(ROOT, folder / "source", ignore=NOT_SOURCE)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_nothing_but_bitpatch_lands_in_site_packages(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"bitpatch"}


def test_both_trees_travel_whole(wheel):
    for tree in (BASELINE, REFERENCE):
        prefix = f"bitpatch/{tree.name}/"
        packed = {name.removeprefix(prefix): wheel.read(name) for name in wheel.namelist() if name.startswith(prefix)}
        assert packed == contents(tree)


def test_the_sample_the_schemas_and_the_type_marker_travel(wheel):
    names = set(wheel.namelist())
    assert {
        "bitpatch/reference/data/sample.txt",
        "bitpatch/verify/schemas/verify.json",
        "bitpatch/patches/schemas/list.json",
        "bitpatch/py.typed",
    } <= names


def test_the_core_needs_four_libraries(wheel):
    needed = [line for line in metadata_of(wheel) if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert [re.match(r"[\w-]+", line.split()[1])[0] for line in needed] == ["libcst", "pathspec", "rich", "typer"]


def metadata_of(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith("METADATA")]
    return wheel.read(name).decode().splitlines()


def test_the_metadata_says_what_it_runs_on_and_names_nothing_that_is_not_there(wheel):
    lines = metadata_of(wheel)
    assert {"Classifier: Operating System :: POSIX :: Linux", "Classifier: Operating System :: MacOS"} <= set(lines)
    assert "Description-Content-Type: text/markdown" in lines
    assert [
        line for line in lines if re.search(r"OWNER|example\.(com|org)|TODO|Operating System :: .*Windows", line)
    ] == []


def test_the_command_is_the_way_in(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "bitpatch = bitpatch.__main__:main" in wheel.read(name).decode()
    assert {"bitpatch/__main__.py", "bitpatch/patches/schemas/error.json"} <= set(wheel.namelist())


@pytest.fixture(scope="module")
def tracked():
    """The files that git tracks here, as they are; there is nothing to be said of a copy without its repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("there is no repository here")
    return [name for name in git("ls-files") if (ROOT / name).is_file()]


def git(*words):
    return subprocess.run(
        ["git", "-C", str(ROOT), *words], check=True, capture_output=True, text=True
    ).stdout.splitlines()


def test_nothing_is_tracked_that_is_to_be_ignored(tracked):
    assert git("ls-files", "--cached", "--ignored", "--exclude-per-directory=.gitignore") == []


def test_the_top_level_is_that_of_the_design(tracked):
    assert {name.split("/")[0] for name in tracked} <= HOUSE


@pytest.fixture(scope="module")
def sdist(tracked, tmp_path_factory):
    """The sdist of what git tracks, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    for name in tracked:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(folder / "source")], check=True, capture_output=True)
    (built,) = folder.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return unpacked


def test_the_sdist_is_what_git_tracks(sdist, tracked):
    made = {"PKG-INFO", "setup.cfg"}
    packed = {name for name in contents(sdist) if not name.startswith("bitpatch.egg-info/")}
    assert packed - made == set(tracked)


def test_the_sdist_holds_all_that_its_tests_need(sdist, tmp_path):
    (tmp_path / "bitpatch").symlink_to(sdist)
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider"]
    env = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    env["HYPOTHESIS_STORAGE_DIRECTORY"] = str(tmp_path / "examples")  # else it writes into what was unpacked
    asked = [
        *command,
        "tests/test_cli.py",
        "tests/test_gate.py",
        "tests/test_packaging.py",
        "tests/patches",
        "tests/laws",
    ]
    result = subprocess.run(asked, cwd=sdist, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "tests/laws/test_order.py" in result.stdout


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page):
    text = re.sub(r"(?s)^```.*?^```$", "", page.read_text(), flags=re.MULTILINE)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    files = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:", link)]
    assert [file for file in files if file and not (page.parent / file).exists()] == []


SET_UP = """\
#!/bin/sh
mkdir -p .venv/bin && ln -sf "$PWD/installs" .venv/bin/python
"""
INSTALLS = """\
#!/bin/sh
echo "Collecting everything"
[ ! -e broken ] || exit 1
"""


def test_an_install_that_fails_is_not_ready_and_one_that_is_done_is_not_repeated(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name, script in (("python", SET_UP), ("installs", INSTALLS)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    ready, broken = tmp_path / ".venv/ready", tmp_path / "broken"

    def make():
        command = ["make", "-C", str(tmp_path), "PYTHON=./python", ".venv/ready"]
        return subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})

    broken.touch()
    failed = make()
    assert (failed.returncode != 0, ready.exists()) == (True, False)
    assert "this takes some minutes" in failed.stdout
    assert "Collecting everything" in failed.stdout
    broken.unlink()
    assert (make().returncode, ready.exists()) == (0, True)
    assert "Collecting" not in make().stdout
    broken.touch()
    os.utime(ready, (0, 0))  # as if the versions had changed since
    assert (make().returncode != 0, ready.exists()) == (True, False)


WORKFLOW = ROOT / ".github/workflows/test.yml"


def rows_of_the_matrix():
    import yaml

    return yaml.safe_load(WORKFLOW.read_text())["jobs"]["test"]["strategy"]["matrix"]["include"]


def oldest(package, extra):
    (needed,) = [each for each in PROJECT["optional-dependencies"][extra] if each.startswith(f"{package}>")]
    return re.fullmatch(rf"{package}>=([\d.]+)", needed)[1]


def test_every_python_that_is_claimed_runs_the_tests():
    claimed = {each.rpartition(" ")[2] for each in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)}
    assert {row["python"] for row in rows_of_the_matrix()} == claimed
    assert PROJECT["requires-python"] == f">={min(claimed)}"


def test_the_oldest_torch_that_is_claimed_runs_the_tests_in_place_of_the_newest(tmp_path):
    import yaml

    (row,) = [row for row in rows_of_the_matrix() if "torch" in row]
    assert row["torch"] == f"{oldest('torch', 'verify')}.0"
    assert row["torchao"] == f"{oldest('torchao', 'train')}.0"
    step = yaml.safe_load(WORKFLOW.read_text())["jobs"]["test"]["steps"][-1]["run"]
    (tmp_path / "make").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "make").chmod(0o755)
    newest = set((ROOT / "constraints.txt").read_text().splitlines())
    for torch, torchao in ((row["torch"], row["torchao"]), ("", "")):
        shutil.copy(ROOT / "constraints.txt", tmp_path)
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TORCH": torch, "TORCHAO": torchao}
        made = subprocess.run(["bash", "-ec", step], cwd=tmp_path, env=env, check=True, capture_output=True, text=True)
        assert made.stdout == "test CONSTRAINTS=build-constraints.txt\n"
        pins = set((tmp_path / "build-constraints.txt").read_text().splitlines())
        assert pins - newest == ({f"torch=={torch}", f"torchao=={torchao}"} if torch else set())
        assert {line.partition("==")[0] for line in newest - pins} == (
            {"torch", "sympy", "torchao"} if torch else set()
        )


def test_the_core_works_without_torch(tree):
    for words in (
        ["list", "--json"],
        ["status", "--tree", str(tree), "--json"],
        ["apply", "task-11", "--tree", str(tree), "--json"],
    ):
        result = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, "")
        assert json.loads(result.stdout)
