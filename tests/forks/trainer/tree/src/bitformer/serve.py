"""A JSON server in front of a ModelManager. POST /init, /train, /train_step, ..."""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, Optional, Sequence

from .session import ModelManager, text_rows


def dispatch(manager: ModelManager, path: str, body: Dict[str, Any]) -> Any:
    """What a request asks for. Raises KeyError for a path that is not known."""
    if path == "/init":
        length = body.get("model", {}).get("max_len", 1152)
        rows = text_rows(body["text"], length)
        return manager.init(rows, body.get("model"), body.get("train"))
    if path == "/train":
        return manager.train()
    if path == "/train_step":
        length = manager.status()["model"]["max_len"]
        return manager.train_step(text_rows(body["text"], length))
    if path == "/scale_up":
        return manager.scale_up(body["what"])
    if path == "/save":
        return {"path": manager.save(body["name"])}
    if path == "/download":
        rows = text_rows(body["text"], body.get("length", 1152))
        return manager.download(body["name"], rows)
    if path == "/status":
        return manager.status()
    raise KeyError(path)


class Handler(BaseHTTPRequestHandler):
    manager: ModelManager

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        try:
            body = json.loads(self.rfile.read(size) or b"{}")
            code, answer = 200, dispatch(self.manager, self.path, body)
        except KeyError as error:
            code, answer = 404, {"error": f"unknown: {error}"}
        except (ValueError, RuntimeError) as error:
            code, answer = 409, {"error": str(error)}
        payload = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(payload)


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(prog="bitformer-serve")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--folder", default="snapshots")
    args = parser.parse_args(argv)
    Handler.manager = ModelManager(args.folder)
    ThreadingHTTPServer(("127.0.0.1", args.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
