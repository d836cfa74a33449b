"""Seams of the forks, of trees that are laid out as ours, and of trees that settle them."""

import shutil
from pathlib import Path

import pytest
from samples import FORKS, ROOT

from bitpatch.patches.applying.driver import draft, write_draft
from bitpatch.patches.files.settled import WronglySettled
from bitpatch.patches.files.spellings import DRIVER
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.seams import NAMES, seams
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import BitpatchError
from bitpatch.verify.running.driven import driving

WHERE = {
    "byhand": {
        "model": "bit_transformer.model:BitTransformerLM",
        "attention": "bit_transformer.model:BitAttention._attend_all",
        "update": "bit_transformer.training:train_loop",
        "command-line": "bit_transformer.training:",
        "rows": "wikitext_schedule:build_dataset",
        "gate": "bit_transformer.safety:SafetyGate",
        "manager": "bit_transformer.dashboard_app:ModelManager",
    },
    "conf_engine": {
        "model": "bitnet.nn.lm:BitTransformerLM",
        "update": "bitnet.engine.loop:Engine.fit",
        "gate": "bitnet.safety:Gate",
        "command-line": "",
    },
    "functional": {
        "model": "bitlm.model:BitLM",
        "attention": "bitlm.attention:attend",
        "update": "bitlm.loop:fit",
        "command-line": "bitlm.cli:",
        "gate": "bitlm.gate:Gate",
        "manager": "",
    },
    "lightning_like": {
        "model": "bt.network:BitTransformerLM",
        "update": "bt.engine:Engine.fit",
        "command-line": "train:",
        "manager": "bt.manager:ModelManager",
    },
    "scripty": {
        "model": "model:BitTransformerLM",
        "attention": "model:Attention.attend",
        "update": "",
        "rows": "wikitext_schedule:load_rows",
        "gate": "safety:gate_ok",
    },
    "trainer": {
        "model": "bitformer.network:BitTransformerLM",
        "update": "bitformer.trainer:Trainer.run",
        "command-line": "bitformer.cli:",  # whose options are those of records: judges ask its parser
        "gate": "bitformer.guard:SafetyGate",
        "manager": "bitformer.session:ModelManager",
    },
    "upstream_like": {
        "model": "bit_transformer.model:BitTransformerLM",
        "update": "bit_transformer.training:train_loop",
        "gate": "bit_transformer.safety:SafetyGate",
        "manager": "bit_transformer.dashboard_app:ModelManager",
    },
}
SPELLED = {
    "byhand": {"update": {"compile": "compile_model", "amp": "amp"}},
    "conf_engine": {"model": {"num_layers": "depth", "chunk_size": "chunk", "full_attn_logging": "keep_maps"}},
    "functional": {
        "model": {"chunk_size": "window", "overlap": "lookback"},
        "command-line": {"num_layers": "--num-layers"},
    },
    "lightning_like": {"update": {"epochs": "max_epochs"}},
    "scripty": {"model": {"num_layers": "layers", "dim_feedforward": "ff"}},
    "trainer": {"model": {"nhead": "n_heads"}, "gate": {"threshold": "max_loss"}},
    "upstream_like": {"gate": {"burn_in_steps": "burn_in"}},
}


def fork(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(FORKS / name / "tree", folder / name))


@pytest.mark.parametrize("name", WHERE)
def test_a_forks_seams_are_found_where_they_are(name: str) -> None:
    found = {each.name: each for each in seams(open_tree(FORKS / name / "tree"))}
    assert list(found) == list(NAMES)
    assert {seam: found[seam].where for seam in WHERE[name]} == WHERE[name]
    for seam, options in SPELLED[name].items():
        assert options.items() <= found[seam].options.items()
    for each in found.values():
        assert (each.state == "missing") is (each.where == "") is (each.site is None) is bool(each.settle)


def test_the_probability_of_compressed_rows_is_known_by_what_it_does(tmp_path: Path) -> None:
    root = fork("trainer", tmp_path)
    for name in ("config", "trainer"):
        file = root / f"src/bitformer/{name}.py"
        file.write_text(file.read_text().replace("compress_prob", "shortening"))
    (found,) = (each for each in seams(open_tree(root)) if each.name == "update")
    assert (found.options["compress_prob"], found.unspelled) == ("shortening", ())

    file.write_text(file.read_text().replace("self.cfg.shortening", "chance()"))
    (found,) = (each for each in seams(open_tree(root)) if each.name == "update")
    assert ("compress_prob" in found.options, found.unspelled) == (False, ("compress_prob",))


@pytest.mark.parametrize("name", ["baseline", "reference"])
def test_a_tree_laid_out_as_ours_needs_no_telling(name: str) -> None:
    tree = open_tree(ROOT / name)
    assert all(each.state == "found" for each in seams(tree))
    assert driving(tree, []) is None


def test_a_tree_laid_out_as_ours_under_src_is_told_where_that_is(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "baseline" / "bit_transformer", tmp_path / "src" / "bit_transformer")
    assert driving(open_tree(tmp_path), []) == {"seams": None, "roots": ["src"], "states": {}}


def test_judges_are_told_what_a_record_is_of_and_where_modules_are() -> None:
    told = driving(open_tree(FORKS / "functional" / "tree"), [])
    assert told is not None
    assert told["seams"]["update"]["roles"] == {"model": "model", "rows": "data", "cfg": "bitlm.config:TrainConfig"}
    assert "src" in told["roots"]


