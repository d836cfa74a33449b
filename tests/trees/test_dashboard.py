import asyncio

import pytest
import torch
from mcp import Client

from bit_transformer.bit_io import bits_to_rows, text_to_bits
from bit_transformer.safety import SafetyError
from dashboard.app import create_app
from dashboard.manager import ModelManager, NotReadyError
from mcp_server import build_server

CONFIG = {"d_model": 16, "nhead": 2, "num_layers": 1, "dim_feedforward": 32, "max_seq_len": 90}
TOOLS = {"status", "init", "train", "train_step", "scale_up", "infer", "save", "download"}


@pytest.fixture
def manager(tmp_path):
    return ModelManager(tmp_path / "snapshots")


@pytest.fixture(scope="module")
def rows(corpus):
    return bits_to_rows(text_to_bits(corpus), 90)[:64]


@pytest.fixture
def post(manager):
    client = create_app(manager, token="secret").test_client()

    def post(path, **body):
        return client.post(path, json=body, headers={"Authorization": "Bearer secret"})

    return post


def test_a_manager_without_a_model_says_so(manager, rows):
    assert manager.status() == {"ready": False}
    for call in (
        manager.train,
        lambda: manager.infer(rows),
        lambda: manager.scale_up("width"),
        lambda: manager.save("a"),
    ):
        with pytest.raises(NotReadyError, match="init or download"):
            call()


def test_training_carries_the_plan_out(manager, rows):
    manager.init(rows, plan={"epochs": 3, "batch_size": 16, "extra_steps": 1, "lr": 1e-2}, **CONFIG)
    records = manager.train()
    assert len(records) == 3 * (4 + 1)
    assert [record["step"] for record in records] == list(range(1, 16))
    assert records[-1]["loss"] < records[0]["loss"]
    assert max(record["lr"] for record in records) <= 1e-2
    assert manager.status()["last"] == records[-1]


@pytest.mark.parametrize(
    ("dimension", "name"), [("width", "d_model"), ("layers", "num_layers"), ("length", "max_seq_len")]
)
def test_scaling_up_goes_on_training_the_larger_model(manager, rows, dimension, name):
    manager.init(rows, plan={"batch_size": 16}, **CONFIG)
    manager.train()
    before = manager.infer(rows[:2])
    status = manager.scale_up(dimension, plan={"epochs": 2, "batch_size": 32})
    assert status["config"][name] == 2 * CONFIG[name]
    torch.testing.assert_close(manager.infer(rows[:2])["probability"], before["probability"], atol=1e-5, rtol=0)
    assert len(manager.train()) == 4
    held = {id(parameter) for group in manager.optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in manager.model.parameters()}
    assert manager.scheduler.optimizer is manager.optimizer


def test_contexts_are_counted_in_the_rows_that_are_given(manager, rows):
    manager.init(rows, context_orders=2, context_slots=256, **CONFIG)
    counted = manager.model.contexts.tables.clone()
    assert counted.any()
    manager.model.contexts.count(rows)
    assert torch.equal(manager.model.contexts.tables, counted)


def test_a_snapshot_goes_on_where_it_was_saved(manager, rows):
    manager.init(rows, plan={"batch_size": 16}, **CONFIG)
    manager.train()
    expected, moments = manager.infer(rows[:2]), manager.optimizer.state_dict()["state"]
    manager.save("one")
    manager.init(rows, **CONFIG)
    status = manager.download("one", rows, plan={"epochs": 2})
    assert status["step"] == 4
    assert status["plan"]["epochs"] == 2
    assert manager.infer(rows[:2]) == expected
    restored = manager.optimizer.state_dict()["state"]
    assert all(torch.equal(restored[key]["exp_avg"], moments[key]["exp_avg"]) for key in moments)
    assert len(manager.train()) == 8


def test_a_snapshot_without_data_answers_but_has_nothing_to_train_on(manager, rows):
    manager.init(rows, plan={"batch_size": 16}, **CONFIG)
    manager.save("one")
    manager.download("one")
    manager.infer(rows[:1])
    manager.train_step(rows[:4])
    with pytest.raises(NotReadyError, match="no data"):
        manager.train()


