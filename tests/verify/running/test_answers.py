import json
import math
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bitpatch.verify.running.answers import read_answer, read_evidence
from bitpatch.verify.running.evidence import Picture, Verdict

GOOD = {"verdict": "fail", "measured": 1.0, "limit": 0.5, "detail": "too far", "reproduce": ""}
SCHEMA = json.loads((Path(__file__).parents[3] / "verify" / "schemas" / "verify.json").read_text(encoding="utf-8"))
PICTURE = {"$ref": "#/$defs/picture", "$defs": SCHEMA["$defs"]}
AXES = {"title": "a picture", "x": "", "y": ""}
CURVES: dict[str, Any] = AXES | {"kind": "curves", "found": [1.0, None], "wanted": [1.0, 0.5, 0.25]}
MAPS: dict[str, Any] = AXES | {"kind": "maps", "found": [[1.0, 0.0], [0.5, None]], "wanted": [[1.0], [0.5]]}
EVENTS: dict[str, Any] = AXES | {"kind": "events", "found": [], "wanted": ["backward 1/2", "step"]}


@pytest.mark.parametrize("picture", [CURVES, MAPS, EVENTS], ids=lambda picture: picture["kind"])
def test_a_picture_arrives(picture: dict[str, Any]) -> None:
    assert read_evidence(GOOD | {"picture": picture}).picture == Picture(**picture)
    jsonschema.validate(picture, PICTURE)


def test_no_picture_is_none() -> None:
    assert read_evidence(GOOD).picture is None


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param([], id="no picture"),
        pytest.param(CURVES | {"more": 1}, id="more than a picture has"),
        pytest.param(AXES | {"kind": "curves", "found": []}, id="one side only"),
        pytest.param(CURVES | {"kind": "script"}, id="another kind"),
        pytest.param(CURVES | {"kind": ["curves"]}, id="a kind that is no text"),
        pytest.param(CURVES | {"kind": "maps"}, id="a curve for a map"),
        pytest.param(EVENTS | {"kind": "curves"}, id="events for a curve"),
        pytest.param(CURVES | {"found": None}, id="nothing found"),
        pytest.param(CURVES | {"found": {"0": 1.0}}, id="found in a dictionary"),
        pytest.param(CURVES | {"wanted": ["1.0"]}, id="a number in quotes"),
        pytest.param(CURVES | {"wanted": [True]}, id="a truth value"),
        pytest.param(CURVES | {"found": 4001 * [0.5]}, id="a curve that is too long"),
        pytest.param(MAPS | {"found": 65 * [[0.5]]}, id="a map of too many rows"),
        pytest.param(MAPS | {"found": [65 * [0.5]]}, id="a map of too long rows"),
        pytest.param(MAPS | {"found": []}, id="a map without rows"),
        pytest.param(MAPS | {"found": [[]]}, id="a map of empty rows"),
        pytest.param(MAPS | {"found": [[[0.5]]]}, id="a map of three dimensions"),
        pytest.param(EVENTS | {"found": 201 * ["step"]}, id="too many events"),
        pytest.param(EVENTS | {"found": [81 * "x"]}, id="a long event"),
        pytest.param(EVENTS | {"found": [1.0]}, id="an event that is a number"),
        pytest.param(EVENTS | {"title": 81 * "x"}, id="a long title"),
        pytest.param(EVENTS | {"x": None}, id="an axis that is no text"),
    ],
)
def test_a_picture_of_another_shape_is_an_error(picture: Any) -> None:
    assert read_evidence(GOOD | {"picture": picture}).verdict is Verdict.ERROR
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(picture, PICTURE)


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(CURVES | {"found": [math.nan]}, id="no number"),
        pytest.param(CURVES | {"found": [math.inf]}, id="an infinite number"),
        pytest.param(MAPS | {"wanted": [[0.5, 0.5], [0.5]]}, id="a map of rows of two lengths"),
        pytest.param(EVENTS | {"found": ["\x1b[2J"]}, id="an event that clears the screen"),
        pytest.param(EVENTS | {"y": "a\nb"}, id="an axis of two lines"),
    ],
)
def test_what_no_schema_tells_is_an_error_too(picture: Any) -> None:
    assert read_evidence(GOOD | {"picture": picture}).verdict is Verdict.ERROR


def test_an_answer_that_is_too_deep_is_none() -> None:
    reading, writing = os.pipe()
    os.write(writing, 60_000 * b"[")
    os.close(writing)
    assert read_answer(reading, "nonce") is None
    os.close(reading)