def test_judges_are_told_whether_a_task_is_there_whose_option_is_not() -> None:
    tree, task = open_tree(FORKS / "byhand" / "tree"), task_named("task-6")
    assert (driving(tree, [task]) or {})["states"] == {"warmup_steps": "missing"}


@pytest.mark.parametrize(("name", "places"), [("scripty", {"accum_steps": "train.py:103"}), ("upstream_like", {})])
def test_judges_are_told_where_an_option_is_if_not_by_the_loop_that_they_drive(
    name: str, places: dict[str, str]
) -> None:
    tasks = [task_named("task-3"), task_named("task-4")]
    assert (driving(open_tree(FORKS / name / "tree"), tasks) or {})["elsewhere"] == places


def test_what_pyproject_settles_comes_first(tmp_path: Path) -> None:
    tree = fork("functional", tmp_path)
    (tree / "pyproject.toml").write_text(
        '[tool.bitpatch.seams]\nmanager = "bitlm.gate:Gate"\nupdate = "bitlm.loop:mean_loss"\n'
        '[tool.bitpatch.options.update]\nbatch_size = "rows"\n'
    )
    found = {each.name: each for each in seams(open_tree(tree))}
    assert (found["manager"].state, found["manager"].where) == ("settled", "bitlm.gate:Gate")
    assert (found["update"].where, found["update"].options) == ("bitlm.loop:mean_loss", {"batch_size": "rows"})
    assert found["model"].state == "found"


@pytest.mark.parametrize(
    ("settled", "said"),
    [
        ('[tool.bitpatch.options]\nupdate = "amp"', "expected one table a seam"),
        ('[tool.bitpatch.options.updat]\namp = "x"', "expected one table a seam"),
        ('[tool.bitpatch.options.update]\nampp = "x"', "there is no such option"),
        ("[tool.bitpatch.options.update]\namp = true", "expected what the tree calls it"),
        ('[tool.bitpatch.seams]\ngate = "bitlm.gate:Gat"', "defines no function or class Gat"),
    ],
)
def test_what_is_settled_wrongly_is_refused_with_its_line(settled: str, said: str, tmp_path: Path) -> None:
    tree = fork("functional", tmp_path)
    (tree / "pyproject.toml").write_text(settled + "\n")
    with pytest.raises(WronglySettled, match=r"pyproject\.toml:[12]: tool\.bitpatch") as error:
        seams(open_tree(tree))
    assert said in str(error.value)


def test_a_driver_is_begun_with_what_was_found(tmp_path: Path) -> None:
    tree = fork("byhand", tmp_path)
    found = seams(open_tree(tree))
    assert write_draft(tree, found) == tree / DRIVER
    text = (tree / DRIVER).read_text()
    compile(text, DRIVER, "exec")
    assert "return BitTransformerLM(**config)" in text
    assert "train_loop(model, data, **{{'compile': 'compile_model'}.get(name, name)" in text
    with pytest.raises(BitpatchError, match="is there already"):
        write_draft(tree, found)
    assert (tree / DRIVER).read_text() == text


def test_what_is_not_called_in_one_go_is_asked_for() -> None:
    text = draft(seams(open_tree(FORKS / "scripty" / "tree"))) + draft(seams(open_tree(FORKS / "trainer" / "tree")))
    compile(text, DRIVER, "exec")
    assert "# It was not found.\n# def train(model, data, **options):" in text
    assert "# bitformer.trainer:Trainer.run was found, and is not called in one go: how is it?" in text


SERVER = """\
import threading

import torch
import torch.nn.functional as F


class Server:
    def __init__(self, model):
        self.model, self.lock = model, threading.Lock()
        self.optimizer = torch.optim.AdamW(model.parameters())

    def train(self, rows, epochs=1):
        with self.lock:
            for _ in range(epochs):
                for batch in rows.split(8):
                    logits, _ = self.model(batch)
                    F.cross_entropy(logits[:, :-1].reshape(-1, 2), batch[:, 1:].reshape(-1)).backward()
                    self.optimizer.step()
                    self.optimizer.zero_grad()


SERVED = Server
"""


def test_a_loop_that_answers_requests_is_not_the_run(tmp_path):
    tree = tmp_path / "tree"
    shutil.copytree(FORKS / "functional" / "tree", tree)
    (tree / "src/bitlm/a_server.py").write_text(SERVER)
    (tree / "src/bitlm/a_user.py").write_text("from .a_server import Server\n\nprint(Server)\n")
    (update,) = [each for each in seams(open_tree(tree)) if each.name == "update"]
    assert update.where == "bitlm.loop:fit"


def test_a_function_is_led_to_by_who_names_it_not_by_who_has_a_method_so_called(tmp_path):
    tree = tmp_path / "tree"
    shutil.copytree(FORKS / "functional" / "tree", tree)
    loop = tree / "src/bitlm/loop.py"
    text = loop.read_text()
    loop.write_text(
        text + "\n\ndef score(model, rows):\n    model.eval()\n    model.fit(rows)\n    return model(rows)\n"
    )
    (update,) = [each for each in seams(open_tree(tree)) if each.name == "update"]
    assert update.where == "bitlm.loop:fit"
