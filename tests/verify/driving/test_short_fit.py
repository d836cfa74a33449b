import dataclasses
import json
import math
import random
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bitpatch.verify.driving import short_fit as module
from bitpatch.verify.driving.short_fit import UPDATES, Fit, entropy_floor, judge, one_cycle, read_fit, text_rows
from bitpatch.verify.driving.tree import Tree
from bitpatch.verify.rendering.report import SanityFit
from bitpatch.verify.running.evidence import Verdict
from bitpatch.verify.running.runner import Zygote, verify
from bitpatch.verify.sanity_fit import draw

MakeTree = Callable[..., Path]
WORDS = ["the", "of", "and", "bit", "patch", "in", "is", "was", "mask", "for", "it", "with", "as", "loss", "on", "be"]
SOUND = Fit(
    losses=[1.0] * 100 + [0.7] * (UPDATES - 100),
    rates=[one_cycle(update, UPDATES, 1e-3) for update in range(UPDATES)],
    peak=1e-3,
    leak=0.0,
)
FAULTS = {
    "the loss does not fall": ({"losses": [1.0] * UPDATES}, "the loss fell by 0.000 bits per bit"),
    "the loss falls too little": ({"losses": [1.0] * 200 + [0.81] * 100}, "the loss fell by 0.190"),
    "the loss rises": ({"losses": [0.5] * 150 + [1.0] * 150}, "the loss fell by -0.500"),
    "the loss is not a number": ({"losses": [math.nan] * UPDATES}, "the loss fell by nan"),
    "the loss is below the entropy": ({"losses": [1.0] * 100 + [0.1] * 200}, "a loss of 0.100 bits per bit is below"),
    "a later bit shows": ({"leak": 1e-3}, "later bits change a logit by 0.001"),
    "a logit is not a number": ({"leak": math.nan}, "later bits change a logit by nan"),
    "the rate is constant": ({"rates": [1e-3] * UPDATES}, "update 0 has learning rate 0.001, OneCycle"),
    "the schedule is for one update more": (
        {"rates": [one_cycle(update, UPDATES + 1, 1e-3) for update in range(UPDATES)]},
        "update 1 has learning rate",
    ),
    "the schedule stops one update early": (
        {"rates": [*SOUND.rates[:-1], SOUND.rates[-2]]},
        f"update {UPDATES - 1} has learning rate",
    ),
    "an update is missing": (
        {"losses": SOUND.losses[1:], "rates": SOUND.rates[1:]},
        f"{UPDATES - 1} updates where {UPDATES * 8} rows make {UPDATES}",
    ),
}
MODEL = """
    import torch
    from torch import nn

    class BitTransformerLM(nn.Module):
        def __init__(self, d_model, nhead, num_layers, dim_feedforward, max_seq_len, use_checkpoint):
            super().__init__()
            self.embedding = nn.Embedding(2, d_model)
            self.position = nn.Embedding(max_seq_len, d_model)
            self.out = nn.Linear(d_model, 2)

        def forward(self, bits, causal=True):
            x = self.embedding(bits) + self.position(torch.arange(bits.shape[1]))
            {leak}
            return self.out(x), {{}}
"""
TRAINING = """
    import torch
    import torch.nn.functional as F

    def train_loop(model, data, *, epochs, extra_steps, compress_prob, direct_prob{options}):
        batches = data.split({batch_size})
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps={total})
        for batch in batches:
            logits, _ = model(batch)
            F.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()).backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
"""
BLIND_AT_TIMES = """self.calls = getattr(self, "calls", 0) + 1
            if self.calls % 2:
                return self.out(x) * 0, {}
"""
PLAIN = {"total": "len(batches)", "options": "", "batch_size": "8"}
SHIFTED = "x = torch.roll(x, -1, dims=1)"


def test_a_sound_run_passes() -> None:
    assert judge(SOUND, 0.2) == (Verdict.PASS, "")


