"""Where a run's figures go beside its folder: --report_to tensorboard, wandb or mlflow.

What is sent is the flags, and of each record of training and evaluation its figures. Where to, and whether at
all, is up to each package and its environment variables: WANDB_MODE=offline, WANDB_PROJECT, MLFLOW_TRACKING_URI
and so on. A run that goes on does so under the id that trackers.json has of it: the updates since its last
checkpoint are sent again, with the same figures.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from .checkpoint import write_whole
from .display import attempt
from .run_flags import TRACKERS, jsonable
from .run_folder import is_reported

INSTALLED = {"tensorboard": "'bitpatch[train]'", "wandb": "wandb", "mlflow": "mlflow"}  # for pip, where it is missing
SCALARS = ("loss", "lr", "bits_per_second", "compress_prob", "bpb_data", "parity_waste")
LONGEST = 500  # characters of a flag: what servers of MLflow take, whatever their age


@dataclass(frozen=True, slots=True)
class Tracker:
    """How one package takes a run's figures."""

    write: Callable[[Mapping[str, float], int], object]  # figures by name, and the update
    close: Callable[[bool], object]  # whether the run is done
    flush: Callable[[], object] = lambda: None
    id: str | None = None  # what the package calls the run, where it can go on


def asked_for(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The trackers that flags name, each once."""
    return tuple(dict.fromkeys(["tensorboard"] * values["tensorboard"] + (values["report_to"] or [])))


def require_trackers(names: Iterable[str]) -> None:
    """Raise ImportError where a package is missing, or cannot be imported; it says what to install."""
    for name in names:
        try:
            entry(name)
        except Exception as error:  # what a broken package raises
            raise ImportError(f"--report_to {name} needs the package {name}: pip install {INSTALLED[name]}") from error


def entry(name: str) -> Any:
    """What a package begins a run with. A folder of its name is imported too, and has nothing."""
    if name == "wandb":
        from wandb import init  # noqa: PLC0415 - only who asks for it needs it

        return init
    if name == "mlflow":
        from mlflow import start_run  # noqa: PLC0415

        return start_run
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

    return SummaryWriter


class Trackers:
    """Sends a run's records to some trackers; a context manager. One that fails is left out, with a warning.

    Of a run that is resumed, the ids are those that its folder keeps.
    """

    def __init__(self, names: Iterable[str], values: Mapping[str, Any], updates: int, update: int) -> None:
        self.out, self.updates = values["out"], updates
        self.kept = kept_ids(self.out) if values["resume"] else {}
        self.open: dict[str, Tracker] = {}
        for name in names:
            self._or_lose(name, self._begin, name, values, update)

    def _begin(self, name: str, values: Mapping[str, Any], update: int) -> None:
        tracker = BEGIN[name](values, update, self.kept.get(name))
        self.open[name] = tracker
        if tracker.id and self.kept.get(name) != tracker.id:
            self.kept[name] = tracker.id
            write_whole(self.out / "trackers.json", json.dumps(self.kept).encode() + b"\n")

    def record(self, record: Mapping[str, Any]) -> None:
        """Send the figures of a record, where it has any."""
        figures = {f"{record['kind']}/{name}": record[name] for name in SCALARS if name in record}
        for name, tracker in list(self.open.items()) if figures else ():
            self._or_lose(name, tracker.write, figures, record["step"])

    def flush(self) -> None:
        """Bring all records to the disk, where that is where they go."""
        for name, tracker in list(self.open.items()):
            self._or_lose(name, tracker.flush)

    def _or_lose(self, name: str, work: Callable[..., object], *args: Any) -> None:
        if not attempt(f"{name} fails, and is left out", work, *args):
            self.open.pop(name, None)

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        is_done = kind is None and is_reported(self.out, self.updates)
        for name, tracker in list(self.open.items()):
            self._or_lose(name, tracker.close, is_done)


def kept_ids(out: Path) -> dict[str, str]:
    """What each package calls the run in a folder; nothing where that is not known."""
    with suppress(OSError, ValueError):
        found = json.loads((out / "trackers.json").read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return {name: each for name, each in found.items() if name in TRACKERS and isinstance(each, str)}
    return {}


def begin_tensorboard(values: Mapping[str, Any], update: int, _id: str | None) -> Tracker:
    """Events in the run's folder that go on after an update."""
    writer = entry("tensorboard")(str(values["out"]), purge_step=update + 1 if update else None)

    def write(figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)

    return Tracker(write, lambda _is_done: writer.close(), writer.flush)


def begin_wandb(values: Mapping[str, Any], _update: int, known: str | None) -> Tracker:
    """A run of Weights & Biases, whose files are in the run's folder unless WANDB_DIR names another."""
    run = entry("wandb")(
        id=known or os.environ.get("WANDB_RUN_ID"),
        resume="allow",
        name=os.environ.get("WANDB_NAME", values["out"].resolve().name),
        dir=os.environ.get("WANDB_DIR", str(values["out"])),
        config=flags(values),
        allow_val_change=True,  # of the flags that may change when a run goes on
        save_code=False,
        settings={"console": "off"},  # the terminal is the display's
    )
    run.define_metric("*", step_metric="update")  # its own step only grows, and updates may come again
    return Tracker(
        lambda figures, step: run.log({**figures, "update": step}),
        lambda is_done: run.finish(exit_code=0 if is_done else 1),
        id=run.id,
    )


def begin_mlflow(values: Mapping[str, Any], _update: int, known: str | None) -> Tracker:
    """A run of MLflow; its flags are sent once, as they cannot be changed there."""
    name = os.environ.get("MLFLOW_RUN_NAME", values["out"].resolve().name)
    run = entry("mlflow")(run_id=known) if known else entry("mlflow")(run_name=name)
    import mlflow  # noqa: PLC0415

    tracker = Tracker(
        lambda figures, step: mlflow.log_metrics(dict(figures), step=step),
        lambda is_done: mlflow.end_run("FINISHED" if is_done else "KILLED"),
        id=run.info.run_id,
    )
    if not known:
        mlflow.log_params({name: str(value)[:LONGEST] for name, value in flags(values).items()})
    return tracker


def flags(values: Mapping[str, Any]) -> dict[str, Any]:
    """The flags as a tracker takes them."""
    return {name: jsonable(value) for name, value in values.items() if name != "resume"}


BEGIN = {"tensorboard": begin_tensorboard, "wandb": begin_wandb, "mlflow": begin_mlflow}
