"""Who may ask the dashboard, and what a body may be.

Any page that a browser shows can send requests to this machine, and any name can be made to lead
here. So each request is to name the server as it is known: localhost, 127.0.0.1 or [::1] with its own
port, or a name that it was told. What is no GET must besides not come from another site, and bring the
token, which no page can know.
"""

import hmac
import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

from flask import Request, abort
from werkzeug.datastructures import WWWAuthenticate

from .limits import shown

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
DEFAULT_PORTS = {"80", "443"}  # which browsers leave out of Host and Origin


def check_request(request: Request, token: str, hosts: Iterable[str]) -> None:
    """Abort with 403 or 401 unless the request comes from here, and from one who may make it."""
    port = request.environ.get("SERVER_PORT", "")
    known = {f"{name}:{port}" for name in (*LOCAL_NAMES, *hosts)} | {name.lower() for name in hosts}
    known |= set(LOCAL_NAMES) if port in DEFAULT_PORTS else set()
    host = request.environ.get("HTTP_HOST") or ""
    if host.lower() not in known:
        abort(403, f"the Host header must name this server, got {shown(host)}")
    if request.method in ("GET", "HEAD") or request.routing_exception is not None:
        return
    origin = request.headers.get("Origin")
    if origin is not None and origin.lower() not in {
        f"{scheme}://{name}" for scheme in ("http", "https") for name in known
    }:
        abort(403, f"requests of other sites are refused, got the Origin {shown(origin)}")
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site not in ("none", "same-origin"):
        abort(403, f"requests of other sites are refused, got the Sec-Fetch-Site {shown(site)}")
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        abort(
            401,
            "send the token that the server printed at its start: Authorization: Bearer TOKEN",
            www_authenticate=WWWAuthenticate("bearer"),
        )


def check_token(token: str) -> str:
    """The token; ValueError unless it is one that a header can hold."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("a token is made of visible ASCII characters, and not empty")
    return token


def json_object(request: Request) -> dict[str, Any]:
    """The JSON object that is the body. Aborts with 415 on another content type; raises ValueError on other bodies."""
    if request.mimetype != "application/json":
        abort(415, f"expected a body of the content type application/json, got {shown(request.mimetype)}")
    try:
        text = request.get_data(cache=False).decode("utf-8")
        body = json.loads(text, object_pairs_hook=unique, parse_constant=refuse_constant, parse_float=finite_float)
    except RecursionError:
        raise ValueError("the body's JSON is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"the body must be UTF-8, but its byte {error.start} is not") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"the body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise ValueError(f"expected a JSON object as the body, got {shown(body)}")
    return body


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose names must differ."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name stands twice in an object of the body")
    return members


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN, Infinity and -Infinity, which are no JSON."""
    raise ValueError(f"the body is no JSON: {name} is no number")


def finite_float(text: str) -> float:
    """A number of the body, which a float must be able to hold."""
    if math.isinf(number := float(text)):
        raise ValueError(f"the body has a number that is too large: {shown(text)}")
    return number
