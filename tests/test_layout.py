"""The house as it is drawn: rooms know those above them, no import goes round in a circle, and none hides in a function.

What a module imports for annotations alone, or as the command that it can be run as, does not count: the first never
runs, and the second runs where the module is `__main__`, which nothing imports.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import pytest
from samples import ROOT

ROOMS = ("files", "reading", "editing", "applying")  # each knows those before it
SHARED = {"task", "known"}
NOT_OF_A_MODULE = ("TYPE_CHECKING", "__name__ == '__main__'")


def modules(folder):
    """The modules below a folder, by their dotted names from there, packages by their own."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT / folder).with_suffix("").parts
        found[".".join(parts).removesuffix("__init__").removesuffix(".")] = path
    return found


def statements(node: ast.AST, *, inside: bool = False) -> Iterator[tuple[ast.ImportFrom | ast.Import, bool]]:
    """The imports of a module that run wherever it is imported, and whether each stands in a function."""
    for each in ast.iter_child_nodes(node):
        if isinstance(each, (ast.Import, ast.ImportFrom)):
            yield each, inside
        elif not (isinstance(each, ast.If) and ast.unparse(each.test) in NOT_OF_A_MODULE):
            yield from statements(each, inside=inside or isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)))


def imports(folder, name, path, known) -> Iterator[tuple[str, bool]]:
    """The modules of the same folder that one imports, and whether in a function."""
    package = [folder, *name.split(".")] if name else [folder]
    package = package if path.name == "__init__.py" else package[:-1]
    for node, inside in statements(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((each.name, inside) for each in node.names if each.name in known)
            continue
        base = package[: len(package) - node.level + 1] if node.level else []
        base = [*base, *(node.module or "").split(".")] if node.module else base
        stem = ".".join(base[1:]) if node.level else ".".join(base)
        if node.level and base[:1] != [folder]:
            continue  # of another side
        for each in node.names:
            inner = f"{stem}.{each.name}".removeprefix(".")
            yield from ((found, inside) for found in (inner if inner in known else stem,) if found in known)


def graph(folder):
    known = modules(folder)
    return {name: list(imports(folder, name, path, known)) for name, path in known.items()}


def room_of(name):
    return name.partition(".")[0] if "." in name or name in ROOMS else ""


ON_PURPOSE = {"running.child", "running.zygote"}  # a fork server imports what a job needs in its child


@pytest.mark.parametrize("folder", ["patches", "verify", "baseline", "reference"])
def test_no_import_goes_round_in_a_circle(folder):
    found = {
        name: {each for each, inside in some if not (inside and name in ON_PURPOSE)} - {name}
        for name, some in graph(folder).items()
    }
    assert sum(map(len, found.values())) > 20, "imports are seen"
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("folder", ["patches", "verify", "baseline", "reference"])
def test_no_import_of_our_own_hides_in_a_function(folder):
    hidden = [
        f"{name}: {each}"
        for name, some in graph(folder).items()
        for each, inside in some
        if inside and name not in ON_PURPOSE
    ]
    assert hidden == []


def test_rooms_know_only_those_before_them_and_no_task():
    wrong = [
        f"{name}: {each}"
        for name, some in graph("patches").items()
        if room_of(name)
        for each, _ in some
        if each.startswith("task_")
        or (each not in SHARED and room_of(each) not in ROOMS[: ROOMS.index(room_of(name)) + 1])
    ]
    assert wrong == []


def test_only_tasks_and_what_rooms_share_stand_beside_the_rooms():
    beside = {name for name in modules("patches") if "." not in name and not name.startswith("task_")}
    assert beside == {"", *ROOMS, *SHARED}


def test_what_drives_a_tree_knows_of_patches_only_what_they_read():
    for path in sorted((ROOT / "verify/driving").rglob("*.py")):
        for node, _ in statements(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("patches"):
                assert node.module.split(".")[1] in {"reading", "files", "task"}, f"{path}: {node.module}"
