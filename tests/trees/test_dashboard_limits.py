"""What the dashboard may be asked for: sizes, and what is left where a request fails."""

import json
import threading
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trees.asking import CONFIG, TEXT, error_of

from bit_transformer.model import BitTransformerLM
from dashboard import limits, requests
from dashboard.manager import ModelManager

OPTIONS = [("config", name) for name in requests.CONFIG] + [("plan", name) for name in requests.PLAN]


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_an_option_out_of_its_range_is_named(asked_in_vain, group, name):
    kind, optional = limits.kind_of((requests.CONFIG if group == "config" else requests.PLAN)[name])
    wrong = ["16", [], {}, [[1]]] + ([] if optional else [None])
    wrong += [0, 1, 0.5, -1] if kind is bool else [True, -1, 1e30, -1e30, 10**18, 10**400, 2**63]
    wrong += [1.5] if kind is int else []
    for value in wrong:
        body = {"text": TEXT, "config": CONFIG, "plan": {}}
        body[group] = body[group] | {name: value}
        assert name in asked_in_vain.refuses(400, "/init", body)
        if group == "plan":
            assert name in asked_in_vain.refuses(400, "/scale_up", {"dimension": "width", "plan": {name: value}})


def test_every_number_has_a_range():
    numbers = {
        name
        for kinds in (requests.CONFIG, requests.PLAN)
        for name in kinds
        if limits.kind_of(kinds[name])[0] is not bool
    }
    assert numbers <= limits.RANGES.keys()
    defaults = requests.DEFAULTS | requests.PLAN_DEFAULTS
    for name in numbers:
        if defaults[name] is not None:
            limits.check_range(name, defaults[name])


def test_the_defaults_are_taken():
    limits.check_run(requests.DEFAULTS, requests.PLAN_DEFAULTS, 1000)


@pytest.mark.parametrize(
    ("config", "plan", "reason"),
    [
        ({"d_model": 15}, {}, "multiple of nhead"),
        ({"nhead": 3}, {}, "multiple of nhead"),
        ({"overlap": 4}, {}, "chunk_size"),
        ({"chunk_size": 91}, {}, "chunk_size must be at most max_seq_len"),
        ({"chunk_size": 9, "overlap": 91}, {}, "overlap must be at most max_seq_len"),
        ({"d_model": 4096, "dim_feedforward": 16384, "num_layers": 256}, {}, "parameters"),
        ({"d_model": 4096, "num_layers": 16}, {}, "parameters"),
        ({}, {"epochs": 10_000, "extra_steps": 10_000}, "updates of the plan"),
        ({}, {"epochs": 10_000, "batch_size": 1}, "updates of the plan"),
        ({"max_seq_len": 65_536, "nhead": 16}, {}, "do not fill one row"),
    ],
)
def test_what_options_come_to_is_bounded(asked_in_vain, config, plan, reason):
    assert reason in asked_in_vain.refuses(400, "/init", {"text": TEXT, "config": CONFIG | config, "plan": plan})


def test_memory_is_bounded_before_it_is_taken(asked_in_vain):
    config = CONFIG | {"max_seq_len": 16_384}
    text = "a" * 20_000
    assert "bytes of an update" in asked_in_vain.refuses(400, "/init", {"text": text, "config": config})


def test_one_step_on_a_long_text_is_bounded(asked):
    asked.manager.init(
        asked.manager.data[:, :2], **CONFIG | {"max_seq_len": 2, "d_model": 128, "dim_feedforward": 4096}
    )
    assert "bytes of an update" in asked.refuses(400, "/train_step", {"text": "a" * 300_000})


@pytest.mark.parametrize("path", ["init", "train_step", "infer", "download"])
def test_the_length_of_a_text_is_bounded(asked, path):
    asked.manager.save("one")
    body = {"text": "é" * 600_000} | ({"name": "one"} if path == "download" else {})
    assert "bytes of text" in asked.refuses(400, f"/{path}", body)


@pytest.mark.parametrize(
    ("dimension", "name"), [("width", "d_model"), ("layers", "num_layers"), ("length", "max_seq_len")]
)
def test_doubling_ends_where_the_range_does(asked, dimension, name, monkeypatch):
    monkeypatch.setitem(limits.RANGES, name, limits.Range(1, 3 * CONFIG[name]))
    body = json.dumps({"dimension": dimension}).encode()
    assert asked.post("/scale_up", body).json["config"][name] == 2 * CONFIG[name]
    assert name in asked.refuses(400, "/scale_up", body)


