"""The page of mutants: it is what the report makes, small whatever there is, and has every survivor with why it lives."""

import json
import re
import shutil
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import pytest
from generated.page import LARGEST, PAGE, REPORT, SHOWN, count, main, mutants_of, page
from generated.report import PAGE as TABLES

GIVEN = json.loads(REPORT.read_text(encoding="utf-8"))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SOURCE = "def f(a, b):\n    c = a\n    return c < b\n"
VOID = {"meta", "br"}


class Reader(HTMLParser):
    """The tags of a page, which must be balanced, its links, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.links, self.tags, self.words, self.ids = [], [], set(), [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.open += [] if tag in VOID else [tag]
        self.links += [value for name, value in attrs if name in ("href", "src", "srcset", "action")]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def mutant(
    status: str, *, line: int = 3, start: int = 12, end: int = 17, name: str = "m", **given: Any
) -> dict[str, Any]:
    """A mutant of SOURCE as a report has it, with what it must have alone."""
    place = {"start": {"line": line, "column": start}, "end": {"line": line, "column": end}}
    return {"id": name, "mutatorName": "comparison", "location": place, "status": status, **given}


def report(*mutants: dict[str, Any], source: str = SOURCE, **given: Any) -> dict[str, Any]:
    file = {"language": "python", "source": source, "mutants": list(mutants)}
    return {"schemaVersion": "1", "thresholds": {"high": 80, "low": 60}, "files": {"a/file.py": file}, **given}


def article(text: str, name: str = "m") -> str:
    """What a page says of a survivor."""
    return Reader(re.search(rf'<article id="m-{name}".*?</article>', text, re.DOTALL)[0]).text


def test_the_page_is_what_the_report_makes_today() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(GIVEN), "python -m generated.page writes it anew"


def test_nothing_is_loaded_and_no_other_script_runs() -> None:
    text = page(GIVEN)
    read = Reader(text)
    assert [link for link in read.links if not link.startswith("#")] == []
    assert not read.tags & {"link", "img", "iframe", "object", "form", "base"}
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert [f"sha256-{b64encode(sha256(each.encode()).digest()).decode()}" for each in script] == re.findall(
        r"sha256-[^']*", text
    )
    assert "default-src 'none'" in text
    assert len(text.encode()) <= LARGEST


def test_every_survivor_is_there_with_its_change_and_why() -> None:
    text = page(GIVEN)
    survivors = [each for each in mutants_of(GIVEN) if each.kind in SHOWN]
    assert len(survivors) > 20
    for each in survivors:
        said = article(text, re.escape(each.given["id"]))
        assert f"{each.kind} {each.file}:{each.line} {each.given['mutatorName']}" in said
        assert " ".join(each.given["replacement"].split("\n")[0].split()) in said
        assert said.endswith(f": {each.why}.")
    order = [SHOWN.index(kind) for kind in re.findall(r'<h3><span class="chip \w+">([^<]+)', text)]
    assert order == sorted(order)
    assert len(order) == len(survivors)


def test_counts_are_those_of_the_tables() -> None:
    *_, total = re.findall(r"^\| all \|.*", TABLES.read_text(encoding="utf-8"), re.MULTILINE)
    every, judged, killed, crashed, equivalent, still, score = (cell.strip() for cell in total.split("|")[2:-1])
    counted = count(mutants_of(GIVEN))
    assert [counted["all"], counted["tried"], counted["found"], counted["set aside"], counted["open"]] == [
        int(every), int(judged), int(killed) + int(crashed), int(equivalent), int(still),
    ]  # fmt: skip
    assert counted["score"] == score
    for name, of, tried, open_ in re.findall(
        r"^\| (task-\d+|what they call) \| (\d+) \| (\d+) \|(?: \d+ \|){3} (\d+) ", TABLES.read_text(), re.MULTILINE
    ):
        some = count(each for each in mutants_of(GIVEN) if name.replace("-0", "-") in each.tasks)
        assert [some["all"], some["tried"], some["open"]] == [int(of), int(tried), int(open_)], name


def test_a_change_stands_in_its_place() -> None:
    given = mutant("Survived", name="one", replacement="c >= b")
    assert "1 def f(a, b): 2 c = a 3 - return c < b + return c >= b 4" in article(page(report(given)), "one")
    moved = mutant("Survived", line=2, start=5, replacement="return c < b\n    c = a")
    moved["location"]["end"] = {"line": 3, "column": 17}
    assert "2 - c = a 3 - return c < b + return c < b + c = a 4" in article(page(report(moved)))
    inside = mutant("Survived", start=12, end=13, replacement="d")
    assert "3 - return c < b + return d < b" in article(page(report(inside)))
    gone = mutant("Survived", replacement="", start=1)
    assert "2 c = a 3 - return c < b 4" in article(page(report(gone)))


def test_what_the_schema_leaves_free_may_be_absent() -> None:
    statuses = ("Survived", "NoCoverage", "Ignored", "Killed", "Timeout", "RuntimeError", "CompileError", "Pending")
    read = Reader(page(report(*(mutant(each, name=each) for each in statuses))))
    assert "50.0% of the wrong changes were found" in read.text
    assert "7 of 8 were tried. Of these, 4 are wrong as far as anybody knows, and checks found 2" in read.text
    assert "2 were no code that runs" in read.text
    assert "every check that was tried passes it" in read.text
    assert "no check was able to tell" in read.text
    assert "the report does not say" in read.text
    assert "By task" not in read.text
    assert {"m-Survived", "m-NoCoverage", "m-Ignored"} <= {*read.ids}
    del (bare := report(mutant("Survived", replacement="x")))["thresholds"]
    del bare["files"]["a/file.py"]["source"]
    assert article(page(bare)).startswith("alive a/file.py:3 comparison + x Lives because")
    assert "Nothing of the wrong changes was tried" in Reader(page(report())).text


def test_words_of_the_report_are_kept() -> None:
    said = article(page(report(mutant("Survived", statusReason="slow", description="in a line of task-3, task-12"))))
    assert said.startswith("alive a/file.py:3 comparison, in a line of task-3, task-12")
    assert said.endswith("Lives because: slow.")
    assert article(page(report(mutant("Survived", testsCompleted=1234)))).endswith(
        "all 1,234 checks that were tried pass it."
    )
    assert [each.tasks for each in mutants_of(report(mutant("Killed", description="in what task-3 calls")))] == [
        ["what they call"]
    ]


def test_checks_that_find_alone_are_counted_where_the_report_tells() -> None:
    tests = {"testFiles": {"t.py": {"tests": [{"id": "x", "name": "of x"}, {"id": "idle", "name": "of none"}]}}}
    first = Reader(page(report(mutant("Killed", killedBy=["x"], testsCompleted=2), **tests))).text
    assert "tried until the first check found it" in first
    assert "finds after others check property 1 1 x of x" in first
    assert "1 checks found nothing first idle" in first
    both = report(mutant("Killed", killedBy=["x", "y"]), mutant("Killed", killedBy=["x"]), **tests)
    assert "finds alone after others check property 2 1 0 x of x 1 0 0 y" in Reader(page(both)).text


def test_nothing_of_a_report_is_markup() -> None:
    evil = "</script></style><img src=x onerror=alert(1)>\"'&"
    given = [
        mutant(each, name=evil, replacement=evil, statusReason=evil, description=evil, killedBy=[evil])
        for each in ("Survived", "Killed")
    ]
    hostile = report(*(each | {"mutatorName": evil} for each in given), source=evil)
    hostile["files"][evil] = hostile["files"].pop("a/file.py")
    read = Reader(page(hostile))
    assert "img" not in read.tags
    assert [link for link in read.links if not link.startswith("#")] == []
    assert evil in read.text


def test_a_page_is_small_however_many_there_are() -> None:
    source = "\n".join(f"    value_{number} = function_{number}(argument, other={number})" for number in range(4000))
    killed = [
        mutant(
            "Killed",
            line=number,
            start=5,
            end=60,
            name=f"k{number}",
            replacement="x" * 90,
            killedBy=["task-1/a-check-of-a-name"],
        )
        for number in range(1, 3500)
    ]
    alive = [
        mutant("Survived", line=number, start=5, end=60, name=f"s{number}", replacement="changed")
        for number in range(1, 300)
    ]
    text = page(report(*killed, *alive, source=source))
    assert len(text.encode()) <= LARGEST
    assert len(re.findall('<article id="m-s', text)) == 299
    assert "3,499 found" in Reader(text).text


def test_any_report_is_made_a_page_by_the_command(tmp_path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(report(mutant("Survived", replacement="x"))), encoding="utf-8")
    assert main([str(tmp_path / "r.json"), str(tmp_path / "p.html")]) == main([str(tmp_path / "r.json")]) == 0
    for made in ("p.html", "r.html"):
        assert "a/file.py:3" in (tmp_path / made).read_text(encoding="utf-8")


# In a browser ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install bitpatch[dev]")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


@pytest.fixture
def opened(browser):
    """Opens the page at a width and a fragment; afterwards nothing was asked for, and nothing was said."""
    said, asked, contexts = [], [], []

    def at(fragment: str = "", width: int = 1400):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce"))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(60_000)
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url.partition("#")[0]))
        tab.goto(f"{PAGE.as_uri()}{fragment}")
        return tab

    yield at
    for each in contexts:
        each.close()
    assert said == []
    assert {*asked} == {PAGE.as_uri()}


def visible(tab) -> int:
    return tab.locator("#alive article:visible").count()


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_wider_than_the_screen(width, opened) -> None:
    for fragment in ("", "#kind=found"):
        assert opened(fragment, width).evaluate("document.documentElement.scrollWidth") == width


def test_links_filter_and_the_count_is_of_what_is_shown(opened) -> None:
    aside = [each for each in mutants_of(GIVEN) if each.kind == "set aside"]
    (task, *_) = aside[0].tasks
    number = sum(task in each.tasks for each in aside)
    tab = opened(f"#task={task}&kind=set+aside")
    assert visible(tab) == number > 0
    assert tab.inner_text("#count") == f"{number} mutants: {number} set aside"
    tab.get_by_role("link", name="Show all").click()
    counted = count(mutants_of(GIVEN))
    assert tab.inner_text("#count").endswith(f"score {counted['score']}")
    assert visible(tab) == counted["open"] + counted["set aside"]
    tab.get_by_role("link", name="task-9", exact=True).click()
    some = count(each for each in mutants_of(GIVEN) if "task-9" in each.tasks)
    assert tab.inner_text("#count").startswith(f"{some['all']} mutants: ")
    assert tab.inner_text("#count").endswith(f"score {some['score']}")


def test_keys_alone_filter(opened) -> None:
    tab = opened()
    for _ in range(12):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.name") == "kind":
            break
    tab.keyboard.type("set")  # aside
    assert tab.inner_text("#count").endswith(" set aside")
    assert visible(tab) == count(mutants_of(GIVEN))["set aside"]
    assert tab.evaluate("location.hash") == "#kind=set+aside"


def test_a_link_to_a_survivor_shows_it_whatever_the_filter(opened) -> None:
    (first, *_) = [each for each in mutants_of(GIVEN) if each.kind == "set aside"]
    tab = opened("#kind=found")
    assert visible(tab) == 0
    tab.evaluate("name => { location.hash = name; }", f"m-{first.given['id']}")
    tab.wait_for_function("name => !document.getElementById(name).hidden", arg=f"m-{first.given['id']}")
    assert visible(tab) > 0
