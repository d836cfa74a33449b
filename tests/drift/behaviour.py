"""What a tree computes, as numbers: so that two trees can be compared, wherever their parts stand.

    for numbers in observe([(folder, places), ...]): ...

One process imports torch once, and each tree in turn. All is computed in float64 on one thread: a
spelling may change the order of a sum, and so the last digits, which 20 updates of AdamW then carry on; what differs
by more than 1e-6 is no spelling.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BASELINE = Path(__file__).resolve().parents[2] / "baseline"
TOLERANCE = 1e-6
PARTS = ("training", "forwards", "gate", "rows", "manager", "main", "schedule", "server")
TRAINING = "bit_transformer/training.py"
OTHERS = ("server", "main")  # at least they are imported
SHOWN_BY = {
    "bit_transformer/model.py": ("forwards",),
    TRAINING: ("training", "main"),
    "bit_transformer/optimization.py": ("training", "manager"),
    "bit_transformer/safety.py": ("gate",),
    "dashboard/manager.py": ("manager", "server"),
    "data/wikitext_schedule.py": ("rows", "schedule"),
}
Numbers = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A tree to drive, where its parts are, and which parts of its behaviour are wanted."""

    tree: Path
    places: dict[str, str]
    parts: tuple[str, ...] = ()  # all


def observe(trees: Iterable[Asked]) -> Iterator[Numbers]:
    """The numbers of each tree, in turn; {"error": traceback} of one that does not run."""
    asked = [json.dumps({**asdict(each), "tree": str(each.tree)}) for each in trees]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    command = [sys.executable, __file__, str(BASELINE)]
    done = subprocess.run(
        command, input="\n".join(asked), capture_output=True, text=True, env=environment, timeout=1200
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    yield from map(json.loads, done.stdout.splitlines())


def parts_of(changed: dict[str, tuple[bytes, bytes]]) -> tuple[str, ...]:
    """Which parts of a tree's behaviour show what changed, before and after by path; () is all of them."""
    wanted: set[str] = set()
    for path, (before, after) in changed.items():
        if not before or not after:
            return ()
        wanted |= set(SHOWN_BY.get(path, OTHERS))
        if path == TRAINING and before[before.find(b"def build_parser") :] == after[after.find(b"def build_parser") :]:
            wanted -= {"main"}
    return tuple(part for part in PARTS if part in wanted)


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Where two trees' numbers differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        return [found for key in keys for found in differences(one.get(key), other.get(key), f"{at}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            found for n, pair in enumerate(zip(one, other, strict=True)) for found in differences(*pair, f"{at}/{n}")
        ]
    if isinstance(one, int | float) and isinstance(other, int | float):
        is_same = math.isnan(one) and math.isnan(other)
        return [] if is_same or abs(one - other) <= TOLERANCE * max(1.0, abs(one)) else [f"{at}: {one} and {other}"]
    return [] if one == other else [f"{at}: {one!r} and {other!r}"]


def part(places: dict[str, str], name: str) -> Any:
    from importlib import import_module

    module, _, qualified = places[name].partition(":")
    found: Any = import_module(module)
    for each in qualified.split("."):
        found = getattr(found, each)
    return found


def numbers_of(tree: Path, places: dict[str, str], parts: Sequence[str], scratch: Path) -> Numbers:
    """Drive parts of a tree."""
    sys.path[:0] = [str(tree / places["root"])]
    drives = {"training": training, "forwards": forwards, "gate": gate, "rows": rows, "manager": manager}
    drives |= {"main": main_command, "schedule": schedule_command, "server": server}
    return {name: drives[name](places, scratch) for name in parts or PARTS}


def seeded() -> None:
    import random

    import torch

    torch.manual_seed(7)
    random.seed(7)


def small(places: dict[str, str], **config: Any) -> Any:
    seeded()
    shape = {"d_model": 8, "nhead": 2, "num_layers": 2, "dim_feedforward": 16, "max_seq_len": 36}
    return part(places, "model")(**{**shape, **config})


def training(places: dict[str, str], scratch: Path) -> Numbers:
    import torch

    model = small(places, num_layers=1)
    data = torch.randint(0, 2, (12, 21))
    options = {"epochs": 2, "extra_steps": 1, "compress_prob": 0.5, "direct_prob": 0.2}
    given = {places[f"train.{option}"]: value for option, value in options.items()}
    history = part(places, "train")(model, data, lr=0.02, forward_kwargs={"causal": True}, **given)
    weights = sum(parameter.abs().sum().item() for parameter in model.parameters())
    # The last: no more and no fewer random numbers than before.
    return {"history": [list(record.values()) for record in history], "weights": weights, "draw": torch.rand(()).item()}


def forwards(places: dict[str, str], scratch: Path) -> Numbers:
    import torch

    found: Numbers = {}
    chunked, wide, silent = (
        {"chunk_size": 8, "overlap": 3},
        {"chunk_size": 4, "overlap": 9},
        {"full_attn_logging": False},
    )
    for name, config, causal, is_training in (
        ("dense", {}, True, True),
        ("dense, not causal", {}, False, False),
        ("chunked", chunked, True, True),
        ("chunked, not causal", chunked, False, False),
        ("wide", wide, True, False),
        ("silent", silent, True, False),
        ("reversible", {**chunked, "reversible": True, "use_act": True, "num_layers": 2}, True, True),
        ("silent chunks", {**chunked, **silent}, True, True),
    ):
        model = small(places, **{"num_layers": 1, "use_checkpoint": False, **config}).train(is_training)
        bits = torch.randint(0, 2, (2, 21))
        logits, telemetry = model(bits, causal=causal)
        logits.square().mean().backward()
        maps = [each.double().pow(2).sum((0, 1, 2)).tolist() for each in telemetry["attention_maps"]]
        slopes = [parameter.grad.abs().sum().item() for parameter in model.parameters()]
        scores = [telemetry[each].sum().item() for each in ("negentropy", "lz_complexity", "kcs_score")]
        found[name] = [logits.tolist(), maps, sorted(slopes), scores]
    model = small(places)
    found["grown"] = [sum(p.abs().sum().item() for p in grown.parameters()) for grown in grown_of(model)]
    return found


