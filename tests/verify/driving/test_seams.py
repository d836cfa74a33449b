"""Trees driven through their seams: modules that are written here, in all the ways in which forks spell things."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bitpatch.patches.files.spellings import DRIVER
from bitpatch.verify.driving.manager_sessions import seam_or
from bitpatch.verify.driving.operations import fresh_modules
from bitpatch.verify.driving.seams import AbsentPart, MissingSeam, Part, Seams, spoken
from bitpatch.verify.driving.tree import Tree
from bitpatch.verify.running.evidence import failed

SOURCE = """
    from dataclasses import dataclass
    import sys
    from torch import nn

    @dataclass
    class Options:
        rounds: int = 1
        bf16: bool = False

    class Net(nn.Module):
        def __init__(self, width, depth=1, keep_maps=True):
            super().__init__()
            self.told = {"width": width, "depth": depth, "keep_maps": keep_maps}

    def fit(net, rows, *, accumulate=1, bf16=False):
        return {"net": net, "rows": rows, "accumulate": accumulate, "bf16": bf16}

    def fit_by(net, rows, options: Options):
        return options

    def fit_and_look(net, rows, amp="off", val_rows=None, value=None):
        return val_rows, value

    def fit_with(net, rows, tracker):
        return tracker

    class Trainer:
        def __init__(self, net, options):
            self.net, self.options = net, options

        def run(self, rows):
            return self.net, self.options, rows

    said = []
    if __name__ == "__main__":
        said.append(sys.argv[1:])
        import bitseams_said
        bitseams_said.said = sys.argv[1:]
