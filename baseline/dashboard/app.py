"""The dashboard: a page, and a JSON interface to a ModelManager.

    python -m dashboard.app --port 5000

POST /init        {"text", "config": {...}, "plan": {...}}   make a model, to be trained on a text
POST /train       {}                                         carry the plan out
POST /run         {}                                         carry it out in the background: answers at once
POST /stop        {}                                         end that run after the update under way
POST /train_step  {"text"}                                   make one update
POST /scale_up    {"dimension", "plan": {...}}               double "width", "layers" or "length"
POST /infer       {"text"}                                   predict the next bit
POST /generate    {"text", "bytes", "temperature"}           go on from a text
POST /attention   {"text", "layer", "head"}                  the attention map of the end of a text
POST /save        {"name"}                                   write a snapshot
POST /download    {"name", "text", "plan": {...}}            go on from a snapshot
GET  /status                                                 what there is; it waits for no other request
GET  /progress?since=STEP                                    the run in the background, the gate, and the records
                                                             of updates from that step on; it waits for none either
GET  /snapshots                                              the names of the snapshots
GET  /                                                       the page, which asks for all of this

It listens on this machine only, and answers requests that name it as localhost, 127.0.0.1 or [::1] with
its own port, or by a name given with --allow-host (a proxy's, a tunnel's). A POST must not come from
another site, has a JSON object of the content type application/json as its body, and brings the token:

    Authorization: Bearer TOKEN

The token is made anew at each start and printed once, unless DASHBOARD_TOKEN gives it. The page asks for it
at the first POST, and keeps it in its tab's sessionStorage. POSTs take turns: one waits for a training run that
is under way, but for /stop, which ends one. What may be asked for is bounded, see limits.py.

Errors are answered as {"error": reason in one line}: 400 for a request that is wrong, 401 without the
token, 403 for other sites and names, 404 for a snapshot that is not there, 409 where there is no model
yet, a run is under way already, or the safety rules refuse, 413 and 415 for other bodies, 507 where the
disk does not take a snapshot.
"""

import argparse
import errno
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, current_app, jsonify, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server

from bit_transformer.bit_io import SAMPLE

from . import requests
from .access import check_request, check_token, json_object
from .background import BackgroundRun
from .limits import RANGES, one_line, shown
from .manager import ModelManager

LARGEST_BODY = 8 * 1024 * 1024  # bytes: JSON may spell a byte of the largest text in six
TOKEN_VARIABLE = "DASHBOARD_TOKEN"  # noqa: S105 - its name, not its value
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
PAGE = Path(__file__).parent / "page"
FILES = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
ASKED_OFTEN = ("/status", "/progress")
LONGEST_STEP = 18  # digits
IDLE_SECONDS = 60.0  # after which a client that sends nothing is given up


def create_app(manager: ModelManager | None = None, token: str | None = None, hosts: Sequence[str] = ()) -> Flask:
    """The WSGI application for a manager, by default for a new one.

    POSTs want the token, by default a new one: app.config["TOKEN"]. hosts are names that the server is
    known by besides its own.
    """
    manager = manager or ModelManager()
    token = check_token(secrets.token_urlsafe(32) if token is None else token)
    background = BackgroundRun(manager)
    app = Flask(__name__, static_folder=None, template_folder=PAGE)
    app.config.update(MAX_CONTENT_LENGTH=LARGEST_BODY, TOKEN=token)
    app.extensions["background"] = background
    app.url_map.merge_slashes = False  # a redirect is a page
    app.before_request(lambda: check_request(request, token, hosts))
    app.after_request(keep_to_itself)

    @app.get("/", provide_automatic_options=False)
    def page() -> str:
        return render_template("page.html", **page_values(manager))

    @app.get("/page/<name>", provide_automatic_options=False)
    def file(name: str) -> Response:
        return Response((PAGE / name).read_bytes(), mimetype=FILES[name]) if name in FILES else abort(404)

    @app.get("/progress", provide_automatic_options=False)
    def progress() -> Response:
        return jsonify(requests.progress(manager, background, asked_step()))

    @app.get("/snapshots", provide_automatic_options=False)
    def snapshots() -> Response:
        return jsonify(requests.snapshots(manager))

    @app.get("/status", provide_automatic_options=False)
    def status() -> Response:
        return jsonify(requests.status(manager))

    @app.post("/init", provide_automatic_options=False)
    def init() -> Response:
        return jsonify(requests.init(manager, **json_body("text", "config", "plan")))

    @app.post("/train", provide_automatic_options=False)
    def train() -> Response:
        json_body()
        return jsonify(requests.train(manager))

    @app.post("/run", provide_automatic_options=False)
    def run() -> Response:
        json_body()
        return jsonify(requests.run(background))

    @app.post("/stop", provide_automatic_options=False)
    def stop() -> Response:
        json_body()
        return jsonify(requests.stop(background))

    @app.post("/train_step", provide_automatic_options=False)
    def train_step() -> Response:
        return jsonify(requests.train_step(manager, **json_body("text")))

    @app.post("/scale_up", provide_automatic_options=False)
    def scale_up() -> Response:
        return jsonify(requests.scale_up(manager, **json_body("dimension", "plan")))

    @app.post("/infer", provide_automatic_options=False)
    def infer() -> Response:
        return jsonify(requests.infer(manager, **json_body("text")))

    @app.post("/generate", provide_automatic_options=False)
    def generate() -> Response:
        asked = json_body("text", "bytes", "temperature")
        return jsonify(requests.generate(manager, asked["text"], asked["bytes"], asked["temperature"]))

    @app.post("/attention", provide_automatic_options=False)
    def attention() -> Response:
        return jsonify(requests.attention(manager, **json_body("text", "layer", "head")))

    @app.post("/save", provide_automatic_options=False)
    def save() -> Response:
        return jsonify(requests.save(manager, **json_body("name")))

    @app.post("/download", provide_automatic_options=False)
    def download() -> Response:
        return jsonify(requests.download(manager, **json_body("name", "text", "plan")))

    for refusal in requests.REFUSALS:
        app.register_error_handler(refusal, refuse)
    app.register_error_handler(HTTPException, refuse_http)
    app.register_error_handler(Exception, fail)
    return app


