"""Which tasks are judged since a commit, which are left out, and what each judge needs of a tree."""

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest
from samples import ROOT

from bitpatch.patches.known import all_tasks
from bitpatch.patches.reading.tree import open_tree
from bitpatch.verify.rendering.report import Outcome, Report, exit_code, text_of
from bitpatch.verify.running.driven import driving
from bitpatch.verify.since.found import OwnTests, Since
from bitpatch.verify.since.judged import LAYOUT, NEEDS, compare

from .conftest import FILES, MODEL, git, write

Make = Callable[..., Path]
EVERY = {task.number for task in all_tasks()}
SERVED = {2, 7, 12}  # whose judges make a manager
QUIET = {
    "nothing": {},
    "a comment": {"bit_transformer/blocks.py": "# new\nWIDTH = 8\n"},
    "layout": {"bit_transformer/blocks.py": "WIDTH = (\n    8\n)\n"},
    "a docstring": {"bit_transformer/model.py": MODEL.replace("LM:", 'LM:\n    """Bits."""\n')},
    "prose": {"README.md": "# Bytes\n", ".github/workflows/gate.yml": "on: push\n"},
    "tools": {"pyproject.toml": FILES["pyproject.toml"].replace("100", "120")},
    "a script": {"scripts/plot.py": "print(2)\n"},
    "a new test": {"tests/test_new.py": "def test_new():\n    assert f(1)\n"},
}
TOLD_TO_ALL = {
    "the model": {"bit_transformer/model.py": f"{MODEL}\nX = 1\n"},
    "what the model imports": {"bit_transformer/blocks.py": "WIDTH = 9\n"},
    "its package": {"bit_transformer/__init__.py": "X = 1\n"},
    "[tool.bitpatch]": {"pyproject.toml": f'{FILES["pyproject.toml"]}\n[tool.bitpatch]\nexclude = ["old/"]\n'},
    "a dependency": {"pyproject.toml": FILES["pyproject.toml"].replace("[tool", 'dependencies = ["torch"]\n[tool')},
    "constraints": {"constraints.txt": "torch==2.13\n"},
    "data": {"data/sample.json": "{}\n"},
    "the file that drives it": {"bitpatch_seams.py": "X = 1\n"},
    "a .pth": {"bits.pth": "src\n"},
    "sitecustomize": {"sitecustomize.py": "X = 1\n"},
    "a conftest at the root": {"conftest.py": "X = 1\n"},
    "a script that does not parse": {"scripts/plot.py": "def\n"},
    "a module that hides one of Python's": {"colorsys.py": "X = 1\n"},
    "a module that hides one that is installed": {"numpy/__init__.py": "X = 1\n"},
    "a module that stands before another": {"bit_transformer/blocks/__init__.py": "WIDTH = 8\n"},
}


def judged(root: Path, ref: str = "main") -> set[int]:
    tree = open_tree(root)
    found = compare(tree, ref, all_tasks(), driving(tree, []))
    assert {task.id for task in found.judged} | set(found.left_out) == {task.id for task in all_tasks()}
    return {task.number for task in found.judged}


@pytest.mark.parametrize("files", QUIET.values(), ids=QUIET)
def test_what_no_judge_runs_is_left_out(repository: Make, files: dict[str, str]) -> None:
    root = repository()
    write(root, files)
    assert judged(root) == set()


@pytest.mark.parametrize("files", TOLD_TO_ALL.values(), ids=TOLD_TO_ALL)
def test_what_all_judges_run_touches_all(repository: Make, files: dict[str, str]) -> None:
    root = repository()
    write(root, files)
    assert judged(root) == EVERY


def test_a_manager_touches_those_that_make_one(repository: Make) -> None:
    root = repository()
    write(root, {"dashboard/manager.py": "class ModelManager:\n    x = 1\n"})
    assert judged(root) == SERVED


def test_a_module_that_is_gone_touches_who_imported_it(repository: Make) -> None:
    root = repository()
    (root / "bit_transformer/blocks.py").unlink()
    assert judged(root) == EVERY


def test_a_module_that_moved_is_a_change(repository: Make) -> None:
    root = repository()
    git(root, "mv", "bit_transformer/blocks.py", "bit_transformer/parts.py")
    assert judged(root) == EVERY


