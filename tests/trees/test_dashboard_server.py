"""The dashboard as a process that is asked over sockets."""

import contextlib
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys

import pytest
from trees.asking import CONFIG, TEXT

STARTED_WITHIN = 100  # seconds, on a busy machine


@contextlib.contextmanager
def serving(tree, folder, **environment):
    """A server in a process of its own: its port, what it said of its token, and the process."""
    words = [sys.executable, "-m", "dashboard.app", "--port", "0", "--snapshots", str(folder)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", **environment}
    log = (folder.parent / "log").open("wb")
    process = subprocess.Popen(words, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=log)
    try:
        said = b""
        while said.count(b"\n") < 2:
            assert select.select([process.stdout], [], [], STARTED_WITHIN)[0], "the server says nothing"
            got = os.read(process.stdout.fileno(), 4096)
            assert got, "the server ended"
            said += got
        where, token = said.decode().splitlines()
        yield int(re.fullmatch(r"Serving on http://127\.0\.0\.1:(\d+)", where)[1]), token, process
    finally:
        process.kill()
        process.communicate()
        log.close()


@pytest.fixture(scope="module")
def server(tree, tmp_path_factory):
    with serving(tree, tmp_path_factory.mktemp("server") / "snapshots", DASHBOARD_TOKEN="") as found:
        yield found


def ask(port, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=STARTED_WITHIN)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    with contextlib.closing(connection):
        assert answer.getheader("Content-Type") == "application/json"
        return answer.status, json.loads(answer.read())


def test_a_server_prints_where_it_is_and_its_token(server):
    port, line, _ = server
    token = re.fullmatch(r"Authorization: (Bearer \S{32,})", line)[1]
    kind = {"Content_Type": "application/json"}
    body = json.dumps({"text": TEXT, "config": CONFIG})
    assert ask(port, "POST", "/init", body, **kind)[0] == 401
    assert ask(port, "POST", "/init", body, **kind, Authorization=token, Host="evil.example")[0] == 403
    assert ask(port, "POST", "/init", body, **kind, Authorization=token, Host="localhost")[0] == 403  # another port
    assert ask(port, "POST", "/init", body, **kind, Authorization=token, Origin="http://evil.example")[0] == 403
    assert ask(port, "GET", "/status")[1] == {"ready": False}
    assert ask(port, "POST", "/init", body, **kind, Authorization=token)[1]["ready"] is True
    assert ask(port, "GET", "/status", Host=f"localhost:{port}")[1]["ready"] is True


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET /status HTTP/9.9\r\n\r\n", 505),
        (b"GET /status HTTP/x\r\n\r\n", 400),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /status HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET http://[::1 HTTP/1.1\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\r\n\r\n", 403),
        (b"GET http://evil.example/status HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n", 403),
        (b"GET /status HTTP/1.1\r\nHost: localhost:PORT\r\nHost: evil.example\r\n\r\n", 403),
        (b"POST /train HTTP/1.1\r\nHost: localhost:PORT\r\nContent-Length: -1\r\nTOKEN\r\n\r\n", 400),
        (b"POST /train HTTP/1.1\r\nHost: localhost:PORT\r\nContent-Length: many\r\nTOKEN\r\n\r\n", 400),
        (b"POST /train HTTP/1.1\r\nHost: localhost:PORT\r\nContent-Length: 999999999999\r\nTOKEN\r\n\r\n", 413),
        (b"POST /train HTTP/1.1\r\nHost: localhost:PORT\r\nTransfer-Encoding: chunked\r\nTOKEN\r\n\r\nzz\r\n", 400),
    ],
    ids=lambda value: repr(value[:50]) if isinstance(value, bytes) else None,
)
def test_what_is_no_sound_http_is_answered_in_json(server, sent, status):
    port, token, _ = server
    sent = sent.replace(b"PORT", str(port).encode()).replace(
        b"TOKEN", b"Content-Type: application/json\r\n" + token.encode()
    )
    with socket.create_connection(("127.0.0.1", port), timeout=STARTED_WITHIN) as connection:
        connection.sendall(sent)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == str(status).encode(), answer
    assert b"application/json" in head
    assert json.loads(body).keys() == {"error"}


def test_a_server_that_is_interrupted_ends_after_the_update_under_way(tree, tmp_path):
    with serving(tree, tmp_path / "snapshots", DASHBOARD_TOKEN="token") as (port, _, process):
        headers = {"Content_Type": "application/json", "Authorization": "Bearer token"}
        body = json.dumps({"text": TEXT, "config": CONFIG, "plan": {"epochs": 10_000, "batch_size": 16}})
        assert ask(port, "POST", "/init", body, **headers)[0] == 200
        assert ask(port, "POST", "/run", "{}", **headers)[1]["state"] == "running"
        while ask(port, "GET", "/progress")[1]["run"]["updates"] == 0:
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(STARTED_WITHIN) == 0
        log = (tmp_path / "log").read_text()
    assert "POST /run" in log
    assert "/progress" not in log  # the page asks for it twice a second
    assert "Traceback" not in log
    assert "terminate" not in log


def test_a_token_of_the_environment_is_taken_and_not_printed(tree, tmp_path):
    with serving(tree, tmp_path / "snapshots", DASHBOARD_TOKEN="from-outside") as (port, line, _):
        assert "from-outside" not in line
        assert "DASHBOARD_TOKEN" in line
        headers = {"Content_Type": "application/json", "Authorization": "Bearer from-outside"}
        assert ask(port, "POST", "/train", "{}", **headers)[0] == 409
        assert ask(port, "POST", "/train", "{}", **headers | {"Authorization": "Bearer else"})[0] == 401
