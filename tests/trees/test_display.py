import io
import json
import re

import pytest

from bit_transformer import display
from bit_transformer.display import Display

TRAIN = {
    "kind": "train", "step": 3, "epoch": 0, "loss": 0.6931471805599453, "lr": 1e-3, "compress_prob": 0.0,
    "bits_per_second": 1234567.0, "seconds_left": 3725.4,
}  # fmt: skip
EVAL = {"kind": "eval", "step": 4, "loss": 0.5, "bpb_data": 4.25, "parity_waste": 0.125, "bytes": 64}
DROP = {"kind": "drop", "step": 4, "lr": 5e-4, "best": 0.5}
STOP = {"kind": "stop", "step": 4, "ema": 2.5}


def shown(out, *entries, update=0):
    with Display(out, 12, update) as on_show:
        for entry in entries:
            on_show.record(entry)


def steps(out):
    return [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_pipe_gets_plain_lines(tmp_path, capsys):
    shown(tmp_path, TRAIN, EVAL, DROP, STOP)
    assert capsys.readouterr().err.splitlines() == [
        "3/12 loss 0.6931 (9.000 bits/byte) lr 1.00e-03 1,234.6 kbit/s 1:02:05 left",
        "4/12 validation: loss 0.5000, 4.250 bits per byte, parity 0.1250",
        "4/12 the rate is halved to 5.00e-04: no gain on 0.5000",
        "4/12 the safety gate trips: validation loss averages 2.5000",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_gets_a_line_that_lives(width, tmp_path, monkeypatch):
    screen, real = io.StringIO(), display.Console
    monkeypatch.setattr(display, "Console", lambda **_: real(file=screen, force_terminal=True, width=width))
    shown(tmp_path, TRAIN, EVAL)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert plain != screen.getvalue()
    assert "3/12 loss 0.6931 (9.000 bits/byte) lr 1.00e-03 1,234.6 kbit/s 1:02:05 left" in plain
    assert "4/12 validation: loss 0.5000" in plain
    assert ("━" in plain) == (width == 120)


def test_a_record_is_in_the_file_as_soon_as_it_is_made(tmp_path):
    with Display(tmp_path, 12, 0) as on_show:
        on_show.record(TRAIN)
        assert (tmp_path / "metrics.jsonl").read_text() == json.dumps(TRAIN) + "\n"
        on_show.flush()


def test_a_process_that_is_not_the_first_writes_nothing(tmp_path, capsys):
    with Display(tmp_path, 12, 0, is_main=False) as on_show:
        on_show.record(TRAIN)
        on_show.flush()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("update", "expected"), [(0, []), (1, [0, 1]), (2, [0, 1, 2, 2]), (9, [0, 1, 2, 2, 3])])
def test_records_after_the_update_are_dropped_and_torn_lines_too(update, expected, tmp_path):
    lines = ['{"kind": "start", "step": 0}', '{"step": 1}', "[2]", '{"step": 2}', '{"step": 2, "x', '{"step": 2}']
    lines += ['{"step": "x"}', '{"step": 3}', '{"step": 4, "ki']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    shown(tmp_path, update=update)
    assert steps(tmp_path) == expected
    shown(tmp_path, TRAIN, update=update)
    assert steps(tmp_path) == [*expected, 3]
