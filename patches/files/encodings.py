"""The text of a Python file's bytes, in the encoding that Python would read them in."""

from __future__ import annotations

import codecs
import re

_COOKIE = re.compile(  # PEP 263: in a comment of the first line, or of the second below a comment or nothing
    rb"\A(?:[ \t\f]*(?:#[^\r\n]*)?(?:\r\n|\r|\n))?[ \t\f]*#[^\r\n]*?coding[:=][ \t]*([-\w.]+)"
)
_ALIASES = {
    "utf-8": "utf-8",
    "latin-1": "latin-1",
    "iso-8859-1": "latin-1",
    "iso-latin-1": "latin-1",
}  # and more behind


def decoded(raw: bytes) -> tuple[str, str]:
    """A file's text and the name of its encoding.

    Raises UnicodeError, LookupError or ValueError where it has none, or where its mark of UTF-8 and its cookie differ.
    """
    cookie = _declared(raw)
    if raw.startswith(codecs.BOM_UTF8):
        if cookie not in ("utf-8", "utf-8-sig"):
            raise LookupError(f"it starts with the mark of UTF-8, and declares {cookie}")
        cookie = "utf-8-sig"
    return raw.decode(cookie), cookie


def _declared(raw: bytes) -> str:
    """The encoding that a file's cookie names, Emacs' `utf-8-unix` as Python reads it; else UTF-8."""
    found = _COOKIE.match(raw.removeprefix(codecs.BOM_UTF8))
    name = found[1].decode("latin-1").lower().replace("_", "-") if found else "utf-8"
    return next((known for alias, known in _ALIASES.items() if f"{name}-".startswith(f"{alias}-")), name)
