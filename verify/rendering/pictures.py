"""Pictures for a page, without a library that draws: curves as SVG, maps as PNG in their places, events as a list."""

import base64
import difflib
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..running.evidence import Picture

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 200, 64, 28, 10
TICKS = 4
MOST_POINTS = 400  # of a curve: more than a page has pixels for
MOST_EVENTS = 60
FEW_POINTS = 40  # up to so many are dots also
SCALES = {"map": ((255, 255, 255), (20, 60, 160)), "difference": ((255, 255, 255), (200, 30, 30))}
Numbers = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Range:
    """What an axis spans."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Range":
        """The range of some numbers, widened where they are all one."""
        low, high = min(values), max(values)
        return cls(low, high) if high > low else cls(low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1))

    def share(self, value: float) -> float:
        """How far a number is from low to high, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)


def drawn(picture: Picture, wanted: str = "as it should be") -> Markup:
    """A picture as HTML, with what it shows in words for who does not see it; `wanted` says what is shown beside."""
    draw = {"curves": curves, "maps": maps, "events": events}[picture.kind]
    body = draw(picture, wanted)
    return Markup('<figure class="picture"><figcaption>{}</figcaption>{}</figure>').format(picture.title, body)


def curves(picture: Picture, beside: str) -> Markup:
    """What was found as a line, what is wanted as a dashed one."""
    found, wanted = thinned(picture.found), thinned(picture.wanted)
    values = [value for line in (found, wanted) for _, value in line]
    if not values:
        return Markup("<p>no number</p>")
    across = Range.of([float(place) for line in (found, wanted) for place, _ in line])
    up = Range.of(values)

    def point(place: float, value: float) -> tuple[float, float]:
        x = LEFT + across.share(place) * (WIDTH - LEFT - 10)
        return round(x, 1), round(HEIGHT - BOTTOM - up.share(value) * (HEIGHT - BOTTOM - TOP), 1)

    parts = [*_grid(up, across)]
    for name, line in (("wanted", wanted), ("found", found)):
        points = [point(*each) for each in line]
        parts.append(Markup('<polyline class="{}" points="{}"/>').format(name, " ".join(f"{x},{y}" for x, y in points)))
        if len(points) <= FEW_POINTS:
            parts += [Markup('<circle class="{}" cx="{}" cy="{}" r="2.5"/>').format(name, *each) for each in points]
    parts.append(
        Markup('<text class="axis" x="{}" y="{}" text-anchor="end">{}</text>').format(WIDTH, HEIGHT - 2, picture.x)
    )
    label = f"{picture.y or 'value'} by {picture.x or 'place'}: found {_ends(found)}" + (
        f"; wanted {_ends(wanted)}" if wanted else ""
    )
    svg = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    names = Markup('<p class="legend"><span class="found">as it is</span>{} {}</p>').format(
        Markup(' <span class="wanted">{}</span>').format(beside) if wanted else "", picture.y and f"({picture.y})"
    )
    return names + svg.format(WIDTH, HEIGHT, label, Markup("").join(parts))


def thinned(values: Numbers) -> list[tuple[int, float]]:
    """The finite numbers of a curve by their places, no more than can be seen; the last is among them."""
    known = [(place, value) for place, value in enumerate(values) if value is not None and math.isfinite(value)]
    step = math.ceil(len(known) / MOST_POINTS) or 1
    return [*known[:-1:step], *known[-1:]]


def _ends(line: Sequence[tuple[int, float]]) -> str:
    return f"{line[0][1]:.3g} to {line[-1][1]:.3g}" if line else "nothing"


def _grid(up: Range, across: Range) -> Iterator[Markup]:
    for place in range(TICKS + 1):
        value = up.low + (up.high - up.low) * place / TICKS
        y = HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * place / TICKS
        yield Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - 10, y, y)
        yield Markup('<text class="axis" x="{}" y="{}" text-anchor="end">{}</text>').format(
            LEFT - 6, y + 4, f"{value:.3g}"
        )
    for share in (0.0, 0.5):
        shown = f"{across.low + (across.high - across.low) * share:.4g}"
        x = LEFT + (WIDTH - LEFT - 10) * share
        yield Markup('<text class="axis" x="{}" y="{}">{}</text>').format(x, HEIGHT - BOTTOM + 16, shown)