def test_doubling_ends_where_the_memory_does(asked, monkeypatch):
    monkeypatch.setitem(limits.RANGES, "parameters", limits.Range(1, 20_000))
    answers = [asked.post("/scale_up", b'{"dimension": "width"}') for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 400, 400, 400]
    assert asked.manager.status()["parameters"] <= 20_000


configurations = st.fixed_dictionaries(
    {
        "d_model": st.sampled_from([4, 8, 12]),
        "nhead": st.sampled_from([1, 2, 4]),
        "num_layers": st.integers(1, 3),
        "dim_feedforward": st.integers(1, 20),
        "max_seq_len": st.integers(2, 40),
        "use_act": st.booleans(),
    }
)


@given(config=configurations)
def test_parameters_are_counted_without_the_model(config):
    made = sum(parameter.numel() for parameter in BitTransformerLM(**config).parameters())
    assert limits.count_parameters(config) == made


class Taken(TorchDispatchMode):
    """The most bytes of tensors that are alive at once while this is entered."""

    def __init__(self):
        super().__init__()
        self.alive, self.most = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and id(tensor.untyped_storage()) not in self.alive:
                storage = tensor.untyped_storage()
                self.alive[id(storage)] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, id(storage), None)
        self.most = max(self.most, sum(self.alive.values()))
        return made


@settings(max_examples=30)
@given(
    config=configurations,
    more=st.fixed_dictionaries(
        {
            "reversible": st.booleans(),
            "use_checkpoint": st.booleans(),
            "chunk_size": st.none() | st.integers(1, 64),
            "full_attn_logging": st.booleans(),
        }
    ),
    rows=st.integers(1, 6),
)
def test_the_memory_of_an_update_is_estimated_from_above(config, more, rows):
    config = config | more | {"max_seq_len": 64, "overlap": 0 if more["chunk_size"] is None else 7}
    manager, bits = ModelManager(), torch.randint(0, 2, (rows, 64))
    with Taken() as taken:
        manager.init(bits, **config)
        for _ in range(2):
            manager.train_step(bits)
    estimated = limits.update_bytes(requests.DEFAULTS | config, rows)
    assert taken.most <= estimated


def test_a_backward_pass_that_breaks_off_leaves_no_gradient(asked):
    def broken(_):
        raise MemoryError("no room")

    before = asked.state()
    handle = asked.manager.model.embedding.weight.register_hook(broken)  # its gradient comes last
    error_of(asked.post("/train_step", json.dumps({"text": TEXT}).encode()), 500)
    handle.remove()
    assert asked.state() == before


def test_a_model_that_cannot_be_configured_leaves_the_old_one(asked, monkeypatch):
    import dashboard.manager

    def broken(*_, **__):
        raise RuntimeError("no optimizer\nat all")

    asked.manager.save("one")
    asked.manager.train_step(asked.manager.data)
    monkeypatch.setattr(dashboard.manager, "configure_optimizer", broken)
    asked.refuses(500, "/init", {"text": TEXT, "config": CONFIG})
    asked.refuses(500, "/scale_up", {"dimension": "layers"})
    asked.refuses(400, "/download", {"name": "one"})


def test_numbers_that_are_not_finite_are_answered_as_null(asked):
    with torch.no_grad():
        asked.manager.model.out.bias.fill_(float("nan"))
    answer = asked.post("/infer", b'{"text": "a"}')
    assert json.loads(answer.get_data(), parse_constant=pytest.fail)["probability"] == [None]


def test_status_answers_while_another_request_is_at_work(asked):
    entered, leave = threading.Event(), threading.Event()

    def wait(*_):
        if asked.manager.step:  # the second update
            entered.set()
            leave.wait(60)

    asked.manager.model.out.register_forward_pre_hook(wait)
    run = threading.Thread(target=asked.post, args=("/train",), daemon=True)
    run.start()
    assert entered.wait(60)
    seen = []
    look = threading.Thread(target=lambda: seen.append(asked.client.get("/status").json), daemon=True)
    look.start()
    look.join(30)
    leave.set()
    run.join(60)
    assert seen
    assert seen[0]["step"] == 1
