"""A run in the background: its progress, its end, and what else is asked meanwhile."""

import json
import threading

import pytest
import torch
from trees.asking import CONFIG, TEXT, Asked, error_of

from dashboard import background
from dashboard.manager import ModelManager


@pytest.fixture
def held(asked):
    """A dashboard whose second update waits until it is let go."""
    entered, leave = threading.Event(), threading.Event()

    def wait(*_):
        if asked.manager.step == 1:
            entered.set()
            leave.wait(60)

    asked.post("/init", json.dumps({"text": TEXT, "config": CONFIG, "plan": {"epochs": 3, "batch_size": 8}}).encode())
    asked.manager.model.out.register_forward_pre_hook(wait)
    asked.let_go = leave.set
    assert asked.post("/run").status_code == 200
    assert entered.wait(60)
    yield asked
    leave.set()
    asked.ended()


def updates(run):
    return run["state"], run["updates"], run["planned"]


def test_a_run_carries_the_plan_out(asked):
    answer = asked.post("/run")
    assert answer.json["state"] == "running"
    run = asked.ended()
    assert (updates(run), run["reason"]) == (("done", 2, 2), None)
    assert run["seconds"] > 0
    assert asked.manager.step == 2
    assert asked.get("/progress")["records"] == list(asked.manager.history)


def test_a_run_trains_as_a_request_does(tmp_path):
    weights = []
    for path in ("/train", "/run"):
        torch.manual_seed(0)
        asked = Asked(tmp_path)
        assert asked.post(path).status_code == 200
        asked.ended()
        weights.append(torch.cat([each.detach().flatten() for each in asked.manager.model.parameters()]))
    assert torch.equal(*weights)


def test_progress_is_seen_while_it_is_made(held):
    progress = held.get("/progress")
    assert updates(progress["run"]) == ("running", 1, 12)
    assert [record["step"] for record in progress["records"]] == [1]


def test_a_second_run_is_refused(held):
    assert "run is under way" in error_of(held.post("/run"), 409)
    held.let_go()
    assert updates(held.ended()) == ("done", 12, 12)
    assert held.post("/run").status_code == 200


def test_a_stop_takes_effect_after_the_update_under_way(held):
    assert updates(held.post("/stop").json) == ("stopping", 1, 12)
    assert updates(held.post("/stop").json) == ("stopping", 1, 12)
    assert "run is under way" in error_of(held.post("/run"), 409)
    held.let_go()
    assert updates(held.ended()) == ("stopped", 2, 12)
    assert held.manager.step == 2
    assert "no run" in error_of(held.post("/stop"), 409)


def test_other_requests_wait_for_the_run(held):
    answers = []
    other = threading.Thread(target=lambda: answers.append(held.post("/save", b'{"name": "one"}')), daemon=True)
    other.start()
    other.join(0.2)
    assert not answers
    held.let_go()
    other.join(60)
    assert answers[0].status_code == 200
    assert updates(held.ended()) == ("done", 12, 12)


def test_a_stopped_run_is_gone_on_from(held):
    held.post("/stop")
    held.let_go()
    held.ended()
    assert held.post("/run").status_code == 200
    assert updates(held.ended()) == ("done", 12, 12)
    assert held.manager.step == 14


def test_there_is_nothing_to_run_without_a_model_or_data(asked, tmp_path):
    run = background.BackgroundRun(ModelManager(tmp_path))
    with pytest.raises(RuntimeError, match="no model yet"):
        run.start()
    asked.manager.save("one")
    asked.manager.download("one")
    assert "no data" in asked.refuses(409, "/run")
    assert asked.get("/progress")["run"]["state"] == "none"


def test_a_gate_that_trips_ends_the_run_in_words(asked):
    asked.manager.gate.threshold = 0.01
    body = {"text": TEXT, "config": CONFIG, "plan": {"epochs": 20, "batch_size": 16}}
    asked.post("/init", json.dumps(body).encode())
    asked.post("/run")
    run = asked.ended()
    assert run["state"] == "failed"
    assert run["reason"].startswith("training stopped: validation loss")
    assert asked.get("/progress")["gate"]["tripped"]
    assert updates(run) == ("failed", asked.manager.step, 40)


def test_a_loss_that_is_not_finite_ends_the_run_in_words(asked, monkeypatch):
    monkeypatch.setattr(asked.manager.gate, "allows", lambda _: True)
    with torch.no_grad():
        asked.manager.model.out.bias.fill_(float("inf"))
    asked.post("/run")
    run = asked.ended()
    assert (run["state"], run["updates"]) == ("failed", 1)
    assert "the loss is nan" in run["reason"]
    assert "lower learning rate" in run["reason"]
    assert asked.get("/progress")["records"][0]["loss"] is None


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")],
    ids=["Python", "torch"],
)
def test_memory_that_is_not_there_ends_the_run_in_words(asked, monkeypatch, error):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(asked.manager.optimizer, "step", broken)
    asked.post("/run")
    run = asked.ended()
    assert (run["state"], run["updates"]) == ("failed", 0)
    assert run["reason"].startswith("out of memory: take fewer rows")
    assert all(parameter.grad is None for parameter in asked.manager.model.parameters())


def test_a_fault_ends_the_run_in_one_line(asked, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr(asked.manager.optimizer, "step", broken)
    asked.post("/run")
    assert asked.ended()["reason"] == "one two"
    monkeypatch.undo()
    asked.post("/run")
    assert updates(asked.ended()) == ("done", 2, 2)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/init", {"text": TEXT, "config": CONFIG}),
        ("/scale_up", {"dimension": "width"}),
        ("/download", {"name": "one", "text": TEXT}),
    ],
)
def test_a_run_is_forgotten_with_what_it_trained(asked, path, body):
    asked.manager.save("one")
    asked.post("/run")
    asked.ended()
    assert asked.post(path, json.dumps(body).encode()).status_code == 200
    run = asked.get("/progress")["run"]
    assert (run["state"], run["updates"], run["reason"]) == ("none", 0, None)
    assert run["planned"] > 0


def test_the_records_are_those_from_a_step_on(asked):
    asked.manager.train()
    asked.manager.train()
    for since, steps in ((0, [1, 2, 3, 4]), (3, [3, 4]), (5, [])):
        assert [record["step"] for record in asked.get(f"/progress?since={since}")["records"]] == steps


@pytest.mark.parametrize(
    "query", ["since=-1", "since=", "since=1.5", "since=x", "since=²", "since=" + "9" * 99, "from=1"]
)
def test_a_step_that_is_none_is_refused(asked_in_vain, query):
    assert "since" in error_of(asked_in_vain.client.get(f"/progress?{query}"), 400)


def test_the_gate_is_told_with_its_average_where_it_has_one(asked):
    asked.manager.train()
    gate = asked.get("/progress")["gate"]
    kept = asked.manager.gate.state_dict()
    assert (gate["threshold"], gate["tripped"]) == (2.0, False)
    assert (gate["average"], gate["steps"]) == (kept.get("ema_val"), kept.get("steps", 0))
    assert gate["burn_in_steps"] == getattr(asked.manager.gate, "burn_in_steps", 0)
