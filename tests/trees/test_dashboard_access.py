"""Who may ask the dashboard, and what a body may be: other sites, other names, no token, no JSON."""

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees.asking import POSTS, TEXT, error_of

from dashboard import requests
from dashboard.app import LARGEST_BODY, create_app
from dashboard.manager import ModelManager


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:80", "LOCALHOST", "127.0.0.1", "[::1]", "[::1]:80", "board.example", "10.0.0.9:81"]
)
def test_the_server_is_known_by_its_own_names(asked, host):
    client = create_app(asked.manager, hosts=["board.example", "10.0.0.9:81"]).test_client()
    assert client.get("/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost:5001",
        "localhost.",
        "localhost@evil.example",
        "localhost,evil.example",
        "127.0.0.2",
        "0.0.0.0",
        "::1",
        "localhost:80:80",
        "",
        " ",
        "a" * 9000,
        "é",
    ],
)
def test_any_other_host_is_refused(asked_in_vain, host):
    for path in ("status", "save", "nothing"):
        asked_in_vain.refuses(403, f"/{path}", {"name": "one"}, Host=host)
        error_of(asked_in_vain.client.get(f"/{path}", headers={"Host": host}), 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8888"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": ""},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
    ids=str,
)
def test_another_site_changes_nothing_even_with_the_token(asked_in_vain, headers):
    bodies = [b"", b"{}", b'{"name": "one", "text": "judge my vow"}']
    kinds = [None, "text/plain", "application/x-www-form-urlencoded", "application/json"]
    for path, body, kind in itertools.product(POSTS, bodies, kinds):
        asked_in_vain.refuses(403, f"/{path}", body, Content_Type=kind, **headers)


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer secre",
        "Bearer secrets",
        "Basic secret",
        "secret",
        "Bearer é",
        "Bearer " + "a" * 9000,
    ],
)
def test_nothing_is_done_or_told_without_the_token(asked_in_vain, token):
    for path in POSTS:
        asked_in_vain.refuses(401, f"/{path}", {"name": "one"}, Authorization=token)
        assert asked_in_vain.post(f"/{path}", Authorization=token).headers["WWW-Authenticate"] == "Bearer"


def test_the_own_page_may_ask(asked):
    answer = asked.post(
        "/train_step", json.dumps({"text": TEXT}).encode(), Origin="http://localhost", Sec_Fetch_Site="same-origin"
    )
    assert answer.status_code == 200


def test_a_dashboard_makes_a_token_of_its_own():
    tokens = {create_app(ModelManager()).config["TOKEN"] for _ in range(2)}
    assert len(tokens) == 2
    assert all(len(token) >= 32 for token in tokens)


@pytest.mark.parametrize("token", ["", "two words", "é", "a\nb"])
def test_a_token_that_no_header_holds_is_refused(token):
    with pytest.raises(ValueError, match="visible ASCII"):
        create_app(ModelManager(), token=token)


def test_no_other_site_can_read_an_answer(asked):
    headers = asked.client.get("/status", headers={"Origin": "http://evil.example"}).headers
    assert "Access-Control-Allow-Origin" not in headers
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "kind",
    [None, "text/plain", "text/json", "multipart/form-data; boundary=a", "application/x-www-form-urlencoded", "é"],
)
def test_what_is_not_sent_as_json_is_refused(asked_in_vain, kind):
    for path in POSTS:
        assert "application/json" in asked_in_vain.refuses(415, f"/{path}", b"{}", Content_Type=kind)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"null",
        b"[]",
        b"[1, 2]",
        b'"text"',
        b"7",
        b"NaN",
        b"{} {}",
        b"{'text': 1}",
        b'{"text": "a",}',
        b'{"text": "\xff"}',
        b"\xef\xbb\xbf{}",
        '{"text": "a"}'.encode("utf-16"),
        b'{"text": "a\nb"}',
        b'{"text": "a", "text": "b"}',
        b'{"text": "judge my vow", "plan": {"lr": 0.1, "lr": 0.2}}',
        b'{"text": "judge my vow", "plan": {"lr": NaN}}',
        b'{"text": "judge my vow", "plan": {"lr": -Infinity}}',
        b'{"text": "judge my vow", "plan": {"lr": 1e400}}',
        b'{"text": "judge my vow", "plan": {"epochs": ' + b"9" * 5000 + b"}}",
        b'{"text": "judge my vow", "plan": {"epochs": ' + b"9" * 4000 + b"}}",
        b'{"text": "\\ud800"}',
        b'{"name": "\\udc00"}',
        b'{"\\ud800": 1}',
        b'{"a\\nb": 1}',
        b'{"' + b"a" * 5000 + b'": 1}',
        b"[" * 100_000,
        b'{"text":' * 100_000,
        b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"text": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"name": ' + b'{"a":' * 800 + b"1" + b"}" * 801,
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_body_that_is_no_sound_object_is_refused(asked_in_vain, body):
    for path in POSTS:
        asked_in_vain.refuses(400, f"/{path}", body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": 1e400}', "too large"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": "\xff"}', "byte 7"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a"', "no JSON"),
        (b"[]", "got a list"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_body_is_refused_with_the_reason(asked_in_vain, body, reason):
    assert reason in asked_in_vain.refuses(400, "/train", body)


def test_a_body_that_is_too_large_is_refused(asked_in_vain):
    asked_in_vain.refuses(413, "/infer", b'{"text": "' + b"a" * LARGEST_BODY + b'"}')


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/page/", 404),
        ("GET", "/page/page.html", 404),
        ("GET", "/page/../app.py", 404),
        ("GET", "/page/..%2fapp.py", 404),
        ("GET", "/page/%2e%2e/app.py", 404),
        ("POST", "/", 405),
        ("POST", "/page/page.js", 405),
        ("POST", "/progress", 405),
        ("GET", "/run", 405),
        ("POST", "/nothing", 404),
        ("GET", "/status/", 404),
        ("GET", "/static/app.py", 404),
        ("GET", "/../status", 404),
        ("GET", "/%00", 404),
        ("GET", "/train", 405),
        ("POST", "/status", 405),
        ("PUT", "/train", 405),
        ("DELETE", "/save", 405),
        ("OPTIONS", "/train", 405),
        ("TRACE", "/status", 405),
        ("NONSENSE", "/status", 405),
    ],
)
def test_what_is_not_there_is_said_in_json(asked_in_vain, method, path, status):
    before = asked_in_vain.state()
    answer = asked_in_vain.client.open(path, method=method)
    error_of(answer, status)
    assert ("Allow" in answer.headers) == (status == 405)
    assert asked_in_vain.state() == before


def test_a_fault_of_the_server_is_told_in_one_line(asked, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr(requests, "infer", fail)
    assert "ZeroDivisionError: one two" in asked.refuses(500, "/infer", {"text": "a"})


names = st.sampled_from(["text", "config", "plan", "name", "dimension", *requests.CONFIG, *requests.PLAN])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=40) | st.just(TEXT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(POSTS), body=st.dictionaries(names, values, max_size=4) | values)
def test_any_json_is_answered_in_json(asked_in_vain, path, body):
    answer = asked_in_vain.post(f"/{path}", json.dumps(body).encode())
    asked_in_vain.ended()
    assert answer.status_code in (200, 400, 404, 409)
    assert answer.mimetype == "application/json"
    if answer.status_code != 200:
        error_of(answer, answer.status_code)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(POSTS), body=st.binary(max_size=60))
def test_any_bytes_are_refused(asked_in_vain, path, body):
    if path not in ("train", "run", "stop") or body.strip() != b"{}":
        asked_in_vain.refuses(400, f"/{path}", body)
