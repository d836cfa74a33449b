"""Management Control Protocol server: long requests become jobs.

POST /init, /train, /scale_up, /download answer {"job_id": n} at once, GET /job/<n> tells how it
went. The work is done by a small thread pool; all jobs share one ModelManager.
"""

import itertools
import os
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Optional

import torch

from bit_transformer.dashboard_app import ModelManager, text_batch

try:
    from flask import Flask, jsonify, request
except ImportError:  # jobs can be used without the web part
    Flask = None


class JobServer:
    def __init__(self, manager: Optional[ModelManager] = None, workers: int = 2):
        self.manager = manager or ModelManager()
        self.pool = ThreadPoolExecutor(max_workers=workers)
        self.jobs: Dict[int, Dict[str, Any]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
        with self._lock:
            number = next(self._numbers)
            self.jobs[number] = {"status": "queued", "result": None, "error": None}
        self.pool.submit(self._work, number, fn, args, kwargs)
        return number

    def _work(self, number: int, fn: Callable[..., Any], args: Any, kwargs: Any):
        job = self.jobs[number]
        job["status"] = "running"
        try:
            job["result"] = fn(*args, **kwargs)
            job["status"] = "done"
        except Exception as err:
            traceback.print_exc()
            job["error"] = str(err)
            job["status"] = "failed"

    # what can be asked for

    def init(self, params: Dict[str, Any]) -> int:
        return self.submit(self.manager.init_model, params)

    def train(self, data: Dict[str, Any]) -> int:
        rows = torch.tensor(data["bits"], dtype=torch.long)
        return self.submit(
            self.manager.train_epochs,
            rows,
            epochs=int(data.get("epochs", 1)),
            batch_size=int(data.get("batch_size", 8)),
            accum_steps=int(data.get("accum_steps", 1)),
        )

    def train_step(self, data: Dict[str, Any]) -> int:
        bits = text_batch(data["text"], self.manager.model.max_seq_len)
        return self.submit(self.manager.train_step, bits)

    def scale_up(self, data: Dict[str, Any]) -> int:
        return self.submit(self.manager.scale_up, **data)

    def download(self, data: Dict[str, Any]) -> int:
        return self.submit(self.manager.download, data.get("name", "model"))


def create_app(server: Optional[JobServer] = None):
    if Flask is None:
        raise SystemExit("mcp_server needs Flask: pip install flask")
    app = Flask("mcp_server")
    jobs = server or JobServer()

    for name in ("init", "train", "train_step", "scale_up", "download"):

        def handle(name=name):
            number = getattr(jobs, name)(request.get_json(force=True) or {})
            return jsonify({"job_id": number})

        app.add_url_rule(f"/{name}", endpoint=name, view_func=handle, methods=["POST"])

    @app.get("/job/<int:number>")
    def job(number):
        if number not in jobs.jobs:
            return jsonify({"error": "no such job"}), 404
        return jsonify(jobs.jobs[number])

    @app.get("/status")
    def status():
        return jsonify(jobs.manager.status())

    return app


if __name__ == "__main__":
    create_app().run(host="127.0.0.1", port=int(os.getenv("MCP_PORT", "7000")))
