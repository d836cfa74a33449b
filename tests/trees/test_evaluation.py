import json
import math
import random
import sys
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Dataset

from bit_transformer.bit_io import text_to_bits
from bit_transformer.checkpoint import save_checkpoint
from bit_transformer.evaluation import (
    SAMPLE,
    Evaluation,
    bytes_of_rows,
    compare,
    comparison_table,
    draw_comparison,
    evaluate,
    main,
    ranking,
    rows_of_bytes,
)
from bit_transformer.ladder import alone, given_train

STACKS = [{}, {"chunk_size": 4, "overlap": 2, "full_attn_logging": False, "use_act": True, "reversible": True}]


class Known(nn.Module):
    """Scores the bit after each prefix of a row by a known function."""

    def __init__(self, odds, dtype=torch.float32):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout()
        self.odds, self.dtype, self.calls = odds, dtype, []

    def forward(self, bits):
        self.calls.append((self.training or self.dropout.training, torch.is_grad_enabled()))
        logits = torch.zeros(*bits.shape, 2, dtype=self.dtype)
        for row, values in enumerate(bits.tolist()):
            for t in range(len(values)):
                logits[row, t, 1] = self.odds(values[: t + 1])
        return logits * self.scale.to(self.dtype), {}


class RowsOf(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index].long()


def random_rows(count=5, bytes_=4):
    return rows_of_bytes(random.Random(1).randbytes(count * bytes_), 9 * bytes_)


def knows_parity(prefix):
    if len(prefix) % 9 != 8:
        return 0.0
    return 1000.0 if sum(prefix[-8:]) % 2 else -1000.0


def recompute(model, rows):
    """Loss, bpb_data and parity_waste by the definition, a bit at a time."""
    data, parity, nats = [], [], []
    for row in rows.tolist():
        with torch.no_grad():
            logits = model(torch.tensor([row]))[0][0].tolist()
        for t, bit in enumerate(row):
            cost = math.log(2)
            if t > 0:
                odds = logits[t - 1][1 - bit] - logits[t - 1][bit]
                cost = math.log1p(math.exp(odds))
                nats.append(cost)
            (parity if t % 9 == 8 else data).append(cost / math.log(2))
    bytes_ = rows.numel() // 9
    return math.fsum(nats) / len(nats), math.fsum(data) / bytes_, math.fsum(parity) / bytes_, bytes_


@pytest.mark.parametrize("stack", STACKS, ids=str)
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_the_figures_are_those_of_their_definition(make_model, stack, batch_size):
    model, rows = make_model(**stack), random_rows()
    found = evaluate(model, rows, batch_size)
    assert (found.loss, found.bpb_data, found.parity_waste, found.bytes) == pytest.approx(
        recompute(model, rows), rel=1e-12
    )


def test_the_loss_is_the_one_of_training(make_model):
    from bit_transformer.training import next_bit_loss

    model, rows = make_model(), random_rows()
    with torch.no_grad():
        expected = next_bit_loss(model(rows.long())[0], rows.long()).item()
    assert evaluate(model, rows, batch_size=2).loss == pytest.approx(expected, rel=1e-12)


def test_a_model_that_knows_nothing_spends_every_bit():
    assert evaluate(Known(lambda prefix: 0.0), random_rows()).to_json() == pytest.approx(
        {"loss": math.log(2), "bpb_data": 8.0, "parity_waste": 1.0, "bytes": 20}, rel=1e-15
    )


def test_a_model_that_knows_parity_wastes_nothing_on_it():
    found = evaluate(Known(knows_parity), random_rows())
    assert found.bpb_data == pytest.approx(8.0, rel=1e-15)
    assert found.parity_waste == 0.0


