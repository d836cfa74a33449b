"""A bench behind HTTP: POST /init, /train, /train_step, /scale_up, /save, /download, /infer; GET /."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bitlm import bench as work
from bitlm.bits import cut_rows, text_to_bits
from bitlm.config import ModelConfig, TrainConfig, pick

SNAPSHOTS = Path("snapshots")


def answer(bench: work.Bench, route: str, body: dict[str, Any]) -> Any:
    if route == "init":
        return work.init(bench, body["text"], pick(ModelConfig, body), pick(TrainConfig, body))
    if route == "train":
        return work.train(bench)
    if route == "train_step":
        bits = text_to_bits(body["text"])
        return work.train_step(bench, cut_rows(bits, min(len(bits), bench["model"].cfg.max_seq_len)))
    if route == "scale_up":
        return work.scale_up(bench, body["what"])
    if route == "save":
        SNAPSHOTS.mkdir(exist_ok=True)
        return work.save(bench, SNAPSHOTS / Path(body["name"]).name)
    if route == "download":
        return work.download(bench, SNAPSHOTS / Path(body["name"]).name, body["text"], body.get("epochs"))
    if route == "infer":
        return work.infer(bench, body["prompt"], body.get("count", 9))
    raise LookupError(route)


def handler_for(bench: work.Bench) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(200, work.look(bench))

        def do_POST(self) -> None:
            try:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
                with bench["lock"]:
                    self.reply(200, answer(bench, self.path.strip("/"), body))
            except LookupError as error:
                self.reply(404, {"error": f"missing: {error}"})
            except (ValueError, RuntimeError, OSError) as error:
                self.reply(400, {"error": str(error)})

        def reply(self, code: int, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


def serve(host: str, port: int) -> None:
    ThreadingHTTPServer((host, port), handler_for(work.new_bench())).serve_forever()
