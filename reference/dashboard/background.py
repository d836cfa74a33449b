"""The manager's plan, carried out in the background: one run at a time, with its progress, and an end on request.

A run takes its turn as any request does, and keeps it: others wait for its end. To stop it, and to ask how
far it is, waits for nothing. It ends as "done", as "stopped" where that was asked for, or as "failed", with the
reason in words: the safety gate, memory, a loss that is not finite.
"""

import logging
import math
import time
from dataclasses import asdict
from threading import Event, Lock, Thread
from typing import Any

from torch import Tensor

from bit_transformer.safety import SafetyError

from .limits import count_updates, in_words
from .manager import ModelManager, NotReadyError, TrainingPlan

LOG = logging.getLogger(__name__)
UNDER_WAY = ("running", "stopping")


class BusyError(RuntimeError):
    """A run is under way, or, where one is to be stopped, none is."""


class NotFiniteError(RuntimeError):
    """The loss of an update is no finite number."""


class BackgroundRun:
    """The latest run of a manager's plan, in a thread of its own."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager
        self._changing = Lock()
        self._stop = Event()
        self._thread: Thread | None = None
        self._state, self._reason = "none", None
        self._plan: TrainingPlan | None = None
        self._first = self._last = 0  # steps of the manager
        self._began = self._ended = 0.0

    def start(self) -> None:
        """Begin a run. Raises BusyError during one, and NotReadyError without a model or data."""
        with self._changing:
            if self._state in UNDER_WAY:
                raise BusyError("a run is under way: wait for its end, or stop it")
            if self._manager.model is None:
                raise NotReadyError("there is no model yet: call init or download first")
            if self._manager.data is None:
                raise NotReadyError("no data to train on: give some with init or download")
            self._stop.clear()
            self._plan, self._first = self._manager.plan, self._manager.step
            self._began, self._reason, self._state = time.monotonic(), None, "running"
            self._thread = Thread(target=self._carry_out, name="training run", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Let the run end after the update under way. Raises BusyError where there is none."""
        with self._changing:
            if self._state not in UNDER_WAY:
                raise BusyError("no run is under way")
            self._stop.set()
            self._state = "stopping"

    def end(self) -> None:
        """Wait for the update under way, if there is one: a process must not end in the middle of it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def progress(self) -> dict[str, Any]:
        """How far the run is, and why it failed; "none" once the model or the plan is another."""
        with self._changing:
            state, reason, plan = self._state, self._reason, self._manager.plan
            last, now = (self._manager.step, time.monotonic()) if state in UNDER_WAY else (self._last, self._ended)
            if state not in UNDER_WAY and self._plan is not plan:
                state, reason, last, now = "none", None, self._first, self._began
            planned = 0 if plan is None else count_updates(asdict(plan), plan.rows)
            done = {"updates": last - self._first, "planned": planned, "seconds": now - self._began}
            return {"state": state, **done, "reason": reason}

    def _carry_out(self) -> None:
        state, reason = "failed", None
        try:
            with self._manager.turn():
                self._plan, self._first = self._manager.plan, self._manager.step  # another request may have come before
                self._manager.train(goes_on=self._goes_on)
                self._require_finite()
                is_whole = self._manager.step - self._first == count_updates(asdict(self._plan), self._plan.rows)
            state = "done" if is_whole else "stopped"
        except (SafetyError, NotReadyError, NotFiniteError) as error:
            reason = in_words(error)
        except Exception as error:
            reason = in_words(error)
            LOG.exception("the training run failed")
        finally:
            with self._changing:
                self._last, self._ended = self._manager.step, time.monotonic()
                self._state, self._reason = state, reason

    def _goes_on(self, _: Tensor) -> bool:
        self._require_finite()
        return not self._stop.is_set()

    def _require_finite(self) -> None:
        if self._manager.step > self._first and not math.isfinite(loss := self._manager.history[-1]["loss"]):
            raise NotFiniteError(f"training stopped: the loss is {loss}; start anew, with a lower learning rate")
