"""Processes that stay alive and take turns (bitpatch.verify.benching.interleaving says why, and what a ratio is)."""

import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Self

from bitpatch.verify.benching import interleaving

CONTEXT = multiprocessing.get_context("spawn")  # nothing is inherited: neither memory nor threads
HANGS = 1800.0  # seconds after which no answer is expected


@dataclass(frozen=True, slots=True)
class Turn:
    """What a process says of a turn: wall and processor seconds of each step, and its peak memory so far."""

    seconds: tuple[float, ...]
    processor_seconds: tuple[float, ...]
    peak_mb: float
    device_mb: float = 0.0


class Player:
    """A process that runs work(order, wait), where wait(measured) ends a turn and returns at the next.

    The process ends where `wait` is not answered any more. RuntimeError where it fails.
    """

    def __init__(self, name: str, work: Callable[[Any, Callable[[Any], None]], None], order: Any) -> None:
        self.name = name
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=answer, args=(work, order, theirs))
        self.process.start()
        theirs.close()

    def __enter__(self) -> Self:
        try:
            self.measured()  # ready for its first turn
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.pipe.close()
        self.process.join(30)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def play(self) -> Any:
        """Let the process have its turn, and return what it measured."""
        self.pipe.send(None)
        return self.measured()

    def measured(self) -> Any:
        """Wait for the end of a turn."""
        try:
            if self.pipe.poll(HANGS):
                return self.pipe.recv()
        except EOFError as error:
            self.process.join()
            raise RuntimeError(f"{self.name} ended, exit code {self.process.exitcode}: see its message") from error
        raise RuntimeError(f"{self.name} did not end its turn within {HANGS:.0f} s: give smaller sizes")


def answer(work: Callable[[Any, Callable[[Any], None]], None], order: Any, pipe: Connection) -> None:
    """Work, here, turn by turn."""
    sys.dont_write_bytecode = True
    work(order, partial(wait, pipe))


def wait(pipe: Connection, measured: Any) -> None:
    """Say what the turn measured, and return at the next one; SystemExit where there is none."""
    try:
        pipe.send(measured)
        pipe.recv()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise SystemExit from None


def take_turns(players: Sequence[Player], rounds: int, most_seconds: float = math.inf) -> dict[str, list[Any]]:
    """What the players measured in each round, by name; rounds beyond the first end within most_seconds."""
    measured: dict[str, list[Any]] = {player.name: [] for player in players}
    for order in interleaving.rounds(players, rounds, most_seconds):
        for player in order:
            measured[player.name].append(player.play())
    return measured


def play_together(works: Mapping[str, tuple[Callable[..., None], Any]], rounds: int) -> dict[str, list[Any]]:
    """Start a process for each work and its order, and let them take turns."""
    with ExitStack() as alive:
        players = [alive.enter_context(Player(name, work, order)) for name, (work, order) in works.items()]
        return take_turns(players, rounds)


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of the values does not exceed, between neighbours."""
    values = sorted(values)
    place = share * (len(values) - 1)
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (place - below)


def peak_mb() -> float:
    """The most memory, in MB, that has been resident in this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Stopwatch:
    """Wall and processor seconds of the steps of a turn."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.processor_seconds: list[float] = []
        self.start()

    def start(self) -> None:
        """Begin a step."""
        self.began = time.perf_counter(), time.process_time()

    def lap(self) -> None:
        """End a step, and begin the next."""
        wall, processor = self.began
        self.start()
        self.seconds.append(self.began[0] - wall)
        self.processor_seconds.append(self.began[1] - processor)

    def turn(self, device_mb: float = 0.0) -> Turn:
        """The steps since the last turn."""
        turn = Turn(tuple(self.seconds), tuple(self.processor_seconds), peak_mb(), device_mb)
        self.seconds, self.processor_seconds = [], []
        return turn
