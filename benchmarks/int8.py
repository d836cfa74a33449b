"""Ways to run the model in INT8 on a CPU, against float32: `python benchmarks/int8.py`.

The model of task-b, 8 layers of 128, scores rows of 1,152 bits without gradients. All ways take turns in
one process, in an order that changes from round to round; float32 twice: the second, A/A, is the noise.
Telemetry, which is the same for all and runs in Python, is left out of the steps and timed apart.
onnxruntime and OpenVINO take part where they are installed (int8_engines.py). A second table has one bit at a time.
Compiled ways need a C++ compiler, and --eager leaves them out; a way that cannot run says why. One that
takes five times as long as float32 is timed once.

x is how many times as fast as float32 a way is: the median over rounds of the ratio within a round, with its
95% interval. CPU time is disturbed less by other programs. Beside it: the saved bytes against those of
float32; the noise of the scores (root mean square, against float32); and how far the scores of the first
half move at most when the bits of the second are others: in a causal model, not at all.
"""

import argparse
import copy
import io
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from machine import ran_on
from page import table, verdict, write_section
from torch import Tensor, nn
from trees import ROOT

from bitpatch.verify.benching.interleaving import Ratio, ratio_of

sys.path.insert(0, str(ROOT / "reference"))

from int8_engines import ENGINES, Engine, engine

import bit_transformer.model
from bit_transformer import BitTransformerLM
from bit_transformer.decoding import Reader
from bit_transformer.quantization import (
    Int8Linear,
    _int8_kernel,
    _pack_weight,
    choose_input_scale,
    float_linears,
    quantize_static,
)

T = 1152
OURS = "ours: static ranges"
HOPELESS = 5.0  # times float32
KERNEL = _int8_kernel()


@dataclass(slots=True)
class Way:
    """A model and what was seen of it."""

    name: str
    model: nn.Module
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    bytes: int = 0
    noise: float = 0.0
    leak: float = 0.0


