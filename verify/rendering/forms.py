"""The forms that a result may be written in, each as one text."""

import importlib
import json
from collections.abc import Callable
from typing import Any

from . import github, junit, sarif
from .report import text_of
from .surroundings import Shown

FORMS: dict[str, Callable[[Shown], str]] = {
    "text": lambda shown: text_of(shown.report),
    "json": lambda shown: json.dumps(shown.report.to_json(), indent=2) + "\n",
    "sarif": lambda shown: json.dumps(sarif.sarif(shown), indent=1) + "\n",
    "junit": junit.junit,
    "github": github.commands,
}
TELLING = ("sarif", "junit", "github")  # those that say where in its source a tree has what is judged


def page(shown: Shown, **more: Any) -> str:
    """The result as a page: what that needs is loaded only where one is asked for."""
    html: str = importlib.import_module(".html", __package__).html(shown, **more)
    return html
