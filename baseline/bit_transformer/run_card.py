"""The card of a finished run: what the model beside it was trained on and how, how good it is, and how to read it."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .evaluation import KNOWN, MODEL, ranking
from .run_flags import jsonable, run_parser, words_of

# What the tensors of model.safetensors are, by what their names end in; C is the width, F that of the feedforward.
TENSORS = {
    "embedding.weight": "[2, C]: one row for each bit",
    "position.weight": "[T, C]: added to it, by the place in the row",
    "attention.{q,k,v,out}_proj.{weight,bias}": "[C, C] and [C]: of `layers.N`, whose heads are C / nhead wide",
    "norm1, norm2, norm": "[C] each: layer norms before attention, before the feedforward, and before the output",
    "feedforward.0, feedforward.2": "[F, C] and [C, F], with their biases: GELU between them",
    "contexts.tables": "[contexts, places]: counts of what followed each context in the training text, packed",
    "contexts.embed.weight, contexts.weigh.{weight,bias}": "what that adds to the stream, and how the logits weigh it",
    "out.{weight,bias}": "[2, C] and [2]: the logits of the next bit",
}
LIMITS = """- It predicts bits of UTF-8 text as it was trained on, nine a byte (eight of data, then even parity), in
  rows of {length} bits; it knows nothing before a row's start.
- What it writes was filtered by nobody: it may repeat its text, and say what is false or hurts.
- Figures are of the held-out rows of that text. Another text is another figure."""


def run_card(
    values: Mapping[str, Any],
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    found: Mapping[str, Any],
    text: str,
) -> str:
    """The card as Markdown: of a run's flags, its model's config and weights, its report, and its text's digest."""
    parts = (_model(values, config, state), _data(values, text), _training(values, found), _figures(found))
    lines = [line for part in parts for line in part]
    return "\n".join([*lines, "\n## Limits\n", LIMITS.format(length=config["max_seq_len"]), *_reading(config)]) + "\n"


def _model(values: Mapping[str, Any], config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Iterator[str]:
    parameters = sum(each.numel() for each in state.values())
    shown = ", ".join(f"{name} {value}" for name, value in config.items() if value not in (None, False))
    yield f"# {values['out'].resolve().name}\n"
    yield f"A transformer language model over bits, with {parameters:,} parameters: {shown}."


def _data(values: Mapping[str, Any], text: str) -> Iterator[str]:
    sources = [values["dataset"]] if values["dataset"] else values["data"]
    yield "\n## Data\n"
    yield from (f"- `{each}`" for each in sources or ())
    yield from () if sources else ("- the sample that comes with the code",)
    yield from (f"- `{each}`, to validate on" for each in values["val_data"] or ())
    yield f"- SHA-256 of all texts: `{text}`"


def _training(values: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    parser = run_parser()
    usual = vars(parser.parse_args([])) | {name: values[name] for name in ("out", "resume", "config", "preset")}
    told = {name: jsonable(value) for name, value in values.items() if value != usual[name]}
    yield "\n## Training\n"
    yield f"{found['updates']:,} updates, torch {torch.__version__}. The flags that are not the defaults:\n"
    yield f"```console\n$ python -m bit_transformer.training {shlex.join(words_of(parser, told))}\n```"


def _figures(found: Mapping[str, Any]) -> Iterator[str]:
    yield "\n## How good it is\n"
    yield f"On {found['evaluation']['bytes']:,} bytes that it was not trained on:\n"
    yield "| | bits per byte |\n| --- | ---: |"
    for name, value in ranking(dict(found)):
        yield f"| {f'**{name}**' if name == MODEL else name} | {value:.3f} |"
    yield f"\n{KNOWN}"


def _reading(config: Mapping[str, Any]) -> Iterator[str]:
    yield "\n## Reading it\n"
    yield "With this code: `load_checkpoint('model.safetensors')['model']`, of `bit_transformer.checkpoint`. Without:\n"
    yield "```python\nfrom safetensors.torch import load_file\n"
    yield "tensors = load_file('model.safetensors')  # 'model.embedding.weight', ...\n```\n"
    yield "Names start with `model.`; the file's metadata has the configuration, as JSON.\n"
    yield "| tensor | what it is |\n| --- | --- |"
    yield from (
        f"| `{name}` | {what} |" for name, what in TENSORS.items() if config["context_orders"] or "contexts" not in name
    )
