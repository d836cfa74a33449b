"""The report of a finished run: how good its model is, in floating point and in INT8, and what others make of it."""

from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset, Subset

from .bit_io import BITS_PER_BYTE
from .checkpoint import load_checkpoint, save_checkpoint
from .corpus import Corpus, evenly
from .display import attempt
from .evaluation import Evaluation, bytes_of_rows, compare, evaluate
from .quantization import convert_qat, quantize_static
from .run_flags import Values
from .run_folder import write_json

GIVEN_BYTES = 1 << 26  # of the text to train on, that others read too
CALIBRATION_ROWS = 64  # of the text to train on, for the ranges of INT8 inputs


def report(
    values: Values,
    model: nn.Module,
    plain: nn.Module,
    evaluation: Evaluation,
    corpus: Corpus,
    held_out: Dataset,
    updates: int,
) -> dict[str, Any]:
    """Keep a model in INT8 too, where that is asked for, and report how good it is; return the report."""
    out, found = values["out"], {"updates": updates, "evaluation": evaluation.to_json()}
    attempt("nothing beside the model in the report", lambda: found.update(compared(evaluation, corpus, held_out)))
    if values["quantization"] == "int8":
        path = out / "model.int8.safetensors"
        seen = evenly(corpus.train, CALIBRATION_ROWS)
        save_checkpoint(path, convert_qat(model, seen) if values["qat"] else quantize_static(plain, seen))
        found["int8"] = {
            **evaluate(load_checkpoint(path)["model"], held_out).to_json(),
            "size": weights_size(path, model) / weights_size(out / "model.safetensors", model),
        }
    write_json(out / "report.json", found)
    return found


def compared(evaluation: Evaluation, corpus: Corpus, held_out: Dataset) -> dict[str, Any]:
    """An evaluation beside what others spend, who are given the text to train on, or its first GIVEN_BYTES."""
    row_bytes = corpus.length // BITS_PER_BYTE
    rows = min(len(corpus.train), max(1, GIVEN_BYTES // row_bytes))
    train = bytes_of_rows(Subset(corpus.train, range(rows)))
    return compare(evaluation, bytes_of_rows(held_out), train, row_bytes)


def weights_size(path: Path, model: nn.Module) -> int:
    """The bytes of a model's file, without its tables of counts, which are as large in INT8."""
    return path.stat().st_size - sum(table.nbytes for table in model.buffers())
