"""What a wheel brings: one package, both trees, nothing else; and what works without torch."""

import json
import shutil
import subprocess
import sys
import zipfile

import pytest
from samples import BASELINE, REFERENCE, ROOT, contents

NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests")
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


def test_the_core_needs_three_libraries(wheel):
    (metadata,) = [name for name in wheel.namelist() if name.endswith("METADATA")]
    needed = [
        line
        for line in wheel.read(metadata).decode().splitlines()
        if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    assert sorted(line.split()[1].split(">")[0].split("<")[0] for line in needed) == ["libcst", "rich", "typer"]


def test_the_core_works_without_torch(tree):
    for words in (
        ["list", "--json"],
        ["status", "--tree", str(tree), "--json"],
        ["apply", "task-11", "--tree", str(tree), "--json"],
    ):
        result = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, "")
        assert json.loads(result.stdout)