def grown_of(model: Any) -> list[Any]:
    return [model.double_width(), model.double_layers(), model.double_length()]


def gate(places: dict[str, str], scratch: Path) -> Numbers:
    said = []
    for values in ([1.0, 1.5, 2.5, 1.0], [float("nan"), 1.0], [2.0, 2.0], [9.0] * 14, [1.0] * 14 + [99.0]):
        it = part(places, "gate")(2.0)
        said.append([bool(getattr(it, places["gate.allows"])(value)) for value in values])
        said.append([bool(it.tripped), *it.state_dict().values()])
        again = part(places, "gate")(2.0)
        again.load_state_dict(it.state_dict())
        again.reset()
        said.append(bool(again.tripped))
    return {"said": said}


def rows(places: dict[str, str], scratch: Path) -> Numbers:
    found = part(places, "rows")(text_file(scratch), 36)
    values = [found[n].tolist() for n in range(len(found))]
    return {"count": len(values), "ones": [sum(row) for row in values], "first": values[0]}


def manager(places: dict[str, str], scratch: Path) -> Numbers:
    import torch

    seeded()
    it = part(places, "manager")(snapshots=scratch / "snapshots")
    data = torch.randint(0, 2, (9, 18))
    shape = {"d_model": 8, "nhead": 2, "num_layers": 1, "dim_feedforward": 16, "max_seq_len": 36}
    seen: list[Any] = [it.init(data, plan={"epochs": 1, "extra_steps": 1}, **shape)["lr"], it.scheduler.total_steps]
    seen += [list(record.values()) for record in it.train()]
    it.save("one")
    for dimension in ("width", "layers"):
        seen += [it.scale_up(dimension, plan={"lr": 2e-3})["parameters"], it.scheduler.total_steps, it.step]
    seen += [list(it.train_step(data[:4]).values()), it.infer(data[:1])["probability"]]
    seen += [it.download("one", data)["step"], it.scheduler.total_steps, it.evaluate(data)]
    seen += [list(record.values()) for record in it.train()]
    return {"seen": seen}


def text_file(scratch: Path) -> Path:
    path = scratch / "text.txt"
    path.write_text("".join(f"line {n} of a text, \u00e9\u4e2d\n" for n in range(2)), encoding="utf-8")
    return path


def printed(places: dict[str, str], name: str, *words: object) -> list[str]:
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        part(places, name)([str(word) for word in words])
    return out.getvalue().splitlines()


SHAPE = ("--layers", 1, "--d_model", 8, "--nhead", 2, "--max_seq_len", 36)


def main_command(places: dict[str, str], scratch: Path) -> Numbers:
    out = scratch / "model.safetensors"
    flags = ("--no-causal", "--chunk_size", 9, "--overlap", 2, "--extra_steps", 1, "--seed", 3, "--lr", 0.01)
    said = printed(places, "main", "--data", text_file(scratch), *SHAPE, *flags, "--out", out)
    return {"said": said, "written": out.exists()}


def schedule_command(places: dict[str, str], scratch: Path) -> Numbers:
    flags = ("--rounds", 3, "--min_gain", 9, "--most_width", 16)
    return {"said": printed(places, "schedule", "--data", text_file(scratch), *SHAPE, *flags)}


def server(places: dict[str, str], scratch: Path) -> Numbers:
    found: Numbers = {}
    for name in ("app", "server", "requests"):
        try:
            it = part(places, name)
            found[name] = it if isinstance(it, dict) else type(it()).__name__
        except ModuleNotFoundError as error:
            if error.name not in ("flask", "mcp", "werkzeug", "pydantic"):
                raise
    return found


def answer(asked: Asked) -> Numbers:
    """The numbers of one tree, which is forgotten after."""
    import tempfile
    import traceback

    path = list(sys.path)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            return numbers_of(Path(asked.tree), asked.places, asked.parts, Path(scratch))
    except BaseException:
        return {"error": traceback.format_exc()}
    finally:
        os.chdir("/")
        sys.path[:] = path
        sys.path_importer_cache.clear()
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(f"{asked.tree}{os.sep}"):
                del sys.modules[name]


def keep_code(tree: Path) -> None:
    """Compile the files of a tree once: where a copy's file is the same, its code is."""
    from importlib.machinery import SourceFileLoader

    kept = {
        path.read_bytes(): compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        for path in tree.rglob("*.py")
    }
    compiled = SourceFileLoader.source_to_code

    def code_of(self: Any, data: Any, path: Any, **options: Any) -> Any:
        return kept.get(bytes(data)) or compiled(self, data, path, **options)

    SourceFileLoader.source_to_code = code_of  # type: ignore[method-assign]


def main() -> None:
    """Answer one line for each that asks."""
    import contextlib

    import torch

    for name in ("safetensors.torch", "flask", "werkzeug.serving", "mcp.server.mcpserver", "rich.console"):
        with contextlib.suppress(ImportError):
            __import__(name)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    keep_code(Path(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(answer(Asked(**json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
