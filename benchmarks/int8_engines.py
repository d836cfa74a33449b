"""The model of benchmarks/int8.py in other engines: onnxruntime and OpenVINO, where their packages are installed.

pip install onnx onnxscript onnxruntime openvino. Each takes rows of one shape and gives scores; none keeps keys
and values from one bit to the next.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

FLOAT, DYNAMIC, STATIC = "onnxruntime, float32", "onnxruntime dynamic", "onnxruntime static"
OPENVINO = "OpenVINO, of that"
ENGINES = (FLOAT, DYNAMIC, STATIC, OPENVINO)
MULTIPLIED = ["MatMul", "Gemm"]
CALIBRATED = 2  # times that the rows are shown


class Scores(nn.Module):
    """The scores of a reversible model alone, its two streams written out: an exporter takes no autograd function."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, bits: Tensor) -> Tensor:
        """The logits [B, T, 2] after each of bits [B, T]."""
        x = self.model._enter(bits, torch.arange(bits.shape[1]), None)
        x1, x2 = x, x
        for layer in self.model.layers:
            x1 = x1 + layer.attend(x2, True)[0]
            x2 = x2 + layer.feed(x1)
        return self.model._score((x1 + x2) / 2, None)


class Engine(nn.Module):
    """What another engine computes, called as the model is; `bytes` is how large its files are."""

    def __init__(self, run: Callable[[Tensor], Tensor], *files: Path) -> None:
        super().__init__()
        self.run = run
        self.bytes = sum(file.stat().st_size for file in files if file.exists())

    def forward(self, bits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores [B, T, 2] of bits [B, T], and no telemetry."""
        return self.run(bits), {}


def engine(name: str, model: nn.Module, bits: Tensor, threads: int, folder: Path) -> Engine:
    """One of ENGINES, for rows of the shape of bits. Raises ImportError where its package is not installed."""
    plain = exported(model, bits, folder / f"rows-{len(bits)}.onnx")
    if name == FLOAT:
        return onnxruntime_of(plain, threads)
    if name == DYNAMIC:
        return onnxruntime_of(dynamic(plain), threads)
    whole = static(plain, bits)
    return openvino_of(whole, threads) if name == OPENVINO else onnxruntime_of(whole, threads)


def exported(model: nn.Module, bits: Tensor, path: Path) -> Path:
    """The model in ONNX, in float32."""
    if not path.exists():
        with torch.no_grad():
            names = {"input_names": ["bits"], "output_names": ["scores"]}
            program = torch.onnx.export(Scores(model), (bits,), dynamo=True, verbose=False, **names)
        program.save(path, external_data=False)
    return path


def dynamic(plain: Path) -> Path:
    """INT8 weights, and inputs that are scaled by the call."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - it is no dependency

    path = plain.with_suffix(".dynamic.onnx")
    quantize_dynamic(plain, path, weight_type=QuantType.QInt8, op_types_to_quantize=MULTIPLIED, per_channel=True)
    return path


def static(plain: Path, bits: Tensor) -> Path:
    """INT8 weights, and inputs between the smallest and the largest that rows give."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static  # noqa: PLC0415

    class Rows(CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[dict[str, object]] = iter([{"bits": bits.numpy()}] * CALIBRATED)

        def get_next(self) -> dict[str, object] | None:
            return next(self.left, None)

    path = plain.with_suffix(".static.onnx")
    if not path.exists():
        kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(plain, path, Rows(), op_types_to_quantize=MULTIPLIED, per_channel=True, **kinds)
    return path


def onnxruntime_of(path: Path, threads: int) -> Engine:
    """A model file in onnxruntime."""
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Engine(lambda bits: torch.from_numpy(session.run(None, {"bits": bits.numpy()})[0]), path)


def openvino_of(path: Path, threads: int) -> Engine:
    """A model file in OpenVINO."""
    import openvino  # noqa: PLC0415

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": threads})
    return Engine(lambda bits: torch.from_numpy(compiled(bits.numpy())[0].copy()), path)