def test_a_docstring_counts_where_somebody_reads_it(repository: Make) -> None:
    root = repository({"bit_transformer/blocks.py": '"""Old."""\nprint(__doc__)\n'})
    write(root, {"bit_transformer/blocks.py": '"""New."""\nprint(__doc__)\n'})
    assert judged(root) == EVERY


def test_a_docstring_counts_where_another_module_reads_it(repository: Make) -> None:
    root = repository({"bit_transformer/blocks.py": '"""Old."""\n', "scripts/plot.py": "print(blocks.__doc__)\n"})
    write(root, {"bit_transformer/blocks.py": '"""New."""\n'})
    assert judged(root) == EVERY


def test_a_comment_counts_where_somebody_reads_the_text(repository: Make) -> None:
    root = repository({"scripts/plot.py": "inspect.getsource(f)\n"})
    write(root, {"bit_transformer/blocks.py": "WIDTH = 8\n"})
    assert judged(root) == EVERY


def test_prose_counts_where_code_names_it(repository: Make) -> None:
    root = repository({"bit_transformer/blocks.py": 'open("README.md")\n'})
    write(root, {"README.md": "# Bytes\n"})
    assert judged(root) == EVERY


def test_any_module_counts_where_imports_are_not_told(repository: Make) -> None:
    root = repository({"bit_transformer/blocks.py": "import importlib\nimportlib.import_module(NAME)\n"})
    write(root, {"scripts/plot.py": "print(2)\n"})
    assert judged(root) == EVERY


def test_a_module_that_is_ignored_is_taken_for_changed(repository: Make) -> None:
    root = repository({".gitignore": "made.py\n", "bit_transformer/blocks.py": "from .made import WIDTH\n"})
    write(root, {"bit_transformer/made.py": "WIDTH = 8\n"})
    assert judged(root) == EVERY


def test_a_seam_that_is_elsewhere_now_touches_its_judges(repository: Make) -> None:
    files = dict.fromkeys((f"bit_transformer/{name}.py" for name in ("training", "safety")), "")
    first, second = ("class {0}:\n    def train_step(self):\n        pass\n    def infer(self):\n        pass\n",) * 2
    root = repository(files | {"a_server.py": first.format("First"), "b_server.py": second.format("Second")})
    write(root, {"a_server.py": ""})  # what is found now did not change
    assert judged(root) == SERVED


def test_a_tree_in_a_folder_is_compared_in_its_repository(repository: Make) -> None:
    root = repository({f"inner/{path}": text for path, text in FILES.items()})
    write(root, {"inner/dashboard/manager.py": "class ModelManager:\n    x = 1\n"})
    tree = open_tree(root / "inner")
    found = compare(tree, "main", all_tasks(), driving(tree, []))
    assert ({task.number for task in found.judged}, found.changed) == (SERVED, ("dashboard/manager.py",))


def test_each_left_out_task_says_what_is_as_it_was(repository: Make) -> None:
    tree = open_tree(repository())
    why = compare(tree, "main", all_tasks()[9:10], driving(tree, [])).left_out["task-10"]
    shown = "bit_transformer/model.py, bit_transformer/__init__.py and 1 more"
    assert why == f"nothing that its judge runs has changed: {shown} are as at main"


def test_the_trees_own_tests_are_compared(repository: Make) -> None:
    root = repository({"tests/helping.py": "def ok(x):\n    assert x\n"})
    write(root, {"tests/test_model.py": "def test_one():\n    pass\n"})
    tree = open_tree(root)
    tests = compare(tree, "main", all_tasks(), driving(tree, [])).tests
    assert (tests.before, tests.now) == (1, 1)
    assert tests.detail == ("tests/test_model.py:1: test_one asserts nothing any more",)


SCHEMA = json.loads((ROOT / "verify/schemas/verify.json").read_text())


@pytest.mark.parametrize(
    ("detail", "outcome", "code"),
    [((), Outcome.VERIFIED, 0), (("tests/test_a.py:1: test_a is gone",), Outcome.VIOLATED, 4)],
)
def test_with_every_task_left_out_the_trees_tests_decide(detail: tuple[str, ...], outcome: Outcome, code: int) -> None:
    since = Since("main", ("README.md",), {"task-1": "nothing changed"}, OwnTests(2, 1, detail))
    report = Report(Path("/tree"), (), None, 0.0, since)
    assert (report.verdict, exit_code(report)) == (outcome, code)
    jsonschema.Draft202012Validator(SCHEMA).validate(report.to_json())
    text = text_of(report)
    assert "no task is left to be judged" in text
    assert all(line in text for line in detail)


