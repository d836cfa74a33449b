"""Where in the user's own files something is asked for."""

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

FOREIGN = tuple({os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "purelib", "platlib")})
REPLAYED = (os.path.join("torch", "utils", "checkpoint.py"), os.path.join("torch", "autograd", "function.py"))


class Lines:
    """The files below some folders are the user's; a line is named by its file's path from there."""

    def __init__(self, folders: list[Path]) -> None:
        self._folders = [os.path.realpath(each) + os.sep for each in folders]
        self._names: dict[str, str] = {}  # by file name; "" of one that is not the user's

    def name(self, file: str) -> str:
        """The name of a file of the user's; "" of any other."""
        if file not in self._names:
            real = os.path.realpath(file)
            within = next((each for each in self._folders if real.startswith(each)), "")
            self._names[file] = real[len(within) :] if within and not real.startswith(FOREIGN) else ""
        return self._names[file]

    def frames(self) -> Iterator[FrameType]:
        """The user's frames, the innermost first."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if self.name(frame.f_code.co_filename):
                yield frame
            frame = frame.f_back

    def here(self) -> str:
        """The innermost line of the user's, as file:line; "" where there is none."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            file = frame.f_code.co_filename
            if name := self._names.get(file) or self.name(file):
                return f"{name}:{frame.f_lineno}"
            frame = frame.f_back
        return ""


def is_replayed() -> bool:
    """Whether what runs is a forward whose graph is made later: under a checkpoint, or in a function's own forward."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.endswith(REPLAYED):
            return True
        frame = frame.f_back
    return False
