"""The dashboard: a JSON interface to a ModelManager.

    python -m dashboard.app --port 5000

POST /init        {"text", "config": {...}, "plan": {...}}   make a model, to be trained on a text
POST /train                                                  carry the plan out
POST /train_step  {"text"}                                   make one update
POST /scale_up    {"dimension", "plan": {...}}               double "width", "layers" or "length"
POST /infer       {"text"}                                   predict the next bit
POST /save        {"name"}                                   write a snapshot
POST /download    {"name", "text", "plan": {...}}            go on from a snapshot
GET  /status

Errors are answered as {"error": message}: 400 for a request that is wrong, 404 for a snapshot that is
not there, 409 where there is no model yet or the safety rules refuse.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request

from . import requests
from .manager import ModelManager

LARGEST_BODY = 64 * 1024 * 1024  # bytes


def create_app(manager: ModelManager | None = None) -> Flask:
    """The WSGI application for a manager, by default for a new one."""
    manager = manager or ModelManager()
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY

    @app.get("/status")
    def status() -> Response:
        return jsonify(manager.status())

    @app.post("/init")
    def init() -> Response:
        return jsonify(requests.init(manager, **json_body("text", "config", "plan")))

    @app.post("/train")
    def train() -> Response:
        return jsonify(requests.train(manager))

    @app.post("/train_step")
    def train_step() -> Response:
        return jsonify(requests.train_step(manager, **json_body("text")))

    @app.post("/scale_up")
    def scale_up() -> Response:
        return jsonify(requests.scale_up(manager, **json_body("dimension", "plan")))

    @app.post("/infer")
    def infer() -> Response:
        return jsonify(requests.infer(manager, **json_body("text")))

    @app.post("/save")
    def save() -> Response:
        return jsonify(requests.save(manager, **json_body("name")))

    @app.post("/download")
    def download() -> Response:
        return jsonify(requests.download(manager, **json_body("name", "text", "plan")))

    for refusal in requests.REFUSALS:
        app.register_error_handler(refusal, refuse)
    return app


def json_body(*names: str) -> dict[str, Any]:
    """The named members of the request's JSON object, None where one is missing.

    Raises ValueError where the body is no object, or has members of other names.
    """
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise ValueError("expected a JSON object as the body")
    if unknown := sorted(body.keys() - set(names)):
        raise ValueError(f"unknown members {unknown}: expected {', '.join(names)}")
    return {name: body.get(name) for name in names}


def refuse(error: Exception) -> tuple[Response, int]:
    """Answer an error that is the request's, not ours."""
    code = {ValueError: 400, FileNotFoundError: 404}
    status = next((code[kind] for kind in code if isinstance(error, kind)), 409)
    return jsonify({"error": str(error)}), status


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the dashboard on this machine."""
    parser = argparse.ArgumentParser(prog="dashboard.app", description="Serve the dashboard.")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--snapshots", type=Path, default=Path("snapshots"), help="folder of snapshots")
    args = parser.parse_args(argv)
    create_app(ModelManager(args.snapshots)).run(host="127.0.0.1", port=args.port)


if __name__ == "__main__":
    main()
