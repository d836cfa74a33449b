"""Pictures of a run: loss, bits per byte and learning rate over its steps, from its metrics.

Metrics are JSON lines. Those with a "step" are of a "kind": "train" has "loss" in nats a bit and "lr",
"eval" has "loss", "bpb_data" and "parity_waste". One of kind "start" may have "order_0", the entropy of
single bytes of the held-out text.
"""

import io
import json
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 1000  # of a curve, at most: more cannot be seen, and make a picture of many megabytes
BLUE, ORANGE, GREEN, GREY = "#2f6db3", "#d9731a", "#3a923a", "#777777"
NEEDS_MATPLOTLIB = "a picture needs matplotlib: pip install 'bitpatch[train]'"
USERS_OWN = ("MPLBACKEND", "MATPLOTLIBRC")  # variables by which matplotlib is told how to draw


@contextmanager
def as_shipped() -> Iterator[None]:
    """Draw as matplotlib does out of the box, whatever the environment and the user's files say.

    Raises ImportError, with the mend, where it is missing.
    """
    kept = {name: os.environ.pop(name) for name in USERS_OWN if name in os.environ}
    os.environ["MATPLOTLIBRC"] = os.devnull  # else one in the working directory would be read
    try:
        from matplotlib import rc_context, rcdefaults  # noqa: PLC0415 - only who draws needs it
    except ImportError as error:
        raise ImportError(NEEDS_MATPLOTLIB) from error
    finally:
        del os.environ["MATPLOTLIBRC"]
        os.environ.update(kept)
    with rc_context():
        rcdefaults()
        yield


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a file of JSON lines.

    A last line that is torn, of a run that was stopped or still runs, is ignored. One in the middle,
    where such a run was resumed, is skipped with a warning.
    """
    records, torn = [], []
    lines = Path(path).read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line) if line.strip() else None
        except ValueError:
            torn.append(number)
            continue
        if isinstance(record, dict):
            records.append(record)
    for number in torn:
        if number < len(lines):
            warnings.warn(f"{path}:{number} is no JSON: skipped", stacklevel=2)
    return records


@as_shipped()
def draw_curves(metrics_path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> list[Path]:
    """Write curves.png and curves.svg of a run's metrics; return both paths.

    Of records with the same kind and step, as a resumed run has them, the last counts. Raises
    ImportError, with the mend, where matplotlib is missing.
    """
    records = read_metrics(metrics_path)
    train, evaluations = of_kind(records, "train"), of_kind(records, "eval")
    figure = new_figure(9, 8.5)
    losses, bits, rates = figure.subplots(3, 1, sharex=True, height_ratios=[3, 2.4, 1.3])

    losses.set_title("Loss", loc="left")
    losses.set_ylabel("nats per bit")
    steps, values, mean_of = thin(*series(train, "loss"))
    label = "training" if mean_of == 1 else f"training, means of {mean_of}"
    plot(losses, steps, values, label, color=BLUE, linewidth=1)
    plot(losses, *series(evaluations, "loss"), "held out", color=ORANGE, marker="o", markersize=3.5)

    bits.set_title("Bits per byte, held out", loc="left")
    bits.set_ylabel("bits per byte")
    plot(bits, *series(evaluations, "bpb_data"), "8 data bits", color=ORANGE, marker="o", markersize=3.5)
    plot(
        bits, *series(evaluations, "parity_waste"), "parity bit", color=GREEN, marker="o", markersize=3.5, clip_on=False
    )
    start = next((record for record in reversed(records) if record.get("kind") == "start"), {})
    if is_finite(start.get("order_0")):
        label = f"single bytes, by their own frequencies: {start['order_0']:.2f}"
        bits.axhline(start["order_0"], color=GREY, linewidth=1, linestyle="--", label=label)
    bits.set_ylim(bottom=0)

    rates.set_title("Learning rate", loc="left")
    rates.set_ylabel("learning rate")
    steps, values, _ = thin(*series(train, "lr"))
    plot(rates, steps, values, color=BLUE, linewidth=1.2)
    rates.ticklabel_format(axis="y", scilimits=(-2, 2), useMathText=True)
    rates.set_ylim(bottom=0)
    rates.set_xlabel("step (optimizer updates)")
    rates.set_xlim(left=0)
    rates.xaxis.get_major_locator().set_params(integer=True)

    for axes in (losses, bits, rates):
        finish(axes)
    return save_figure(figure, folder, "curves")


def of_kind(records: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The records of a kind that have a step, in order of their steps; of the same step, the last."""
    by_step = {record["step"]: record for record in records if record.get("kind") == kind and "step" in record}
    return [by_step[step] for step in sorted(by_step)]


def series(records: Sequence[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """The steps and values of a metric, where it is a finite number."""
    known = [record for record in records if is_finite(record.get(name))]
    return [record["step"] for record in known], [record[name] for record in known]


def is_finite(value: Any) -> bool:
    """Whether a JSON value is a number that can be drawn."""
    return isinstance(value, int | float) and math.isfinite(value)


def thin(steps: list[float], values: list[float]) -> tuple[list[float], list[float], int]:
    """At most POINTS points, the means of as many neighbours as it takes, and how many these are."""
    size = math.ceil(len(steps) / POINTS) or 1
    groups = [slice(start, start + size) for start in range(0, len(steps), size)]
    means = [sum(values[group]) / len(values[group]) for group in groups]
    return [steps[group][-1] for group in groups], means, size


def plot(axes: "Axes", steps: list[float], values: list[float], label: str | None = None, **look: Any) -> None:
    """Draw a curve, if there is any; a single point as a dot."""
    if steps:
        axes.plot(steps, values, label=label, **({"marker": "o"} if len(steps) == 1 else {}) | look)


def finish(axes: "Axes") -> None:
    """Grid, frame and legend; a note where nothing was drawn."""
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if not axes.lines:
        axes.text(0.5, 0.5, "no records yet", transform=axes.transAxes, ha="center", va="center", color=GREY)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False)


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches, which needs no display; ImportError where there is no matplotlib."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - only who draws needs it
    except ImportError as error:
        raise ImportError(NEEDS_MATPLOTLIB) from error
    return Figure(figsize=(width, height), layout="constrained")


@as_shipped()
def require_pictures() -> None:
    """Draw a picture that is thrown away: what keeps pictures from being drawn is raised here."""
    figure = new_figure(1, 1)
    figure.subplots().set_title("a")
    for kind in ("png", "svg"):
        figure.savefig(io.BytesIO(), format=kind)


def save_figure(figure: "Figure", folder: str | os.PathLike[str], name: str) -> list[Path]:
    """Write a figure as PNG and SVG, each whole or not at all; the same figure gives the same SVG."""
    from matplotlib import rc_context  # noqa: PLC0415

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    for path in paths:
        kind = path.suffix[1:]
        handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file, rc_context({"svg.hashsalt": name}):
                figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
            Path(part).chmod(0o644)
            Path(part).replace(path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    return paths
