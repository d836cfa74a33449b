"""A script is judged."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bitpatch.verify.rendering.report import Report
from bitpatch.verify.running.runner import Zygote
from bitpatch.verify.scripts.judging import run_script


@pytest.fixture(scope="package")
def zygote() -> Iterator[Zygote]:
    with Zygote() as started:
        yield started


@pytest.fixture
def judged_text(zygote: Zygote, tmp_path: Path) -> Callable[..., Report]:
    """A script, by its text, is judged in a folder of its own."""

    def judge(text: str, *arguments: str, updates: int = 200, seconds: float = 60) -> Report:
        (tmp_path / "train.py").write_text(text)
        return run_script(zygote, tmp_path / "train.py", arguments, updates, seconds, tmp_path)

    return judge