def test_verify_without_anything_to_judge_starts_no_judge(
    run: Callable[..., tuple[int, str, str]], repository: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = repository()
    monkeypatch.setattr(
        "bitpatch.verify.running.runner.require_packages", lambda: pytest.fail("nothing is to be judged")
    )
    code, out, _ = run("verify", "--since", "main", "--tree", root, "--json")
    found = json.loads(out)
    assert (code, found["verdict"], found["tasks"], found["sanity_fit"]) == (0, "verified", [], None)
    assert [each["id"] for each in found["since"]["left_out"]] == [task.id for task in all_tasks()]
    (root / "tests/test_model.py").unlink()
    code, out, _ = run("verify", "task-4", "--since", "main", "--tree", root)
    assert (code, "test_one is gone" in out) == (4, True)


def test_verify_of_an_unknown_commit_is_wrong_usage(run: Callable[..., tuple[int, str, str]], repository: Make) -> None:
    code, out, _ = run("verify", "--since", "nowhere", "--tree", repository(), "--json")
    assert (code, json.loads(out)["error"]["next"]) == (2, "git fetch origin nowhere")


ASKED = re.compile(r"""tree\.(?:part|module)\(\s*"(\w+)"|import_from\([^\n"]*\["([\w.]+)"|seams\.part\("([\w-]+)"\)""")
USES = {
    r"\.kind\b|\.model\(|model_module": "model",
    r"tree\.train\(|load_loop|loop_takes|require_option": "update",
    r"seams\.command\(": "command-line",
    r"SERVERS\b": "mcp_server",
    r"DASHBOARDS\b": "dashboard.app",
    r"MANAGERS\b": "manager",
    r"schedule\(tree\)": "data.wikitext_schedule",
}
VERIFY = ROOT / "verify"


def defined(path: Path) -> dict[str, str]:
    """What a module defines at its top, as text."""
    text, found = path.read_text(), {}
    for node in ast.parse(text).body:
        targets = getattr(node, "targets", [getattr(node, "target", node)])
        for name in {getattr(each, "name", getattr(each, "id", "")) for each in targets} - {""}:
            found[name] = ast.get_source_segment(text, node) or ""
            found[name] += "".join(ast.unparse(each) for each in getattr(node, "decorator_list", ()))
    return found


def reached(judge: Path) -> Iterator[str]:
    """The text of what a judge defines, and of what that names in the rooms of verify, and so on."""
    modules, seen, pending = {}, set[tuple[Path, str]](), [(judge, name) for name in defined(judge)]
    while pending:
        path, name = pending.pop()
        if (path, name) in seen or not path.is_file():
            continue
        seen.add((path, name))
        if path not in modules:
            imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
            folder = {1: path.parent, 2: path.parent.parent}
            own = [(each, n) for n in imports if n.level in folder for each in n.names]
            froms = {e.name: folder[n.level] / f"{(n.module or '').replace('.', '/')}.py" for e, n in own}
            modules[path] = defined(path), froms
        names, froms = modules[path]
        if name in names and path.name not in ("tree.py", "seams.py", "space.py"):
            yield names[name]
            words = set(re.findall(r"\w+", names[name]))
            pending += [(path, word) for word in words & names.keys()]
            pending += [(froms[word], word) for word in words & froms.keys()]


@pytest.mark.parametrize("judge", sorted(VERIFY.glob("task_*.py")), ids=lambda path: path.stem)
def test_the_table_has_all_that_a_judge_asks_for(judge: Path) -> None:
    text, wanted = "\n".join(reached(judge)), set()
    for module, dotted, seam in ASKED.findall(text):
        wanted |= {f"bit_transformer.{module}"} if module else {dotted or seam}
    wanted |= {need for pattern, need in USES.items() if re.search(pattern, text)}
    needs = NEEDS[int(judge.stem[5:7])]
    assert wanted
    assert {LAYOUT.get(need, need) for need in wanted} <= {LAYOUT.get(need, need) for need in needs}
