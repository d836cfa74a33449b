import os
import subprocess
import sys

import pytest
import torch

from bit_transformer import BitTransformerLM
from bit_transformer.bit_io import bits_to_rows, text_to_bits
from bit_transformer.checkpoint import load_checkpoint
from bit_transformer.training import (
    IGNORED,
    draw_form,
    main,
    next_bit_accuracy,
    next_bit_loss,
    predict,
    train_loop,
    with_extra_steps,
)

SMALL = {"d_model": 16, "nhead": 2, "num_layers": 1, "dim_feedforward": 32, "max_seq_len": 72}
COMMAND = ["--layers", "1", "--d_model", "16", "--nhead", "2", "--max_seq_len", "288", "--epochs", "1"]


@pytest.fixture(scope="module")
def rows(corpus):
    return bits_to_rows(text_to_bits(corpus), 72)[:96]


@pytest.mark.parametrize(
    "stack",
    [{}, {"use_act": True, "reversible": True}, {"chunk_size": 16, "overlap": 8, "full_attn_logging": False}],
    ids=["plain", "reversible and halting", "chunked"],
)
def test_training_lowers_the_loss(rows, stack):
    history = train_loop(BitTransformerLM(**SMALL, **stack), rows, epochs=10, compress_prob=0.0, lr=1e-2)
    assert [record["epoch"] for record in history] == list(range(10))
    assert history[-1]["loss"] < history[0]["loss"] - 0.1
    assert history[-1]["loss"] < 0.6
    assert history[-1]["accuracy"] > 0.65


@pytest.mark.parametrize(
    "forms", [{"compress_prob": 1.0}, {"direct_prob": 1.0}, {"compress_prob": 0.5, "direct_prob": 0.3}]
)
def test_every_form_of_input_trains(rows, forms):
    model = BitTransformerLM(**SMALL)
    before = [parameter.clone() for parameter in model.parameters()]
    history = train_loop(model, rows[:24], epochs=2, **forms)
    assert all(0 < record["loss"] < 2 and 0 <= record["accuracy"] <= 1 for record in history)
    assert not any(torch.equal(*pair) for pair in zip(before[:3], model.parameters(), strict=False))


@pytest.mark.parametrize("count", [1, 7, 8, 9, 20])
@pytest.mark.parametrize("extra_steps", [0, 3])
def test_any_number_of_rows_and_extra_steps_trains(rows, count, extra_steps):
    history = train_loop(BitTransformerLM(**SMALL), rows[:count], epochs=2, extra_steps=extra_steps)
    assert len(history) == 2
    assert all(record["lr"] > 0 for record in history)


def test_training_leaves_no_gradients_and_stays_in_training_mode(rows):
    model = BitTransformerLM(**SMALL).eval()
    train_loop(model, rows[:9])
    assert model.training
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


def test_the_log_has_a_line_an_epoch(rows, capsys):
    train_loop(BitTransformerLM(**SMALL), rows[:8], epochs=2, log=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    assert "loss" in lines[0]


def test_extra_steps_repeat_the_last_micro_batch():
    assert list(with_extra_steps([1, 2], 2)) == [1, 2, 2, 2]
    assert list(with_extra_steps([], 2)) == []


def test_the_form_is_drawn_with_the_probabilities_given():
    draws = [draw_form(0.5, 0.2) for _ in range(4000)]
    assert abs(draws.count("direct") / 4000 - 0.2) < 0.03
    assert abs(draws.count("compressed") / 4000 - 0.4) < 0.04
    assert {draw_form(0.0, 0.0) for _ in range(100)} == {"raw"}


def test_a_compressed_micro_batch_scores_as_the_raw_one(rows):
    model = BitTransformerLM(**SMALL).eval()
    raw, targets = predict(model, rows[:4], "raw", {})
    compressed, same_targets = predict(model, rows[:4], "compressed", {})
    torch.testing.assert_close(raw, compressed)
    assert torch.equal(targets, same_targets)


def test_padding_of_a_direct_micro_batch_is_no_target(rows):
    batch = torch.stack([torch.zeros(72, dtype=torch.long), rows[0]])
    logits, targets = predict(BitTransformerLM(**SMALL).eval(), batch, "direct", {})
    assert logits.shape[:2] == targets.shape
    assert targets[0, 14:].eq(IGNORED).all()
    assert not targets[0, :14].eq(IGNORED).any()


def test_the_loss_is_that_of_the_bits_to_come():
    targets = torch.tensor([[1, 0, 1, IGNORED]])
    sure = torch.tensor([[[9.0, -9.0], [-9.0, 9.0], [9.0, -9.0], [9.0, -9.0]]])  # of 0, 1, 0, 0 to come
    assert next_bit_loss(sure, targets) < 1e-6
    assert next_bit_accuracy(sure, targets) == 1
    assert next_bit_accuracy(sure.flip(-1), targets) == 0
    torch.testing.assert_close(next_bit_loss(torch.zeros(1, 4, 2), targets), torch.tensor(2.0).log())


def test_main_trains_and_saves_a_model_that_loads(corpus_file, tmp_path, capsys):
    out = tmp_path / "model.pt"
    main(["--data", str(corpus_file), "--out", str(out), "--reversible", "--act", *COMMAND])
    assert "loss" in capsys.readouterr().out
    assert load_checkpoint(out)["model"].config["reversible"] is True


def test_the_module_runs_without_a_warning(corpus_file, tree):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        sys.executable,
        "-W",
        "error::RuntimeWarning",
        "-m",
        "bit_transformer.training",
        "--data",
        str(corpus_file),
    ]
    run = subprocess.run([*command, *COMMAND], cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "epoch 0: loss" in run.stdout