class ScaleForEachCall(nn.Module):
    """Our layer with its kernel, but inputs x [..., in] scaled by their own range: no calibration, no causality."""

    def __init__(self, layer: Int8Linear) -> None:
        super().__init__()
        self.layer = layer
        self.packed = _pack_weight(layer.weight, layer.scale, layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        step, zero_point = (value.item() for value in choose_input_scale(torch.stack(torch.aminmax(x))))
        return KERNEL(x, step, int(zero_point), self.packed)


class ScaleForEachPosition(nn.Module):
    """Our layer with its kernel, but inputs x [B, T, in] scaled each position apart: no calibration."""

    def __init__(self, layer: Int8Linear) -> None:
        super().__init__()
        self.layer, self.bias = layer, layer.bias
        self.packed = _pack_weight(layer.weight, layer.scale, None)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        largest = torch.maximum(x.amax(-1, keepdim=True), x.amin(-1, keepdim=True).neg_()).clamp_min_(1e-30)
        return KERNEL(x * (63 / largest), 1.0, 64, self.packed).mul_(largest.mul_(1 / 63)).add_(self.bias)


class InFloatingPoint(nn.Module):
    """Our layer where there is no kernel for INT8."""

    def __init__(self, layer: Int8Linear) -> None:
        super().__init__()
        self.layer = layer
        layer.runs_in_int8 = lambda _: False

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        return self.layer(x)


def replaced(model: nn.Module, bits: Tensor, layer: type[nn.Module]) -> nn.Module:
    """Our INT8 model with each Int8Linear in a layer of another kind."""
    small = quantize_static(model, bits)
    for name, module in list(small.named_modules()):
        if isinstance(module, Int8Linear):
            small.set_submodule(name, layer(module))
    return small


def torch_ao(model: nn.Module) -> nn.Module:
    """torch.ao's dynamic INT8 of the layers that ours takes."""
    from torch.ao import quantization  # noqa: PLC0415

    chosen = set(float_linears(model)) - {"halt", "out"}
    return quantization.quantize_dynamic(model, dict.fromkeys(chosen, quantization.default_dynamic_qconfig))


def torchao(model: nn.Module) -> nn.Module:
    """The dynamic INT8 of torchao, of the same layers: a scale for each position."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_  # noqa: PLC0415

    model = copy.deepcopy(model)
    quantize_(
        model,
        Int8DynamicActivationInt8WeightConfig(),
        filter_fn=lambda module, name: isinstance(module, nn.Linear) and name not in ("halt", "out"),
    )
    return model


def saved_bytes(model: nn.Module) -> int:
    """How large the model's state is in a file."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


def measure(way: Way, bits: Tensor) -> None:
    """Time one step."""
    start, cpu_start = time.perf_counter(), time.process_time()
    way.model(bits)
    way.seconds.append(time.perf_counter() - start)
    way.cpu_seconds.append(time.process_time() - cpu_start)


def build(model: nn.Module, bits: Tensor, compiled: bool, threads: int, folder: Path) -> list[Way]:
    """All ways that run here, each warm, and what is deterministic about it."""
    recipes: dict[str, Callable[[], nn.Module]] = {
        "float32": lambda: model,
        "float32 again (A/A)": lambda: copy.deepcopy(model),
        OURS: lambda: quantize_static(model, bits),
        "ours, in floating point": lambda: replaced(model, bits, InFloatingPoint),
        "a scale a call": lambda: replaced(model, bits, ScaleForEachCall),
        "a scale a position": lambda: replaced(model, bits, ScaleForEachPosition),
        "torch.ao dynamic": lambda: torch_ao(model),
        "torchao": lambda: torchao(model),
        "float32, compiled": lambda: torch.compile(copy.deepcopy(model)),
        "torchao, compiled": lambda: torch.compile(torchao(model)),
        **{name: partial(engine, name, model, bits, threads, folder) for name in ENGINES},
    }
    ways = []
    half = bits.shape[1] // 2
    other_half = torch.cat([bits[:, :half], torch.zeros_like(bits[:, half:])], 1)
    expected = model(bits)[0]
    for name, make in recipes.items():
        if name.endswith("compiled") and not compiled:
            continue
        began = time.perf_counter()
        try:
            way = Way(name, make())
            scores = way.model(bits)[0]
            way.leak = (way.model(other_half)[0] - scores)[:, :half].abs().max().item()
        except Exception as error:  # whatever a missing compiler or kernel raises
            print(f"{name}: does not run here: {type(error).__name__}: {str(error).splitlines()[0][:120]}", flush=True)
            continue
        way.noise = (scores - expected).square().mean().sqrt().item()
        way.bytes = way.model.bytes if isinstance(way.model, Engine) else saved_bytes(way.model)
        print(f"{name}: ready after {time.perf_counter() - began:.1f} s", flush=True)
        ways.append(way)
    return ways


def one_bit(
    model: nn.Module, row: Tensor, engines: Sequence[str], rounds: int, threads: int, folder: Path
) -> list[Way]:
    """The seconds that the score of one further bit takes, at the end of a row: ways take turns.

    Ours and float32 keep keys and values of what they have read; engines have to read the row anew.
    """
    context = row[0].tolist()

    class Reading(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.reader = Reader(model)

        def forward(self, _: Tensor) -> Tensor:
            self.reader.context = self.reader.context[: len(context) - 1]  # the last bit is read once more
            return self.reader(context)

    ways = [Way("float32", Reading(model)), Way(OURS, Reading(quantize_static(model, row)))]
    ways += [Way(name, engine(name, model, row, threads, folder)) for name in engines]
    for way in ways:
        way.model(row)
    for _ in range(rounds):
        for way in random.sample(ways, len(ways)):
            measure(way, row)
    return ways


def document_of_a_bit(ways: Sequence[Way]) -> Iterator[str]:
    """The part of the page on one bit at a time."""
    yield f"One further bit after {T - 1}; engines keep nothing of what they have read:"
    yield ""
    cells = [
        [
            way.name,
            *(f"{1000 * statistics.median(each):.1f}" for each in (way.seconds, way.cpu_seconds)),
            str(ratio_of(ways[0].seconds, way.seconds)),
        ]
        for way in ways
    ]
    yield from table(("way", "ms", "CPU ms", "x (95%)"), cells)
    yield ""
    first, *small = sorted(ways, key=lambda way: statistics.median(way.seconds))
    yield f"- the fastest: {first.name}"
    best = next(way for way in (first, *small) if "float32" not in way.name)
    yield verdict("ours is the fastest INT8 here", best.name == OURS, best.name)


HEAD = ("way", "ms", "CPU ms", "x (95%)", "x in CPU time (95%)", "of float32's bytes", "noise", "leak")


def document(ways: Sequence[Way], telemetry_ms: float, threads: int, rows: int) -> Iterator[str]:
    """The section of the page."""

    def speedup(way: Way, clock: str) -> Ratio:
        own = getattr(way, clock)
        return ratio_of(getattr(ways[0], clock)[: len(own)], own)

    yield "## INT8 on a CPU"
    yield ""
    libraries = f"torchao {version('torchao')}; {torch.backends.cpu.get_cpu_capability()}"
    yield f"{ran_on('cpu', threads)} {libraries}."
    yield ""
    yield (
        f"{rows} rows of {T} bits through 8 layers of 128, {len(ways[0].seconds)} rounds, in turn. Telemetry would add "
        f"about {telemetry_ms:.0f} ms of CPU time to each."
    )
    yield ""
    cells = []
    for way in ways:
        wall, cpu = (f"{1000 * statistics.median(each):.0f}" for each in (way.seconds, way.cpu_seconds))
        ratios = [str(speedup(way, clock)) for clock in ("seconds", "cpu_seconds")]
        sizes = [f"{way.bytes / ways[0].bytes:.3f}", f"{way.noise:.4f}", f"{way.leak:.4f}"]
        cells.append([way.name, wall, cpu, *ratios, *sizes])
    yield from table(HEAD, cells)
    yield ""
    ours = next(way for way in ways if way.name == OURS)
    found, noise = speedup(ours, "seconds"), speedup(ways[1], "seconds")
    share = ours.bytes / ways[0].bytes
    yield verdict("INT8 is faster than float32", found.low > max(1.0, noise.high), f"{found}x; A/A {noise}x")
    yield verdict("its state is at most 0.30x of float32's", share <= 0.30, f"{share:.3f}x")
    yield verdict("no score moves with a later bit", ours.leak == 0, f"{ours.leak:.4f}")
    fastest = max(ways, key=lambda way: speedup(way, "cpu_seconds").median)
    yield f"- the fastest in CPU time: {fastest.name}"
    engines = [way for way in ways if way.name in ENGINES]
    sound = [way for way in ways if not way.leak and way not in engines and "float32" not in way.name]
    best = max(sound, key=lambda way: speedup(way, "cpu_seconds").median)
    yield verdict("in torch ours is the fastest INT8 in which no score moves with a later bit", best is ours, best.name)
    if engines:
        first = max((way for way in engines if not way.leak), key=lambda way: speedup(way, "cpu_seconds").median)
        gain = ratio_of(ours.cpu_seconds, first.cpu_seconds)
        yield f"- of other engines the fastest on whole rows: {first.name}, {gain}x as fast as ours in CPU time"


def main() -> None:
    """Take turns, print and write the section."""
    warnings.simplefilter("ignore")  # torch.ao is deprecated, and says so
    parser = argparse.ArgumentParser(description="Compare ways to run the model in INT8 on a CPU with float32.")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--rows", type=int, default=2, help="of 1,152 bits, in a forward")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--eager", action="store_true", help="leave out what is compiled")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = BitTransformerLM(
        d_model=128, nhead=8, num_layers=8, dim_feedforward=512, max_seq_len=T, reversible=True, chunk_size=128
    ).eval()
    bits, draw = torch.randint(0, 2, (args.rows, T)), random.Random(0)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        plain = Way("float32 with its telemetry", model)
        for _ in range(3):
            measure(plain, bits)
        bit_transformer.model.collect_telemetry = lambda *_: {}
        ways = build(model, bits, not args.eager, args.threads, Path(folder))
        for number in range(args.rounds):
            for way in draw.sample(ways, len(ways)):
                if not number or way.seconds[0] < HOPELESS * ways[0].seconds[0]:
                    measure(way, bits)
        engines = [way.name for way in ways if way.name in ENGINES]  # which run here
        a_bit = one_bit(model, bits[:1], engines, args.rounds, args.threads, Path(folder))
    telemetry_ms = 1000 * (min(plain.cpu_seconds) - min(ways[0].cpu_seconds))
    lines = [*document(ways, telemetry_ms, args.threads, args.rows), "", *document_of_a_bit(a_bit)]
    write_section("int8", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
