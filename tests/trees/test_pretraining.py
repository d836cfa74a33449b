import random
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from trees import running  # noqa: F401 - skips this file where it cannot run

from bit_transformer import training
from bit_transformer.distributed import Replicas
from bit_transformer.optimization import configure_optimizer
from bit_transformer.pretraining import (
    Plan,
    Progress,
    Settings,
    loader,
    micro_batches,
    pretrain,
    row_order,
)
from bit_transformer.runs import smaller_micro_batches
from bit_transformer.safety import SafetyError, SafetyGate
from bit_transformer.schedules import ProgressivePlateau
from bit_transformer.training import Shares, planned_updates, train_loop

EXACT = {"rtol": 1e-12, "atol": 1e-14}


@st.composite
def plans(draw):
    numbers = partial(draw, st.integers(1, 7))
    rows, batch_size, accum_steps = draw(st.integers(1, 40)), numbers(), numbers()
    extra_steps, epochs = draw(st.integers(0, 5)), draw(st.integers(1, 3))
    plan = Plan(rows, batch_size, accum_steps, extra_steps, 0, draw(st.integers(0, 2**40)))
    return Plan(rows, batch_size, accum_steps, extra_steps, epochs * plan.updates_per_epoch, plan.seed)


def epochs_of(plan):
    """The micro-batches of each epoch, update by update."""
    count = plan.updates_per_epoch
    return [[micro_batches(plan, n) for n in range(at, at + count)] for at in range(0, plan.updates, count)]


@given(plans())
def test_an_epoch_has_each_row_once_and_then_its_extra_steps(plan):
    for epoch in epochs_of(plan):
        parts = [micro_batch.rows for update in epoch for micro_batch in update]
        once = parts[: len(parts) - plan.extra_steps]
        assert sorted(row for part in once for row in part) == list(range(plan.rows))
        assert parts[len(once) :] == [once[-1]] * plan.extra_steps
        assert all(len(part) == plan.batch_size for part in once[:-1])


@given(plans())
def test_an_update_closes_once(plan):
    for epoch in epochs_of(plan):
        assert len(epoch) == planned_updates(1, plan.micro_batches, plan.extra_steps, plan.accum_steps)
        for update in epoch:
            assert [micro_batch.closes for micro_batch in update] == [False] * (len(update) - 1) + [True]
            assert 1 <= len(update) <= plan.accum_steps


