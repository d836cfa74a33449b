"""The card of a run says what can be checked of it: text, flags, figures, and the tensors that a reader finds."""

import re
import shlex

from safetensors.torch import load_file
from trees import running  # noqa: F401 - skips this file where it cannot run

from bit_transformer.checkpoint import save_checkpoint
from bit_transformer.model import BitTransformerLM
from bit_transformer.run_card import TENSORS, run_card
from bit_transformer.run_flags import run_parser, values_of

FOUND = {
    "updates": 1200,
    "evaluation": {"bytes": 64, "bpb_data": 2.5},
    "alone": {"gzip_9": 3.0},
    "given_train": {"xz_9e": 2.25},
}


def card(*words, **more):
    values = values_of(run_parser(), [*words, "--out", "runs/mine"])
    sizes = {"context_orders": values["context_orders"], "context_slots": 64}
    model = BitTransformerLM(16, 2, 1, 32, max_seq_len=72, **sizes)
    return values, model, run_card(values, model.config, model.state_dict(), FOUND | more, "abc123")


def test_its_command_line_makes_the_run_again():
    values, _, text = card("task-b", "--lr", "0.5", "--data", "a b.txt", "--no-act", "--seed", "3")
    command = re.search(r"^\$ python -m bit_transformer.training (.*)$", text, re.MULTILINE)[1]
    again = values_of(run_parser(), [*shlex.split(command), "--out", "runs/mine"])
    assert again == values | {"preset": None}


def test_its_figures_are_in_order_and_its_text_is_named():
    _, _, text = card("--data", "a.txt", "--val_data", "b.txt")
    assert re.findall(r"^\| .*? \| (\d\.\d+) \|$", text, re.MULTILINE) == ["2.250", "2.500", "3.000"]
    assert "- `a.txt`" in text
    assert "- `b.txt`, to validate on" in text
    assert "`abc123`" in text


def test_each_tensor_of_the_file_is_explained(tmp_path):
    _, model, _ = card()
    save_checkpoint(tmp_path / "model.safetensors", model)
    kinds = "|".join(
        ("embedding", "position", r"layers\.\d+\.(attention\.[qkv]|norm|feedforward)", "attention", "norm", "out")
    )
    names = load_file(tmp_path / "model.safetensors")
    assert all(re.match(rf"model\.(layers\.\d+\.)?({kinds})", name) for name in names)
    told = " ".join(TENSORS)
    assert all(part in told for name in names for part in (name.split(".")[-1], name.split(".")[-2].split("_")[-1]))


def test_a_run_that_read_the_sample_says_so():
    assert "- the sample that comes with the code" in card()[2]