@pytest.mark.parametrize(("change", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_run_fails_where(change: dict[str, float | list[float]], fault: str) -> None:
    verdict, detail = judge(dataclasses.replace(SOUND, **change), 0.2)  # type: ignore[arg-type]
    assert verdict is Verdict.FAIL
    assert fault in detail


@pytest.mark.parametrize(
    "answer",
    [{}, {"losses": 1.0}, {"losses": ["1"]}, {"rates": None}, {"peak": None}, {"leak": "0"}, {"losses": [[1.0]]}],
    ids=str,
)
def test_an_answer_of_another_shape_is_an_error(answer: dict[str, object], text: Path) -> None:
    seen = dataclasses.asdict(SOUND)
    assert read_fit(seen, text, 1.0).verdict is Verdict.PASS
    assert read_fit(seen | answer if answer else {}, text, 1.0).verdict is Verdict.ERROR


@pytest.mark.parametrize("position", [0, 2, 3, 7])
def test_a_leak_into_one_position_is_seen(position: int) -> None:
    class Peeking(torch.nn.Module):
        def forward(self, bits: torch.Tensor) -> tuple[torch.Tensor, dict[str, object]]:
            seen = bits.clone()
            seen[:, position] = bits[:, position + 1]
            return seen[:, :, None].float(), {}

    rows = torch.randint(0, 2, (2, 9), generator=torch.Generator().manual_seed(0))
    assert module.leak(lambda bits: Peeking()(bits)[0], rows) == 1


def test_a_run_that_was_not_seen_is_unproven() -> None:
    assert judge(Fit([], [], 0.0, 0.0), 0.2)[0] is Verdict.UNPROVEN


@pytest.mark.parametrize("total", [10, 100, UPDATES, UPDATES + 7])
def test_the_closed_form_is_torchs_schedule(total: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=total)
    for update in range(total):
        assert abs(optimizer.param_groups[0]["lr"] - one_cycle(update, total, 1e-3)) <= 1e-15
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.step()
            scheduler.step()


def test_the_last_rate_is_the_floor() -> None:
    assert one_cycle(UPDATES - 1, UPDATES, 1e-3) == pytest.approx(1e-3 / 25 / 1e4, abs=1e-18)


def test_a_text_of_one_letter_has_next_to_no_entropy() -> None:
    assert entropy_floor(b"a" * 100_000) < 0.002


def test_noise_cannot_be_learned() -> None:
    noise = random.Random(0).randbytes(100_000)
    assert entropy_floor(noise) == pytest.approx(module.XZ_SHARE * 8 / 9, abs=0.01)


def test_rows_hold_bytes_with_their_parity() -> None:
    rows = text_rows(bytes([0b01100001, 0b11111110]) + bytes(100_000))
    assert rows.shape == (8 * UPDATES, 9 * module.BYTES_PER_ROW)
    assert rows[0, :18].tolist() == [0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1]


def test_a_short_text_is_refused() -> None:
    with pytest.raises(ValueError, match="the sample has 4 bytes; the sanity fit needs 28800"):
        text_rows(b"text")


@pytest.mark.parametrize(
    ("total", "leak", "faults"),
    [
        ("len(batches)", "", []),
        ("len(batches)", SHIFTED, ["below the text's entropy", "the model sees the future"]),
        ("len(batches) + 1", "", ["update 1 has learning rate"]),
    ],
    ids=["sound", "sees the next bit", "total off by one"],
)
def test_a_small_tree_is_judged(
    total: str, leak: str, faults: list[str], make_tree: MakeTree, zygote: Zygote, text: Path
) -> None:
    tree = make_tree(MODEL.format(leak=leak), training=TRAINING.format(**PLAIN | {"total": total}))
    fit = verify(tree, [], zygote=zygote, sanity_fit=True, sample=text).sanity_fit
    assert fit is not None
    assert fit.verdict is (Verdict.FAIL if faults else Verdict.PASS), fit.detail
    assert len(fit.detail.split("; ")) == max(len(faults), 1)
    for fault in faults:
        assert fault in fit.detail
    assert (len(fit.losses), len(fit.rates)) == (UPDATES, UPDATES)


def test_each_update_has_the_loss_of_its_own_rows(make_tree: MakeTree, zygote: Zygote, text: Path) -> None:
    tree = make_tree(MODEL.format(leak=BLIND_AT_TIMES), training=TRAINING.format(**PLAIN))
    fit = verify(tree, [], zygote=zygote, sanity_fit=True, sample=text).sanity_fit
    assert fit is not None
    assert fit.losses[::2] == pytest.approx([1.0] * (UPDATES // 2), abs=1e-6)
    assert fit.losses[-1] < 0.9


def test_a_run_repeats_itself(make_tree: MakeTree, zygote: Zygote, text: Path) -> None:
    tree = make_tree(MODEL.format(leak=""), training=TRAINING.format(**PLAIN))
    first, second = (verify(tree, [], zygote=zygote, sanity_fit=True, sample=text).sanity_fit for _ in range(2))
    assert first is not None
    assert second is not None
    assert (first.losses, first.rates) == (second.losses, second.rates)


def test_another_default_batch_size_raises_no_alarm(make_tree: MakeTree, zygote: Zygote, text: Path) -> None:
    training = TRAINING.format(**PLAIN | {"options": ", batch_size=64", "batch_size": "batch_size"})
    fit = verify(
        make_tree(MODEL.format(leak=""), training=training), [], zygote=zygote, sanity_fit=True, sample=text
    ).sanity_fit
    assert fit is not None
    assert (fit.verdict, fit.detail) == (Verdict.PASS, "")


def test_a_run_is_as_asked_for_and_shows_its_rows() -> None:
    asked: dict[str, object] = {}

    class Zero(torch.nn.Linear):
        def forward(self, bits: torch.Tensor) -> tuple[torch.Tensor, dict[str, object]]:
            return super().forward(bits[:, :, None].to(self.weight.dtype)), {}

    def make_model(seed: int, dtype: torch.dtype, **config: object) -> torch.nn.Module:
        asked.update(config, seed=seed)
        return Zero(1, 2).to(dtype)

    def train_loop(model: torch.nn.Module, data: torch.Tensor, **options: object) -> None:
        asked.update(options)
        for batch in data.flip(0).split(2):
            model(batch)

    tree = types.SimpleNamespace(
        model=make_model, train=train_loop, loop_takes=lambda _: False, outputs=Tree.outputs, forward=Tree.forward
    )
    rows, seen = text_rows(bytes(range(256)) * 200)[:6], []
    fit = module.train(
        tree, rows, seed=3, dtype=torch.float64, config={"chunk_size": 9}, on_rows=seen.append, compress_prob=0.5
    )
    assert torch.cat(seen).equal(rows.flip(0))
    wanted = {"seed": 3, "chunk_size": 9, "max_seq_len": 108, "compress_prob": 0.5, "direct_prob": 0.0}
    assert wanted.items() <= asked.items()
    assert "batch_size" not in asked
    assert fit.losses == []


def test_the_baseline_trains_on_the_text_that_ships(zygote: Zygote) -> None:
    fit = verify(baseline(), [], zygote=zygote, sanity_fit=True).sanity_fit
    assert fit is not None
    assert (fit.verdict, fit.detail) == (Verdict.PASS, "")


def test_a_picture_of_two_runs_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    fit = SanityFit(Verdict.PASS, "", tuple(SOUND.losses), tuple(SOUND.rates), 1.0)
    draw([("before", fit), ("after", fit)], tmp_path / "fit.png")
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_matplotlib_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match=r"pip install 'bitpatch\[train\]'"):
        draw([], tmp_path / "fit.png")


def test_the_command_line_runs_trees_and_draws_them(make_tree: MakeTree, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    tree = make_tree(MODEL.format(leak=""), training=TRAINING.format(**PLAIN | {"total": "len(batches) + 1"}))
    command = [sys.executable, "-m", "bitpatch.verify.sanity_fit", str(tree), "--picture", str(tmp_path / "fit.png")]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(f"{tree}: fail, loss ")
    assert (tmp_path / "fit.png").exists()


def test_what_the_command_line_runs_imports_no_torch() -> None:
    code = "import json, sys, bitpatch.verify.sanity_fit; print(json.dumps('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert json.loads(done.stdout) is False


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words in an order that chance gave, so that there is something to learn and something that is not."""
    path = tmp_path_factory.mktemp("text") / "sample.txt"
    path.write_text(" ".join(random.Random(0).choices(WORDS, k=25_000)))
    return path


def baseline() -> Path:
    return Path(module.__file__).parents[2] / "baseline"
