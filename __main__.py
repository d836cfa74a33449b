"""The way in: `bitpatch` and `python -m bitpatch`, and what has to hold before anything else is imported.

A signal ends the process in one line, and a platform without POSIX locks is refused in one. Streams that the caller
closed are held open, or the next file to be opened would stand in their place, and take what is printed.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # there `python -m` puts the folder one stands in: a tree, perhaps, whose modules are not to run

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

INTERRUPTED, AGAIN = "interrupted; nothing is half done", "run the command again"
TAKES_VALUE = {"--tree", "--at", "--format", "--output", "-j", "--runs", "--run", "--thorough", "--report", "--since"}
TAKES_VALUE |= {"--script", "--updates", "--seconds"}
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
EXIT_IO, EXIT_SIGNAL = 6, 128  # and the number of the signal


def main() -> None:
    """Run the command line."""
    try:
        hold_streams()
        try:
            import fcntl  # noqa: F401, PLC0415
        except ImportError:
            end(EXIT_IO, "bitpatch runs on Linux and macOS: its locks need POSIX", "use it there, or under WSL")
        on_signals(leave)
        from .cli import main as run  # noqa: PLC0415

        run()
    except KeyboardInterrupt:
        leave()
    finally:
        on_signals(leave)


def hold_streams() -> None:
    """Put the null device where standard input, output or error is closed."""
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one


def on_signals(handler: Callable[[int, Any], object]) -> None:
    """Let a handler take every signal that asks for an end, but for those that the caller has switched off."""
    import signal  # noqa: PLC0415

    for name in SIGNALS:
        if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:
            signal.signal(getattr(signal, name), handler)


def undoing() -> None:
    """From here on there is something to undo: an end is an exception, where `main` would leave at once."""
    import signal  # noqa: PLC0415

    if signal.getsignal(signal.SIGINT) == leave:
        on_signals(interrupt)


def interrupt(number: int, _: Any) -> NoReturn:
    """Take a signal as Python takes Ctrl-C."""
    raise KeyboardInterrupt(number)


def leave(number: int = 2, _: Any = None) -> NoReturn:
    """Take a signal while nothing is under way."""
    end(EXIT_SIGNAL + number, INTERRUPTED, AGAIN)


def end(code: int, message: str, then: str) -> NoReturn:
    """Leave at once; says it without a module that might be half imported, so `message` and `then` hold no quotes."""
    document = f'{{"error": {{"code": {code}, "message": "{message}", "next": "{then}"}}}}\n'
    for stream, text in ((1, document if wants_json(sys.argv) else ""), (2, f"error: {message}\n")):
        try:  # noqa: SIM105 - nothing may be imported
            os.write(stream, text.encode())
        except OSError:
            pass  # there is nobody to tell
    os._exit(code)


def wants_json(words: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, even one that cannot be parsed."""
    own = words[: words.index("--")] if "--" in words else words
    return "--json" in own or "--format=json" in own or ("--format", "json") in itertools.pairwise(own)


def lacking(words: Sequence[str]) -> str:
    """The first option whose value is missing, and what stands there: `verify --output --json` lacks a file."""
    pairs = itertools.pairwise(itertools.takewhile("--".__ne__, words))
    wrong = (pair for pair in pairs if pair[0] in TAKES_VALUE and pair[1].startswith("-") and pair[1] != "-")
    there_is = f"bitpatch {words[0]} -h shows what there is" if words else ""
    return next((f"option {option} requires a value, found {word} ({there_is})" for option, word in wrong), "")


if __name__ == "__main__":
    from bitpatch.__main__ import main  # the one that commands know

    main()
