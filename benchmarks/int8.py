"""Ways to run the model in INT8 on a CPU, against float32: `python benchmarks/int8.py [ROUNDS] [ROWS] [eager]`.

The model of task-b, 8 layers of 128, scores ROWS rows of 1,152 bits without gradients. All ways take turns
in one process, float32 twice: the second, A/A, is the noise. Telemetry, which is the same for all and runs
in Python, is left out of the steps and timed apart. Compiled ways need a C++ compiler, and `eager` leaves
them out; a way that cannot run says why. One that takes five times as long as float32 is timed once.

Printed are the median step in wall time and in CPU time, which other programs disturb less; how many times
as fast as float32 each is (the median over rounds of the ratio within a round, wall and CPU); the saved
bytes against those of float32; the noise of the scores (root mean square, against float32); and how far the
scores of the first half move at most when the bits of the second are others: in a causal model, not at all.
"""

import copy
import io
import os
import platform
import statistics
import sys
import time
import warnings
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "reference"))

import bit_transformer.model  # noqa: E402
from bit_transformer import BitTransformerLM  # noqa: E402
from bit_transformer.quantization import Int8Linear, _pack_weight, float_linears, quantize_dynamic  # noqa: E402

T = 1152
ROUNDS, ROWS = 11, 2
HOPELESS = 5.0  # times float32


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


class ScaleForEachPosition(nn.Module):
    """Our layer with its kernel, but inputs x [B, T, in] scaled each position apart: scores stay causal."""

    def __init__(self, layer: Int8Linear) -> None:
        super().__init__()
        self.layer, self.bias = layer, layer.bias
        self.kernel = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        self.packed = _pack_weight(layer.weight, layer.scale, None)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        largest = torch.maximum(x.amax(-1, keepdim=True), x.amin(-1, keepdim=True).neg_()).clamp_min_(1e-30)
        return self.kernel(x * (63 / largest), 1.0, 64, self.packed).mul_(largest.mul_(1 / 63)).add_(self.bias)


class InFloatingPoint(nn.Module):
    """Our layer where there is no kernel for INT8."""

    def __init__(self, layer: Int8Linear) -> None:
        super().__init__()
        self.layer = layer
        layer.runs_in_int8 = lambda _: False

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        return self.layer(x)


def replaced(model: nn.Module, layer: type[nn.Module]) -> nn.Module:
    """Our INT8 model with each Int8Linear in a layer of another kind."""
    small = quantize_dynamic(model)
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


def ratio(others: list[float], own: list[float]) -> float:
    """How many times as fast as the others, round by round: the median."""
    return statistics.median(a / b for a, b in zip(others, own, strict=False))


def build(model: nn.Module, bits: Tensor, compiled: bool) -> list[Way]:
    """All ways that run here, each warm, and what is deterministic about it."""
    ways, recipes = (
        [],
        {
            "float32": lambda: model,
            "float32, A/A": lambda: copy.deepcopy(model),
            "ours": lambda: quantize_dynamic(model),
            "ours, in floating point": lambda: replaced(model, InFloatingPoint),
            "a scale a position": lambda: replaced(model, ScaleForEachPosition),
            "torch.ao dynamic": lambda: torch_ao(model),
            "torchao": lambda: torchao(model),
            "float32, compiled": lambda: torch.compile(copy.deepcopy(model)),
            "torchao, compiled": lambda: torch.compile(torchao(model)),
        },
    )  # type: dict[str, Callable[[], nn.Module]]
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
        way.bytes = saved_bytes(way.model)
        print(f"{name}: ready after {time.perf_counter() - began:.1f} s", flush=True)
        ways.append(way)
    return ways


def main() -> None:
    """Take turns, and print the table."""
    warnings.simplefilter("ignore")  # torch.ao is deprecated, and says so
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else ROWS
    torch.manual_seed(0)
    model = BitTransformerLM(
        d_model=128, nhead=8, num_layers=8, dim_feedforward=512, max_seq_len=T, reversible=True, chunk_size=128
    ).eval()
    bits = torch.randint(0, 2, (rows, T))
    with torch.inference_mode():
        plain = Way("float32 with its telemetry", model)
        for _ in range(3):
            measure(plain, bits)
        bit_transformer.model.collect_telemetry = lambda *_: {}
        ways = build(model, bits, compiled="eager" not in sys.argv)
        for number in range(rounds):
            for way in ways:
                if not number or way.seconds[0] < HOPELESS * ways[0].seconds[0]:
                    measure(way, bits)

    telemetry = 1000 * (min(plain.cpu_seconds) - min(ways[0].cpu_seconds))
    print(f"\n{rows} rows of {T} bits, {rounds} rounds; telemetry adds about {telemetry:.0f} ms of CPU to each")
    print("way                        wall       CPU    x wall     x CPU   bytes   noise    leak")
    plain, again = ways[:2]
    for way in ways:
        wall, cpu = (1000 * statistics.median(each) for each in (way.seconds, way.cpu_seconds))
        print(
            f"{way.name:24} {wall:6.0f} ms {cpu:6.0f} ms"
            f" {ratio(plain.seconds, way.seconds):9.2f} {ratio(plain.cpu_seconds, way.cpu_seconds):9.2f}"
            f" {way.bytes / plain.bytes:7.3f}  {way.noise:.4f}  {way.leak:.4f}"
        )
    for name in ("seconds", "cpu_seconds"):
        spread = sorted(a / b for a, b in zip(getattr(plain, name), getattr(again, name), strict=True))
        print(f"A/A, {name}: the ratio of a round is {spread[0]:.2f} to {spread[-1]:.2f}")
    fastest = max(ways, key=lambda way: ratio(plain.cpu_seconds, way.cpu_seconds))
    print(f"fastest by CPU seconds: {fastest.name}; quantization.py computes as in: ours")
    capability = torch.backends.cpu.get_cpu_capability()
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    libraries = f"torch {torch.__version__}, torchao {version('torchao')}"
    print(f"{threads}, {capability}, {platform.machine()}; {libraries}, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
