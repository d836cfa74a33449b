"""A dashboard that is asked, and what its answers must be."""

import json
import os
import threading

import pytest

from bit_transformer.bit_io import bits_to_rows, text_to_bits
from dashboard.app import create_app
from dashboard.manager import ModelManager

CONFIG = {"d_model": 16, "nhead": 2, "num_layers": 1, "dim_feedforward": 32, "max_seq_len": 90}
TEXT = "judge my vow " * 20
BEARER = {"Authorization": "Bearer secret"}
POSTS = (
    *("init", "train", "train_step", "scale_up", "infer", "save", "download"),
    *("run", "stop", "generate", "attention"),
)


class Asked:
    """A manager with a model, and a dashboard that is asked for it."""

    def __init__(self, folder):
        self.manager = ModelManager(folder)
        rows = bits_to_rows(text_to_bits(TEXT), 90)
        self.manager.init(rows, plan={"batch_size": 16}, **CONFIG)
        self.client = create_app(self.manager, token="secret").test_client()

    def state(self):
        weights = [parameter.sum().item() for parameter in self.manager.model.parameters()]
        gradients = [parameter.grad is None for parameter in self.manager.model.parameters()]
        files = sorted(os.listdir(self.manager.snapshots)) if self.manager.snapshots.is_dir() else []
        kept = (id(self.manager.model), id(self.manager.data), id(self.manager.optimizer), id(self.manager.scheduler))
        return self.manager.status(), weights, gradients, files, kept, list(self.manager.history)

    def post(self, path, data=b"{}", **headers):
        """Post raw bytes as JSON; headers, with _ for -, change what comes with them."""
        sent = {"Content-Type": "application/json", **BEARER}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if value is not None}
        return self.client.post(path, data=data, headers=sent)

    def get(self, path):
        """What is answered to a GET that needs no token."""
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return json.loads(answer.get_data(), parse_constant=pytest.fail)

    def ended(self):
        """The run in the background, once it is over."""
        for thread in threading.enumerate():
            if thread.name == "training run":
                thread.join(60)
        return self.get("/progress")["run"]

    def refuses(self, status, path, data=b"{}", **headers):
        """Check that a post is answered so, in one line of JSON, and changes nothing; return the line."""
        before = self.state()
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        reason = error_of(self.post(path, data, **headers), status)
        assert self.state() == before
        return reason


def error_of(answer, status):
    assert answer.status_code == status, answer.get_data(as_text=True)
    assert answer.mimetype == "application/json"
    body = json.loads(answer.get_data(), parse_constant=pytest.fail)
    assert body.keys() == {"error"}
    assert body["error"].strip()
    assert len(body["error"].splitlines()) == 1
    assert len(body["error"]) <= 400
    return body["error"]
