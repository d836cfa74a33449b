"""The dashboard's page in a real browser: what a user clicks, types and sees."""

import shutil
import threading

import pytest
import torch
from trees.asking import CONFIG, TEXT

from bit_transformer.bit_io import bits_to_rows, text_to_bits
from dashboard.app import create_app
from dashboard.manager import ModelManager

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="the browser is driven by playwright: pip install bitpatch[dev]"
)
serving = pytest.importorskip("werkzeug.serving")
expect = sync_api.expect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 60_000  # milliseconds, on a busy machine
WIDTHS, SCHEMES = (390, 1400), ("light", "dark")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

# What moves without a user's doing.
SHIFTS = """
window.shifted = [];
new PerformanceObserver((list) => {
  for (const each of list.getEntries()) window.shifted.push(...each.sources.map((one) => one.node?.outerHTML ?? "?"));
}).observe({ type: "layout-shift", buffered: true });
"""
# The least contrast of a text with what is behind it, and which text that is; what is disabled may be pale.
CONTRAST = """() => {
  const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = parts(getComputedStyle(at).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return parts(getComputedStyle(document.body).backgroundColor);
  };
  let least = [21, ""];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.matches(":disabled, :disabled *, svg *, script, noscript, .skip")) continue;
    const [one, other] = [light(parts(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < least[0]) least = [ratio, element.outerHTML.slice(0, 80)];
  }
  return least;
}"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


class Board:
    """A server with a manager, and a page of it in a browser."""

    def __init__(self, folder, browser):
        self.manager = ModelManager(folder)
        self.server = serving.make_server("127.0.0.1", 0, create_app(self.manager, token="secret"), threaded=True)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.context = browser.new_context(viewport={"width": 1400, "height": 900}, reduced_motion="reduce")
        self.context.add_init_script(SHIFTS)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def make(self, **plan):
        """A model, without a click."""
        self.manager.init(bits_to_rows(text_to_bits(TEXT), 90), plan={"batch_size": 8, **plan}, **CONFIG)

    def open(self):
        """The page, once it has heard of the server."""
        self.page.goto(self.url)
        self.sees("state", "ready" if self.manager.model is not None else "no model yet")
        return self.page

    def sees(self, name, text):
        expect(self.page.locator(f"#{name}")).to_contain_text(text, timeout=PATIENCE)

    def click(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()

    def give_token(self, token="secret"):
        self.page.get_by_role("textbox", name="Token").fill(token)
        self.click("Use it in this tab")

    def close(self):
        self.context.close()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def board(browser, tmp_path):
    made = Board(tmp_path / "snapshots", browser)
    yield made
    made.close()
    assert [text for text in made.said if not text.startswith("Failed to load resource")] == []
    assert [url for url in made.asked if not url.startswith(made.url)] == []
    assert [url for url in made.asked if "secret" in url] == []


@pytest.fixture
def held(board):
    """A board whose run waits at its second update until it is let go."""
    entered, leave = threading.Event(), threading.Event()

    def wait(*_):
        if board.manager.step == 1:
            entered.set()
            leave.wait(60)

    board.make(epochs=3)
    board.manager.model.out.register_forward_pre_hook(wait)
    board.entered, board.let_go = entered, leave.set
    yield board
    leave.set()


def test_a_model_is_made_by_the_form_and_trained_by_the_plan(board):
    page = board.open()
    expect(page.get_by_role("button", name="Run the plan")).to_be_disabled()
    for label, value in {
        "Width d_model": "16",
        "Attention heads nhead": "2",
        "Layers num_layers": "1",
        "Hidden units dim_feedforward": "32",
        "Bits in a row max_seq_len": "90",
        "Rows in an update batch_size": "8",
        "Epochs epochs": "2",
    }.items():
        page.get_by_label(label).fill(value)
    page.get_by_label("Text to train on").fill(TEXT)
    board.click("Make the model")
    board.give_token()
    board.sees("start-said", "Made")
    board.sees("progress-said", "8 updates planned")
    assert {name: board.manager.config[name] for name in CONFIG} == CONFIG
    board.click("Run the plan")  # the token is not asked for again
    board.sees("progress-said", "8 of 8 updates: done")
    board.sees("step", "8")
    board.sees("loss-said", "at update 8")
    assert page.locator("#loss path.curve").get_attribute("d").count("L") == 7
    assert page.locator("#lr path.curve").count() == 1
    assert board.manager.step == 8


def test_a_run_is_watched_and_stopped(held):
    page = held.open()
    held.click("Run the plan")
    held.give_token()
    held.sees("state", "training")
    held.sees("progress-said", "1 of 12 updates")
    held.sees("run-said", "waits for the run")
    assert page.locator("#progress").evaluate("each => [each.value, each.max]") == [1, 12]
    for name in ("Make the model", "Train a step", "Double the width", "Save", "Go on from it", "Run the plan"):
        expect(page.get_by_role("button", name=name, exact=True, include_hidden=True)).to_be_disabled()
    held.click("Stop")
    held.sees("progress-said", "stopping after the one under way")
    held.let_go()
    held.sees("progress-said", "2 of 12 updates: stopped")
    held.sees("state", "ready")
    assert held.manager.step == 2


def test_a_run_is_begun_and_stopped_from_the_keyboard(held):
    page = held.open()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the training"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.type("secret")
    page.keyboard.press("Enter")
    held.sees("progress-said", "1 of 12")
    expect(page.get_by_role("button", name="Stop")).to_be_focused(timeout=PATIENCE)
    page.keyboard.press("Enter")
    held.sees("progress-said", "stopping")
    held.let_go()
    held.sees("progress-said", "stopped")
    expect(page.get_by_role("button", name="Run the plan")).to_be_focused(timeout=PATIENCE)


def test_a_token_is_asked_for_once_and_kept_in_the_tab(board):
    board.make()
    page = board.open()
    board.click("Run the plan")
    board.give_token("a wrong one")
    board.sees("ask-said", "without a space")
    board.give_token("wrong")
    board.sees("ask-said", "not the token")
    board.give_token("Bearer secret")  # as it is printed
    board.sees("progress-said", "done")
    assert page.evaluate("Object.values(sessionStorage)") == ["secret"]
    assert page.evaluate("[localStorage.length, document.cookie, document.body.outerHTML.includes('secret')]") == [
        0,
        "",
        False,
    ]
    page.reload()
    board.sees("state", "ready")
    board.click("Run the plan")
    board.sees("step", "8")
    board.click("Forget the token")
    assert page.evaluate("sessionStorage.length") == 0
    board.click("Run the plan")
    page.keyboard.press("Escape")
    board.sees("run-said", "it wants the token")
    assert board.manager.step == 8


def test_what_is_wrong_is_said_where_it_was_asked_for(board):
    page = board.open()
    page.get_by_label("Width d_model").fill("15")
    board.click("Make the model")
    board.give_token()
    board.sees("start-said", "d_model must be a multiple of nhead")
    assert "bad" in page.locator("#start-said").get_attribute("class")
    page.get_by_label("Width d_model").fill("5000")  # the browser knows the range
    board.click("Make the model")
    assert page.locator("#config-d_model").evaluate("each => each.validity.rangeOverflow")
    assert board.manager.model is None


def test_a_field_that_is_folded_away_is_shown_where_it_is_wrong(board):
    page = board.open()
    page.get_by_text("More of its options").click()
    page.get_by_label("Weight of K").fill("")
    page.get_by_text("More of its options").click()
    board.click("Make the model")
    expect(page.get_by_label("Weight of K")).to_be_visible()


def test_a_gate_that_trips_is_told_in_words(board):
    board.make(epochs=9)
    board.manager.gate.threshold = 0.01
    page = board.open()
    board.click("Run the plan")
    board.give_token()
    board.sees("state", "stopped by the gate")
    board.sees("run-said", "training stopped: validation loss")
    board.sees("gate-said", "it has stopped the training")
    assert page.locator("#gate").get_attribute("class") == "gate bad"


def test_the_gate_shows_its_average_beside_its_threshold(board):
    board.make()
    board.manager.train()
    page = board.open()
    average = getattr(board.manager.gate, "ema_val", None)
    value = board.manager.history[-1]["val_loss"] if average is None else average
    board.sees("gate-said", f"{'Last loss' if average is None else 'Average'} {value:.4g}, of at most 2")
    assert page.locator("#gate").evaluate("each => Number(each.ariaValueNow)") == pytest.approx(value)
    width = page.locator("#gate-fill").evaluate("each => each.offsetWidth / each.parentElement.clientWidth")
    assert width == pytest.approx(value / 3, abs=0.01)  # the threshold, 2, stands at two thirds


def test_a_loss_that_is_not_finite_is_told_in_words(board, monkeypatch):
    board.make()
    monkeypatch.setattr(board.manager.gate, "allows", lambda _: True)
    with torch.no_grad():
        board.manager.model.out.bias.fill_(float("inf"))
    board.open()
    board.click("Run the plan")
    board.give_token()
    board.sees("run-said", "the loss is nan")
    board.sees("progress-said", "1 of 4 updates: ended")


def test_text_goes_in_and_comes_out(board):
    board.make()
    page = board.open()
    page.get_by_role("textbox", name="Text in").fill("<b>judge</b> ")
    page.get_by_label("Bytes to write").fill("6")
    board.click("Go on from it")
    board.give_token()
    board.sees("write-said", "Negentropy")
    board.sees("written-prompt", "<b>judge</b>")  # as text
    assert 0 < len(page.locator("#written-text").evaluate("each => each.textContent")) <= 6


def test_a_step_is_made_and_the_model_grows_and_is_kept(board):
    board.make()
    page = board.open()
    page.get_by_label("on this text").fill(TEXT)
    board.click("Train a step")
    board.give_token()
    board.sees("step-said", "Update 1")
    page.get_by_label("Name").fill("before")
    board.click("Save")
    board.sees("kept", "There are: before")
    board.click("Double the layers")
    board.sees("shape", "2 \u00d7 16")
    page.get_by_text("go on with the text").uncheck()
    board.click("Download, and go on from it")
    board.sees("snapshots-said", "after 1 update")
    board.sees("shape", "1 \u00d7 16")
    page.get_by_label("Name").fill("none")
    board.click("Download, and go on from it")
    board.sees("snapshots-said", "there is no snapshot")


def test_a_map_is_read_by_keys_and_pointer_where_maps_are_logged(board):
    board.manager.init(bits_to_rows(text_to_bits(TEXT), 90), **CONFIG | {"full_attn_logging": True})
    page = board.open()
    page.get_by_label("Text, of which").fill("ab")
    board.click("Show the map")
    board.give_token()
    board.sees("attention-said", "18 bits")
    assert page.locator("#map").evaluate("each => [each.width, each.height]") == [18, 18]
    board.sees("weight", "the parity of “b” looks at the parity of “b”")
    page.locator("#map").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    board.sees("weight", "bit 8 of “b” looks at bit 7 of “b”")
    box = page.locator("#map").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    board.sees("weight", "bit 1 of “a” looks at bit 1 of “a”: 1")
    board.manager.init(bits_to_rows(text_to_bits(TEXT), 90), **CONFIG | {"full_attn_logging": False})
    board.click("Show the map")
    board.sees("attention-said", "full_attn_logging")


def test_curves_begin_anew_with_another_model(board):
    board.make(epochs=2)
    board.manager.train()
    board.open()
    board.sees("loss-said", "at update 8")
    board.make()
    board.sees("loss-said", "no updates yet")
    board.manager.train()
    board.sees("loss-said", "at update 4")
    first = board.manager.history[0]["loss"]
    board.sees("loss-said", f"{first:.4g}"[:5])
    assert board.page.locator("#loss path.curve").get_attribute("d").count("L") == 3


def test_curves_go_on_beyond_what_the_server_keeps(board):
    board.make()
    board.manager.train()
    board.open()
    board.sees("loss-said", "at update 4")
    board.manager.history.popleft()  # as it is full
    board.manager.train()
    board.sees("loss-said", "at update 8")
    assert board.page.locator("#loss path.curve").get_attribute("d").count("L") == 7


def test_a_server_that_is_gone_is_missed(board):
    board.make()
    page = board.open()
    page.route("**/*", lambda route: route.abort())
    board.sees("state", "does not answer")
    page.unroute_all()
    board.sees("state", "ready")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_fits_and_can_be_read(board, width, scheme):
    board.make()
    board.manager.train()
    board.page.set_viewport_size({"width": width, "height": 900})
    board.page.emulate_media(color_scheme=scheme)
    page = board.open()
    board.sees("loss-said", "at update 4")
    page.get_by_text("A new model, in place").click()
    page.get_by_text("More of its options").click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = "each => [...each].filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.id)"
    assert page.locator("section, header").evaluate_all(wide) == []
    ratio, where = page.evaluate(CONTRAST)
    assert ratio >= 4.5, where
    is_dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((each) => each < 64)")
    assert is_dark == (scheme == "dark")
    columns = {round(each["x"]) for each in (one.bounding_box() for one in page.locator("section").all())}
    assert len(columns) == (1 if width == min(WIDTHS) else 2)


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_moves_while_the_page_hears_of_a_run(held, width):
    held.page.set_viewport_size({"width": width, "height": 4000})  # what is not in view is not seen to move
    page = held.open()
    held.click("Run the plan")
    held.give_token()
    held.sees("progress-said", "1 of 12 updates")
    held.let_go()
    held.sees("progress-said", "12 of 12 updates: done")
    assert page.evaluate("window.shifted") == []