def test_the_first_bit_of_a_row_costs_one_bit_whatever_the_model():
    found = evaluate(Known(lambda prefix: -1000.0), rows_of_bytes(bytes(12), 36))
    assert found == Evaluation(loss=0.0, bpb_data=3 / 12, parity_waste=0.0, bytes=12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_costs_are_of_more_than_bfloat16(dtype):
    found = evaluate(Known(lambda prefix: 0.5, dtype), rows_of_bytes(b"aZ", 18))
    ones, zeros = 8, 10
    assert sum(text_to_bits("aZ")) == ones
    expected = ones * math.log1p(math.exp(-0.5)) + (zeros - 1) * math.log1p(math.exp(0.5))
    assert found.loss * 17 == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("form", [RowsOf, torch.Tensor.long, torch.Tensor.clone], ids=["data set", "long", "uint8"])
def test_rows_come_in_any_form(make_model, form):
    model, rows = make_model(), random_rows()
    assert evaluate(model, form(rows), batch_size=2) == evaluate(model, rows, batch_size=2)
    assert bytes_of_rows(form(rows)) == bytes_of_rows(rows)


@pytest.mark.parametrize("training", [False, True])
def test_evaluation_leaves_modes_gradients_and_random_numbers_alone(training):
    model = Known(lambda prefix: 0.0).train(training)
    model.dropout.train(not training)
    before = torch.get_rng_state()
    evaluate(model, random_rows(), batch_size=2)
    assert model.calls == [(False, False)] * 3
    assert (model.training, model.dropout.training) == (training, not training)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()


def test_a_model_that_fails_is_left_in_its_mode():
    model = Known(lambda prefix: prefix[100]).train()
    with pytest.raises(IndexError):
        evaluate(model, random_rows())
    assert model.training


def test_every_forward_runs_in_the_callers_autocast(make_model):
    entered, model = [], make_model().float()
    model.out.register_forward_hook(lambda *args: entered.append(args[-1].dtype))

    def bf16():
        return torch.amp.autocast("cpu", torch.bfloat16)

    rows = random_rows()
    found = evaluate(model, rows, batch_size=2, autocast=bf16)
    assert entered == [torch.bfloat16] * 3
    exact = evaluate(model, rows, batch_size=2)
    assert entered[3:] == [torch.float32] * 3
    assert 0 < abs(found.loss - exact.loss) < 0.01


def test_the_context_is_made_anew_for_each_batch():
    made = []

    @contextmanager
    def once():
        made.append(1)
        yield

    evaluate(Known(lambda prefix: 0.0), random_rows(), batch_size=2, autocast=once)
    assert len(made) == 3


@pytest.mark.parametrize("shape", [(2, 10), (2, 8), (2, 0), (18,), (1, 2, 9)], ids=str)
@pytest.mark.parametrize("use", [lambda rows: evaluate(Known(lambda prefix: 0.0), rows), bytes_of_rows])
def test_rows_that_are_no_whole_codewords_are_refused(shape, use):
    with pytest.raises(ValueError, match="multiple of 9 bits"):
        use(torch.zeros(shape, dtype=torch.long))


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no rows"):
        evaluate(Known(lambda prefix: 0.0), torch.zeros(0, 9, dtype=torch.long))


@given(st.text(min_size=1), st.integers(1, 5))
def test_bytes_become_the_rows_of_text_to_bits_and_come_back(text, row_bytes):
    data = text.encode()
    if len(data) < row_bytes:
        with pytest.raises(ValueError, match="do not fill one row"):
            rows_of_bytes(data, 9 * row_bytes)
        return
    rows = rows_of_bytes(data, 9 * row_bytes)
    assert rows.flatten().tolist() == text_to_bits(text)[: rows.numel()]
    assert bytes_of_rows(rows) == data[: len(data) // row_bytes * row_bytes]


@pytest.mark.parametrize("length", [0, -9, 8, 10])
def test_rows_of_another_length_are_refused(length):
    with pytest.raises(ValueError, match="multiple of 9"):
        rows_of_bytes(b"abc", length)


@pytest.mark.parametrize("wrong", [[0] * 8 + [1], [1] + [0] * 8, [2] + [0] * 8, [-1, 1] + [0] * 7], ids=str)
def test_a_word_that_is_no_codeword_is_named(wrong):
    rows = rows_of_bytes(bytes(600), 18).long()
    rows[280, 9:] = torch.tensor(wrong)
    with pytest.raises(ValueError, match="byte 561 is no codeword"):
        bytes_of_rows(rows)


@pytest.fixture(scope="module")
def comparison(corpus):
    data = corpus.encode()
    return compare(Evaluation(loss=0.3, bpb_data=2.5, parity_waste=0.25, bytes=len(data)), data, data[::-1], 20)


def test_a_comparison_is_json_with_all_figures(comparison, corpus):
    assert json.loads(json.dumps(comparison)) == comparison
    assert comparison["evaluation"] == {"loss": 0.3, "bpb_data": 2.5, "parity_waste": 0.25, "bytes": len(corpus)}
    assert comparison["alone"] == alone(corpus.encode())
    assert comparison["given_train"] == given_train(corpus.encode(), corpus.encode()[::-1], 20)


def test_other_bytes_are_refused(corpus):
    with pytest.raises(ValueError, match="evaluated on 20 bytes, got 21"):
        compare(Evaluation(0.3, 2.5, 0.25, 20), corpus.encode()[:21])


def test_the_table_has_every_figure_the_best_first(comparison):
    from rich.console import Console

    console = Console(width=120)
    with console.capture() as captured:
        console.print(comparison_table(comparison))
    text = captured.get()
    values = [value for _, value in ranking(comparison)]
    assert values == sorted(values)
    assert len(values) == 1 + len(comparison["alone"]) + len(comparison["given_train"])
    places = [text.index(f"{name} ") for name, _ in ranking(comparison)]
    assert places == sorted(places)
    assert all(f"{value:.3f}" in text for value in values)
    assert "0.2500" in text
    assert "has read the text that the model was trained on" in text


def test_the_picture_has_a_bar_for_each_the_best_on_top(comparison, tmp_path, monkeypatch):
    from bit_transformer import evaluation

    figures, save = [], evaluation.save_figure
    monkeypatch.setattr(evaluation, "save_figure", lambda *args: figures.append(args[0]) or save(*args))
    png, svg = draw_comparison(comparison, tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in svg.read_text(encoding="utf-8")
    [axes] = figures[0].axes
    assert [bar.get_width() for bar in axes.patches] == [value for _, value in ranking(comparison)]
    assert axes.yaxis_inverted()


def test_without_matplotlib_the_mend_is_named(comparison, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'bitpatch\[train\]'"):
        draw_comparison(comparison, tmp_path)


@pytest.fixture
def checkpoint(make_model, tmp_path):
    save_checkpoint(tmp_path / "model.pt", make_model())
    return str(tmp_path / "model.pt")


def test_the_command_prints_json_and_writes_pictures(checkpoint, corpus_file, corpus, tmp_path, capsys):
    main([checkpoint, "--data", str(corpus_file), "--out", str(tmp_path / "out"), "--json"])
    found = json.loads(capsys.readouterr().out)
    whole = corpus.encode()[: len(corpus) // 5 * 5]
    assert found["evaluation"]["bytes"] == len(whole)
    assert found["alone"] == alone(whole)
    assert "given_train" not in found
    assert json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8")) == found
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.json",
        "comparison.png",
        "comparison.svg",
    }


def test_the_command_prints_a_table_and_a_sample(checkpoint, corpus_file, capsys):
    arguments = [checkpoint, "--data", str(corpus_file), "--sample", "The ", "--sample_bytes", "40", "--seed", "3"]
    main(arguments)
    printed = capsys.readouterr().out
    assert "bzip2 -9" in printed
    assert "given its text" not in printed.split("'given")[0]
    assert "\nThe " in printed
    assert not set(printed) & {chr(code) for code in range(32)} - {"\n", "\t"}
    main([*arguments, "--json"])
    sample = json.loads(capsys.readouterr().out)["sample"]
    main([*arguments[:-1], "4", "--json"])
    assert sample.startswith("The ")
    assert json.loads(capsys.readouterr().out)["sample"] != sample


def test_others_read_the_text_that_is_given(checkpoint, corpus_file, corpus, capsys):
    main([checkpoint, "--data", str(corpus_file), "--train", str(SAMPLE), "--train", str(corpus_file), "--json"])
    found = json.loads(capsys.readouterr().out)
    train = SAMPLE.read_bytes() + corpus_file.read_bytes()
    assert found["given_train"] == given_train(corpus.encode()[: len(corpus) // 5 * 5], train, 5)
    assert found["given_train"]["xz_9e"] < 0.1 < found["alone"]["xz_9e"]


def test_a_sample_may_begin_with_nothing(checkpoint, corpus_file, capsys):
    main([checkpoint, "--data", str(corpus_file), "--sample", "", "--sample_bytes", "0", "--json"])
    assert json.loads(capsys.readouterr().out)["sample"] == ""


def test_the_sample_text_that_ships_is_there():
    assert len(SAMPLE.read_bytes()) > 50_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.pt"], "none.pt"),
        (["{checkpoint}", "--data", "{empty}"], "0 bytes do not fill one row of 5"),
        (["{checkpoint}", "--data", "{text}", "--sample", "a", "--temperature", "-1"], "temperature must be"),
        (["{checkpoint}", "--device", "abacus"], "no device 'abacus' here"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(checkpoint, corpus_file, tmp_path, capsys, arguments, message):
    (tmp_path / "empty.txt").touch()
    places = {"checkpoint": checkpoint, "empty": tmp_path / "empty.txt", "text": corpus_file}
    with pytest.raises(SystemExit) as stop:
        main([argument.format(**places) for argument in arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
