"""The page of the dashboard, as it is served, and what it asks for besides."""

import json
import re

import pytest
import torch
from trees.asking import CONFIG, TEXT, error_of

from dashboard import limits, requests
from dashboard.app import FILES, create_app
from dashboard.manager import ModelManager


def page_of(asked):
    answer = asked.client.get("/")
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    return answer.get_data(as_text=True)


def test_the_page_comes_without_a_token_and_holds_none(asked):
    assert "secret" not in page_of(asked)
    for name in FILES:
        answer = asked.client.get(f"/page/{name}")
        assert answer.status_code == 200
        assert "secret" not in answer.get_data(as_text=True)


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in FILES)])
def test_the_page_is_of_this_server_only(asked_in_vain, path):
    error_of(asked_in_vain.client.get(path, headers={"Host": "evil.example"}), 403)
    headers = asked_in_vain.client.get(path).headers
    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


def test_nothing_stands_in_the_page_that_its_policy_forbids(asked):
    page = page_of(asked)
    assert re.findall(r"<(?:script|style)\b(?![^>]*\bsrc=)", page) == []
    assert re.findall(r"\s(?:on\w+|style)=", page) == []
    served = page + "".join(asked.client.get(f"/page/{name}").get_data(as_text=True) for name in FILES)
    assert set(re.findall(r"https?://[^\"' )]+", served)) <= {"http://www.w3.org/2000/svg"}  # a name, and no address


def test_each_file_says_what_it_is(asked):
    kinds = {"/page/page.css": "text/css", "/page/page.js": "text/javascript", "/page/icon.svg": "image/svg+xml"}
    assert {f"/page/{name}" for name in FILES} == kinds.keys()
    assert {path: asked.client.get(path).mimetype for path in kinds} == kinds


def test_every_field_has_a_label(asked):
    page = page_of(asked)
    fields = re.findall(r"<(?:input|select|textarea)\b[^>]*\bid=\"([^\"]+)\"", page)
    assert len(fields) == len(re.findall(r"<(?:input|select|textarea)\b", page))
    assert set(fields) <= set(re.findall(r"<label[^>]*\bfor=\"([^\"]+)\"", page))


def test_the_form_knows_every_option_with_its_range_and_default(asked):
    page = page_of(asked)
    for group, schema in requests.SCHEMAS.items():
        for name, option in schema["properties"].items():
            (field,) = re.findall(rf"<(?:input|select)\b[^>]*\bid=\"{group}-{name}\"[^>]*>", page)
            if "minimum" in option:
                assert f'min="{option["minimum"]}" max="{option["maximum"]}"' in field
                assert option["default"] is None or f'value="{option["default"]}"' in field
                assert ("required" in field) == ("null" not in option["type"])


def test_the_form_is_open_as_long_as_there_is_no_model(asked, tmp_path):
    assert '<details id="start-details" open>' in create_app(ModelManager(tmp_path)).test_client().get("/").text
    assert '<details id="start-details">' in page_of(asked)


def test_a_text_is_gone_on_from(asked):
    drawn = torch.random.get_rng_state()
    answer = asked.post("/generate", json.dumps({"text": "judge ", "bytes": 5, "temperature": 0}).encode())
    assert answer.status_code == 200
    assert answer.json.keys() == {"text", *requests.SCORES}
    assert 0 < len(answer.json["text"]) <= 5
    again = asked.post("/generate", json.dumps({"text": "judge ", "bytes": 5, "temperature": 0}).encode())
    assert again.json == answer.json
    assert len(asked.post("/generate", b'{"text": "a"}').json["text"]) > 0
    assert torch.equal(torch.random.get_rng_state(), drawn)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "text must be"),
        ({"text": ""}, "text must be"),
        ({"text": "a", "bytes": 0}, "bytes must be from 1 to 256"),
        ({"text": "a", "bytes": 257}, "bytes must be"),
        ({"text": "a", "bytes": 1.5}, "bytes must be a whole number"),
        ({"text": "a", "temperature": -1}, "temperature must be"),
        ({"text": "a", "temperature": "hot"}, "temperature must be a number"),
        ({"text": "a", "top_k": 3}, "unknown member"),
    ],
    ids=str,
)
def test_what_cannot_be_written_is_refused(asked_in_vain, body, reason):
    assert reason in asked_in_vain.refuses(400, "/generate", body)


def test_what_is_under_a_floor_is_withheld(asked):
    asked.manager.c_floor = 1.1
    assert "withheld" in asked.refuses(409, "/generate", {"text": "a", "bytes": 1})
    assert "withheld" in asked.refuses(409, "/attention", {"text": "a"})


def test_the_map_is_that_of_the_forward(asked):
    asked.post("/init", json.dumps({"text": TEXT, "config": CONFIG | {"full_attn_logging": True}}).encode())
    answer = asked.post("/attention", json.dumps({"text": "ab", "layer": 1, "head": 2}).encode()).json
    model = asked.manager.model.eval()
    expected = model(torch.tensor([answer["bits"]]))[1]["attention_maps"][0][0, 1]
    assert (answer["layer"], answer["head"], len(answer["bits"])) == (1, 2, 18)
    torch.testing.assert_close(torch.tensor(answer["map"]), expected.detach(), atol=1e-4, rtol=0)


def test_the_map_shows_the_end_of_a_long_text(asked):
    asked.post("/init", json.dumps({"text": TEXT, "config": CONFIG | {"full_attn_logging": True}}).encode())
    assert len(asked.post("/attention", json.dumps({"text": TEXT}).encode()).json["map"]) == CONFIG["max_seq_len"]
    longer = CONFIG | {"full_attn_logging": True, "max_seq_len": 180}
    asked.post("/init", json.dumps({"text": TEXT, "config": longer}).encode())
    assert len(asked.post("/attention", json.dumps({"text": TEXT}).encode()).json["map"]) == requests.MAP_BITS


def test_a_model_that_logs_no_maps_says_so(asked):
    asked.post("/init", json.dumps({"text": TEXT, "config": CONFIG | {"full_attn_logging": False}}).encode())
    assert "full_attn_logging" in asked.refuses(409, "/attention", {"text": "ab"})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"text": "ab", "layer": 2}, "layer must be at most 1"),
        ({"text": "ab", "head": 3}, "head must be at most 2"),
        ({"text": "ab", "head": 0}, "head must be from 1"),
        ({"text": "ab", "layer": True}, "layer must be a whole number"),
        ({"text": "", "layer": 1}, "text must be"),
    ],
    ids=str,
)
def test_a_map_that_is_not_there_is_refused(asked_in_vain, body, reason):
    assert reason in asked_in_vain.refuses(400, "/attention", body)


def test_snapshots_are_listed_by_name(asked):
    assert asked.get("/snapshots") == {"snapshots": []}
    for name in ("two", "one.b"):
        asked.manager.save(name)
    (asked.manager.snapshots / "no name.pt").write_bytes(b"")
    (asked.manager.snapshots / "link.pt").symlink_to(asked.manager.snapshots / "two.pt")
    (asked.manager.snapshots / "folder.pt").mkdir()
    assert asked.get("/snapshots") == {"snapshots": ["one.b", "two"]}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory: take fewer rows"),
        (ValueError("a\nb"), "a b"),
        (KeyError(), "KeyError"),
    ],
    ids=repr,
)
def test_errors_are_told_in_words(error, words):
    assert limits.in_words(error).startswith(words)