@pytest.mark.parametrize("name", ["../one", "", ".hidden", "a/b"])
def test_a_snapshot_stays_in_its_folder(manager, rows, name):
    manager.init(rows, **CONFIG)
    with pytest.raises(ValueError, match="snapshot's name"):
        manager.save(name)


@pytest.mark.parametrize("plan", [{"epochs": 0}, {"batch_size": 0}, {"extra_steps": -1}])
def test_a_plan_that_cannot_be_is_refused(manager, rows, plan):
    with pytest.raises(ValueError, match=next(iter(plan))):
        manager.init(rows, plan=plan, **CONFIG)


def test_an_answer_under_the_floor_is_withheld(tmp_path, rows):
    manager = ModelManager(tmp_path, c_floor=1.1)
    manager.init(rows, **CONFIG)
    with pytest.raises(SafetyError):
        manager.infer(rows[:1])


def test_validation_rows_are_what_the_gate_sees(manager, rows):
    manager.init(rows[8:], validation=rows[:8], **CONFIG)
    expected = manager.evaluate(rows[:8])
    record = manager.train_step(rows[8:16])
    assert record["val_loss"] == pytest.approx(expected)
    assert record["val_loss"] != record["loss"]


def test_the_dashboard_trains_grows_and_answers(post, corpus):
    assert post("/init", text=corpus, config=CONFIG, plan={"batch_size": 128}).json["ready"]
    assert post("/train_step", text=corpus[:40]).json["step"] == 1
    assert post("/save", name="one").status_code == 200
    assert post("/download", name="one", text=corpus, plan={"batch_size": 128}).json["step"] == 1
    assert post("/train").json["updates"] >= 2
    assert post("/scale_up", dimension="width").json["config"]["d_model"] == 32
    assert post("/infer", text="the quick").json["next_bit"][0] in (0, 1)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/init", {}),
        ("/init", {"text": ""}),
        ("/init", {"text": "too short"}),
        ("/init", {"text": 3}),
        ("/init", {"text": "a" * 99, "config": {"d_modl": 16}}),
        ("/init", {"text": "a" * 99, "config": {"d_model": "16"}}),
        ("/init", {"text": "a" * 99, "config": {"d_model": True}}),
        ("/init", {"text": "a" * 99, "config": {"max_seq_len": 0}}),
        ("/init", {"text": "a" * 200, "config": {"d_model": 15}}),
        ("/init", {"text": "a" * 200, "plan": {"rows": 5}}),
        ("/init", {"text": "a" * 200, "plan": [1]}),
        ("/init", {"text": "a" * 200, "surprise": 1}),
        ("/scale_up", {"dimension": "depth"}),
        ("/scale_up", {"dimension": ["width"]}),
        ("/save", {"name": "../up"}),
        ("/download", {"name": 7}),
    ],
)
def test_a_wrong_request_is_answered_with_400_and_the_reason(post, path, body):
    answer = post(path, **body)
    assert answer.status_code == 400
    assert answer.json["error"]


@pytest.mark.parametrize("path", ["/train", "/infer", "/scale_up"])
def test_a_request_before_there_is_a_model_is_answered_with_409(post, path):
    body = {"/train": {}, "/infer": {"text": "a"}, "/scale_up": {"dimension": "width"}}[path]
    assert post(path, **body).status_code == 409


def test_a_snapshot_that_is_not_there_is_answered_with_404(post):
    assert post("/download", name="none").status_code == 404


def test_the_dashboard_does_not_debug(manager):
    assert not create_app(manager).debug


def test_the_mcp_server_offers_the_same_operations(manager, corpus):
    async def talk():
        async with Client(build_server(manager)) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            made = await client.call_tool("init", {"text": corpus, "config": CONFIG, "plan": {"batch_size": 128}})
            step = await client.call_tool("train_step", {"text": corpus[:40]})
            wrong = await client.call_tool("scale_up", {"dimension": "depth"})
            return tools, made, step, wrong

    tools, made, step, wrong = asyncio.run(talk())
    assert tools == TOOLS
    assert made.structured_content["ready"] is True
    assert step.structured_content["step"] == manager.step == 1
    assert wrong.is_error
    assert "width, layers, length" in wrong.content[0].text
