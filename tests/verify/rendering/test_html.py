"""The page: one file that loads nothing, in which nothing of a tree's is markup, and that is small whatever was found."""

import re
import struct
import zlib
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from results import HOSTILE, PICTURES, fit, report, result, shown

from bitpatch.patches.task import Change
from bitpatch.verify.rendering import pictures
from bitpatch.verify.rendering.forms import page
from bitpatch.verify.rendering.html import LARGEST, training_curves
from bitpatch.verify.rendering.report import TaskReport
from bitpatch.verify.running.evidence import Evidence, Picture, Verdict, unproven

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Reader(HTMLParser):
    """The tags of a page, which must be balanced, with their ids and what they refer to, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.ids, self.links, self.tags, self.words = [], [], [], set(), []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)
        known = dict(attrs)
        self.ids += [known["id"]] if "id" in known else []
        self.links += [known[name] for name in ("href", "src", "srcset", "action") if name in known]

    def handle_endtag(self, tag):
        if not self.get_starttag_text().endswith("/>") or self.open[-1:] == [tag]:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def read() -> Reader:
    return Reader(page(shown(report(fit=fit(Verdict.FAIL)))))


def test_nothing_is_loaded_from_elsewhere(read):
    assert [link for link in read.links if not link.startswith(("#", "data:image/png;base64,"))] == []
    assert not read.tags & {"script", "link", "iframe", "object", "form"}


def test_each_link_leads_somewhere_and_no_id_is_there_twice(read):
    assert {link[1:] for link in read.links if link.startswith("#")} <= set(read.ids)
    assert len(read.ids) == len(set(read.ids))


def test_it_says_what_is_broken_where_and_how_to_see_it(read):
    for words in (
        "At least one property does not hold",
        "Exit code 4",
        "what check-0 promises",
        "Measured 0.5 , limit 0.1",
        "update 3, layers.0.weight",
        "trees/mine/pkg/train loop.py:7",
        "line 7 <b>",
        "print(1)",
        "bitpatch apply task-4 --tree trees/mine",
        "+B1",
        "the tree has no loop; settle it: bitpatch seams --write",
    ):
        assert words in read.text, words


def test_what_a_tree_says_is_text(read):
    assert "".join(read.words).count(HOSTILE.partition("\n")[0]) >= 1
    assert "script" not in read.tags


@pytest.mark.parametrize("verdict", ["verified", "unproven"])
def test_a_page_without_red(verdict):
    made = report()
    tasks = made.tasks[1:] if verdict == "verified" else (TaskReport(11, (result(11, "one", unproven("why not")),)),)
    read = Reader(page(shown(replace(made, tasks=tasks))))
    assert read.text.startswith(f"{verdict}: bitpatch verify")
    assert ("Nothing was left out" in read.text) is (verdict == "verified")
    assert ("why not" in read.text) is (verdict == "unproven")


def test_it_is_small_whatever_was_found():
    noise = [[((7 * row + 13 * column) % 97) / 97 for column in range(64)] for row in range(64)]
    loud = Evidence(Verdict.FAIL, 1.0, 0.1, "x" * 20_000, "y" * 500, picture=Picture("maps", "m", noise, noise[::-1]))
    tasks = [TaskReport(task, tuple(result(task, f"check-{n}", loud) for n in range(14))) for task in range(1, 13)]
    made = shown(replace(report(), tasks=tuple(tasks)), (Change("a.py", b"a\n" * 5000, b"b\n" * 5000),))
    text = page(made)
    assert len(text.encode()) <= LARGEST
    assert Reader(text).text.count("check-13") >= 12
    assert "letters more" in text


def test_curves_leave_out_what_is_no_number_and_name_their_ends():
    drawn = str(pictures.drawn(PICTURES[0]))
    assert 'aria-label="learning rate by update: found 0.1 to 0.4; wanted 0.1 to 0.2"' in drawn
    assert len(re.search('class="found" points="([^"]*)"', drawn)[1].split()) == 3
    assert len(re.search('class="wanted" points="([^"]*)"', drawn)[1].split()) == 4


def test_the_middle_of_an_axis_is_where_it_says():
    drawn = str(pictures.drawn(Picture("curves", "c", [1.0, 2.0, 3.0, 4.0], [])))
    assert re.findall(r'class="axis" x="[\d.]+" y="188">([^<]*)<', drawn) == ["0", "1.5"]


def test_a_long_curve_keeps_its_end():
    found = pictures.thinned([float(place) for place in range(10_001)])
    assert len(found) <= pictures.MOST_POINTS + 1
    assert found[-1] == (10_000, 10_000.0)


def test_a_map_is_an_image_of_its_numbers():
    raw = pictures.png([[0.0, 1.0], [None, 0.5]], 1.0, (255, 255, 255), (0, 0, 0))
    length = struct.unpack(">I", raw[33:37])[0]
    assert zlib.decompress(raw[41 : 41 + length]) == bytes([0, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 128, 128, 128])
    assert struct.unpack(">II", raw[16:24]) == (2, 2)


def test_maps_of_other_shapes_are_shown_without_their_difference():
    drawn = str(pictures.drawn(Picture("maps", "m", [[1.0]], [[1.0, 0.0]])))
    assert (drawn.count("<img"), "apart by" in drawn) == (2, False)
    assert "apart by up to 1" in str(pictures.drawn(Picture("maps", "m", [[1.0]], [[0.0]])))


def test_events_begin_near_the_first_that_differs():
    found = [f"step {place}" for place in range(100)]
    drawn = str(pictures.drawn(Picture("events", "e", found, [*found[:50], "clip", *found[50:]])))
    assert "45 before are alike" in drawn
    assert '<tr class="apart"><td></td><td>clip</td></tr>' in drawn


def test_the_curves_of_a_fit():
    loss, rate = training_curves(fit())
    assert (loss.found[0], len(rate.found)) == (1.0, 200)
    assert training_curves(None) == []