def page_values(manager: ModelManager) -> dict[str, Any]:
    """What the page is made of: the options with their ranges, a text to begin with, and whether there is a model."""
    options = {group: requests.SCHEMAS[group]["properties"] for group in ("config", "plan")}
    sample = SAMPLE.read_text(encoding="utf-8")[:4000] if SAMPLE.exists() else ""
    return {"options": options, "ranges": RANGES, "sample": sample, "ready": manager.status()["ready"]}


def asked_step() -> int:
    """The step that the query names, 0 by default. Raises ValueError."""
    if unknown := sorted(request.args.keys() - {"since"}):
        raise ValueError(f"unknown parameter {shown(unknown[0])}: expected since")
    text = request.args.get("since", "0")
    if not (text.isascii() and text.isdecimal() and len(text) <= LONGEST_STEP):
        raise ValueError(f"since must be a step, a whole number, got {shown(text)}")
    return int(text)


def json_body(*names: str) -> dict[str, Any]:
    """The named members of the request's JSON object, None where one is missing.

    Raises ValueError where the body is no object, or has members of other names.
    """
    body = json_object(request)
    if unknown := sorted(body.keys() - set(names)):
        raise ValueError(f"unknown member {shown(unknown[0])}: expected {', '.join(names) or 'none'}")
    return {name: body.get(name) for name in names}


def refuse(error: Exception) -> tuple[Response, int]:
    """Answer an error that is the request's, or the disk's, not ours."""
    code = {ValueError: 400, FileNotFoundError: 404, OSError: 507 if getattr(error, "errno", None) in FULL else 500}
    status = next((code[kind] for kind in code if isinstance(error, kind)), 409)
    return jsonify({"error": one_line(error)}), status


def refuse_http(error: HTTPException) -> tuple[Response, int]:
    """Answer an error of HTTP itself, with the headers that belong to it."""
    response = jsonify({"error": one_line(error.description or error.name)})
    response.headers.extend((name, value) for name, value in error.get_headers() if name != "Content-Type")
    return response, error.code or 500


def fail(error: Exception) -> tuple[Response, int]:
    """Answer an error of ours; the log says where it was."""
    current_app.logger.exception("%s %r failed", request.method, request.path)
    return jsonify({"error": one_line(f"the server failed: {type(error).__name__}: {error}")}), 500


def keep_to_itself(response: Response) -> Response:
    """Let no other site, and no cache, have an answer."""
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response


class JsonErrors(WSGIRequestHandler):
    """Answers what is no HTTP in JSON too, where http.server would send a page."""

    timeout = IDLE_SECONDS

    def run_wsgi(self) -> None:
        """Answer a request; its target may be none."""
        try:
            super().run_wsgi()
        except ValueError as error:
            self.path = "?"  # the log could not read it either
            self.send_error(400, f"no request target: {error}")

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log a request, but for what the page asks twice a second."""
        if getattr(self, "path", "").partition("?")[0] not in ASKED_OFTEN:
            super().log_request(code, size)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with an error, and close the connection."""
        body = json.dumps({"error": one_line(message or explain or f"HTTP status {code}")}).encode()
        self.request_version = self.protocol_version  # of a line that names none, headers would be left out
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the dashboard on this machine."""
    parser = argparse.ArgumentParser(prog="dashboard.app", description="Serve the dashboard.")
    parser.add_argument("--port", type=int, default=5000, help="0 takes one that is free")
    parser.add_argument("--snapshots", type=Path, default=Path("snapshots"), help="folder of snapshots")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME[:PORT]", help="another name that leads here"
    )
    args = parser.parse_args(argv)
    given = os.environ.get(TOKEN_VARIABLE) or None
    try:
        app = create_app(ModelManager(args.snapshots), token=given, hosts=args.allow_host)
        server = make_server("127.0.0.1", args.port, app, threaded=True, request_handler=JsonErrors)
    except (ValueError, OverflowError) as error:
        parser.error(one_line(error))
    print(f"Serving on http://127.0.0.1:{server.server_port}")
    print(f"Authorization: Bearer {'the value of ' + TOKEN_VARIABLE if given else app.config['TOKEN']}", flush=True)
    server.serve_forever()  # until Ctrl-C
    app.extensions["background"].end()


if __name__ == "__main__":
    main()