def maps(picture: Picture, beside: str) -> Markup:
    """Both maps on one scale, and where they differ."""
    found, wanted = picture.found, picture.wanted
    numbers = [value for rows in (found, wanted) for row in rows for value in row if value is not None]
    top = max(map(abs, numbers), default=0.0) or 1.0
    shown = [_map(found, "as it is", top, "map"), _map(wanted, beside, top, "map")]
    if _shape(found) == _shape(wanted):
        apart = [
            [None if a is None or b is None else a - b for a, b in zip(row, other, strict=True)]
            for row, other in zip(found, wanted, strict=True)
        ]
        most = max((abs(value) for row in apart for value in row if value is not None), default=0.0)
        shown.append(_map(apart, f"apart by up to {most:.3g}", most or 1.0, "difference"))
    axes = f"{picture.y or 'rows'} down, {picture.x or 'columns'} across; the darkest is {top:.3g}"
    return Markup('<div class="maps">{}</div><p class="legend">{}</p>').format(Markup("").join(shown), axes)


def _shape(rows: Sequence[Numbers]) -> list[int]:
    return [len(row) for row in rows]


def _map(rows: Sequence[Numbers], caption: str, top: float, scale: str) -> Markup:
    source = "data:image/png;base64," + base64.b64encode(png(rows, top, *SCALES[scale])).decode()
    return Markup('<div><img alt="{}" src="{}"><span>{}</span></div>').format(caption, source, caption)


def png(rows: Sequence[Numbers], top: float, low: tuple[int, int, int], high: tuple[int, int, int]) -> bytes:
    """A map as an image, a pixel a number: from one colour at 0 to another at `top`, black where there is no number."""
    width = max(map(len, rows), default=0) or 1
    lines = []
    for row in rows or [[None]]:
        pixels = [_pixel(value, top, low, high) for value in [*row, *[None] * (width - len(row))]]
        lines.append(b"\0" + b"".join(pixels))
    header = struct.pack(">IIBBBBB", width, len(lines), 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _pixel(value: float | None, top: float, low: tuple[int, int, int], high: tuple[int, int, int]) -> bytes:
    if value is None or not math.isfinite(value):
        return bytes(3)
    share = min(abs(value) / top, 1.0)
    return bytes(round(a + (b - a) * share) for a, b in zip(low, high, strict=True))


def events(picture: Picture, beside: str) -> Markup:
    """Both lists side by side, and what is in one of them alone marked; the start of what is alike may be left out."""
    rows = list(_aligned(list(map(str, picture.found)), list(map(str, picture.wanted))))
    first = next((place for place, (is_alike, _, _) in enumerate(rows) if not is_alike), 0)
    start = max(0, first - 5)
    lines = [
        Markup('<tr class="{}"><td>{}</td><td>{}</td></tr>').format("alike" if is_alike else "apart", one, other)
        for is_alike, one, other in rows[start : start + MOST_EVENTS]
    ]
    left = len(rows) - start - len(lines)
    notes = [f"{start} before are alike"] * bool(start) + [f"{left} after are not shown"] * bool(left > 0)
    head = Markup("<thead><tr><th>as it is</th><th>{}</th></tr></thead>").format(beside)
    table = Markup('<table class="events">{}<tbody>{}</tbody></table>').format(head, Markup("").join(lines))
    return table + Markup('<p class="legend">{}</p>').format("; ".join(notes)) if notes else table


def _aligned(found: list[str], wanted: list[str]) -> Iterator[tuple[bool, str, str]]:
    for tag, a, b, c, d in difflib.SequenceMatcher(None, found, wanted, autojunk=False).get_opcodes():
        one, other = found[a:b], wanted[c:d]
        for place in range(max(len(one), len(other))):
            left, right = (side[place] if place < len(side) else "" for side in (one, other))
            yield tag == "equal", left, right
