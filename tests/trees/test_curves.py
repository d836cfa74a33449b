import json
import math
import sys
import xml.etree.ElementTree as ET

import pytest

from bit_transformer import curves
from bit_transformer.curves import draw_curves, read_metrics

START = {"kind": "start", "order_0": 4.81}


def train(step, loss=0.5, lr=1e-3):
    return {"kind": "train", "step": step, "loss": loss, "lr": lr, "bits_per_second": 1e5}


def evaluation(step, loss=0.5):
    return {"kind": "eval", "step": step, "loss": loss, "bpb_data": 5.0, "parity_waste": 0.1}


@pytest.fixture
def write(tmp_path):
    def write(records, tail=""):
        path = tmp_path / "metrics.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records) + tail, encoding="utf-8")
        return path

    return write


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would be saved, in order."""
    figures = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, *_rest: figures.append(figure))
    return figures


def points(axes):
    """The curves of a panel by their labels."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


@pytest.mark.parametrize("tail", ["", '{"kind": "tra', '{"kind": "train"}x', '{"kind": "\u00e4'], ids=repr)
def test_whole_lines_are_read_and_a_torn_last_one_is_ignored(write, tail):
    records = [START, train(1), evaluation(1)]
    assert read_metrics(write(records, tail)) == records


def test_a_last_line_torn_within_a_letter_is_ignored(write):
    path = write([START])
    path.write_bytes(path.read_bytes() + '{"kind": "\u00e4'.encode()[:-1])
    assert read_metrics(path) == [START]


def test_a_last_line_that_only_lacks_its_end_is_read(write):
    assert read_metrics(write([START], json.dumps(train(1)))) == [START, train(1)]


def test_a_line_torn_in_the_middle_is_skipped_and_named(write):
    path = write([START], '{"kind": "tr\n' + json.dumps(train(2)) + "\n")
    with pytest.warns(UserWarning, match=r"metrics\.jsonl:2 is no JSON"):
        assert read_metrics(path) == [START, train(2)]


def test_metrics_that_are_not_there_are_said_to_be_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        draw_curves(tmp_path / "none.jsonl", tmp_path)


@pytest.mark.parametrize(
    "records",
    [
        [],
        [START],
        [train(1)],
        [evaluation(1)],
        [START, train(1), evaluation(1)],
        [train(1, math.nan), train(2, math.inf), train(3, 0.5)],
        [train(1, None), {"kind": "train", "step": 2}, {"kind": "other"}, {"kind": "start", "order_0": None}],
        [START, *map(train, range(1, 50)), *map(evaluation, range(10, 50, 10))],
    ],
    ids=["none", "start", "one update", "one evaluation", "one each", "not finite", "gaps", "a run"],
)
def test_both_pictures_are_whole(write, tmp_path, records):
    png, svg = draw_curves(write(records), tmp_path / "new" / "folder")
    assert (png.name, svg.name) == ("curves.png", "curves.svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert png.read_bytes().endswith(b"IEND\xaeB`\x82")
    assert ET.parse(svg).getroot().tag.endswith("svg")
    assert sorted(path.name for path in png.parent.iterdir()) == ["curves.png", "curves.svg"]


def test_the_panels_show_the_metrics(write, tmp_path, drawn):
    records = [START, train(1, 0.7, 1e-3), train(2, 0.6, 5e-4), evaluation(2, 0.65)]
    draw_curves(write(records), tmp_path)
    losses, bits, rates = drawn[0].axes
    assert points(losses) == {"training": ([1, 2], [0.7, 0.6]), "held out": ([2], [0.65])}
    curves_of_bits = points(bits)
    assert curves_of_bits.pop("8 data bits") == ([2], [5.0])
    assert curves_of_bits.pop("parity bit") == ([2], [0.1])
    [(label, (_, heights))] = curves_of_bits.items()
    assert "4.81" in label
    assert heights == [4.81, 4.81]
    assert list(points(rates).values()) == [([1, 2], [1e-3, 5e-4])]


def test_of_a_step_that_was_run_twice_the_last_record_counts(write, tmp_path, drawn):
    draw_curves(write([train(1, 0.7), train(2, 0.6), train(3, 0.5), train(2, 0.4)]), tmp_path)
    assert points(drawn[0].axes[0])["training"] == ([1, 2, 3], [0.7, 0.4, 0.5])


def test_a_long_run_is_drawn_as_means(write, tmp_path, drawn):
    draw_curves(write([train(step, step % 2) for step in range(1, 2501)]), tmp_path)
    [(label, (steps, losses))] = points(drawn[0].axes[0]).items()
    assert label == "training, means of 3"
    assert len(steps) == 834
    assert steps[:2] == [3, 6]
    assert losses[:2] == [2 / 3, 1 / 3]


def test_values_that_are_not_finite_are_left_out(write, tmp_path, drawn):
    draw_curves(write([train(1, 0.7), train(2, math.nan), train(3, math.inf), train(4, 0.4)]), tmp_path)
    assert points(drawn[0].axes[0])["training"] == ([1, 4], [0.7, 0.4])


@pytest.mark.parametrize(("updates", "marker"), [(1, "o"), (2, "None")])
def test_one_update_alone_is_a_dot(write, tmp_path, drawn, updates, marker):
    draw_curves(write([train(step) for step in range(updates)]), tmp_path)
    assert [line.get_marker() for line in drawn[0].axes[0].lines] == [marker]


def test_nothing_to_draw_is_said(write, tmp_path, drawn):
    draw_curves(write([train(1)]), tmp_path)
    losses, bits, _ = drawn[0].axes
    assert [text.get_text() for text in losses.texts] == []
    assert [text.get_text() for text in bits.texts] == ["no records yet"]


def test_the_same_metrics_give_the_same_svg(write, tmp_path):
    path = write([train(1), train(2)])
    assert draw_curves(path, tmp_path / "a")[1].read_bytes() == draw_curves(path, tmp_path / "b")[1].read_bytes()


def test_a_save_that_fails_leaves_the_old_picture_and_no_other_file(write, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    png, svg = draw_curves(write([train(1)]), tmp_path / "out")
    before = png.read_bytes()

    def full_disk(_figure, file, **_options):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="no space"):
        draw_curves(write([train(1), train(2)]), tmp_path / "out")
    assert png.read_bytes() == before
    assert sorted(png.parent.iterdir()) == [png, svg]


def test_without_matplotlib_the_mend_is_named(write, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'bitpatch\[train\]'"):
        draw_curves(write([train(1)]), tmp_path)
