import inspect

import pytest

from bit_transformer.checkpoint import load_checkpoint
from data import wikitext_schedule
from data.wikitext_schedule import grow, main

SMALL = ["--layers", "1", "--d_model", "8", "--nhead", "2", "--max_seq_len", "72"]
LIMITS = ["--most_layers", "2", "--most_width", "16", "--most_bits", "144"]


@pytest.fixture(scope="module")
def corpus_file(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("schedule") / "corpus.txt"
    path.write_text(corpus[:1000], encoding="utf-8")
    return path


def test_a_model_that_stops_learning_grows_to_its_limits(corpus_file, tmp_path, capsys):
    out = tmp_path / "model.pt"
    main(["--data", str(corpus_file), "--out", str(out), "--rounds", "6", "--min_gain", "9", *SMALL, *LIMITS])
    config = load_checkpoint(out)["model"].config
    assert (config["num_layers"], config["d_model"], config["max_seq_len"]) == (2, 16, 144)
    assert capsys.readouterr().out.count("validation") == 6


def test_a_model_that_learns_stays_as_it_is(corpus_file, tmp_path):
    out = tmp_path / "model.pt"
    main(["--data", str(corpus_file), "--out", str(out), "--rounds", "2", "--min_gain", "-9", *SMALL, *LIMITS])
    assert load_checkpoint(out)["model"].config["d_model"] == 8


def test_rounds_have_one_clock(corpus_file, monkeypatch):
    if "global_step" not in inspect.signature(wikitext_schedule.train_loop).parameters:
        pytest.skip("this tree has no ramp")
    started, real = [], wikitext_schedule.train_loop

    def noting(*args, **kwargs):
        started.append(kwargs["global_step"])
        return real(*args, **kwargs)

    monkeypatch.setattr(wikitext_schedule, "train_loop", noting)
    main(["--data", str(corpus_file), "--rounds", "3", "--epochs", "2", "--min_gain", "-9", *SMALL, *LIMITS])
    per_round = 2 * -(-(125 - 12) // 8)  # 125 rows, of which 12 are held out, in micro-batches of 8
    assert started == [0, per_round, 2 * per_round]


def test_a_text_that_fills_one_row_is_refused(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("a" * 9)
    with pytest.raises(ValueError, match="more text"):
        main(["--data", str(path), *SMALL])


def test_dimensions_take_turns_and_full_ones_are_passed_over(make_model):
    model = make_model()
    limits = {"max_seq_len": 48, "d_model": 16, "num_layers": 4}
    assert grow(model, 0, limits).config["d_model"] == 16
    assert grow(model, 2, limits).config["num_layers"] == 4
    assert grow(model, 0, {"max_seq_len": 48, "d_model": 8, "num_layers": 2}) is model
