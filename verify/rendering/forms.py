"""The forms that a result may be written in, each as one text."""

import importlib
import json
from collections.abc import Callable

from . import github, junit, sarif
from .report import text_of
from .surroundings import Shown


def page(shown: Shown) -> str:
    """The result as a page: what that needs is loaded only where one is asked for."""
    html: str = importlib.import_module(".html", __package__).html(shown)
    return html


FORMS: dict[str, Callable[[Shown], str]] = {
    "text": lambda shown: text_of(shown.report),
    "json": lambda shown: json.dumps(shown.report.to_json(), indent=2) + "\n",
    "sarif": lambda shown: json.dumps(sarif.sarif(shown), indent=1) + "\n",
    "junit": junit.junit,
    "github": github.commands,
    "html": page,
}
BY_SUFFIX = {".html": "html", ".sarif": "sarif", ".xml": "junit", ".json": "json"}
TELLING = {"sarif", "junit", "github", "html"}  # those that say where in its source a tree has what is judged