"""
ROLES = {"net": "model", "rows": "data"}
RECORD = {**ROLES, "options": "bitseams_tree:Options"}
OPTIONS = {"epochs": "rounds", "amp": "bf16"}
MODEL, DATA = nn.Identity(), torch.zeros(2, 3)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "bitseams_tree.py").write_text(textwrap.dedent(SOURCE))
    (tmp_path / "bitseams_said.py").write_text("said = None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("bitseams_")]:
        del sys.modules[name]


def seams(root: Path, **found: tuple[str, dict[str, str], dict[str, str]]) -> Seams:
    named = {name.replace("_", "-"): each for name, each in found.items()}
    return Seams(root, {n: {"where": w, "options": o, "roles": r, "settle": ""} for n, (w, o, r) in named.items()})


def test_a_model_is_made_in_its_own_words(root: Path) -> None:
    words = {"d_model": "width", "num_layers": "depth", "full_attn_logging": "keep_maps"}
    tree = seams(root, model=("bitseams_tree:Net", words, {}))
    made: Any = tree.model({"d_model": 8, "num_layers": 2, "dim_feedforward": 16, "reversible": False})
    assert made.told == {"width": 8, "depth": 2, "keep_maps": True}
    assert tree.model({"d_model": 8, "full_attn_logging": None}).told["keep_maps"] is True
    assert tree.model({"d_model": 8, "full_attn_logging": False}).told["keep_maps"] is False
    with pytest.raises(MissingSeam, match=r"takes no reversible; settle it: .*options\.model\] reversible"):
        tree.model({"d_model": 8, "reversible": True})


def test_a_loop_is_called_in_its_own_words(root: Path) -> None:
    words = {"accum_steps": "accumulate", "amp": "bf16"}
    tree = seams(root, update=("bitseams_tree:fit", words, ROLES))
    ran = tree.train(MODEL, DATA, {"accum_steps": 3, "amp": "bf16", "compress_prob": 0.0})
    assert (ran["net"] is MODEL, ran["rows"] is DATA, ran["accumulate"], ran["bf16"]) == (True, True, 3, True)
    assert tree.train(MODEL, DATA, {"amp": "off"})["bf16"] is False
    with pytest.raises(MissingSeam, match="takes no extra_steps"):
        tree.train(MODEL, DATA, {"extra_steps": 1})


def test_options_go_into_the_record_that_holds_them(root: Path) -> None:
    told = seams(root, update=("bitseams_tree:fit_by", OPTIONS, RECORD)).train(
        MODEL, DATA, {"epochs": 3, "amp": "bf16"}
    )
    assert (told.rounds, told.bf16) == (3, True)


def test_a_method_is_asked_of_what_is_made_first(root: Path) -> None:
    tree = seams(root, update=("bitseams_tree:Trainer.run", OPTIONS, RECORD))
    net, options, rows = tree.train(MODEL, DATA, {"epochs": 2})
    assert (net is MODEL, options.rounds, rows is DATA) == (True, 2, True)
    assert tree.part("update").takes("epochs")
    assert not tree.part("update").takes("accum_steps")


def test_what_is_not_known_to_be_what_is_asked_for(root: Path) -> None:
    with pytest.raises(MissingSeam, match=r"wants for tracker is not known; settle it: a function train\(model, data"):
        seams(root, update=("bitseams_tree:fit_with", {}, ROLES)).train(MODEL, DATA, {})
    with pytest.raises(MissingSeam, match="seam gate: is not found"):
        seams(root).part("gate")
    with pytest.raises(MissingSeam, match="has no Nat"):
        seams(root, model=("bitseams_tree:Nat", {}, {})).model({})


def test_a_module_that_does_not_import_is_no_missing_seam(root: Path) -> None:
    (root / "bitseams_broken.py").write_text("import no_such_module\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        seams(root, model=("bitseams_broken:Net", {}, {})).model({})


def test_what_the_tree_says_itself_comes_first(root: Path) -> None:
    (root / DRIVER).write_text(
        "def model(**config):\n    return ('model', config)\n\n"
        "def train(model, data, **options):\n    return (model, data, options)\n"
    )
    tree = seams(root, model=("bitseams_tree:Net", {}, {}), update=("bitseams_tree:fit", {}, ROLES))
    assert tree.model({"d_model": 8, "reversible": False, "use_act": True}) == (
        "model",
        {"d_model": 8, "use_act": True},
    )
    assert tree.train(MODEL, DATA, {"accum_steps": 1, "epochs": 2}) == (MODEL, DATA, {"epochs": 2})


def test_what_says_nothing_here_may_say_something_there(root: Path) -> None:
    (root / DRIVER).write_text(
        "def train(model, data, **options):\n    return fit(model, data, **options)\n\n"
        "def fit(model, data, compress_prob=0.5, epochs=1):\n    return (compress_prob, epochs)\n"
    )
    shares = {"compress_prob": 0.0, "direct_prob": 0.0, "log": False}
    assert seams(root).train(MODEL, DATA, shares) == (0.0, 1)
    with pytest.raises(TypeError, match="direct_prob"):
        seams(root).train(MODEL, DATA, shares | {"direct_prob": 1.0})


def test_rows_to_validate_on_are_given_where_autocast_is_asked_about(root: Path) -> None:
    tree = seams(root, update=("bitseams_tree:fit_and_look", {}, ROLES))
    assert tree.train(MODEL, DATA, {"amp": "bf16"}) == (None, None)
    tree.evaluates = True
    for options in ({}, {"amp": "off"}, {"amp": "bf16"}):  # or these would differ by more than autocast
        held_out, value = tree.train(MODEL, DATA, options)
        assert (len(held_out), value) == (2, None)


@pytest.mark.parametrize(("state", "is_violated"), [("missing", True), ("partial", True), ("applied", False)])
def test_an_option_that_comes_with_another_is_wanted_where_that_is(root: Path, state: str, is_violated: bool) -> None:
    found = {"update": {"where": "bitseams_tree:fit", "options": {}, "roles": ROLES}}
    tree = Tree(root, driving={"roots": [""], "seams": found, "states": {"warmup_steps": state}})
    if is_violated:
        assert tree.require_option("global_step") == failed("fit takes no global_step")
    else:
        with pytest.raises(MissingSeam, match="global_step, though something like it is there"):
            tree.require_option("global_step")


def test_an_option_that_another_loop_has_is_settled_by_a_function_and_by_no_word_for_it(root: Path) -> None:
    found = {"update": {"where": "bitseams_tree:fit", "options": {}, "roles": ROLES}}
    told = {"roots": [""], "seams": found, "states": {"warmup_steps": "applied"}}
    tree = Tree(root, driving=told | {"elsewhere": {"warmup_steps": "train.py:7"}})
    for name in ("warmup_steps", "global_step"):
        with pytest.raises(
            MissingSeam, match=rf"takes no {name}, .* at train.py:7; settle it: a function train\(model"
        ):
            tree.require_option(name)


def test_an_option_may_be_a_switch(root: Path) -> None:
    assert seams(root, update=("bitseams_tree:fit", {"amp": "bf16"}, ROLES)).is_switch("amp")
    assert not seams(root, update=("bitseams_tree:fit", {}, ROLES)).is_switch("accumulate")
    (root / DRIVER).write_text("def train(model, data, amp='off', **options):\n    pass\n")
    assert not seams(root, update=("bitseams_tree:fit", {"amp": "bf16"}, ROLES)).is_switch("amp")


@pytest.mark.parametrize(
    ("parameter", "is_switch"),
    [
        ("amp: bool", True),
        ("amp=False", True),
        ("amp: 'bool | None' = None", True),
        ("amp: Optional[bool] = None", True),
        ("amp: bool | str = 'off'", False),
        ("amp=None", False),
    ],
    ids=["by its type", "by its default", "by a type in quotes", "by a type that may be None", "a word", "unsaid"],
)
def test_a_switch_is_told_on_or_off_by_whatever_drives_the_loop(root: Path, parameter: str, is_switch: bool) -> None:
    begin = "from typing import Optional\n\ndef {}({}, {}):\n    return amp\n"
    (root / "bitseams_switch.py").write_text(begin.format("fit", "net, rows", parameter))
    tree = seams(root, update=("bitseams_switch:fit", {}, ROLES))
    on, off = (True, False) if is_switch else ("bf16", "off")
    assert [tree.train(MODEL, DATA, {"amp": amp}) for amp in ("bf16", "off")] == [on, off]
    (root / DRIVER).write_text(begin.format("train", "model, data", parameter))
    assert seams(root).is_switch("amp") is is_switch
    assert seams(root).train(MODEL, DATA, {"amp": "bf16"}) == on


def test_bitpatch_seams_stands_for_parts_that_are_called_otherwise(root: Path) -> None:
    (root / DRIVER).write_text("def compress_bits(bits):\n    return bits\n\ndef manager(folder):\n    return folder\n")
    tree = Tree(root, driving={"roots": [""], "seams": {}})
    assert tree.part("compression", "compress_bits")("a") == "a"
    assert seam_or(tree, "manager", (), "ModelManager")("b") == "b"
    with pytest.raises(MissingSeam, match="settle it: a function text_to_bits"):
        tree.part("bit_nowhere", "text_to_bits")


def test_bitpatch_seams_is_imported_anew_with_its_tree(root: Path) -> None:
    (root / "bitseams_counted.py").write_text("made = []\n")
    (root / DRIVER).write_text("from bitseams_counted import made\n\ndef model():\n    return made\n")
    tree = Tree(root, driving={"roots": [""], "seams": {}})
    first: Any = tree.seams.own("model")
    with fresh_modules(tree):
        other: Any = tree.seams.own("model")
        assert other() is not first()
    assert tree.seams.own("model") is first


class Answers(nn.Module):
    """A model that always hides the future, or says so, or knows windows that do."""

    def __init__(self, kind: str, chunk_size: int | None) -> None:
        super().__init__()
        self.kind, self.chunk_size = kind, chunk_size

    def forward(self, bits: torch.Tensor, **told: bool) -> tuple[torch.Tensor]:
        if self.kind == "hides" and told:
            raise TypeError("unexpected keyword")
        if self.kind == "says so" and not told.get("causal", True):
            raise NotImplementedError
        shown = bits + (self.kind == "windows" and self.chunk_size is not None)
        return (shown[..., None].float().expand(-1, -1, 2),)


@pytest.mark.parametrize(
    ("kind", "looks"),
    [
        ("hides", (False, False)),
        ("says so", (False, False)),
        ("windows", (True, True)),
        ("no windows then", (True, False)),
    ],
)
def test_what_causal_false_is_for_is_tried(root: Path, kind: str, looks: tuple[bool, bool]) -> None:
    (root / DRIVER).write_text("def model(chunk_size=None, **config):\n    return make(chunk_size)\n")
    tree = Tree(root, driving={"roots": [""], "seams": {}})
    vars(sys.modules[tree.seams.own("model").__module__])["make"] = lambda size: Answers(kind, size)  # type: ignore[union-attr]
    assert tree.looks_ahead == looks


def test_a_command_line_is_spoken_in_its_own_words(root: Path) -> None:
    options = {"num_layers": "--depth", "data": "text", "amp": "--bf16", "compile": "--compile"}
    part = Part("command-line", "bitseams_tree:", options, {"--bf16": "switch"})
    words = ["--data", "a.txt", "--layers", "2", "--amp", "bf16"]
    assert spoken(part, words) == ["a.txt", "--depth", "2", "--bf16"]
    assert spoken(part, ["--amp", "off", "--compile"]) == ["--compile"]
    assert spoken(part, ["--no-compile", "--no-amp", "--layers", "2"]) == ["--no-compile", "--depth", "2"]
    with pytest.raises(MissingSeam, match="takes no --accum_steps"):
        spoken(part, ["--accum_steps", "2"])


def test_modules_are_those_of_the_models_package_or_of_a_seam(root: Path) -> None:
    for file in ("bitseams_own/__init__.py", "bitseams_own/lm.py", "bitseams_own/safety.py", "bitseams_own/trainer.py"):
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_text("")
    seams = {"model": {"where": "bitseams_own.lm:Net"}, "update": {"where": "bitseams_own.trainer:fit"}}
    tree = Tree(root, driving={"roots": [""], "seams": seams})
    assert tree.module("safety").__name__ == "bitseams_own.safety"
    assert tree.module("training").__name__ == "bitseams_own.trainer"
    with pytest.raises(MissingSeam, match=r"bitseams_own\.compression"):
        tree.module("compression")


def test_a_command_line_runs_as_a_module_does(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest"])
    seams(root, command_line=("bitseams_tree:", {"data": "text"}, {})).command(["--data", "a.txt"])
    assert sys.modules["bitseams_said"].said == ["a.txt"]


def test_an_option_that_a_tree_has_under_a_name_that_is_not_seen_is_no_default(root: Path) -> None:
    part = Part("update", "bitseams_tree:fit_by", {}, {}, ("compress_prob",))
    with pytest.raises(MissingSeam, match="takes no compress_prob; settle it"):
        part.told({"compress_prob": 0.0})


def test_a_part_that_a_tree_does_not_have_is_absent_by_its_owners_word(root: Path) -> None:
    (root / DRIVER).write_text("manager = None\ndouble_width = None\ntrain = None\nmain = None\n")
    tree = Tree(root, driving={"roots": [""], "seams": {"command-line": {"where": "bitseams_tree:"}}})
    for absent in ("manager", "double_width"):
        with pytest.raises(AbsentPart, match=f"says that the tree has no {absent}"):
            tree.seams.own(absent)
    for found in ("train", "main"):
        with pytest.raises(MissingSeam, match="says None, and a tree has it"):
            tree.seams.own(found)
    assert tree.seams.own("rows") is None
