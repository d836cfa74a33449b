"""Management server: the manager's operations as jobs, one JSON object per line on stdin and stdout.

    {"submit": "train"}              ->  {"job": 1}
    {"result": 1}                    ->  {"job": 1, "done": true, "value": [...]}
"""

import itertools
import json
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Dict

from bit_transformer.dashboard_app import ACTIONS, ModelManager


class JobServer:
    def __init__(self, manager: ModelManager, workers: int = 2) -> None:
        self.manager = manager
        self.pool = ThreadPoolExecutor(max_workers=workers)
        self.jobs: Dict[int, Future] = {}
        self.numbers = itertools.count(1)

    def handle(self, request: Dict[str, Any]) -> Dict[str, Any]:
        if "submit" in request:
            if request["submit"] not in ACTIONS:
                return {"error": "no such action"}
            action = getattr(self.manager, request["submit"])
            number = next(self.numbers)
            self.jobs[number] = self.pool.submit(action, **request.get("arguments", {}))
            return {"job": number}
        job = self.jobs.get(request.get("result"))
        if job is None:
            return {"error": "no such job"}
        if not job.done():
            return {"job": request["result"], "done": False}
        if job.exception() is not None:
            return {"job": request["result"], "done": True, "error": str(job.exception())}
        return {"job": request["result"], "done": True, "value": job.result()}


def main() -> None:
    server = JobServer(ModelManager())
    for line in sys.stdin:
        print(json.dumps(server.handle(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