def test_the_order_differs_between_epochs_and_seeds_and_is_the_same_again():
    orders = {tuple(row_order(50, seed, epoch).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert row_order(50, 1, 2).tolist() in map(list, orders)
    torch.manual_seed(5)
    random.seed(5)
    assert tuple(row_order(50, 2, 1).tolist()) in orders


@given(plans(), st.integers(1, 4))
def test_processes_share_the_rows_and_their_weights_average_to_one_mean(plan, count):
    group = [micro_batch.rows for micro_batch in micro_batches(plan, 0)]
    total = sum(1 + row % 5 for rows in group for row in rows)
    weighted, values, weighed = 0.0, sum(row**2 * (1 + row % 5) for rows in group for row in rows), 0
    for rank in (Replicas(number, count) for number in range(count)):
        shares = Shares(first=int(count > 1))
        for rows in group:
            part = rank.part(rows)
            scored = sum(1 + row % 5 for row in part)
            share = shares.weigh(scored if rank.has_part(rows) else 0)
            weighted += share * sum(row**2 * (1 + row % 5) for row in part) / scored
        weighed += shares.total
    assert weighed == total
    assert weighted * shares.first / total == pytest.approx(values / total)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_that_starts_later_goes_on_with_the_same_rows(num_workers):
    rows = torch.arange(11)[:, None]
    plan = Plan(11, 2, 2, 1, 8, 3)
    whole = [batch.flatten().tolist() for batch in loader(rows, plan, 0, Replicas(), num_workers)]
    later = [batch.flatten().tolist() for batch in loader(rows, plan, 5, Replicas(), num_workers)]
    skipped = sum(len(micro_batches(plan, update)) for update in range(5))
    assert later == whole[skipped:]
    assert len(later) > 0


# The loop ------------------------------------------------------------------------------------------


@pytest.fixture
def rows():
    return torch.randint(0, 2, (11, 18), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def trained(make_model, rows):
    """Carry out a plan on a small float64 model without dropout; return the gradients and rates of its updates."""

    class Ledger(torch.optim.SGD):
        def step(self, closure=None):
            grads.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    grads, rates = [], []
    model = make_model()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0

    def start(plan, threshold=2.0, progress=None, **settings):
        optimizer = Ledger(model.parameters(), lr=0.05)
        schedule = ProgressivePlateau(optimizer, warmup=1, patience=1, floor=0.01)
        sound = {"amp": "off", "compress_prob": 0.0, "direct_prob": 0.0, "warmup_steps": 0, "forward_kwargs": {}}
        kept, saves = [], []
        progress = progress or Progress(gate=SafetyGate(threshold, burn_in_steps=2))
        evaluation, error = None, None
        try:
            evaluation = pretrain(
                model,
                optimizer,
                schedule,
                rows,
                rows[:2],
                plan,
                Settings(**{**sound, "log_interval": 1, "eval_interval": 2, **settings}),
                progress,
                Replicas(),
                record=kept.append,
                save=lambda: saves.append(progress.update),
                is_stopped=lambda: len(kept) > 100,
            )
        except SafetyError as caught:
            error = str(caught)
        return {"grads": grads, "rates": rates, "records": kept, "saves": saves, "error": error, "last": evaluation}

    start.model = model
    return start


def test_an_updates_gradient_is_that_of_the_mean_over_its_rows(trained, rows):
    plan = Plan(11, 2, 3, 0, 2, 7)  # two updates, of 6 and of 5 rows: the last micro-batch has one row
    model = trained.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ledger = trained(plan, eval_interval=100)
    model.load_state_dict(before)
    for update, grads in enumerate(ledger["grads"]):
        group = rows[[row for part in micro_batches(plan, update) for row in part.rows]]
        model.zero_grad()
        loss = F.cross_entropy(model(group)[0][:, :-1].reshape(-1, 2), group[:, 1:].reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        torch.testing.assert_close(grads, expected, **EXACT)
        assert ledger["records"][update]["loss"] == pytest.approx(loss.item(), rel=1e-6)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= ledger["rates"][update] * parameter.grad


@pytest.mark.parametrize("batch_size", [2, 6, 9])
@pytest.mark.parametrize(
    "forms",
    [{}, {"compress_prob": 1.0}, {"direct_prob": 1.0}, {"direct_prob": 0.5, "compress_prob": 0.5}],
    ids=["raw", "compressed", "direct", "drawn"],
)
def test_what_is_advised_where_memory_is_short_is_the_same_run(trained, rows, forms, batch_size):
    rows[:] = torch.stack([row.repeat_interleave(1 + 2 * (at % 5))[:18] for at, row in enumerate(rows)])
    before = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    plan = Plan(11, batch_size, 1, 0, 6, 7)
    expected = trained(plan, eval_interval=100, **forms)
    values = {"batch_size": batch_size, "accum_steps": 1, "dropout": 0.0, "qat": False, "extra_steps": 0}
    advised = [int(word.strip(":")) for word in smaller_micro_batches(values).split() if word.strip(":").isdecimal()]
    assert advised[0] < batch_size
    assert advised[0] * advised[1] == batch_size
    trained.model.load_state_dict(before)
    whole = expected["grads"][:]
    expected["grads"].clear()
    again = trained(Plan(11, *advised, 0, 6, 7), eval_interval=100, **forms)
    assert len(whole) == len(again["grads"]) == 6
    for grads, wanted in zip(again["grads"], whole, strict=True):
        torch.testing.assert_close(grads, wanted, rtol=1e-9, atol=1e-13)
    losses = [[record["loss"] for record in run["records"] if record["kind"] == "train"] for run in (expected, again)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"batch_size": 1}, "--batch_size is 1 already"),
        ({}, "--batch_size 8 --accum_steps 6: each update is the mean over the same bits"),
        ({"batch_size": 15}, "--batch_size 5 --accum_steps 9:"),
        ({"dropout": 0.1, "extra_steps": 2}, "the same but for rounding, what dropout drops, its extra steps"),
    ],
)
def test_advice_on_memory_says_what_will_differ(values, said):
    known = {"batch_size": 16, "accum_steps": 3, "dropout": 0.0, "qat": False, "extra_steps": 0}
    assert said in smaller_micro_batches({**known, **values})


def test_records_and_checkpoints_come_at_their_intervals_and_at_the_end(trained):
    ledger = trained(Plan(11, 4, 1, 0, 7, 0), log_interval=3, eval_interval=4)
    steps = {kind: [r["step"] for r in ledger["records"] if r["kind"] == kind] for kind in ("train", "eval")}
    assert steps == {"train": [3, 6, 7], "eval": [4, 7]}
    assert ledger["saves"] == [4, 7]
    assert [record["epoch"] for record in ledger["records"] if record["kind"] == "train"] == [0, 1, 2]
    assert ledger["last"].loss == ledger["records"][-1]["loss"]


def test_the_ramp_counts_updates(trained):
    ledger = trained(Plan(11, 2, 3, 0, 5, 0), compress_prob=0.8, warmup_steps=4)
    probs = [record["compress_prob"] for record in ledger["records"] if record["kind"] == "train"]
    assert probs == pytest.approx([0, 0.8 * (1 - 2**-0.5) / 2, 0.4, 0.8 * (1 + 2**-0.5) / 2, 0.8])


def test_a_gate_that_trips_stops_the_run_after_it_was_saved(trained):
    progress = Progress(gate=SafetyGate(0.01, burn_in_steps=2))
    ledger = trained(Plan(11, 4, 1, 0, 20, 0), progress=progress)
    assert "stopped at update 6" in ledger["error"]
    assert "--loss_threshold 0.01" in ledger["error"]
    assert ledger["saves"] == [2, 4, 6]
    assert ledger["records"][-1] == {"kind": "stop", "step": 6, "ema": progress.gate.ema_val}
    again = trained(Plan(11, 4, 1, 0, 20, 0), progress=progress)
    assert "stopped at update 6" in again["error"]
    assert again["saves"] == []


def test_a_gate_that_does_not_trip_changes_nothing(trained):
    assert trained(Plan(11, 4, 1, 0, 8, 0), threshold=100.0)["error"] is None


@pytest.mark.parametrize(
    "form", [{}, {"compress_prob": 1.0}, {"direct_prob": 1.0}], ids=["raw", "compressed", "direct"]
)
@pytest.mark.parametrize(("accum_steps", "amp"), [(1, "off"), (3, "off"), (3, "bf16")])
def test_one_process_makes_the_updates_of_train_loop_to_the_bit(make_model, rows, monkeypatch, accum_steps, amp, form):
    rows[:] = torch.stack([row.repeat_interleave(1 + 2 * (at % 5))[:18] for at, row in enumerate(rows)])
    plan = Plan(11, 2, accum_steps, 1, 0, 7)
    plan = Plan(11, 2, accum_steps, 1, 2 * plan.updates_per_epoch, 7)
    models = [make_model().float() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for module in (module for model in models for module in model.modules() if isinstance(module, torch.nn.Dropout)):
        module.p = 0.0
    epochs = iter(epochs_of(plan))

    class Ordered:
        """The micro-batches of an epoch as the plan has them; its extra step is train_loop's own."""

        def __len__(self):
            return plan.micro_batches

        def __iter__(self):
            parts = [micro_batch.rows for update in next(epochs) for micro_batch in update]
            return iter([rows[part] for part in parts[: plan.micro_batches]])

    monkeypatch.setattr(training, "row_loader", lambda *_: Ordered())
    options = {"compress_prob": 0.0, "direct_prob": 0.0, "warmup_steps": 0, "amp": amp, **form}
    train_loop(models[0], rows, epochs=2, extra_steps=1, batch_size=2, accum_steps=accum_steps, lr=0.01, **options)
    optimizer, schedule = configure_optimizer(models[1], lr=0.01, weight_decay=0.01, total_steps=plan.updates)
    pretrain(
        models[1],
        optimizer,
        schedule,
        rows,
        rows[:2],
        plan,
        Settings(**options, forward_kwargs={}, log_interval=100, eval_interval=100),
        Progress(),
        Replicas(),
        record=lambda _: None,
        save=lambda: None,
        is_stopped=lambda: False,
    )
    for (name, expected), found in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        assert torch.equal(expected, found), name


def test_training_draws_from_the_updates_seed_and_from_nothing_else(trained):
    plan = Plan(11, 2, 2, 0, 3, 0)
    start = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    for module in trained.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    first = [record["loss"] for record in trained(plan, direct_prob=0.5)["records"] if record["kind"] == "train"]
    trained.model.load_state_dict(start)
    torch.manual_seed(99)
    random.seed(99)
    again = [record["loss"] for record in trained(plan, direct_prob=0.5)["records"] if record["kind"] == "train"]
    assert again == first
